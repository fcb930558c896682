"""A whole control plane in a folder: etcd, kube-apiserver and kube-controller-manager on free loopback ports.

Everything is as in a real cluster, except that there are no nodes: RBAC, admission (ValidatingAdmissionPolicy too),
service-account tokens with a key set to verify them, garbage collection, namespaces that go away. What belongs to
nodes is off, so that Pod objects that nobody runs stay as they were written.

The API server alone can be stopped and started again on its port, for tests of an outage.
"""

from __future__ import annotations

import atexit
import signal
import sys
from pathlib import Path
from types import FrameType, TracebackType
from typing import Self

from tools.control_plane import build
from tools.control_plane.access import ADMIN_KUBECONFIG, SERVER_FILE, ClusterAccess, encoded, write_kubeconfig
from tools.control_plane.certificates import Authority, service_account_keys
from tools.control_plane.client import ApiError
from tools.control_plane.etcd import etcd_command
from tools.control_plane.processes import Child, StartError, free_port

ISSUER = "https://kubernetes.default.svc.cluster.local"
"""Issuer of service-account tokens, as clusters made by kubeadm have it."""

LOOPBACK = "127.0.0.1"
READY_SECONDS = 90.0
ATTEMPTS = 3
"""A port may be taken between choosing and listening; then everything is started again on other ports."""

CONTROLLERS = "*,-pod-garbage-collector-controller,-node-lifecycle-controller,-taint-eviction-controller"

AUDIT_POLICY = """apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
- {level: None, verbs: [get, list, watch]}
- {level: Metadata}
"""


class ControlPlane(ClusterAccess):
    """Starts and stops its processes; use it as a context manager.

    Args:
        directory: gets keys, data, logs and kubeconfigs; made if missing.
        controller_manager: without it nothing is garbage collected and no namespace ever goes away.
        audit: write every write request to `audit.jsonl` (who wrote what, without bodies).
        hosts: more names or addresses that the API server's certificate shall hold.

    Raises:
        StartError: (by `start`) a process ended or was not ready in time.
        BuildError: (by `start`) a binary is missing.
    """

    def __init__(
        self, directory: Path, *, controller_manager: bool = True, audit: bool = False, hosts: tuple[str, ...] = ()
    ) -> None:
        directory = directory.absolute()
        super().__init__(directory)
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.audit_log = directory / "audit.jsonl" if audit else None
        self._with_controller_manager = controller_manager
        self._hosts = (LOOPBACK, "localhost", "kubernetes.default.svc", *hosts)
        self._api_port = 0
        self._etcd_port = 0
        self._etcd: Child | None = None
        self._api: Child | None = None
        self._controllers: Child | None = None

    def start(self) -> Self:
        """Starts everything and returns when all of it is ready."""
        binaries = [build.require(name) for name in ("etcd", "kube-apiserver", "kube-controller-manager")]
        self._write_keys()
        atexit.register(self.stop)
        for attempt in range(1, ATTEMPTS + 1):
            try:
                self._start_processes(*binaries)
            except StartError as error:
                self.stop()
                if attempt == ATTEMPTS or "address already in use" not in str(error):
                    raise
            else:
                return self
        raise AssertionError("the last attempt returns or raises")

    def stop(self) -> None:
        """Stops everything, the API server before etcd. May be called at any time, and again."""
        for child in (self._controllers, self._api, self._etcd):
            if child is not None:
                child.stop()
        self._controllers = self._api = self._etcd = None
        atexit.unregister(self.stop)

    def stop_api(self, *, hard: bool = True) -> None:
        """Takes the API server away, at once if `hard`; etcd keeps the data."""
        if self._api is not None:
            self._api.stop(hard=hard)
            self._api = None

    def start_api(self) -> None:
        """Brings the API server back on the same port; returns when it is ready."""
        if self._api is not None:
            return
        self._api = Child("kube-apiserver", self._api_command(build.require("kube-apiserver")), self._log("apiserver"))
        self._api.wait_ready(self._api_is_ready, seconds=READY_SECONDS)

    def pids(self) -> dict[str, int]:
        """Process ids of what runs, by name."""
        return {child.name: child.pid for child in (self._etcd, self._api, self._controllers) if child is not None}

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _start_processes(self, etcd: Path, api: Path, controllers: Path) -> None:
        self._api_port, self._etcd_port = free_port(), free_port()
        (self.directory / SERVER_FILE).write_text(f"https://{LOOPBACK}:{self._api_port}")
        self.__dict__.pop("admin", None)
        self._write_kubeconfigs()
        # The API server waits for etcd by itself, so both start at once.
        self._etcd = Child("etcd", self._etcd_command(etcd, free_port()), self._log("etcd"))
        self._api = Child("kube-apiserver", self._api_command(api), self._log("apiserver"))
        self._api.wait_ready(self._api_is_ready, seconds=READY_SECONDS)
        if self._with_controller_manager:
            command = self._controllers_command(controllers)
            self._controllers = Child("kube-controller-manager", command, self._log("controllers"))
            self._controllers.wait_ready(self._controllers_work, seconds=READY_SECONDS)

    def _api_is_ready(self) -> bool:
        if self._etcd is not None:
            self._etcd.check()
        try:
            status, _ = self.admin.raw("GET", "/readyz")
        except OSError:
            return False
        return status == 200

    def _controllers_work(self) -> bool:
        """They have made the first default service account: their caches are filled."""
        try:
            self.admin.get("/api/v1/namespaces/default/serviceaccounts/default")
        except ApiError as error:
            if error.status != 404:
                raise
            return False
        return True

    def _write_keys(self) -> None:
        authority = Authority(self.pki)
        authority.issue("apiserver", common_name="kube-apiserver", hosts=self._hosts)
        authority.issue("etcd", common_name="etcd", hosts=(LOOPBACK,))
        authority.issue("admin", common_name="admin", groups=("system:masters",))
        authority.issue("controllers", common_name="system:kube-controller-manager")
        service_account_keys(self.pki)

    def _write_kubeconfigs(self) -> None:
        for name, file in (("admin", ADMIN_KUBECONFIG), ("controllers", "controllers.kubeconfig")):
            user = {
                "client-certificate-data": encoded(self.pki / f"{name}.crt"),
                "client-key-data": encoded(self.pki / f"{name}.key"),
            }
            write_kubeconfig(self.directory / file, self.server, self.certificate_authority, user)

    def _log(self, name: str) -> Path:
        return self.directory / f"{name}.log"

    def _etcd_command(self, binary: Path, peer_port: int) -> list[str | Path]:
        return etcd_command(
            binary,
            self.directory / "etcd",
            client=f"https://{LOOPBACK}:{self._etcd_port}",
            peer=f"https://{LOOPBACK}:{peer_port}",
            certificate=self.pki / "etcd.crt",
            key=self.pki / "etcd.key",
            authority=self.certificate_authority,
        )

    def _api_command(self, binary: Path) -> list[str | Path]:
        command: list[str | Path] = [
            binary,
            f"--etcd-servers=https://{LOOPBACK}:{self._etcd_port}",
            f"--etcd-cafile={self.certificate_authority}",
            f"--etcd-certfile={self.pki / 'etcd.crt'}",
            f"--etcd-keyfile={self.pki / 'etcd.key'}",
            f"--bind-address={LOOPBACK}",
            f"--advertise-address={LOOPBACK}",
            "--endpoint-reconciler-type=none",
            f"--secure-port={self._api_port}",
            f"--tls-cert-file={self.pki / 'apiserver.crt'}",
            f"--tls-private-key-file={self.pki / 'apiserver.key'}",
            f"--client-ca-file={self.certificate_authority}",
            f"--service-account-issuer={ISSUER}",
            f"--service-account-key-file={self.pki / 'service-account.pub'}",
            f"--service-account-signing-key-file={self.pki / 'service-account.key'}",
            "--service-cluster-ip-range=10.96.0.0/16",
            "--authorization-mode=RBAC",
            "--allow-privileged=true",
            "--profiling=false",
        ]
        if self.audit_log is not None:
            policy = self.directory / "audit-policy.yaml"
            policy.write_text(AUDIT_POLICY)
            command += [f"--audit-policy-file={policy}", f"--audit-log-path={self.audit_log}"]
        return command

    def _controllers_command(self, binary: Path) -> list[str | Path]:
        return [
            binary,
            f"--kubeconfig={self.directory / 'controllers.kubeconfig'}",
            f"--service-account-private-key-file={self.pki / 'service-account.key'}",
            f"--root-ca-file={self.certificate_authority}",
            f"--controllers={CONTROLLERS}",
            "--use-service-account-credentials",
            "--leader-elect=false",
            f"--bind-address={LOOPBACK}",
            "--secure-port=0",
        ]


def exit_on_signals() -> None:
    """Lets SIGTERM and SIGINT end this process the orderly way: `with` blocks and atexit stop what they started.

    SIGINT too, because shells start background jobs with it ignored, and Python then leaves it so.
    """

    def leave(received: int, _frame: FrameType | None) -> None:
        sys.exit(128 + received)

    signal.signal(signal.SIGTERM, leave)
    signal.signal(signal.SIGINT, leave)
