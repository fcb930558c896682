"""Whoever is not shown to be the enrolled host can at most let its verdict run out."""

from __future__ import annotations

import asyncio

import msgspec
import pytest
from aiohttp import web

from chatelaine.controller.operator import Operator
from chatelaine.evidence.tpm_types import MAX_ATTEST_BYTES, MAX_SIGNATURE_BYTES
from chatelaine.wire.messages import (
    MAX_EVIDENCE_BODY_BYTES,
    EvidenceResponse,
    StatementRequest,
    StatementResponse,
    decode,
)
from chatelaine.wire.serve import answer
from support.operator_cluster import OperatorCluster, condition_of
from support.pki import new_authority
from support.simulated_host import Fault, HostGateway, SimulatedHost
from support.waiting import until


async def expect_dropped(
    cluster: OperatorCluster, host: SimulatedHost, reason: str, shown_by: str = "Reachable"
) -> None:
    """That condition falls for that reason; Attested stays until the deadline and is Unknown then, never Untrusted."""
    found = await cluster.hsm_is(host, shown_by, "False", reason)
    assert condition_of(found, "Attested")["reason"] in ("EvidenceHolds", "EvidenceExpired")
    await cluster.hsm_is(host, "Attested", "False", "EvidenceExpired")
    status = cluster.get_hsm(host)["status"]
    assert status["attestation"]["verdict"] == "Unknown"
    assert "suspectSince" not in status["attestation"]
    await until("shut", lambda: not host.served)


async def test_stranger_with_another_tpm_is_dropped_and_heals(cluster: OperatorCluster) -> None:
    async with cluster.operator():
        cluster.policy(freshness={"maxAgeSeconds": 5})
        host = await cluster.ready()
        ours = dict(host.tpm.__dict__)
        host.tpm.replace()
        # NotAuthenticated for a moment; then it has shown who it is, and that stays.
        await expect_dropped(cluster, host, "IdentityConflict", "Enrolled")
        host.tpm.__dict__.update(ours)
        await cluster.hsm_is(host, "Ready", "True")


async def test_stranger_with_a_certificate_of_another_ca_is_dropped(cluster: OperatorCluster) -> None:
    async with cluster.operator() as operator:
        cluster.policy(freshness={"maxAgeSeconds": 5})
        host = await cluster.ready()
        await host.stop()
        stranger = SimulatedHost(host.name, cluster.folder / "stranger", new_authority())
        stranger.agent_port, stranger.gateway_port = host.agent_port, host.gateway_port
        await stranger.start()
        try:
            await expect_dropped(cluster, host, "NotAuthenticated")
            assert operator.metrics.dropped.labels("PeerNotAuthenticated")._value.get() > 0
            assert stranger.held.taken == []
        finally:
            await stranger.stop()


async def test_replayed_evidence_is_dropped(cluster: OperatorCluster) -> None:
    async with cluster.operator() as operator:
        cluster.policy(freshness={"maxAgeSeconds": 5})
        host = await cluster.ready()
        assert host.agent is not None
        host.agent.replays = True
        await expect_dropped(cluster, host, "NotAuthenticated")
        assert operator.metrics.dropped.labels("ExtraDataMismatch")._value.get() > 0


async def expect_fault(cluster: OperatorCluster, host: SimulatedHost, fault: Fault, reason: str, said: str) -> None:
    """While the agent answers so, Reachable says why; then it heals. `said` stands in the message."""
    assert host.agent is not None
    host.agent.fault = fault
    host.changed()
    found = await cluster.hsm_is(host, "Reachable", "False", reason)
    assert said in condition_of(found, "Reachable")["message"]
    assert found["status"]["attestation"]["verdict"] != "Untrusted"
    host.agent.fault = None
    host.changed()
    await cluster.hsm_is(host, "Reachable", "True", "Answers")


def says(body: bytes, status: int = 200) -> Fault:
    """Another answer than the honest one."""

    async def fault(_: web.Request, __: web.Response) -> web.StreamResponse:
        return web.Response(body=body, status=status, content_type="application/json")

    return fault


def changed(**fields: object) -> Fault:
    """The honest answer, but for some fields."""

    async def fault(_: web.Request, honest: web.Response) -> web.StreamResponse:
        evidence = decode(bytes(honest.body), EvidenceResponse)
        return answer(msgspec.structs.replace(evidence, **fields))

    return fault


async def never(request: web.Request, _: web.Response) -> web.StreamResponse:
    """Takes the question, and that is all."""
    while request.transport is not None:  # noqa: ASYNC110 - aiohttp tells of a caller that went by nothing else
        await asyncio.sleep(0.05)
    return web.Response()


async def late(request: web.Request, honest: web.Response) -> web.StreamResponse:
    """Good evidence, after the one who asked has gone."""
    await never(request, honest)
    return honest


def dropped(operator: Operator, code: str) -> float:
    """How many answers were dropped for that."""
    return float(operator.metrics.dropped.labels(code)._value.get())


async def test_malformed_evidence_is_dropped(cluster: OperatorCluster) -> None:
    faults = (
        (says(b"no evidence"), "PeerMalformed", "no EvidenceResponse: JSON is malformed"),
        (says(b'{"unknown":' + b"[" * 100_000), "PeerMalformed", "no EvidenceResponse"),
        (says(b'{"bank":"\xff"}'), "PeerMalformed", "no EvidenceResponse"),
        (changed(attest=b"\xffTCG"), "Truncated", "Truncated"),
        (changed(pcrs={"4": bytes(32), "04": bytes(32)}), "Malformed", "a PCR index is no number below 24"),
        (changed(bank="Sha384"), "Malformed", "the evidence is of another bank"),
    )
    async with cluster.operator() as operator:
        cluster.policy(freshness={"maxAgeSeconds": 5})
        host = await cluster.ready()
        for fault, code, said in faults:
            before = dropped(operator, code)
            await expect_fault(cluster, host, fault, "EvidenceMalformed", said)
            assert dropped(operator, code) > before, said
        assert host.agent is not None
        host.agent.fault = says(b"no evidence")
        await cluster.hsm_is(host, "Attested", "False", "EvidenceExpired")


async def test_oversized_evidence_is_dropped(cluster: OperatorCluster) -> None:
    too_long = says(b" " * (MAX_EVIDENCE_BODY_BYTES + 1))
    faults = (
        (too_long, "PeerMalformed", f"the answer is over {MAX_EVIDENCE_BODY_BYTES} bytes"),
        (changed(inventory=bytes(3 * MAX_EVIDENCE_BODY_BYTES)), "PeerMalformed", "the answer is over"),
        (changed(attest=bytes(MAX_ATTEST_BYTES + 1)), "Oversized", "Oversized"),
        (changed(signature=bytes(MAX_SIGNATURE_BYTES + 1)), "Oversized", "Oversized"),
    )
    async with cluster.operator() as operator:
        cluster.policy(freshness={"maxAgeSeconds": 5})
        host = await cluster.ready()
        for fault, code, said in faults:
            before = dropped(operator, code)
            await expect_fault(cluster, host, fault, "EvidenceMalformed", said)
            assert dropped(operator, code) > before, said
        assert host.agent is not None
        host.agent.fault = too_long
        await expect_dropped(cluster, host, "EvidenceMalformed")


async def test_absent_evidence_is_dropped(cluster: OperatorCluster) -> None:
    """An answer without evidence, a host that says it has none, and no host at all."""
    async with cluster.operator() as operator:
        cluster.policy(freshness={"maxAgeSeconds": 5})
        host = await cluster.ready()
        await expect_fault(cluster, host, says(b"{}"), "EvidenceMalformed", "missing required field")
        await expect_fault(cluster, host, says(b""), "EvidenceMalformed", "no EvidenceResponse")
        refusal = says(b'{"code":"GatewayUnavailable","detail":"no statement"}', 503)
        await expect_fault(cluster, host, refusal, "Unreachable", "503 GatewayUnavailable: no statement")
        assert dropped(operator, "PeerRefused") > 0
        await host.stop()
        await expect_dropped(cluster, host, "Unreachable")
        assert dropped(operator, "PeerUnreachable") > 0
        await host.start()
        await cluster.hsm_is(host, "Ready", "True")


@pytest.mark.parametrize("fault", [late, never], ids=["late", "never"])
async def test_evidence_that_is_late_is_dropped(cluster: OperatorCluster, fault: Fault) -> None:
    async with cluster.operator() as operator:
        cluster.policy(freshness={"maxAgeSeconds": 5})
        host = await cluster.ready()
        before = dropped(operator, "PeerUnreachable")
        assert host.agent is not None
        host.agent.fault = fault
        await expect_dropped(cluster, host, "Unreachable")
        message = condition_of(cluster.get_hsm(host), "Reachable")["message"]
        assert message.startswith(f"agent.{host.name}.chatelaine.internal at 127.0.0.1:")
        assert message.endswith("no answer in time")
        assert dropped(operator, "PeerUnreachable") > before
        host.agent.fault = None
        await cluster.hsm_is(host, "Ready", "True")


async def test_gateway_with_an_unattested_key_is_told_nothing(cluster: OperatorCluster) -> None:
    """Its certificate is good, but the quote does not bind its key: no view is opened to it, no key is made."""
    async with cluster.operator():
        cluster.policy(freshness={"maxAgeSeconds": 5})
        host = await cluster.ready()
        # The agent goes on to speak for the key that it always spoke for; the listener shows another.
        await host.stop()
        taken = len(host.held.taken)
        host.gateway_leaf = cluster.double(host).gateway_leaf
        await host.start()
        cluster.claim()
        # By that the listener was reached: only the key that it showed makes the agent's word worthless.
        await cluster.hsm_is(host, "Attested", "False", "EvidenceExpired")
        assert all(update.standing.verdict != "Trusted" for update in host.held.taken[taken:] if update.standing)
        assert host.made == []


async def test_every_round_has_a_nonce_of_its_own(cluster: OperatorCluster) -> None:
    async with cluster.operator():
        cluster.policy()
        host = await cluster.ready()
        seen: list[bytes] = []

        class Listening(HostGateway):
            async def statement(self, request: StatementRequest) -> StatementResponse:
                seen.append(request.nonce)
                return await super().statement(request)

        host.gateway.__class__ = Listening
        for _ in range(20):
            before = len(seen)
            host.changed()
            await until("asked", lambda before=before: len(seen) > before)
        assert len(set(seen)) == len(seen)
        assert {len(nonce) for nonce in seen} == {32}
