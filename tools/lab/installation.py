"""Chatelaine installed into a control plane: the chart applied, the operator running under the chart's own roles."""

from __future__ import annotations

import http.client
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from tools.control_plane import build
from tools.control_plane.access import ClusterAccess
from tools.control_plane.processes import Child, free_port

ROOT = Path(__file__).resolve().parents[2]
NAMESPACE = "chatelaine-system"
RELEASE = "chatelaine"
SERVICE_ACCOUNT = f"{RELEASE}-operator"


def render(namespace: str = NAMESPACE, *settings: str) -> str:
    """The chart's manifests as helm renders them."""
    command: list[str] = [
        str(build.require("helm")), "template", RELEASE, str(ROOT / "charts" / "chatelaine"),
        "--namespace", namespace, "--kube-version", "1.35.0", "--no-hooks",
    ]  # fmt: skip
    for setting in settings:
        command += ["--set", setting]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout


def install(cluster: ClusterAccess, namespace: str = NAMESPACE) -> None:
    """Creates the namespace and applies the chart; the operator's pods are left to `Operator`, there is no kubelet."""
    cluster.create_namespace(namespace)
    manifests = render(namespace, "operator.replicas=0")
    cluster.kubectl("apply", "--server-side", "--force-conflicts", "-f", "-", stdin=manifests)
    cluster.kubectl("wait", "--for=condition=Established", "--timeout=30s", "crd", "--all")


class Operator:
    """One operator process under the chart's ServiceAccount."""

    def __init__(self, cluster: ClusterAccess, directory: Path, namespace: str = NAMESPACE) -> None:
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.cluster, self.directory, self.namespace = cluster, directory, namespace
        self.kubeconfig = cluster.service_account_kubeconfig(namespace, SERVICE_ACCOUNT, directory / "kubeconfig")
        self.state = directory / "state"
        self.join_port, self.metrics_port = free_port(), free_port()
        self.process: Child | None = None

    def start(self, *arguments: str) -> None:
        """Starts the process and waits until its join endpoint listens."""
        ready = self.directory / "ready"
        ready.unlink(missing_ok=True)
        command: Sequence[str] = [
            sys.executable, "-m", "chatelaine.cli.main", "operator",
            "--kubeconfig", str(self.kubeconfig),
            "--namespace", self.namespace,
            "--state-dir", str(self.state),
            "--join-listen", f"127.0.0.1:{self.join_port}",
            "--join-endpoint", f"127.0.0.1:{self.join_port}",
            "--metrics-listen", f"127.0.0.1:{self.metrics_port}",
            "--ready-file", str(ready),
            *arguments,
        ]  # fmt: skip
        self.process = Child("operator", command, self.directory / "log", environment=dict(os.environ))
        self.process.wait_ready(ready.exists, seconds=60)

    def stop(self, *, hard: bool = False) -> None:
        """Ends the process."""
        if self.process is not None:
            self.process.stop(hard=hard)
            self.process = None

    def get(self, path: str) -> tuple[int, str]:
        """Status and text of `/healthz`, `/readyz` or `/metrics`.

        Raises:
            OSError: the process does not answer.
        """
        connection = http.client.HTTPConnection("127.0.0.1", self.metrics_port, timeout=10)
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.status, answer.read().decode()
        finally:
            connection.close()

    def invite(self, host: str) -> str:
        """`chatelaine host invite`: the invitation, as a person gets it."""
        reach = ("--kubeconfig", str(self.cluster.kubeconfig), "--namespace", self.namespace)
        done = self._command("host", "invite", host, *reach)
        done.check_returncode()
        return done.stdout.strip()

    def policy(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """`chatelaine policy …` as in the operator's pod: with its key, its account and its namespace."""
        return self._command("policy", *arguments, "--state-dir", str(self.state), "--kubeconfig", str(self.kubeconfig))

    def _command(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "chatelaine.cli.main", *arguments],
            stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip
