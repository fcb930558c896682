"""Boot logs and IMA lists of a host of real parts (swtpm, SoftHSM, gateway and agent as processes), to the operator."""

from __future__ import annotations

import asyncio
import contextlib
import re
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from tools.lab.firmware import Boot, Firmware, authority_digest, pcr_values
from tools.lab.ima import ImaList
from tools.lab.swtpm import Swtpm

from chatelaine.model.identifiers import agent_server_name
from support.agent_process import AgentProcess
from support.gateway import GatewayProcess
from support.operator_cluster import API, SYSTEM, Json, OperatorCluster, condition_of
from support.pki import new_leaf
from support.simulated_logs import ALLOWED, allow_list
from support.waiting import until

MALWARE = ("/tmp/.x", b"something nobody approved")


class RealHost:
    """One host. `start` boots it; `reboot` boots something else."""

    def __init__(self, cluster: OperatorCluster, folder: Path) -> None:
        self.cluster = cluster
        self.name = f"{cluster.prefix}-real"
        self.tpm = Swtpm()
        self.firmware = Firmware(folder / "binary_bios_measurements")
        self._list = folder / "binary_runtime_measurements"
        authority: Any = cluster._authority()
        self.gateway = GatewayProcess(folder / "gateway", authority, host=self.name)
        self.agent = AgentProcess(
            folder, self.name, self.gateway.socket_path, "--tcti", self.tpm.tcti,
            "--event-log", str(self.firmware.log_file), "--ima-list", str(self._list),
        )  # fmt: skip
        new_leaf(authority, folder / "agent" / "tls", agent_server_name(self.name))

    async def start(self) -> None:
        """Power on."""
        await asyncio.to_thread(self._boot)
        if self.gateway.process is None:
            await asyncio.to_thread(self.gateway.start)
        await self.agent.start()

    def _boot(self) -> None:
        self.firmware.boot(self.tpm)
        self.ima = ImaList(self._list, self.tpm)
        self.ima.boot()
        for path, content in ALLOWED:
            self.ima.measure(path, content)

    async def ran(self, path: str, content: bytes) -> None:
        """A file runs; whether anybody hears of it is the agent's to see."""
        await asyncio.to_thread(self.ima.measure, path, content)

    async def reboot(self, boot: Boot) -> None:
        """Another boot of the same machine; its agent listens elsewhere, as a new pod would."""
        await self.agent.end(signal.SIGKILL)
        self.firmware.next_boot = boot
        await asyncio.to_thread(self.tpm.reset)
        await self.start()
        self.cluster.admin.merge(self.found, {"spec": {"agent": {"host": "127.0.0.1", "port": self.agent.port}}})

    async def stop(self) -> None:
        """All of it."""
        if self.agent.process is not None:
            await self.agent.end(signal.SIGKILL)
        await asyncio.to_thread(self.gateway.close)
        self.tpm.stop()

    # --- its Hsm

    @property
    def found(self) -> Json:
        """The Hsm."""
        return self.cluster.find(API, "Hsm", self.name) or {}

    async def admit(self, policy: Json) -> None:
        """A person commits what the operator says of it. It is then asked once an hour, unless it speaks."""
        spec = {
            "token": f"pkcs11:token={self.name}",
            "gateway": {"external": {"host": "127.0.0.1", "port": self.gateway.port}},
            "agent": {"host": "127.0.0.1", "port": self.agent.port},
            "attestation": {"policyRef": {"name": policy["metadata"]["name"]}, "intervalSeconds": 3600},
        }
        self.cluster.admin.create({"apiVersion": API, "kind": "Hsm", "metadata": {"name": self.name}, "spec": spec})
        await self.condition("Enrolled", "AwaitingApproval")
        said = condition_of(self.found, "Enrolled")["message"]
        shown = re.findall(r"(ekDigest|attestationKeyThumbprint): (sha256:[0-9a-f]{64})", said)
        self.cluster.admin.merge(self.found, {"spec": {"identity": dict(shown)}})
        await self.condition("Attested", "EvidenceHolds")

    async def condition(self, type_: str, reason: str) -> str:
        """Wait for a reason; gives the message."""

        def holds() -> bool:
            return condition_of(self.found, type_).get("reason") == reason

        try:
            await until(f"{type_} {reason}", holds)
        except AssertionError as error:
            raise AssertionError(f"{error}: {self.found.get('status')}; {self.agent.log()[-2000:]}") from None
        message: str = condition_of(self.found, type_)["message"]
        return message


def rules(boot: Boot, *more: tuple[str, bytes]) -> Json:
    """`spec.tpm`: what must have booted, and what may run."""
    values = pcr_values(boot)
    log = {
        "replay": "Required",
        "secureBoot": "Enabled",
        "authorities": {"allowed": [authority_digest("Laboratory db")]},
        "kernelCommandLine": {"required": ["lockdown=integrity"]},
    }
    named = [{"index": index, "anyOf": [values[index]]} for index in (0, 4, 7)]
    return {"pcrs": {"bank": "Sha256", "values": named}, "eventLog": log, "ima": {"allow": allow_list(*more)}}


@contextlib.asynccontextmanager
async def trusted(cluster: OperatorCluster, folder: Path) -> AsyncIterator[tuple[RealHost, Json]]:
    """An operator, and a host that it trusts by its logs."""
    async with cluster.operator():
        policy = cluster.policy(freshness={"maxAgeSeconds": 7200}, tpm=rules(Boot()))
        await until("the CA is there", lambda: cluster.find("v1", "Secret", "chatelaine-ca", SYSTEM))
        host = RealHost(cluster, folder)
        try:
            await host.start()
            await host.admit(policy)
            yield host, policy
        finally:
            await host.stop()


async def test_a_real_host_that_runs_what_nobody_listed_is_cut_by_its_own_word(
    cluster: OperatorCluster, tmp_path: Path
) -> None:
    async with trusted(cluster, tmp_path) as (host, policy):
        # An update is listed first, then it runs; nobody is cut.
        update = ("/usr/bin/sh", b"shell 1.1")
        cluster.admin.merge(policy, {"spec": {"tpm": rules(Boot(), update)}})
        digest = host.found["status"]["attestation"]["policy"]["digest"]
        await until("the new rules judge", lambda: host.found["status"]["attestation"]["policy"]["digest"] != digest)
        await host.ran(*update)
        await host.ran(*MALWARE)
        message = await host.condition("Attested", "EvidenceRefuted")
        assert "/tmp/.x (entry 4)" in message


async def test_a_real_host_that_boots_another_loader_is_refuted_and_the_event_is_named(
    cluster: OperatorCluster, tmp_path: Path
) -> None:
    async with trusted(cluster, tmp_path) as (host, _):
        await host.reboot(Boot(loader=b"boot loader nobody signed off"))
        message = await host.condition("Attested", "EvidenceRefuted")
        assert "PCR 4" in message


async def test_a_real_host_that_boots_the_same_again_is_trusted_under_its_new_epoch(
    cluster: OperatorCluster, tmp_path: Path
) -> None:
    async with trusted(cluster, tmp_path) as (host, _):
        resets = host.found["status"]["attestation"]["epoch"]["resetCount"]
        await host.reboot(Boot())
        await until(
            "the new boot is judged", lambda: host.found["status"]["attestation"]["epoch"]["resetCount"] > resets
        )
        assert condition_of(host.found, "Attested")["reason"] == "EvidenceHolds"
