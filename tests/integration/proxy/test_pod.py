"""The sidecar of real pods, as manifests and how-to page have it: real control plane, operator, hosts, tokens."""

from __future__ import annotations

import base64
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import yaml
from tools.control_plane import build
from tools.control_plane.access import ClusterAccess
from tools.lab.objects import GROUP, condition_of
from tools.lab.system import TEAM_LABELS, Lab, claim, running

from support.sidecar import verifies
from support.sidecar_pod import PodSidecar, container_of
from support.waiting import eventually

pytestmark = pytest.mark.xdist_group("proxy-pod")

ROOT = Path(__file__).resolve().parents[3]
EXAMPLES = ROOT / "examples"
BLOCK = re.compile(r"^```sh\n(.*?)^```$", re.DOTALL | re.MULTILINE)
RESTRICTED = "restricted-team"
MESSAGE = b"tick"
SIGN = {"input": base64.b64encode(MESSAGE).decode()}

KUBECTL = """#!/bin/bash
# Nobody runs pods here: the test runs the sidecar of the Deployment's pod; its application is this very machine.
case "$1" in
rollout)
  for _ in $(seq 600); do [ -e "{ready}" ] && exit 0; sleep 0.1; done
  exit 96 ;;
exec)
  [[ " $* " == *" -n payments deploy/checkout -c app -- curl "* ]] || exit 97
  while [ "$1" != -- ]; do shift; done
  shift
  run=$(cat "{ready}")
  exec "${{@//\\/run\\/chatelaine/$run}}" ;;
esac
exec "{kubectl}" "$@"
"""


def documents(file: str) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all((EXAMPLES / file).read_text()))


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with running(real=2) as system:
        system.control_plane.create_namespace("payments", TEAM_LABELS)
        system.control_plane.create_namespace(RESTRICTED, {"pod-security.kubernetes.io/enforce": "restricted"})
        system.control_plane.wait_for_service_account(RESTRICTED, "default")
        for name in system.pool.hosts:
            target = {"apiVersion": GROUP, "kind": "Hsm", "metadata": {"name": name}}
            system.control_plane.admin.merge(target, {"metadata": {"labels": {"chatelaine.dev/zone": "eu-1"}}})
        yield system


def pod_of(cluster: ClusterAccess, namespace: str) -> dict[str, Any] | None:
    """A pod that the Deployment made, if there is one by now."""
    path = f"/api/v1/namespaces/{namespace}/pods?labelSelector=app%3Dcheckout"
    items: list[dict[str, Any]] = cluster.admin.get(path)["items"]
    return items[0] if items else None


def rolled_out(lab: Lab, namespace: str, folder: Path) -> PodSidecar:
    """The sidecar of the Deployment's pod, ready."""
    pod = eventually(lambda: pod_of(lab.control_plane, namespace), "the Deployment's pod is there")
    sidecar = PodSidecar(lab.control_plane, pod, folder, lab.pool.address)
    with ExitStack() as unless_ready:
        unless_ready.push(sidecar)
        sidecar.sync()
        sidecar.start()
        eventually(lambda: sidecar.curl("/readyz").status == 200, "the sidecar is ready")
        unless_ready.pop_all()
    return sidecar


def test_every_command_of_the_how_to_page_works(lab: Lab, tmp_path: Path) -> None:
    tools, ready = tmp_path / "bin", tmp_path / "rolled-out"
    tools.mkdir()
    kubectl = tools / "kubectl"
    kubectl.write_text(KUBECTL.format(ready=ready, kubectl=shutil.which(str(build.require("kubectl")))))
    kubectl.chmod(0o755)
    (tmp_path / "examples").symlink_to(EXAMPLES)
    page = "\n".join(BLOCK.findall((ROOT / "docs" / "how-to" / "use-keys-from-an-application.md").read_text()))
    environment = {**os.environ, "PATH": f"{tools}:{os.environ['PATH']}"}
    environment["KUBECONFIG"] = str(lab.control_plane.kubeconfig)
    with subprocess.Popen(
        ["bash", "-euxo", "pipefail", "-c", page],
        cwd=tmp_path, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        text=True,
    ) as person:  # fmt: skip
        try:
            eventually(
                lambda: person.poll() is not None or pod_of(lab.control_plane, "payments"), "applied", seconds=90
            )
            assert person.poll() is None, person.communicate()[0]
            with rolled_out(lab, "payments", tmp_path / "pod") as sidecar:
                ready.write_text(str(sidecar.run))
                said, _ = person.communicate(timeout=60)
        finally:
            person.kill()
    assert person.returncode == 0, said
    assert "Verified OK" in said
    assert "ERROR_USAGE_NOT_ALLOWED" in said
    assert '{"ready": true, "claim": "payments/checkout"}' in said


def bound(lab: Lab, namespace: str, example: str, **changes: Any) -> None:
    """A claim of the examples' application in a namespace of its own, and the example beside it."""
    lab.control_plane.create_namespace(namespace, TEAM_LABELS)
    binding = {"secretName": "checkout-hsm"}
    selector = {"matchLabels": {"chatelaine.dev/zone": "eu-1"}}
    lab.bind(claim("checkout", clients=True, namespace=namespace, binding=binding, selector=selector, **changes))
    for _ in range(2):
        said = lab.control_plane.kubectl("apply", "-n", namespace, "-f", str(EXAMPLES / "sidecar" / example))
    assert all(line.endswith(" unchanged") for line in said.splitlines()), said


def test_the_plain_container_serves_on_loopback(lab: Lab, tmp_path: Path) -> None:
    bound(lab, "plain-team", "plain.yaml")
    with rolled_out(lab, "plain-team", tmp_path) as sidecar:
        pem = sidecar.curl("/v1/keys/key-0").json["versions"][0]["pem"]
        assert verifies(pem, MESSAGE, sidecar.sign("key-0", MESSAGE))


def test_a_gateway_restarts_and_a_claim_moves_while_the_application_signs(lab: Lab, tmp_path: Path) -> None:
    namespace = "moving-team"
    bound(lab, namespace, "native.yaml", failover="Rebind")
    claimed = lab.claim("checkout", namespace)
    host = claimed["status"]["allocation"]["hsm"]["name"]
    with rolled_out(lab, namespace, tmp_path) as sidecar:
        first = sidecar.curl("/v1/keys/key-0").json["versions"][0]["pem"]
        assert verifies(first, MESSAGE, sidecar.sign("key-0", MESSAGE))

        gateway = lab.pool.hosts[host].gateway
        assert gateway is not None
        gateway.stop()
        lab.pool.hosts[host].start_gateway()
        eventually(lambda: sidecar.curl("/readyz").status == 200 and signs(sidecar), "the gateway is back", seconds=60)

        lab.pool.hosts[host].tamper(pcr=7)

        def moved() -> bool:
            now = lab.claim("checkout", namespace)
            there = now["status"].get("allocation", {}).get("hsm", {}).get("name")
            return there not in (None, host) and condition_of(now, "Ready").get("status") == "True"

        eventually(moved, "the claim has another HSM", seconds=60)
        refused = sidecar.curl("/v1/keys/key-0/sign", SIGN)
        assert refused.status == 503, refused.body
        # The kubelet brings the new Secret; nobody restarts the sidecar.
        eventually(lambda: (sidecar.sync(), signs(sidecar))[1], "the sidecar has followed", seconds=60)
        second = sidecar.curl("/v1/keys/key-0").json["versions"][0]["pem"]
        assert first != second
        assert verifies(second, MESSAGE, sidecar.sign("key-0", MESSAGE))


def signs(sidecar: PodSidecar) -> bool:
    return sidecar.curl("/v1/keys/key-0/sign", SIGN).status == 200


@pytest.mark.parametrize("file", ["sidecar/native.yaml", "sidecar/plain.yaml", "quickstart/deployment.yaml"])
def test_pods_of_the_examples_are_admitted_where_nothing_but_restricted_is(lab: Lab, file: str) -> None:
    template = next(one for one in documents(file) if one["kind"] == "Deployment")["spec"]["template"]
    spec = {**template["spec"], "serviceAccountName": "default"}
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "tried"}, "spec": spec}
    lab.control_plane.admin.request("POST", f"/api/v1/namespaces/{RESTRICTED}/pods?dryRun=All", pod)


@pytest.mark.parametrize("file", ["sidecar/native.yaml", "sidecar/plain.yaml", "quickstart/deployment.yaml"])
def test_the_applications_container_sees_neither_token_nor_binding(file: str) -> None:
    template = next(one for one in documents(file) if one["kind"] == "Deployment")["spec"]["template"]["spec"]
    (application,) = [one for one in template["containers"] if one["name"] == "app"]
    assert {mount["name"] for mount in application.get("volumeMounts", ())} <= {"socket"}
    sidecar = container_of(template)
    assert sidecar["securityContext"]["runAsUser"] != application["securityContext"]["runAsUser"]
    assert template["automountServiceAccountToken"] is False


def test_every_example_of_a_sidecar_is_covered() -> None:
    assert {path.name for path in (EXAMPLES / "sidecar").iterdir()} == {"native.yaml", "plain.yaml"}
