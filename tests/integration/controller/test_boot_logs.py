"""What booted, in live rounds: a log counts only if the quoted PCRs, and the token's statement, bear it out."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
from aiohttp import web
from tools.lab.event_log_writer import SHA256
from tools.lab.firmware import Boot, authority_digest, measured, pcr_values

from chatelaine.agent.logs import LogFiles
from chatelaine.wire.messages import EvidenceResponse, decode, encode
from support.operator_cluster import OperatorCluster, condition_of
from support.simulated_host import SimulatedHost
from support.waiting import until

GOOD = Boot()
OTHER_LOADER = Boot(loader=b"boot loader nobody signed off")
LOG_RULES = {
    "replay": "Required",
    "secureBoot": "Enabled",
    "authorities": {"required": [authority_digest("Laboratory db")]},
    "kernelCommandLine": {"required": ["lockdown=integrity"]},
}


def rules(boot: Boot = GOOD, *, pcrs: tuple[int, ...] = (0,), **event_log: Any) -> dict[str, Any]:
    """`spec.tpm`: few PCRs by value, the rest by what the log shows."""
    values = pcr_values(boot, SHA256)
    named = [{"index": index, "anyOf": [values[index]]} for index in pcrs]
    return {"pcrs": {"bank": "Sha256", "values": named}, "eventLog": LOG_RULES | event_log}


async def booted(cluster: OperatorCluster, tpm: dict[str, Any], boot: Boot = GOOD) -> SimulatedHost:
    cluster.policy(tpm=tpm)
    host = await cluster.host(boot=boot)
    cluster.hsm(host)
    return host


async def trusted(cluster: OperatorCluster, **event_log: Any) -> SimulatedHost:
    host = await booted(cluster, rules(**event_log))
    await cluster.hsm_is(host, "Ready", "True")
    return host


async def reboot(host: SimulatedHost, boot: Boot, *, shows: bytes | None = None) -> None:
    """The host goes down and comes up between two rounds; `shows`: another log than that of this boot."""
    assert host.agent is not None
    async with host.agent._rounds._turn:
        host.logs.boot(boot)
        if shows is not None:
            host.logs.event_log.write_bytes(shows)
    host.changed()


def answers(host: SimulatedHost, **changed: Any) -> None:
    """From now on the agent's answer is altered on its way."""

    async def fault(_: web.Request, response: web.Response) -> web.Response:
        assert isinstance(response.body, bytes)
        message = msgspec.structs.replace(decode(response.body, EvidenceResponse), **changed)
        return web.Response(body=encode(message), content_type="application/json")

    assert host.agent is not None
    host.agent.fault = fault
    host.changed()


async def refuted(cluster: OperatorCluster, host: SimulatedHost, reason: str) -> str:
    found = await cluster.hsm_is(host, "Attested", "False", "EvidenceRefuted")
    message: str = condition_of(found, "Attested")["message"]
    assert reason in message
    return message


async def test_a_host_is_trusted_by_what_its_boot_log_shows(cluster: OperatorCluster) -> None:
    async with cluster.operator():
        host = await trusted(cluster)
        attestation = cluster.get_hsm(host)["status"]["attestation"]
        assert "event log" in attestation["compared"]
        assert any(fact.startswith("eventLog=") for fact in attestation["facts"])


async def test_an_unchanged_log_is_not_sent_again(cluster: OperatorCluster) -> None:
    async with cluster.operator():
        host = await trusted(cluster)
        sent: list[bool] = []

        async def fault(_: web.Request, response: web.Response) -> web.Response:
            assert isinstance(response.body, bytes)
            sent.append(decode(response.body, EvidenceResponse).event_log is not None)
            return response

        assert host.agent is not None
        host.agent.fault = fault
        await until("it is known", lambda: sent and not sent[-1])
        known = len(sent)
        await until("two more rounds", lambda: len(sent) >= known + 2)
        assert not any(sent[known:])
        await reboot(host, replace(GOOD, serial="another disk"))
        await until("the log of another boot was sent", lambda: sent[-1])
        await cluster.hsm_is(host, "Ready", "True")


async def test_a_reboot_without_secure_boot_is_refuted(cluster: OperatorCluster) -> None:
    async with cluster.operator():
        host = await trusted(cluster)
        await reboot(host, Boot(secure_boot=False))
        await refuted(cluster, host, "Secure Boot")


async def test_another_boot_loader_is_refuted_by_the_pcr_that_its_event_extends(cluster: OperatorCluster) -> None:
    async with cluster.operator():
        host = await booted(cluster, rules(pcrs=(0, 4)))
        await cluster.hsm_is(host, "Ready", "True")
        await reboot(host, OTHER_LOADER)
        await refuted(cluster, host, "PCR 4")


async def test_a_forbidden_image_is_refuted(cluster: OperatorCluster) -> None:
    import hashlib

    async with cluster.operator():
        host = await trusted(cluster, forbiddenImages=[hashlib.sha256(OTHER_LOADER.loader).hexdigest()])
        await reboot(host, OTHER_LOADER)
        await cluster.hsm_is(host, "Attested", "False", "EvidenceRefuted")


async def test_the_log_of_another_boot_is_refuted(cluster: OperatorCluster) -> None:
    """The machine booted without Secure Boot; its kernel shows the log of the boot before."""
    async with cluster.operator():
        host = await trusted(cluster)
        old = host.logs.event_log.read_bytes()
        await reboot(host, Boot(secure_boot=False), shows=old)
        await refuted(cluster, host, "does not replay to the quoted PCR 7")


async def test_a_log_that_was_cut_is_refuted(cluster: OperatorCluster) -> None:
    async with cluster.operator():
        host = await trusted(cluster)
        whole = measured(GOOD)
        shorter = whole.data[: -len(whole._records[-1])]
        host.logs.event_log.write_bytes(shorter)
        host.changed()
        await refuted(cluster, host, "does not replay to the quoted PCR 5")


async def test_a_pcr_that_was_extended_behind_the_logs_back_is_refuted(cluster: OperatorCluster) -> None:
    async with cluster.operator():
        host = await trusted(cluster)
        host.tamper(8)
        await refuted(cluster, host, "does not replay to the quoted PCR 8")


async def test_a_log_that_is_withheld_is_refuted(cluster: OperatorCluster) -> None:
    async with cluster.operator():
        host = await trusted(cluster)
        assert host.agent is not None
        host.agent._rounds._logs = LogFiles(None, host.logs.ima_list)
        host.changed()
        await refuted(cluster, host, "answered without one")


async def test_a_log_that_was_swapped_on_the_way_counts_for_nobody(cluster: OperatorCluster, tmp_path: Path) -> None:
    """The token's statement names another log: the answer is dropped, and the host stays trusted for its time."""
    async with cluster.operator() as operator:
        host = await trusted(cluster)
        answers(host, event_log=measured(Boot(serial="another host")).data)
        dropped = operator.metrics.dropped.labels("StatementLogMismatch")._value.get
        await until("it was dropped", lambda: dropped() > 0)
        await cluster.hsm_is(host, "Reachable", "False", "NotAuthenticated")
        assert condition_of(cluster.get_hsm(host), "Attested")["reason"] == "EvidenceHolds"


async def test_a_log_that_was_left_out_on_the_way_counts_for_nobody(cluster: OperatorCluster) -> None:
    async with cluster.operator() as operator:
        host = await trusted(cluster)
        answers(host, event_log=None, log_digest=None)
        dropped = operator.metrics.dropped.labels("StatementLogMismatch")._value.get
        await until("it was dropped", lambda: dropped() > 0)


async def test_a_log_without_the_quoted_bank_leaves_the_verdict_open(cluster: OperatorCluster) -> None:
    from tools.lab.event_log_writer import SHA384, EventLogWriter

    async with cluster.operator():
        host = await booted(cluster, rules())
        await cluster.hsm_is(host, "Ready", "True")
        log = EventLogWriter(banks=(SHA384,))
        for pcr, digests in measured(GOOD).extends:
            log.extend(pcr, 0xD, b"", {SHA384: digests[SHA384]})
        host.logs.event_log.write_bytes(log.data)
        host.changed()
        # A verdict that cannot be given is none: the last one ends at its time, and nothing is refuted.
        found = await cluster.hsm_is(host, "Attested", "False", "EvidenceUndecided")
        assert "bank" in condition_of(found, "Attested")["message"]


async def test_a_host_without_a_log_is_blocked_and_not_refuted_when_a_policy_begins_to_ask_for_one(
    cluster: OperatorCluster,
) -> None:
    async with cluster.operator():
        tpm = rules()
        asks = tpm.pop("eventLog")
        policy = cluster.policy(tpm=tpm)
        host = await cluster.host(boot=GOOD)
        assert host.agent is not None
        host.agent._rounds._logs = LogFiles()
        cluster.hsm(host)
        await cluster.hsm_is(host, "Ready", "True")
        cluster.admin.merge(policy, {"spec": {"tpm": {"eventLog": asks}}})
        await cluster.hsm_is(host, "Attested", "False", "PolicyChanged")
        host.agent._rounds._logs = host.logs.files
        host.changed()
        await cluster.hsm_is(host, "Ready", "True")
