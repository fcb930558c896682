"""A pool of HSM hosts in a control plane: made, joined, approved and attested, ready for claims."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Any

from tools.control_plane.access import ClusterAccess
from tools.control_plane.processes import free_port
from tools.lab.host import PCRS_ZERO, HsmHost, Ports, boot_values
from tools.lab.installation import Operator
from tools.lab.network import machine_address
from tools.lab.objects import GROUP, approve, publish_gateway, wait_condition

GATEWAYS = "hsm-system"
LOOPBACK = "127.0.0.1"


class Pool:
    """Hosts of one installation. `policy` is the name of the AttestationPolicy that judges them."""

    def __init__(self, cluster: ClusterAccess, operator: Operator, directory: Path, *, policy: str = "lab") -> None:
        self.cluster, self.operator, self.directory, self.policy = cluster, operator, directory, policy
        self.address = machine_address()
        self.hosts: dict[str, HsmHost] = {}

    def apply_policy(self, namespaces: dict[str, str], **changes: Any) -> None:
        """The laboratory's policy: a clean boot is good, and a simulated TPM, on which nothing was measured.

        Claims of namespaces with these labels may bind.
        """
        values = [{"index": index, "anyOf": [value, PCRS_ZERO.hex()]} for index, value in boot_values().items()]
        spec = {
            "freshness": {"maxAgeSeconds": 30},
            "tpm": {"pcrs": {"bank": "Sha256", "values": values}},
            "release": {"anyOf": [{"namespaces": {"matchLabels": namespaces}, "maxSensitivity": "Restricted"}]},
            **changes,
        }
        self.cluster.admin.apply(
            {"apiVersion": GROUP, "kind": "AttestationPolicy", "metadata": {"name": self.policy}, "spec": spec}
        )

    def add(self, names: Iterable[str], *, simulated: bool = False, capacity: int = 100, interval: int = 5) -> None:
        """Makes hosts, joins them by invitation, starts their processes, applies their Hsms."""
        for name in names:
            ports = Ports(LOOPBACK, free_port(), self.address, free_port(self.address))
            host = HsmHost(name, self.directory / name, ports, simulated=simulated)
            self.hosts[name] = host
            host.power_on()
            host.join(self.operator.invite(name))
            host.start()
            publish_gateway(self.cluster, GATEWAYS, f"gateway-{name}", self.address, ports.gateway)
            self.cluster.admin.apply(self._manifest(host, capacity, interval))

    def admit(self) -> None:
        """Approves every host that waits, and returns when all are Ready."""
        for name in self.hosts:
            wait_condition(partial(self.hsm, name), "Enrolled", "False", reason="AwaitingApproval")
            approve(self.cluster, name)
        for name in self.hosts:
            wait_condition(partial(self.hsm, name), "Ready", "True")

    def hsm(self, name: str) -> dict[str, Any]:
        """The Hsm object now."""
        return self.cluster.admin.read(GROUP, "Hsm", name)

    def stop(self) -> None:
        """Ends all hosts."""
        for host in self.hosts.values():
            host.stop()

    def _manifest(self, host: HsmHost, capacity: int, interval: int) -> dict[str, Any]:
        gateway = f"gateway-{host.name}"
        return {
            "apiVersion": GROUP,
            "kind": "Hsm",
            "metadata": {"name": host.name, "labels": {"chatelaine.dev/zone": "lab"}},
            "spec": {
                "token": f"pkcs11:token={host.name}",
                "gateway": {
                    "service": {
                        "namespace": GATEWAYS,
                        "name": gateway,
                        "podSelector": {"matchLabels": {"app": gateway}},
                        "podPort": host.ports.gateway,
                    }
                },
                "agent": {"host": host.ports.agent_host, "port": host.ports.agent},
                "attestation": {"policyRef": {"name": self.policy}, "intervalSeconds": interval},
                "capacity": {"claims": capacity},
                "offers": {"maxSensitivity": "Restricted"},
            },
        }
