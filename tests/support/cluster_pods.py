"""Pods in a cluster with a node, and what they reach."""

from __future__ import annotations

import dataclasses
import subprocess
from typing import Any

from tools.cluster.cluster import Cluster
from tools.control_plane.client import Object

PORT = 8080
READY_SECONDS = 60
_SERVE = ["python3", "-m", "http.server", str(PORT), "--directory", "/usr/share/chatelaine"]
_WAIT = ["python3", "-c", "import signal; signal.pause()"]
_CONNECT = "import socket, sys; socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=1)"
_RESTRICTED = {
    "allowPrivilegeEscalation": False,
    "readOnlyRootFilesystem": True,
    "runAsNonRoot": True,
    "capabilities": {"drop": ["ALL"]},
    "seccompProfile": {"type": "RuntimeDefault"},
}


@dataclasses.dataclass(frozen=True)
class Pods:
    """Pods of one namespace, all of one image, all as restricted as the Pod Security Standards have it."""

    cluster: Cluster
    namespace: str
    image: str

    def serve(self, name: str, **labels: str) -> str:
        """Address of a new pod that serves HTTP at `PORT` and is Ready; a Service of its name leads to it."""
        self.cluster.admin.create(
            {
                "apiVersion": "v1",
                "kind": "Service",
                "metadata": {"name": name, "namespace": self.namespace},
                "spec": {"selector": {"name": name}, "ports": [{"port": PORT}]},
            }
        )
        probe = {"tcpSocket": {"port": PORT}, "periodSeconds": 1}
        return self._started(name, labels, command=_SERVE, readinessProbe=probe)

    def start(self, name: str, **labels: str) -> str:
        """Address of a new pod that waits to be asked."""
        return self._started(name, labels, command=_WAIT)

    def run(self, name: str, *arguments: str) -> str:
        """What the image's own entry point printed, with these arguments; it must succeed."""
        self._create(name, {}, args=list(arguments))
        self._wait(name, "jsonpath={.status.phase}=Succeeded")
        return self.cluster.kubectl("logs", name, "--namespace", self.namespace)

    def python(self, pod: str, code: str, *arguments: str) -> str:
        """What a program printed that ran in a pod's container.

        Raises:
            subprocess.CalledProcessError: it failed.
        """
        command = ["exec", pod, "--namespace", self.namespace, "--", "python3", "-c", code, *arguments]
        try:
            return self.cluster.kubectl(*command)
        except subprocess.CalledProcessError as error:
            error.add_note(error.stderr)
            raise

    def reaches(self, pod: str, host: str, port: int = PORT) -> bool:
        """Can the pod open a connection?"""
        try:
            self.python(pod, _CONNECT, host, str(port))
        except subprocess.CalledProcessError as error:
            if "Error" in error.stderr and "Traceback" in error.stderr:
                return False
            raise
        return True

    def _started(self, name: str, labels: dict[str, str], **container: Any) -> str:
        self._create(name, labels, **container)
        self._wait(name, "condition=Ready")
        return str(self.cluster.admin.read("v1", "Pod", name, self.namespace)["status"]["podIP"])

    def _create(self, name: str, labels: dict[str, str], **container: Any) -> Object:
        main: Object = {"name": "main", "image": self.image, "imagePullPolicy": "Never", "securityContext": _RESTRICTED}
        main["volumeMounts"] = [{"name": "scratch", "mountPath": "/tmp"}]
        return self.cluster.admin.create(
            {
                "apiVersion": "v1",
                "kind": "Pod",
                "metadata": {"name": name, "namespace": self.namespace, "labels": {"name": name, **labels}},
                "spec": {
                    "containers": [{**main, **container}],
                    "restartPolicy": "Never",
                    "terminationGracePeriodSeconds": 0,
                    "automountServiceAccountToken": False,
                    "volumes": [{"name": "scratch", "emptyDir": {}}],
                },
            }
        )

    def _wait(self, name: str, condition: str) -> None:
        options = ("--namespace", self.namespace, f"--timeout={READY_SECONDS}s")
        try:
            self.cluster.kubectl("wait", f"pod/{name}", f"--for={condition}", *options)
        except subprocess.CalledProcessError as error:
            status = self.cluster.admin.read("v1", "Pod", name, self.namespace)["status"]
            raise AssertionError(f"pod {name}: not {condition}: {status}") from error
