"""Command lines of the control plane's processes in a sandbox: etcd on its loopback, the API server on its link."""

from __future__ import annotations

from pathlib import Path

from tools.cluster.layout import API_PORT, LOOPBACK, POD_NETWORK, SERVICE_NETWORK, Layout
from tools.control_plane import build
from tools.control_plane.embedded import ISSUER
from tools.control_plane.etcd import etcd_command

Command = list[str | Path]

_ETCD, _ETCD_PEER = f"https://{LOOPBACK}:2379", f"https://{LOOPBACK}:2380"


def etcd(layout: Layout) -> Command:
    """The data store."""
    return etcd_command(
        build.require("etcd"),
        layout.folder / "etcd",
        client=_ETCD,
        peer=_ETCD_PEER,
        certificate=layout.certificate("etcd"),
        key=layout.key("etcd"),
        authority=layout.authority,
    )


def api_server(layout: Layout) -> Command:
    """The API server, with admission as clusters have it: the kubelet may write what is its node's own only."""
    return [
        build.require("kube-apiserver"),
        f"--etcd-servers={_ETCD}",
        f"--etcd-cafile={layout.authority}",
        f"--etcd-certfile={layout.certificate('etcd')}",
        f"--etcd-keyfile={layout.key('etcd')}",
        f"--advertise-address={layout.address}",
        f"--secure-port={API_PORT}",
        f"--tls-cert-file={layout.certificate('apiserver')}",
        f"--tls-private-key-file={layout.key('apiserver')}",
        f"--client-ca-file={layout.authority}",
        f"--kubelet-certificate-authority={layout.authority}",
        f"--kubelet-client-certificate={layout.certificate('kubelet-client')}",
        f"--kubelet-client-key={layout.key('kubelet-client')}",
        "--kubelet-preferred-address-types=InternalIP",
        f"--service-account-issuer={ISSUER}",
        f"--service-account-key-file={layout.pki / 'service-account.pub'}",
        f"--service-account-signing-key-file={layout.pki / 'service-account.key'}",
        f"--service-cluster-ip-range={SERVICE_NETWORK}",
        "--authorization-mode=Node,RBAC",
        "--enable-admission-plugins=NodeRestriction",
        "--allow-privileged=true",
        "--profiling=false",
    ]


def controllers(layout: Layout) -> Command:
    """The controller-manager with all its controllers."""
    return [
        build.require("kube-controller-manager"),
        f"--kubeconfig={layout.kubeconfig('controllers')}",
        f"--service-account-private-key-file={layout.pki / 'service-account.key'}",
        f"--root-ca-file={layout.authority}",
        f"--cluster-cidr={POD_NETWORK}",
        f"--node-cidr-mask-size={POD_NETWORK.rsplit('/', 1)[1]}",
        f"--service-cluster-ip-range={SERVICE_NETWORK}",
        "--allocate-node-cidrs",
        "--use-service-account-credentials",
        "--leader-elect=false",
        f"--bind-address={LOOPBACK}",
    ]


def scheduler(layout: Layout) -> Command:
    """The scheduler."""
    return [
        build.require("kube-scheduler"),
        f"--kubeconfig={layout.kubeconfig('scheduler')}",
        "--leader-elect=false",
        f"--bind-address={LOOPBACK}",
    ]
