"""Who holds good leaves of a host, by a stolen invitation or key, but is not the host that a person approved."""

from __future__ import annotations

import base64
import time

from chatelaine.model.identifiers import digest_of
from support.operator_cluster import OperatorCluster, condition_of
from support.simulated_host import SimulatedHost
from support.waiting import until

HOUR_SECONDS = 3600
"""Left of a leaf that is due: they are renewed when a third of a day is left."""


def pinned_keys(cluster: OperatorCluster) -> list[str]:
    """Digests of the gateway keys that the binding Secret tells clients to accept, newest first."""
    secret = cluster.find("v1", "Secret", "c1-hsm", cluster.namespace)
    return [] if secret is None else base64.b64decode(secret["data"]["gateway-spki"]).decode().split()


def opened(host: SimulatedHost) -> list[object]:
    """Views that opened anything to this host's gateway."""
    return [view for view in host.held.taken if view.claims or (view.standing and view.standing.verdict == "Trusted")]


async def test_thief_of_leaves_at_the_hosts_addresses_is_told_nothing_and_pinned_nowhere(
    cluster: OperatorCluster,
) -> None:
    async with cluster.operator():
        cluster.policy(freshness={"maxAgeSeconds": 8})
        host = await cluster.ready()
        cluster.claim()
        await cluster.claim_is("Ready", "True")
        thief = cluster.double(host)
        thief.agent_port, thief.gateway_port = host.agent_port, host.gateway_port
        await host.stop()
        await thief.start()
        try:
            await cluster.hsm_is(host, "Enrolled", "False", "IdentityConflict")
            await cluster.hsm_is(host, "Attested", "False", "EvidenceExpired")
            assert opened(thief) == []
            assert digest_of(thief.gateway_leaf.spki) not in pinned_keys(cluster)
            assert cluster.get_hsm(host)["status"]["attestation"]["verdict"] == "Unknown"
        finally:
            await thief.stop()
        await host.start()
        await cluster.hsm_is(host, "Ready", "True")
        await cluster.claim_is("Ready", "True")
        assert pinned_keys(cluster)[:1] == [digest_of(host.gateway_leaf.spki)]


async def test_joiner_who_was_never_approved_is_not_pinned_beside_the_true_host(cluster: OperatorCluster) -> None:
    async with cluster.operator():
        cluster.policy(freshness={"maxAgeSeconds": 20})
        host = await cluster.host()
        thief = cluster.double(host)
        thief.agent_port, thief.gateway_port = host.agent_port, host.gateway_port
        await host.stop()
        await thief.start()
        try:
            cluster.hsm(host)
            await cluster.hsm_is(host, "Enrolled", "False", "IdentityConflict")
        finally:
            await thief.stop()
        await host.start()
        await cluster.hsm_is(host, "Ready", "True")
        cluster.claim()
        await cluster.claim_is("Ready", "True")
        assert pinned_keys(cluster) == [digest_of(host.gateway_leaf.spki)]


async def test_leaves_of_the_enrolled_host_are_renewed_over_the_same_keys(cluster: OperatorCluster) -> None:
    async with cluster.operator():
        cluster.policy(freshness={"maxAgeSeconds": 20})
        host = await cluster.host(lifetime_seconds=HOUR_SECONDS)
        keys = (host.agent_leaf.spki, host.gateway_leaf.spki)
        cluster.hsm(host)
        await cluster.hsm_is(host, "Ready", "True")
        due = time.time() + 2 * HOUR_SECONDS
        await until("the agent's leaf is new", lambda: host.agent_leaf.not_after > due)
        await until("the gateway's leaf is new", lambda: host.gateway_leaf.not_after > due)
        assert (host.agent_leaf.spki, host.gateway_leaf.spki) == keys
        assert condition_of(cluster.get_hsm(host), "Ready")["status"] == "True"


async def test_stolen_leaf_is_not_renewed(cluster: OperatorCluster) -> None:
    async with cluster.operator():
        cluster.policy(freshness={"maxAgeSeconds": 8})
        host = await cluster.ready()
        thief = cluster.double(host, lifetime_seconds=HOUR_SECONDS)
        thief.agent_port, thief.gateway_port = host.agent_port, host.gateway_port
        await host.stop()
        await thief.start()
        try:
            await cluster.hsm_is(host, "Enrolled", "False", "IdentityConflict")
            await cluster.hsm_is(host, "Attested", "False", "EvidenceExpired")
            due = time.time() + 2 * HOUR_SECONDS
            assert thief.agent_leaf.not_after < due
            assert thief.gateway_leaf.not_after < due
        finally:
            await thief.stop()
