"""What a node runs: containerd, kubelet, kube-proxy, the engine for NetworkPolicies; configuration and command lines.

Pods hang on links of their own (CNI plugin `ptp`), so that every packet between two of them is forwarded by the node
and passes its rules. There is no way out of the node but to the API server on it.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from tools.cluster.images import PAUSE
from tools.cluster.layout import DNS_SERVICE, DOMAIN, LOOPBACK, NODE, POD_NETWORK, Layout
from tools.control_plane import build

Command = list[str | Path]

ROOT = Path(__file__).resolve().parents[2]
SOCKET = "/run/containerd/containerd.sock"
PLUGINS = "/usr/lib/cni"
CONTAINER_NAMESPACE = "k8s.io"
"""Where containerd keeps what the kubelet runs."""


def write_configuration(layout: Layout) -> None:
    """Writes what the processes of the node read."""
    layout.config("cni").mkdir(parents=True, exist_ok=True)
    layout.config("containerd.toml").write_text(_containerd(layout))
    layout.config("cni").joinpath("pods.conflist").write_text(_json(_PODS))
    # JSON is YAML.
    layout.config("kubelet.yaml").write_text(_json(_kubelet(layout)))
    layout.config("proxy.yaml").write_text(_json(_proxy(layout)))
    layout.config("resolv.conf").write_text("")


def containerd(layout: Layout) -> Command:
    """The container runtime."""
    return ["containerd", f"--config={layout.config('containerd.toml')}"]


def kubelet(layout: Layout) -> Command:
    """The kubelet."""
    return [
        build.require("kubelet"),
        f"--config={layout.config('kubelet.yaml')}",
        f"--kubeconfig={layout.kubeconfig('kubelet')}",
        f"--hostname-override={NODE}",
        f"--node-ip={layout.address}",
    ]


def proxy(layout: Layout) -> Command:
    """Kube-proxy, which makes Services."""
    return [build.require("kube-proxy"), f"--config={layout.config('proxy.yaml')}"]


def policies(layout: Layout) -> Command:
    """The engine that enforces NetworkPolicies."""
    return [
        "env",
        f"PYTHONPATH={ROOT}",
        sys.executable,
        "-m",
        "tools.cluster.policy",
        f"--server={layout.server}",
        f"--certificate-authority={layout.authority}",
        f"--certificate={layout.certificate('policies')}",
        f"--key={layout.key('policies')}",
        f"--pods={POD_NETWORK}",
    ]


def ctr(*arguments: str | Path) -> Command:
    """The command of containerd."""
    return ["ctr", f"--address={SOCKET}", f"--namespace={CONTAINER_NAMESPACE}", *arguments]


_PODS: dict[str, Any] = {
    "cniVersion": "1.0.0",
    "name": "pods",
    "plugins": [
        {
            "type": "ptp",
            "ipMasq": False,
            "ipam": {
                "type": "host-local",
                "ranges": [[{"subnet": POD_NETWORK}]],
                "routes": [{"dst": "0.0.0.0/0"}],
            },
        }
    ],
}


def _containerd(layout: Layout) -> str:
    return f"""version = 2
[grpc]
  address = "{SOCKET}"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{PAUSE}"
  restrict_oom_score_adj = true # a machine may withhold CAP_SYS_RESOURCE
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "{PLUGINS}"
    conf_dir = "{layout.config("cni")}"
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
"""


def _kubelet(layout: Layout) -> dict[str, Any]:
    return {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "failCgroupV1": False,
        "cgroupDriver": "cgroupfs",
        "enforceNodeAllocatable": [],
        "containerRuntimeEndpoint": f"unix://{SOCKET}",
        "authentication": {
            "anonymous": {"enabled": False},
            "webhook": {"enabled": True},
            "x509": {"clientCAFile": str(layout.authority)},
        },
        "authorization": {"mode": "Webhook"},
        "tlsCertFile": str(layout.certificate("kubelet")),
        "tlsPrivateKeyFile": str(layout.key("kubelet")),
        "clusterDNS": [DNS_SERVICE],
        "clusterDomain": DOMAIN,
        "resolvConf": str(layout.config("resolv.conf")),
        "failSwapOn": False,
        "makeIPTablesUtilChains": False,
        # The disk and the memory are those of the machine: how full they are is none of the tests' business.
        "evictionHard": {"memory.available": "50Mi", "nodefs.available": "1%", "imagefs.available": "1%"},
        "imageGCHighThresholdPercent": 100,
        "imageGCLowThresholdPercent": 99,
    }


def _proxy(layout: Layout) -> dict[str, Any]:
    return {
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "mode": "nftables",
        "clusterCIDR": POD_NETWORK,
        "hostnameOverride": NODE,
        "clientConnection": {"kubeconfig": str(layout.kubeconfig("proxy"))},
        "healthzBindAddress": f"{LOOPBACK}:10256",
        # These are the whole machine's.
        "conntrack": {"maxPerCore": 0, "min": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s"},
    }


def _json(content: dict[str, Any]) -> str:
    return json.dumps(content, indent=1)
