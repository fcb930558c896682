"""An evaluation host as the chart describes its pod, run as processes: it joins, is approved, and a claim gets ready.

No kubelet is here; what one does with the pod is done by hand: folders for its volumes, init containers in order, a
side car, containers, an EndpointSlice. The command lines, scripts, accounts and objects are the chart's.
"""

from __future__ import annotations

import http.client
import os
import shutil
import socket
import ssl
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tools import privileges
from tools.control_plane import build
from tools.control_plane.embedded import ControlPlane
from tools.control_plane.processes import Child, free_port
from tools.lab.installation import NAMESPACE, RELEASE, Operator
from tools.lab.network import machine_address
from tools.lab.objects import GROUP, approve, wait_condition

HOST = "evaluation-1"
GATEWAYS = f"{NAMESPACE}-gateways"
CHATELAINE = [sys.executable, "-m", "chatelaine.cli.main"]


class Pod:
    """The containers of a pod template as processes of this machine, in a folder that stands for its volumes."""

    def __init__(self, spec: dict[str, Any], folder: Path, kubeconfig: Path, address: str) -> None:
        self.spec, self.folder, self.address = spec, folder, address
        self.ports = {8443: free_port(address), 8444: free_port()}
        self.children: list[Child] = []
        self.environment = {**os.environ, "KUBECONFIG": str(kubeconfig)}
        self.moved = {
            "/var/lib/chatelaine": str(folder / "state"),
            "/run/chatelaine": str(folder / "run"),
            "/opt/evaluation": str(folder / "evaluation"),
            "0.0.0.0:8443": f"{address}:{self.ports[8443]}",
            "0.0.0.0:8444": f"127.0.0.1:{self.ports[8444]}",
        }
        for name in ("state", "run", "evaluation"):
            (folder / name).mkdir()

    def start(self) -> None:
        """Init containers in their order, each to its end or as a side car; then the others."""
        for container in self.spec["initContainers"]:
            if container.get("restartPolicy") == "Always":
                self._run(container).wait_ready(
                    lambda probe=container["startupProbe"]: self._answers(probe), seconds=60
                )
            else:
                command, environment = self._command(container)
                subprocess.run(command, env=environment, check=True, timeout=120)
        for container in self.spec["containers"]:
            child = self._run(container)
            child.wait_ready(lambda probe=container["startupProbe"]: self._answers(probe), seconds=60)

    def stop(self) -> None:
        for child in reversed(self.children):
            child.stop()

    def _run(self, container: dict[str, Any]) -> Child:
        command, environment = self._command(container)
        child = Child(container["name"], command, self.folder / container["name"], environment=environment)
        self.children.append(child)
        return child

    def _command(self, container: dict[str, Any]) -> tuple[list[str], dict[str, str]]:
        words = [*(container.get("command") or CHATELAINE), *container.get("args", ())]
        own = {entry["name"]: self._moved(entry["value"]) for entry in container.get("env", ())}
        return [self._moved(word) for word in words], self.environment | own

    def _moved(self, text: str) -> str:
        for old, new in self.moved.items():
            text = text.replace(old, new)
        return text

    def _answers(self, probe: dict[str, Any]) -> bool:
        """What a kubelet asks."""
        if "exec" in probe:
            return subprocess.run([self._moved(word) for word in probe["exec"]["command"]], check=False).returncode == 0
        try:
            if "tcpSocket" in probe:
                with socket.create_connection(("127.0.0.1", self.ports[8444]), timeout=5):
                    return True
            return self._says_200(probe["httpGet"]["path"])
        except OSError:
            return False

    def _says_200(self, path: str) -> bool:
        context = ssl._create_unverified_context()
        connection = http.client.HTTPSConnection(self.address, self.ports[8443], context=context, timeout=5)
        try:
            connection.request("GET", path)
            return connection.getresponse().status == 200
        finally:
            connection.close()


@pytest.fixture
def plane(tmp_path: Path) -> Iterator[ControlPlane]:
    with ControlPlane(tmp_path / "control-plane") as running:
        command = [str(build.require("helm")), "install", RELEASE, str(privileges.CHART), "--create-namespace"]
        command += ["--namespace", NAMESPACE, "--kubeconfig", str(running.kubeconfig)]
        command += ["--set", "evaluation.enabled=true,evaluation.hosts=1,operator.replicas=0"]
        subprocess.run(command, check=True, capture_output=True, timeout=180)
        yield running


@pytest.fixture
def operator(plane: ControlPlane, tmp_path: Path) -> Iterator[Operator]:
    running = Operator(plane, tmp_path / "operator")
    running.start()
    yield running
    running.stop()


@pytest.fixture
def pod(plane: ControlPlane, operator: Operator, tmp_path: Path) -> Iterator[Pod]:
    # Paths of Unix sockets are short, those of pytest are not.
    folder = Path(tempfile.mkdtemp(prefix="chat-pod-"))
    account = plane.service_account_kubeconfig(GATEWAYS, f"host-{HOST}", tmp_path / "kubeconfig")
    template = plane.admin.read("apps/v1", "StatefulSet", HOST, GATEWAYS)["spec"]["template"]
    running = Pod(template["spec"], folder, account, machine_address())
    scripts = plane.admin.read("v1", "ConfigMap", f"{RELEASE}-evaluation", GATEWAYS)["data"]
    for name, text in scripts.items():
        (folder / "evaluation" / name).write_text(text)
    try:
        running.start()
        yield running
    finally:
        running.stop()
        shutil.rmtree(folder, ignore_errors=True)


def test_an_evaluation_host_joins_and_once_it_is_approved_a_claim_gets_ready(plane: ControlPlane, pod: Pod) -> None:
    plane.admin.apply(
        {
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {
                "name": "by-hand",
                "namespace": GATEWAYS,
                "labels": {"kubernetes.io/service-name": f"gateway-{HOST}"},
            },
            "addressType": "IPv4",
            "endpoints": [{"addresses": [pod.address], "conditions": {"ready": True}}],
            "ports": [{"name": "https", "port": pod.ports[8443], "protocol": "TCP"}],
        }
    )
    here = {
        "gateway": {"service": {"podPort": pod.ports[8443]}},
        "agent": {"host": "127.0.0.1", "port": pod.ports[8444]},
    }
    plane.admin.merge({"apiVersion": GROUP, "kind": "Hsm", "metadata": {"name": HOST}}, {"spec": here})

    def hsm() -> dict[str, Any]:
        return plane.admin.read(GROUP, "Hsm", HOST)

    wait_condition(hsm, "Enrolled", "False", reason="AwaitingApproval")
    approve(plane, HOST)
    wait_condition(hsm, "Ready", "True")

    plane.create_namespace("trial", {"chatelaine.dev/evaluation": "Enabled"})
    claim = {
        "apiVersion": GROUP,
        "kind": "HsmClaim",
        "metadata": {"name": "first", "namespace": "trial"},
        "spec": {
            "selector": {"matchLabels": {"chatelaine.dev/zone": "evaluation"}},
            "keys": [{"name": "signing", "type": "EcP256", "usages": ["Sign", "Verify"]}],
            "clients": [
                {
                    "serviceAccount": "default",
                    "podSelector": {"matchLabels": {"app": "trial"}},
                    "keys": ["signing"],
                    "usages": ["Sign"],
                }
            ],
            "binding": {"secretName": "first-hsm"},
        },
    }
    plane.admin.create(claim)
    # Our own NetworkPolicies let nobody in to a gateway: the operator would name them (ForeignAllow).
    for condition in ("NetworkReady", "Ready"):
        wait_condition(lambda: plane.admin.read(GROUP, "HsmClaim", "first", "trial"), condition, "True")
