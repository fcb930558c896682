"""A TPM that lost power without an orderly shutdown: shown to people, and no reason to refuse anything."""

from __future__ import annotations

from support.operator_cluster import OperatorCluster, condition_of
from support.simulated_host import SimulatedHost
from support.waiting import until

UNSAFE = "The TPM says that its clock is not safe"


def said(cluster: OperatorCluster, host: SimulatedHost) -> str:
    attested = condition_of(cluster.get_hsm(host), "Attested")
    return str(attested["message"]) if attested["status"] == "True" else ""


async def test_an_unsafe_clock_is_a_condition_and_not_a_failure(cluster: OperatorCluster) -> None:
    async with cluster.operator():
        cluster.policy()
        host = await cluster.ready()
        assert UNSAFE not in said(cluster, host)
        host.tpm.reset(orderly=False)
        host.changed()
        await until("an unsafe clock is told", lambda: UNSAFE in said(cluster, host))
        await cluster.hsm_is(host, "Ready", "True")
        host.tpm.reset(orderly=True)
        host.changed()
        await until("a safe clock is told", lambda: said(cluster, host) and UNSAFE not in said(cluster, host))
        await cluster.hsm_is(host, "Ready", "True")
