"""What ran, in live rounds: the list grows while it is read, is read on from where it was left, no lie helps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest
from aiohttp import web
from tools.lab.firmware import Boot, pcr_values

from chatelaine.agent.logs import ImaPiece, LogFiles
from chatelaine.evidence.ima import MAX_IMA_CHUNK_BYTES
from chatelaine.wire.messages import EvidenceResponse, decode, encode
from support.operator_cluster import Json, OperatorCluster, condition_of
from support.simulated_host import SimulatedHost
from support.simulated_logs import allow_list
from support.waiting import until

BOOT = Boot()
MALWARE = ("/tmp/.x", b"something nobody approved")
UPDATE = ("/usr/bin/sh", b"shell 1.1")


def rules(*more: tuple[str, bytes], **ima: Any) -> Json:
    """`spec.tpm` with what may run."""
    values = pcr_values(BOOT)
    named = [{"index": index, "anyOf": [values[index]]} for index in (0, 4, 7)]
    return {"pcrs": {"bank": "Sha256", "values": named}, "ima": {"allow": allow_list(*more), **ima}}


class RecordingLogs(LogFiles):
    """Notes from which byte the list is read."""

    def __init__(self, event_log: Path, ima_list: Path, asked: list[int]) -> None:
        super().__init__(event_log, ima_list)
        self._asked = asked

    async def ima(self, offset: int) -> ImaPiece | None:
        """See `LogFiles`."""
        self._asked.append(offset)
        return await super().ima(offset)


class Running:
    """A host that is trusted by what ran on it, and its policy."""

    def __init__(self, cluster: OperatorCluster, host: SimulatedHost, policy: Json) -> None:
        self.cluster, self.host, self.policy = cluster, host, policy
        self.asked: list[int] = []
        self._alter: dict[str, Any] = {}

    @classmethod
    async def make(
        cls, cluster: OperatorCluster, tpm: Json | None = None, *, interval_seconds: int = 2, **spec: Any
    ) -> Running:
        policy = cluster.policy(tpm=tpm or rules(), **spec)
        host = await cluster.host(boot=BOOT)
        ref = {"name": policy["metadata"]["name"]}
        cluster.hsm(host, attestation={"policyRef": ref, "intervalSeconds": interval_seconds})
        await cluster.hsm_is(host, "Ready", "True")
        running = cls(cluster, host, policy)
        running.listen()
        return running

    def listen(self) -> None:
        """Note from which byte the list is asked for, and alter answers."""
        assert self.host.agent is not None
        agent, logs = self.host.agent, self.host.logs
        agent._logs = agent._rounds._logs = RecordingLogs(logs.event_log, logs.ima_list, self.asked)

        async def fault(_: web.Request, response: web.Response) -> web.Response:
            assert isinstance(response.body, bytes)
            message = msgspec.structs.replace(decode(response.body, EvidenceResponse), **self._alter)
            return web.Response(body=encode(message), content_type="application/json")

        agent.fault = fault

    def answers(self, **changed: Any) -> None:
        """From now on the agent's answers are altered on their way."""
        self._alter = changed
        self.host.measured()

    def ran(self, path: str, content: bytes) -> None:
        """A file runs, and the agent says so."""
        self.host.logs.ran(path, content)
        self.host.measured()

    async def refuted(self, *words: str) -> str:
        found = await self.cluster.hsm_is(self.host, "Attested", "False", "EvidenceRefuted")
        message: str = condition_of(found, "Attested")["message"]
        assert all(word in message for word in words), message
        return message

    async def rounds(self, count: int = 2) -> None:
        """So many more answers."""
        before = len(self.asked)
        await until(f"{count} more rounds", lambda: len(self.asked) >= before + count)


async def test_a_host_is_trusted_by_what_ran_and_its_list_is_read_on_from_where_it_was_left(
    cluster: OperatorCluster,
) -> None:
    async with cluster.operator():
        running = await Running.make(cluster)
        size = running.host.logs.ima_list.stat().st_size
        await until("all of it was read", lambda: running.asked[-1:] == [size])
        running.ran("/usr/bin/sh", b"shell 1.0")
        grown = running.host.logs.ima_list.stat().st_size
        await until("what came was read", lambda: running.asked[-1:] == [grown])
        assert set(running.asked) <= {0, size, grown}
        assert "ima" in cluster.get_hsm(running.host)["status"]["attestation"]["compared"]


async def test_measured_files_are_no_writes_to_the_api(cluster: OperatorCluster) -> None:
    """PCR 10 moves with every file: it is no fact of the status."""
    async with cluster.operator() as operator:
        running = await Running.make(cluster)
        await running.rounds()
        await operator.queue.settled()
        before = cluster.get_hsm(running.host)["metadata"]["resourceVersion"]
        for number in range(3):
            running.host.logs.ran("/usr/bin/sh", b"shell 1.0")
            running.host.changed()
            await running.rounds(1 + number)
        await operator.queue.settled()
        assert cluster.get_hsm(running.host)["metadata"]["resourceVersion"] == before


async def test_an_unlisted_file_that_runs_is_cut_when_the_agent_says_so(cluster: OperatorCluster) -> None:
    async with cluster.operator():
        # The host is not asked again within the hour: what cuts it is its own word.
        running = await Running.make(cluster, interval_seconds=3600, freshness={"maxAgeSeconds": 7200})
        cluster.claim()
        await cluster.claim_is("Ready", "True")
        await until("served", lambda: bool(running.host.served))
        running.ran(*MALWARE)
        await until("cut", lambda: not running.host.served)
        assert running.host.held.standing is not None
        assert running.host.held.standing.verdict == "Untrusted"
        await running.refuted("/tmp/.x", "is not listed")


async def test_a_listed_path_with_another_content_is_refuted(cluster: OperatorCluster) -> None:
    async with cluster.operator():
        running = await Running.make(cluster)
        running.ran(*UPDATE)
        await running.refuted("/usr/bin/sh")


async def test_a_deviation_is_not_forgotten_when_the_list_is_read_on(cluster: OperatorCluster) -> None:
    """Under Audit nothing sticks; what was refused stays refused in every later round all the same."""
    async with cluster.operator():
        running = await Running.make(cluster, enforcement="Audit")
        running.ran(*MALWARE)
        found = await cluster.hsm_is(running.host, "Attested", "False", "AuditOnly")
        assert "/tmp/.x" in condition_of(found, "Attested")["message"]
        running.ran("/usr/bin/sh", b"shell 1.0")
        await running.rounds(3)
        assert running.asked[-1] == running.host.logs.ima_list.stat().st_size
        assert condition_of(cluster.get_hsm(running.host), "Attested")["reason"] == "AuditOnly"


@pytest.mark.parametrize("violations", ["Refuse", "Record"])
async def test_a_violation_is_refused_unless_the_policy_only_records_it(
    cluster: OperatorCluster, violations: str
) -> None:
    async with cluster.operator():
        running = await Running.make(cluster, rules(violations=violations))
        running.host.logs.violated("/usr/bin/sh")
        running.host.measured()
        if violations == "Refuse":
            await running.refuted("violation")
            return
        size = running.host.logs.ima_list.stat().st_size
        await until("it was read", lambda: running.asked[-1:] == [size])
        assert condition_of(cluster.get_hsm(running.host), "Attested")["reason"] == "EvidenceHolds"


async def test_a_package_update_that_was_listed_first_does_not_cut(cluster: OperatorCluster) -> None:
    async with cluster.operator():
        running = await Running.make(cluster)
        cluster.admin.merge(running.policy, {"spec": {"tpm": rules(UPDATE)}})
        await until("the whole list was read again", lambda: running.asked[-1:] != [0] and 0 in running.asked)
        before = running.host.logs.ima_list.stat().st_size
        running.ran(*UPDATE)
        await until("the update was read", lambda: running.asked[-1:] > [before])
        assert condition_of(cluster.get_hsm(running.host), "Attested")["reason"] == "EvidenceHolds"


async def test_a_policy_that_drops_a_file_that_has_long_run_blocks_and_does_not_refute(
    cluster: OperatorCluster,
) -> None:
    async with cluster.operator():
        running = await Running.make(cluster, rules(UPDATE))
        running.ran(*UPDATE)
        size = running.host.logs.ima_list.stat().st_size
        await until("the update was read", lambda: running.asked[-1:] == [size])
        cluster.admin.merge(running.policy, {"spec": {"tpm": rules()}})
        await cluster.hsm_is(running.host, "Attested", "False", "PolicyChanged")
        cluster.admin.merge(running.policy, {"spec": {"tpm": rules(UPDATE)}})
        await cluster.hsm_is(running.host, "Ready", "True")


async def test_a_file_that_runs_while_the_policy_is_edited_is_a_change_of_the_host(cluster: OperatorCluster) -> None:
    async with cluster.operator():
        running = await Running.make(cluster, rules(UPDATE))
        await running.rounds()
        running.host.logs.ran(*MALWARE)
        cluster.admin.merge(running.policy, {"spec": {"tpm": rules()}})
        await running.refuted("/tmp/.x")


async def test_a_reboot_begins_a_new_list(cluster: OperatorCluster) -> None:
    async with cluster.operator():
        running = await Running.make(cluster)
        await running.rounds()
        assert running.host.agent is not None
        async with running.host.agent._rounds._turn:
            running.host.logs.boot(BOOT)
            running.host.logs.ran("/usr/bin/sh", b"shell 1.0")
        running.host.changed()
        size = running.host.logs.ima_list.stat().st_size
        await until("the new list was read", lambda: running.asked[-1:] == [size])
        await cluster.hsm_is(running.host, "Ready", "True")


async def test_the_list_of_an_earlier_moment_leaves_the_verdict_open(cluster: OperatorCluster) -> None:
    """A list without what ran since: it does not lead to the quoted PCR, so nothing is told, and the verdict ends."""
    async with cluster.operator():
        running = await Running.make(cluster, freshness={"maxAgeSeconds": 3})
        old = running.host.logs.ima_list.read_bytes()
        running.host.logs.ran(*MALWARE)
        running.host.logs.ima_list.write_bytes(old)
        running.host.measured()
        found = await cluster.hsm_is(running.host, "Attested", "False", "EvidenceUndecided")
        assert "no prefix" in condition_of(found, "Attested")["message"]
        assert not running.host.served


async def test_a_list_without_the_entry_that_nobody_approved_leaves_the_verdict_open(cluster: OperatorCluster) -> None:
    async with cluster.operator():
        running = await Running.make(cluster, freshness={"maxAgeSeconds": 3})
        before = running.host.logs.ima_list.read_bytes()
        running.host.logs.ran(*MALWARE)
        hidden = running.host.logs.ima_list.stat().st_size
        running.host.logs.ran("/usr/bin/sh", b"shell 1.0")
        after = running.host.logs.ima_list.read_bytes()[hidden:]
        running.host.logs.ima_list.write_bytes(before + after)
        running.host.measured()
        await cluster.hsm_is(running.host, "Attested", "False", "EvidenceUndecided")


@pytest.mark.parametrize("lie", [7, 2**31, 10**12], ids=["inside", "behind", "beyond all bounds"])
async def test_an_offset_that_lies_leaves_the_verdict_open(cluster: OperatorCluster, lie: int) -> None:
    async with cluster.operator():
        running = await Running.make(cluster, freshness={"maxAgeSeconds": 3})
        running.answers(ima_offset=lie)
        await cluster.hsm_is(running.host, "Attested", "False", "EvidenceUndecided")


async def test_a_piece_that_is_too_long_leaves_the_verdict_open(cluster: OperatorCluster) -> None:
    async with cluster.operator():
        running = await Running.make(cluster, freshness={"maxAgeSeconds": 3})
        running.answers(ima_list=bytes(MAX_IMA_CHUNK_BYTES + 1))
        found = await cluster.hsm_is(running.host, "Attested", "False", "EvidenceUndecided")
        assert "too long" in condition_of(found, "Attested")["message"]


async def test_a_list_that_is_withheld_is_refuted(cluster: OperatorCluster) -> None:
    async with cluster.operator():
        running = await Running.make(cluster)
        assert running.host.agent is not None
        running.host.agent._rounds._logs = LogFiles(running.host.logs.event_log, None)
        running.host.measured()
        await running.refuted("without its list of measurements")


async def test_a_host_that_never_measured_anything_is_refuted(cluster: OperatorCluster) -> None:
    async with cluster.operator():
        cluster.policy(tpm=rules())
        host = await cluster.host(boot=BOOT)
        await host.stop()
        host.logs.boot(BOOT, measures=False)
        await host.start()
        cluster.hsm(host)
        found = await cluster.hsm_is(host, "Attested", "False", "EvidenceRefuted")
        assert "nothing was measured" in condition_of(found, "Attested")["message"]
