"""Access to a running control plane: kubeconfigs, service-account tokens, kubectl, manifests."""

from __future__ import annotations

import base64
import functools
import json
import os
import subprocess
from pathlib import Path

from tools.control_plane import build
from tools.control_plane.client import ApiClient, ApiError, Object
from tools.control_plane.processes import wait_until

SERVER_FILE = "server"
ADMIN_KUBECONFIG = "admin.kubeconfig"


class ClusterAccess:
    """What anybody may do with a control plane whose files stand in `directory`; it must be running."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.pki = directory / "pki"
        self.certificate_authority = self.pki / "ca.crt"

    @property
    def server(self) -> str:
        """URL of the API server."""
        return (self.directory / SERVER_FILE).read_text()

    @property
    def kubeconfig(self) -> Path:
        """Kubeconfig of the administrator (group system:masters)."""
        return self.directory / ADMIN_KUBECONFIG

    @functools.cached_property
    def admin(self) -> ApiClient:
        """Requests as the administrator."""
        identity = self.pki / "admin.crt", self.pki / "admin.key"
        return ApiClient(self.server, self.certificate_authority, identity=identity)

    def as_service_account(self, namespace: str, name: str, *, audiences: tuple[str, ...] = ()) -> ApiClient:
        """Requests as a service account."""
        token = self.service_account_token(namespace, name, audiences=audiences)
        return ApiClient(self.server, self.certificate_authority, token=token)

    def service_account_token(
        self,
        namespace: str,
        name: str,
        *,
        audiences: tuple[str, ...] = (),
        seconds: int = 3600,
        pod: Object | None = None,
    ) -> str:
        """A token by TokenRequest, bound to `pod` if one is given, as the kubelet projects them.

        Raises:
            ApiError: there is no such service account, or no such pod.
        """
        spec: Object = {"expirationSeconds": seconds}
        if audiences:
            spec["audiences"] = list(audiences)
        if pod is not None:
            metadata = pod["metadata"]
            spec["boundObjectRef"] = {
                "apiVersion": "v1",
                "kind": "Pod",
                "name": metadata["name"],
                "uid": metadata["uid"],
            }
        request = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec}
        path = f"/api/v1/namespaces/{namespace}/serviceaccounts/{name}/token"
        return str(self.admin.request("POST", path, request)["status"]["token"])

    def service_account_kubeconfig(
        self, namespace: str, name: str, path: Path, *, server: str | None = None, seconds: int = 24 * 3600
    ) -> Path:
        """Writes a kubeconfig with which a process runs under a service account's own roles.

        `server` puts something between the process and the API server, such as a proxy that injects faults; it
        must hand through the API server's own TLS.
        """
        token = self.service_account_token(namespace, name, seconds=seconds)
        user = {"token": token}
        return write_kubeconfig(path, server or self.server, self.certificate_authority, user, namespace=namespace)

    def create_namespace(self, name: str, labels: dict[str, str] | None = None) -> None:
        """Creates a namespace and waits until pods could be made in it (its default service account exists)."""
        metadata = {"name": name, "labels": labels or {}}
        self.admin.create({"apiVersion": "v1", "kind": "Namespace", "metadata": metadata})
        self.wait_for_service_account(name, "default")

    def wait_for_service_account(self, namespace: str, name: str, *, seconds: float = 30) -> None:
        """Returns when the service account exists; the controller-manager makes the default ones."""
        path = f"/api/v1/namespaces/{namespace}/serviceaccounts/{name}"
        wait_until(lambda: self._exists(path), f"service account {namespace}/{name}", seconds=seconds)

    def install_definitions(self, source: Path) -> None:
        """Applies CustomResourceDefinitions of a file or folder and waits until they are served."""
        self.kubectl("apply", "--server-side", "--force-conflicts", "-f", str(source))
        self.kubectl("wait", "--for=condition=Established", "--timeout=30s", "-f", str(source))

    def kubectl(self, *arguments: str, stdin: str | None = None) -> str:
        """Standard output of kubectl as the administrator.

        Raises:
            subprocess.CalledProcessError: kubectl failed; its words are in `stderr`.
        """
        command = [str(build.require("kubectl")), "--kubeconfig", str(self.kubeconfig), *arguments]
        environment = {**os.environ, "KUBECACHEDIR": str(self.directory / "kubectl-cache")}
        done = subprocess.run(
            command, input=stdin, capture_output=True, text=True, check=True, timeout=120, env=environment
        )
        return done.stdout

    def _exists(self, path: str) -> bool:
        try:
            self.admin.get(path)
        except ApiError as error:
            if error.status == 404:
                return False
            raise
        return True


def write_kubeconfig(
    path: Path, server: str, certificate_authority: Path, user: dict[str, str], *, namespace: str = "default"
) -> Path:
    """A kubeconfig that stands alone (all inside), readable by the owner alone. JSON is YAML."""
    cluster = {"server": server, "certificate-authority-data": encoded(certificate_authority)}
    content = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "embedded", "cluster": cluster}],
        "users": [{"name": "user", "user": user}],
        "contexts": [{"name": "embedded", "context": {"cluster": "embedded", "user": "user", "namespace": namespace}}],
        "current-context": "embedded",
    }
    path.touch(mode=0o600)
    path.write_text(json.dumps(content, indent=1))
    return path


def encoded(path: Path) -> str:
    """The file's content in base64, as kubeconfigs embed it."""
    return base64.b64encode(path.read_bytes()).decode()
