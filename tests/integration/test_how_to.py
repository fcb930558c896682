"""The how-to pages hold: their commands run in order, as a person would type them, on real hosts."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
import yaml
from tools.control_plane import build
from tools.control_plane.embedded import ControlPlane
from tools.lab.installation import Operator, install
from tools.lab.objects import GROUP, approve, wait_condition
from tools.lab.pool import GATEWAYS, Pool

ROOT = Path(__file__).resolve().parents[2]
BLOCK = re.compile(r"^```sh\n(.*?)^```$", re.DOTALL | re.MULTILINE)

KUBECTL = """#!/bin/bash
# Nobody runs pods here: what a person runs in the operator's pod is run with that pod's key and account.
if [ "$1" = exec ]; then
  [[ " $* " == *" -n chatelaine-system deploy/chatelaine-operator -- chatelaine "* ]] || exit 97
  while [ "$1" != -- ]; do shift; done
  shift 2
  exec "{chatelaine}" "$@" --state-dir "{state}" --kubeconfig "{kubeconfig}"
fi
exec "{kubectl}" "$@"
"""


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pool]:
    """Two hosts that joined, and that a person approved; there is no policy."""
    folder = tmp_path_factory.mktemp("how-to")
    with ControlPlane(folder / "control-plane") as plane:
        install(plane)
        for namespace in (GATEWAYS, "payments"):
            plane.create_namespace(namespace)
        operator = Operator(plane, folder / "operator")
        operator.start()
        hosts = Pool(plane, operator, folder / "hosts", policy="hsm-baseline")
        try:
            hosts.add(["hsm-a", "hsm-b"])
            for name in hosts.hosts:
                wait_condition(partial(hosts.hsm, name), "Enrolled", "False", reason="AwaitingApproval")
                approve(plane, name)
            yield hosts
        finally:
            hosts.stop()
            operator.stop()


def run(pool: Pool, folder: Path, page: str) -> str:
    """Runs every command of a page in one shell that stops at the first failure; returns what it said."""
    tools = folder / "bin"
    tools.mkdir()
    chatelaine = tools / "chatelaine"
    chatelaine.write_text(f'#!/bin/bash\nexec "{sys.executable}" -m chatelaine.cli.main "$@"\n')
    kubectl = tools / "kubectl"
    kubectl.write_text(
        KUBECTL.format(
            chatelaine=chatelaine,
            state=pool.operator.state,
            kubeconfig=pool.operator.kubeconfig,
            kubectl=shutil.which(str(build.require("kubectl"))),
        )
    )
    for tool in (chatelaine, kubectl):
        tool.chmod(0o755)
    blocks = BLOCK.findall((ROOT / "docs" / "how-to" / page).read_text())
    assert blocks
    done = subprocess.run(
        ["bash", "-euxo", "pipefail", "-c", "\n".join(blocks)],
        cwd=folder,
        env={**os.environ, "PATH": f"{tools}:{os.environ['PATH']}", "KUBECONFIG": str(pool.cluster.kubeconfig)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return done.stdout + done.stderr


def test_write_your_first_policy(pool: Pool, tmp_path: Path) -> None:
    said = run(pool, tmp_path, "write-your-first-policy.md")
    assert "NOBODY HAS APPROVED" not in said
    assert "CAUTION" not in said
    assert said.count("0 of 2 would be refused. Nothing was changed.") == 3
    assert "It can only refuse more." in said
    captured = yaml.safe_load((tmp_path / "policy.yaml").read_text())["spec"]
    assert [value["index"] for value in captured["tpm"]["pcrs"]["values"]] == [0, 2, 4, 7, 8, 9]
    assert captured["tpm"]["eventLog"]["secureBoot"] == "Enabled"
    assert captured["tpm"]["eventLog"]["kernelCommandLine"] == {"required": ["lockdown=integrity"]}
    status = pool.cluster.admin.read(GROUP, "AttestationPolicy", "hsm-baseline")["status"]
    assert status["referenceValues"]["version"] == 2
    pool.hosts["hsm-a"].tamper()
    found = wait_condition(partial(pool.hsm, "hsm-a"), "Attested", "False", reason="EvidenceRefuted")
    assert found["status"]["attestation"]["explanation"]
    wait_condition(partial(pool.hsm, "hsm-b"), "Ready", "True")
