"""Whoever is not shown to be the enrolled host can at most let its verdict run out."""

from __future__ import annotations

import msgspec

from chatelaine.wire.messages import StatementRequest, StatementResponse
from support.operator_cluster import OperatorCluster, condition_of
from support.pki import new_authority
from support.simulated_host import HostGateway, SimulatedHost, until


async def expect_dropped(cluster: OperatorCluster, host: SimulatedHost, reason: str) -> None:
    """Reachable falls with that reason; Attested stays until the deadline and then is Unknown's, never Untrusted."""
    found = await cluster.hsm_is(host, "Reachable", "False", reason)
    assert condition_of(found, "Attested")["reason"] in ("EvidenceHolds", "EvidenceExpired")
    await cluster.hsm_is(host, "Attested", "False", "EvidenceExpired")
    status = cluster.get_hsm(host)["status"]
    assert status["attestation"]["verdict"] == "Unknown"
    assert "suspectSince" not in status["attestation"]
    await until("shut", lambda: not host.served)


async def test_stranger_with_another_tpm_is_dropped_and_heals(cluster: OperatorCluster) -> None:
    async with cluster.operator() as operator:
        cluster.policy(freshness={"maxAgeSeconds": 5})
        host = await cluster.ready()
        ours = dict(host.tpm.__dict__)
        host.tpm.replace()
        await expect_dropped(cluster, host, "NotAuthenticated")
        assert operator.metrics.dropped.labels("AttestationKeyMismatch")._value.get() > 0
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


async def test_oversized_inventory_is_dropped(cluster: OperatorCluster) -> None:
    async with cluster.operator():
        cluster.policy(freshness={"maxAgeSeconds": 5})
        host = await cluster.ready()

        class Bloated(HostGateway):
            async def statement(self, request: StatementRequest) -> StatementResponse:
                answered = await super().statement(request)
                return msgspec.structs.replace(answered, inventory=bytes(6 * 1024 * 1024))

        host.gateway.__class__ = Bloated
        await until("it does not count", lambda: condition_of(cluster.get_hsm(host), "Reachable")["status"] == "False")
        await cluster.hsm_is(host, "Attested", "False", "EvidenceExpired")


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
