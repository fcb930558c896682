"""An application in a real pod signs through its sidecar: the chart, the image, the manifest of the examples."""

from __future__ import annotations

import base64
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from tools import privileges
from tools.cluster.cluster import Cluster
from tools.control_plane import build as tools_of_ours
from tools.image.product import Built, build
from tools.lab.installation import NAMESPACE, RELEASE
from tools.lab.objects import GROUP, approve, wait_condition

from support.sidecar import verifies

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "sidecar" / "native.yaml"
HOST = "evaluation-1"
TEAM = "sidecar-team"
SECONDS = 120.0
MESSAGE = b"from a pod"

# The application's container is of the product's image, which has Python and neither a shell nor curl.
WAIT = ["python3", "-c", "import signal; signal.pause()"]
ASK = """
import http.client, socket, sys
line = http.client.HTTPConnection("localhost", timeout=30)
line.sock = socket.socket(socket.AF_UNIX)
line.sock.settimeout(30)
line.sock.connect("/run/chatelaine/keys.sock")
line.request(sys.argv[1], sys.argv[2], sys.argv[3] or None)
answer = line.getresponse()
print(answer.status, answer.read().decode())
"""


@pytest.fixture
def installed(cluster: Cluster, image: Built, tmp_path: Path) -> Iterator[Cluster]:
    """The chart with one evaluation host, approved and Ready."""
    evaluation = build(tmp_path / "evaluation.tar", "e2e", evaluation=True)
    cluster.load_image(evaluation.archive)
    repository = image.name.rpartition(":")[0]
    values = f"image.repository={repository},image.tag=e2e,evaluation.enabled=true,evaluation.hosts=1"
    helm(cluster, "install", str(privileges.CHART), "--create-namespace", "--wait", "--timeout=120s", "--set", values)

    def hsm() -> dict[str, Any]:
        return cluster.admin.read(GROUP, "Hsm", HOST)

    try:
        wait_condition(hsm, "Enrolled", "False", reason="AwaitingApproval", seconds=SECONDS)
        approve(cluster, HOST)
        wait_condition(hsm, "Ready", "True", seconds=SECONDS)
        yield cluster
    finally:
        cluster.kubectl("delete", "hsmclaims", "--all", "--namespace", TEAM, "--ignore-not-found", "--timeout=60s")
        helm(cluster, "uninstall", "--wait", "--timeout=120s")
        cluster.kubectl("delete", "hsms", "--all", "--timeout=30s")


def helm(cluster: Cluster, verb: str, *arguments: str) -> None:
    reach = ("--namespace", NAMESPACE, "--kubeconfig", str(cluster.kubeconfig))
    command = [str(tools_of_ours.require("helm")), verb, RELEASE, *arguments, *reach]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr


def ask(cluster: Cluster, method: str, path: str, body: str = "") -> tuple[int, Any]:
    """What the application's container gets from its sidecar."""
    command = ("exec", "deploy/checkout", "--container=app", "--namespace", TEAM, "--", "python3", "-c", ASK)
    status, _, said = cluster.kubectl(*command, method, path, body).strip().partition(" ")
    return int(status), json.loads(said)


def test_a_pod_signs_through_its_sidecar(installed: Cluster, image: Built) -> None:
    cluster = installed
    labels = {"chatelaine.dev/evaluation": "Enabled", "pod-security.kubernetes.io/enforce": "restricted"}
    cluster.create_namespace(TEAM, labels)
    client = {"serviceAccount": "checkout", "podSelector": {"matchLabels": {"app": "checkout"}}}
    spec = {
        "selector": {"matchLabels": {"chatelaine.dev/zone": "evaluation"}},
        "keys": [{"name": "signing", "type": "EcP256", "usages": ["Sign", "Verify"]}],
        "clients": [{**client, "keys": ["signing"], "usages": ["Sign"]}],
        "binding": {"secretName": "checkout-hsm"},
    }
    metadata = {"name": "checkout", "namespace": TEAM}
    cluster.admin.create({"apiVersion": GROUP, "kind": "HsmClaim", "metadata": metadata, "spec": spec})
    wait_condition(lambda: cluster.admin.read(GROUP, "HsmClaim", "checkout", TEAM), "Ready", "True", seconds=SECONDS)

    manifests = list(yaml.safe_load_all(EXAMPLE.read_text()))
    pod = manifests[-1]["spec"]["template"]["spec"]
    pod["initContainers"][0]["image"] = pod["containers"][0]["image"] = image.name
    pod["containers"][0]["command"] = WAIT
    cluster.kubectl("apply", "--namespace", TEAM, "--filename", "-", stdin=yaml.safe_dump_all(manifests))
    cluster.kubectl("rollout", "status", "deployment/checkout", "--namespace", TEAM, f"--timeout={SECONDS:.0f}s")

    body = json.dumps({"input": base64.b64encode(MESSAGE).decode()})
    status, signed = ask(cluster, "POST", "/v1/keys/signing/sign", body)
    assert status == 200, signed
    _, key = ask(cluster, "GET", "/v1/keys/signing")
    assert verifies(key["versions"][0]["pem"], MESSAGE, base64.b64decode(signed["signature"]))
    status, refused = ask(cluster, "POST", "/v1/keys/signing/verify", body)
    assert status in (400, 403), refused
