"""The chart on real pods: from `helm install` to a claim that is ready, and away again, with nothing left hanging."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tools import privileges
from tools.cluster.cluster import Cluster
from tools.control_plane import build as tools_of_ours
from tools.image.product import Built, build
from tools.lab.installation import NAMESPACE, RELEASE
from tools.lab.objects import GROUP, approve, wait_condition

HOST = "evaluation-1"
TRIAL = "trial"
SECONDS = 120.0


class Release:
    """The chart, installed with one evaluation host."""

    def __init__(self, cluster: Cluster, image: Built, tag: str) -> None:
        self.cluster = cluster
        repository = image.name.rpartition(":")[0]
        self.values = ("--set", f"image.repository={repository},image.tag={tag},evaluation.enabled=true")
        self.values += ("--set", "evaluation.hosts=1", "--timeout", f"{SECONDS:.0f}s")

    def helm(self, verb: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        reach = ("--namespace", NAMESPACE, "--kubeconfig", str(self.cluster.kubeconfig))
        command = [str(tools_of_ours.require("helm")), verb, RELEASE, *arguments, *reach]
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)

    def put(self, verb: str, *arguments: str) -> None:
        done = self.helm(verb, str(privileges.CHART), "--wait", *self.values, *arguments)
        assert done.returncode == 0, done.stderr

    def hsm(self) -> dict[str, Any]:
        return self.cluster.admin.read(GROUP, "Hsm", HOST)

    def claim(self) -> dict[str, Any]:
        return self.cluster.admin.read(GROUP, "HsmClaim", "first", TRIAL)


@pytest.fixture
def release(cluster: Cluster, image: Built, tmp_path: Path) -> Iterator[Release]:
    evaluation = build(tmp_path / "evaluation.tar", "e2e", evaluation=True)
    cluster.load_image(evaluation.archive)
    made = Release(cluster, image, "e2e")
    yield made
    made.helm("uninstall", "--no-hooks", "--ignore-not-found")


def test_from_an_installation_to_a_ready_claim_and_away_again(release: Release) -> None:
    cluster = release.cluster
    release.put("install", "--create-namespace")
    wait_condition(release.hsm, "Enrolled", "False", reason="AwaitingApproval", seconds=SECONDS)
    approve(cluster, HOST)
    wait_condition(release.hsm, "Ready", "True", seconds=SECONDS)
    cluster.create_namespace(TRIAL, {"chatelaine.dev/evaluation": "Enabled"})
    spec = {
        "selector": {"matchLabels": {"chatelaine.dev/zone": "evaluation"}},
        "keys": [{"name": "signing", "type": "EcP256", "usages": ["Sign", "Verify"]}],
    }
    metadata = {"name": "first", "namespace": TRIAL}
    cluster.admin.create({"apiVersion": GROUP, "kind": "HsmClaim", "metadata": metadata, "spec": spec})
    wait_condition(release.claim, "Ready", "True", seconds=SECONDS)

    uid = release.hsm()["metadata"]["uid"]
    release.put("upgrade", "--set", "operator.replicas=2")
    assert release.hsm()["metadata"]["uid"] == uid

    refused = release.helm("uninstall")
    assert refused.returncode != 0
    said = cluster.kubectl("logs", f"job/{RELEASE}-uninstall-check", "--namespace", NAMESPACE)
    assert f"{TRIAL}/first" in said
    wait_condition(release.claim, "Ready", "True", seconds=SECONDS)

    cluster.kubectl("delete", "hsmclaims", "--all", "--namespace", TRIAL, "--timeout=60s")
    gone = release.helm("uninstall", "--wait", "--timeout", f"{SECONDS:.0f}s")
    assert gone.returncode == 0, gone.stderr
    # No operator is left that would take a finalizer off, and none is needed.
    cluster.kubectl("delete", "hsms", "--all", "--timeout=30s")
