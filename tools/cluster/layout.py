"""Where things stand in a cluster's folder, and the addresses inside it, which are the same in every cluster."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from tools.control_plane.access import ADMIN_KUBECONFIG, SERVER_FILE, encoded, write_kubeconfig
from tools.control_plane.certificates import Authority, service_account_keys

NODE = "node"
API_PORT = 6443
LOOPBACK = "127.0.0.1"
POD_NETWORK = "10.244.0.0/24"
SERVICE_NETWORK = "10.96.0.0/16"
API_SERVICE = "10.96.0.1"
DNS_SERVICE = "10.96.0.10"
DOMAIN = "cluster.local"

IDENTITIES: dict[str, tuple[str, tuple[str, ...]]] = {
    "admin": ("admin", ("system:masters",)),
    "controllers": ("system:kube-controller-manager", ()),
    "scheduler": ("system:kube-scheduler", ()),
    "proxy": ("system:kube-proxy", ()),
    "kubelet": (f"system:node:{NODE}", ("system:nodes",)),
    "kubelet-client": ("kube-apiserver-kubelet-client", ("system:masters",)),
    "policies": ("network-policies", ()),
}
"""User name and groups of each process that calls another."""


@dataclasses.dataclass(frozen=True)
class Layout:
    """Paths in the folder of a cluster whose node has `address`."""

    folder: Path
    address: str = ""

    @property
    def pki(self) -> Path:
        """Keys and certificates."""
        return self.folder / "pki"

    @property
    def authority(self) -> Path:
        """Certificate of the cluster's CA."""
        return self.pki / "ca.crt"

    @property
    def server(self) -> str:
        """URL of the API server."""
        return f"https://{self.address}:{API_PORT}"

    def certificate(self, name: str) -> Path:
        """Certificate of one identity."""
        return self.pki / f"{name}.crt"

    def key(self, name: str) -> Path:
        """Private key of one identity."""
        return self.pki / f"{name}.key"

    def kubeconfig(self, name: str) -> Path:
        """Kubeconfig of one identity."""
        return self.folder / (ADMIN_KUBECONFIG if name == "admin" else f"{name}.kubeconfig")

    def config(self, name: str) -> Path:
        """A configuration file."""
        return self.folder / "config" / name

    def log(self, name: str) -> Path:
        """Log of one process."""
        return self.folder / f"{name}.log"

    def write_keys(self) -> None:
        """Makes a new CA, a certificate for every identity, and the kubeconfigs."""
        authority = Authority(self.pki)
        names = ("kubernetes", "kubernetes.default", "kubernetes.default.svc", f"kubernetes.default.svc.{DOMAIN}")
        hosts = (self.address, LOOPBACK, API_SERVICE, "localhost", *names)
        authority.issue("apiserver", common_name="kube-apiserver", hosts=hosts)
        authority.issue("etcd", common_name="etcd", hosts=(LOOPBACK,))
        service_account_keys(self.pki)
        (self.folder / SERVER_FILE).write_text(self.server)
        for name, (user, groups) in IDENTITIES.items():
            serves = (self.address, NODE) if name == "kubelet" else ()
            authority.issue(name, common_name=user, groups=groups, hosts=serves)
            data = {
                "client-certificate-data": encoded(self.certificate(name)),
                "client-key-data": encoded(self.key(name)),
            }
            write_kubeconfig(self.kubeconfig(name), self.server, self.authority, data)
