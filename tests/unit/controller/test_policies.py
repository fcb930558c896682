"""Policies in force: when what they name has been looked up, and what stands until then."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from chatelaine.controller import policies as policies_module
from chatelaine.controller.emitted import EmittedObjects
from chatelaine.controller.policies import PolicyBook
from chatelaine.controller.queue import WorkQueue
from chatelaine.controller.reactions import Reactions
from chatelaine.controller.reference_folder import ReferenceFolder
from chatelaine.controller.registry import HostRegistry
from chatelaine.controller.snapshots import Snapshots
from chatelaine.controller.world import World
from chatelaine.kube.errors import NotFound, Unavailable
from chatelaine.kube.port import JsonObject, ObjectKey, Resource
from chatelaine.kube.watch import Changed, Kept
from chatelaine.model.policy import AttestationPolicy
from chatelaine.reconcile.policy import used_of
from chatelaine.telemetry.metrics import OperatorMetrics
from support.quiet_server import QuietServer
from support.reference_bundles import ALICE, SERIES, bundle
from support.vendors import Vendor
from support.waiting import until

ROOTS = {"roots": [{"configMapRef": {"name": "vendors", "key": "all"}}]}
VALUES = {
    "series": SERIES,
    "configMapRefs": [{"name": "bundle", "key": "part"}],
    "keys": [ALICE.listed().dump()],
    "threshold": 1,
}


class Server(QuietServer):
    """Has ConfigMaps, by namespace and name."""

    def __init__(self) -> None:
        self.kept: dict[tuple[str, str], JsonObject] = {}
        self.away = False
        self.asked: list[tuple[str | None, str]] = []

    async def get(self, resource: Resource, name: str, namespace: str | None = None) -> JsonObject:
        self.asked.append((namespace, name))
        if self.away:
            raise Unavailable("away")
        found = self.kept.get((namespace or "", name))
        if found is None:
            raise NotFound("no such ConfigMap")
        return found


class Parts:
    """A book, and a world that feeds it."""

    def __init__(self, folder: Path) -> None:
        self.server = Server()
        self.metrics = OperatorMetrics()
        reactions = Reactions(self.metrics, lambda: 0.0)
        self.world = World(self.server, reactions, lambda: 0.0, "system")
        self.book = PolicyBook(self.world, "system", ReferenceFolder(folder))
        hosts = HostRegistry(self.world)
        self.snapshots = Snapshots(
            self.world, self.book, hosts, EmittedObjects(self.world), operator=None, bundle=lambda: "", wall=lambda: 0.0
        )
        self.told: list[str] = []

        async def nothing(*_: object) -> None:
            await asyncio.sleep(0)

        queue: WorkQueue[ObjectKey] = WorkQueue(nothing, failed=lambda *_: None, clock=lambda: 0.0, jitter=lambda: 0.0)
        reactions.bind(queue, self.world, self.book, hosts, self.snapshots)
        self.book.bind(self.told.append)
        self.version = 1

    def policy(self, *, status: JsonObject | None = None, uid: str = "uid-1", **changes: Any) -> None:
        self.version += 1
        tpm = {"pcrs": {"bank": "Sha256", "values": [{"index": 7, "anyOf": ["0" * 64]}]}}
        if endorsement := changes.pop("endorsement", None):
            tpm["endorsement"] = endorsement
        meta = {"name": "base", "uid": uid, "resourceVersion": str(self.version)}
        spec = {"freshness": {"maxAgeSeconds": 30}, "tpm": tpm, **changes}
        self.world.policies.took({"metadata": meta, "spec": spec, "status": status or {}})

    def config_map(self, name: str, data: dict[str, str] | None, namespace: str = "system") -> None:
        """Changed, and told of, as the watch does."""
        self.version += 1
        if data is None:
            self.server.kept.pop((namespace, name), None)
        else:
            self.server.kept[namespace, name] = {"metadata": {"name": name}, "data": data}
        if namespace == "system":
            self.world._listener.config_map_changed(Changed(None, Kept(namespace, name, "u", self.version, "")))

    @property
    def now(self) -> AttestationPolicy:
        found = self.book.typed("base")
        assert found is not None
        return found


@pytest.fixture
async def parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Parts]:
    monkeypatch.setattr(policies_module, "RETRY_SECONDS", 0.01)
    monkeypatch.setattr(policies_module, "FILES_SECONDS", 0.01)
    made = Parts(tmp_path)
    running = asyncio.create_task(made.book.run())
    yield made
    running.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await running


async def missing(parts: Parts, words: str) -> None:
    await until(words, lambda: any(words in sentence for sentence in parts.now.material.missing))


async def whole(parts: Parts) -> None:
    await until("whole", lambda: parts.now.material.missing == () and parts.book.settled("base"))


async def test_policy_that_names_nothing_is_in_force_at_once(parts: Parts) -> None:
    parts.policy()
    assert parts.now.material.missing == ()
    assert parts.book.settled("base")
    assert parts.book.quiet.is_set()
    assert parts.server.asked == []


async def test_policy_of_which_nothing_is_known_yet_trusts_nothing(parts: Parts) -> None:
    parts.config_map("vendors", {"all": Vendor().pem})
    parts.policy(endorsement=ROOTS)
    assert parts.now.material.missing == ("what the policy names has not been looked up yet",)
    assert not parts.book.quiet.is_set()
    assert parts.snapshots.policy("base") is None, "nothing is said of it yet"
    await whole(parts)
    await parts.book.quiet.wait()
    assert len(parts.now.material.endorsement_roots) == 2
    assert parts.told == ["base"]


async def test_change_stands_behind_the_version_before_until_it_is_looked_up(parts: Parts) -> None:
    parts.policy()
    before = parts.now
    parts.config_map("vendors", {"all": Vendor().pem})
    parts.policy(endorsement=ROOTS)
    assert parts.now is before
    assert not parts.book.settled("base")
    assert parts.snapshots.policy("base") is None
    await whole(parts)
    assert parts.now.spec.tpm.endorsement is not None
    assert parts.snapshots.policy("base") is not None


async def test_change_that_names_the_same_is_in_force_at_once(parts: Parts) -> None:
    parts.config_map("vendors", {"all": Vendor().pem})
    parts.policy(endorsement=ROOTS)
    await whole(parts)
    material, asked = parts.now.material, len(parts.server.asked)
    parts.policy(endorsement=ROOTS, enforcement="Audit")
    assert parts.book.settled("base")
    assert parts.now.material is material
    assert len(parts.server.asked) == asked


async def test_config_map_of_another_namespace_is_never_read(parts: Parts) -> None:
    parts.config_map("vendors", {"all": Vendor().pem}, "tenant")
    parts.policy(endorsement=ROOTS)
    await missing(parts, "ConfigMap vendors does not exist in namespace system")
    assert {namespace for namespace, _ in parts.server.asked} == {"system"}


async def test_change_of_a_config_map_changes_digest_and_revision(parts: Parts) -> None:
    parts.config_map("vendors", {"all": Vendor("one").pem})
    parts.policy(endorsement=ROOTS)
    await whole(parts)
    before, revision = parts.now, parts.book.revision("base")
    parts.config_map("vendors", {"all": Vendor("two").pem})
    await until("another digest", lambda: parts.now.digest() != before.digest())
    assert parts.book.revision("base") > revision
    parts.config_map("vendors", None)
    await missing(parts, "does not exist")
    assert parts.now.material.endorsement_roots == ()


async def test_config_map_that_says_the_same_again_changes_nothing(parts: Parts) -> None:
    parts.config_map("vendors", {"all": Vendor("one").pem})
    parts.policy(endorsement=ROOTS)
    await whole(parts)
    before, told, asked = parts.now, list(parts.told), len(parts.server.asked)
    parts.config_map("vendors", {**parts.server.kept["system", "vendors"]["data"], "note": "x"})
    await until("looked at", lambda: len(parts.server.asked) > asked and parts.book.quiet.is_set())
    assert parts.now is before
    assert parts.told == told


async def test_api_server_that_is_away_changes_nothing_that_was_looked_up(parts: Parts) -> None:
    parts.config_map("vendors", {"all": Vendor("one").pem})
    parts.policy(endorsement=ROOTS)
    await whole(parts)
    before, asked = parts.now, len(parts.server.asked)
    parts.server.away = True
    parts.config_map("vendors", {"all": Vendor("two").pem})
    await until("asked again and again", lambda: len(parts.server.asked) > asked + 2)
    assert parts.now is before
    parts.server.away = False
    await until("another digest", lambda: parts.now.digest() != before.digest())


async def test_new_policy_while_the_api_server_is_away_trusts_nothing_and_says_why(parts: Parts) -> None:
    parts.config_map("vendors", {"all": Vendor().pem})
    parts.server.away = True
    parts.policy(endorsement=ROOTS)
    await missing(parts, "ConfigMap vendors of namespace system cannot be read now")
    await parts.book.quiet.wait()
    parts.server.away = False
    await whole(parts)


async def test_whoever_takes_over_while_the_api_server_stumbles_does_not_judge_by_what_it_failed_to_read(
    parts: Parts, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Claims under a policy that lacks a part are not served: told at once, gateways would cut them."""
    monkeypatch.setattr(policies_module, "PATIENCE", 10**6)
    parts.config_map("vendors", {"all": Vendor().pem})
    parts.server.away = True
    parts.policy(endorsement=ROOTS)
    await until("it was tried", lambda: len(parts.server.asked) > 3)
    assert not parts.book.quiet.is_set()
    parts.server.away = False
    await parts.book.quiet.wait()
    assert parts.now.material.missing == ()


async def test_policy_that_is_gone_is_forgotten(parts: Parts) -> None:
    parts.policy()
    parts.version += 1
    parts.world.policies.gone({"metadata": {"name": "base", "uid": "uid-1", "resourceVersion": str(parts.version)}})
    assert parts.book.typed("base") is None
    assert parts.book.revision("base") == -1
    assert list(parts.book.all()) == []


async def test_policy_made_anew_under_its_name_does_not_inherit_what_the_old_one_leant_on(parts: Parts) -> None:
    parts.config_map("vendors", {"all": Vendor().pem})
    parts.policy(endorsement=ROOTS)
    await whole(parts)
    parts.server.away = True
    parts.policy(endorsement=ROOTS, uid="uid-2")
    assert parts.now.material.missing
    assert parts.now.material.endorsement_roots == ()


# --- signed reference values


def part(version: int, **changes: Any) -> dict[str, str]:
    return {"part": bundle(ALICE, version=version, **changes).decode()}


def version(parts: Parts) -> int | None:
    reference = parts.now.material.reference
    return reference.version if reference is not None else None


async def in_force(parts: Parts, wanted: int) -> None:
    await until(f"version {wanted}", lambda: version(parts) == wanted)


async def test_older_bundle_is_refused_before_the_status_says_which_was_used(parts: Parts) -> None:
    parts.config_map("bundle", part(7))
    parts.policy(referenceValues=VALUES)
    await in_force(parts, 7)
    assert parts.book.envelope("base") == parts.server.kept["system", "bundle"]["data"]["part"].encode()
    parts.config_map("bundle", part(6))
    await missing(parts, "ReferenceRolledBack")
    assert version(parts) is None
    parts.config_map("bundle", part(8))
    await in_force(parts, 8)


async def test_older_bundle_is_refused_after_a_restart_by_what_the_status_says(parts: Parts, tmp_path: Path) -> None:
    parts.config_map("bundle", part(7))
    parts.policy(referenceValues=VALUES)
    await in_force(parts, 7)
    used = used_of(parts.now.material.reference)
    assert used is not None
    later = Parts(tmp_path)
    later.config_map("bundle", part(6))
    running = asyncio.create_task(later.book.run())
    later.policy(referenceValues=VALUES, status={"referenceValues": used.dump()})
    try:
        await missing(later, "ReferenceRolledBack")
    finally:
        running.cancel()


async def test_version_that_another_process_has_passed_is_refused(parts: Parts) -> None:
    """A former leader wrote the status; what this process still holds is older."""
    parts.config_map("bundle", part(7))
    parts.policy(referenceValues=VALUES)
    await in_force(parts, 7)
    used = used_of(parts.now.material.reference)
    assert used is not None
    parts.policy(referenceValues=VALUES, status={"referenceValues": {**used.dump(), "version": 9}})
    await missing(parts, "ReferenceRolledBack")


async def test_other_content_than_another_process_used_under_this_version_is_refused(parts: Parts) -> None:
    parts.config_map("bundle", part(7))
    parts.policy(referenceValues=VALUES)
    await in_force(parts, 7)
    used = used_of(parts.now.material.reference)
    assert used is not None
    parts.policy(referenceValues=VALUES, status={"referenceValues": {**used.dump(), "digest": "sha256:" + "f" * 64}})
    await missing(parts, "already used with another content")


async def test_series_that_is_named_again_still_knows_its_newest_version(parts: Parts) -> None:
    parts.config_map("bundle", part(7))
    parts.policy(referenceValues=VALUES)
    await in_force(parts, 7)
    parts.config_map("bundle", part(1, name="another"))
    parts.policy(referenceValues={**VALUES, "series": "another"})
    await in_force(parts, 1)
    parts.config_map("bundle", part(6))
    parts.policy(referenceValues=VALUES)
    await missing(parts, "ReferenceRolledBack")


async def test_file_that_changes_is_looked_at_again(parts: Parts, tmp_path: Path) -> None:
    rules = {key: value for key, value in VALUES.items() if key != "configMapRefs"} | {"file": "baseline"}
    parts.policy(referenceValues=rules)
    await missing(parts, "file baseline cannot be read")
    (tmp_path / "new").write_bytes(bundle(ALICE, version=7))
    (tmp_path / "new").rename(tmp_path / "baseline")
    await in_force(parts, 7)
    (tmp_path / "new").write_bytes(bundle(ALICE, version=8))
    (tmp_path / "new").rename(tmp_path / "baseline")
    await in_force(parts, 8)


async def test_fault_of_ours_in_one_policy_leaves_the_others_looked_after(
    parts: Parts, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = policies_module.look

    def breaks(named: Any, contents: Any, used: Any) -> Any:
        if b"poison" in contents.config_maps["vendors"]["all"]:
            raise RuntimeError("of ours")
        return honest(named, contents, used)

    monkeypatch.setattr(policies_module, "look", breaks)
    parts.config_map("vendors", {"all": "poison"})
    parts.policy(endorsement=ROOTS)
    await missing(parts, "could not be handled (RuntimeError)")
    parts.config_map("vendors", {"all": Vendor().pem})
    await whole(parts)
