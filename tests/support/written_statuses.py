"""Every status that the operator writes in the tests of its rooms, told apart by its conditions.

As a pytest plugin (`-p support.written_statuses --written-statuses FILE`) it keeps each status that the in-memory
world took, as the object would be read from the API server. `gather` runs those tests with it and reads what it kept:
so whoever judges statuses (GitOps tools, `kubectl wait`) is asked about what is really written, and about what comes
with the next change of the operator.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from chatelaine.reconcile import plan as p
from support.world import World
from support.world_writes import WRITES

API: Final = "chatelaine.dev/v1alpha1"
ROOT: Final = Path(__file__).resolve().parents[2]
LONG_AND_SAYING_NOTHING_NEW: Final = ("test_machine.py", "test_crashes.py", "test_binding.py")
Json = dict[str, Any]


def gather(folder: Path) -> list[Json]:
    """Run the tests of the room `reconcile`, and return one object for each set of conditions that was written."""
    kept = folder / "written-statuses.json"
    tests = ROOT / "tests" / "unit" / "reconcile"
    command = [
        sys.executable, "-m", "pytest", "-n", "0", "-p", "no:cacheprovider",
        "-p", "support.written_statuses", "--written-statuses", str(kept), str(tests),
        "-k", "not killed", *(f"--ignore={tests / name}" for name in LONG_AND_SAYING_NOTHING_NEW),
    ]  # fmt: skip
    environment = {**os.environ, "PYTHONPATH": f"{ROOT / 'tests'}:{ROOT}"}
    for ours in [name for name in environment if name.startswith("PYTEST_")]:
        del environment[ours]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    # A test that fails there fails by itself; here it is enough that they ran.
    assert kept.exists(), done.stdout[-4000:] + done.stderr[-2000:]
    found: list[Json] = json.loads(kept.read_text())
    return found


def conditions(obj: Json) -> dict[str, Json]:
    """Conditions of an object by type."""
    return {condition["type"]: condition for condition in obj["status"]["conditions"]}


class _Keeper:
    """What was written, once for each set of conditions."""

    def __init__(self) -> None:
        self.kept: dict[str, Json] = {}

    def keep(self, kind: str, item: Any, namespace: str | None = None) -> None:
        obj = {
            "apiVersion": API,
            "kind": kind,
            "metadata": {"name": item.metadata.name, "uid": item.metadata.uid, "generation": item.metadata.generation},
            "spec": {},
            "status": item.status.dump(),
        }
        if namespace is not None:
            obj["metadata"]["namespace"] = namespace
        if item.metadata.deletion_timestamp is not None:
            obj["metadata"]["deletionTimestamp"] = item.metadata.deletion_timestamp
        said = sorted((type_, one["status"], one["reason"]) for type_, one in conditions(obj).items())
        key = json.dumps([kind, "deletionTimestamp" in obj["metadata"], said])
        self.kept.setdefault(key, obj)


def _watched(keeper: _Keeper) -> None:
    set_hsm, set_claim, set_policy = WRITES[p.SetHsmStatus], WRITES[p.SetClaimStatus], WRITES[p.SetPolicyStatus]

    def hsm(world: World, action: p.SetHsmStatus) -> None:
        set_hsm(world, action)
        keeper.keep("Hsm", world.hsms[action.hsm])

    def claim(world: World, action: p.SetClaimStatus) -> None:
        set_claim(world, action)
        namespace = action.claim.namespace or ""
        keeper.keep("HsmClaim", world.claims[namespace, action.claim.name], namespace)

    def policy(world: World, action: p.SetPolicyStatus) -> None:
        set_policy(world, action)
        keeper.keep("AttestationPolicy", world.policies[action.policy.name])

    WRITES.update({p.SetHsmStatus: hsm, p.SetClaimStatus: claim, p.SetPolicyStatus: policy})


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--written-statuses", type=Path, required=True)


@pytest.hookimpl(wrapper=True)
def pytest_sessionfinish(session: pytest.Session) -> Iterator[None]:
    yield
    session.config.getoption("--written-statuses").write_text(json.dumps([*KEEPER.kept.values()], indent=1))


def pytest_sessionstart() -> None:
    _watched(KEEPER)


KEEPER: Final = _Keeper()
