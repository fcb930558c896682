"""Terms count up for gateways, whatever becomes of the Lease; and nobody else's word moves them."""

from __future__ import annotations

from chatelaine.controller.leadership import MAX_TOLD_TERM
from support.operator_cluster import SYSTEM, OperatorCluster, condition_of
from support.simulated_host import SimulatedHost
from support.waiting import until

LEASE = ("coordination.k8s.io/v1", "Lease")


def set_back(cluster: OperatorCluster) -> None:
    """Somebody deletes the Lease: whoever takes it next counts from one, for all that the Lease says."""
    lease = cluster.find(*LEASE, cluster.prefix, SYSTEM)
    assert lease is not None
    cluster.admin.delete({**lease, "apiVersion": LEASE[0], "kind": LEASE[1]})


def counted(metric: object, result: str) -> float:
    return metric.labels(result)._value.get()  # what Prometheus would read


def is_open(host: SimulatedHost) -> bool:
    return host.held.standing is not None and host.held.standing.verdict == "Trusted"


async def test_lease_that_was_deleted_between_two_leaders_leaves_no_gateway_behind(cluster: OperatorCluster) -> None:
    elected = {"leader_election": True, "lease_name": cluster.prefix}
    async with cluster.operator(**elected) as first:
        await until("it leads", lambda: first.leads())
        cluster.policy()
        host = await cluster.ready()
        await until("it is open", lambda: is_open(host))
    set_back(cluster)
    host.held.term += 40
    held = host.held.term
    async with cluster.operator(**elected) as second:
        await until("the gateway follows again", lambda: host.held.term > held)
        assert host.held.term == second.term == held + 1
        assert is_open(host)
        assert counted(second.metrics.outranked, "followed") > 0


async def test_lease_that_is_deleted_under_its_holder_does_not_set_the_term_back(cluster: OperatorCluster) -> None:
    async with cluster.operator(leader_election=True, lease_name=cluster.prefix) as operator:
        await until("it leads", lambda: operator.leads())
        cluster.policy()
        host = await cluster.ready()
        await until("it is open", lambda: is_open(host))
        term = operator.term
        set_back(cluster)
        await until("a later term", lambda: operator.term > term)
        assert operator.world.complete
        cluster.claim()
        uid = (await cluster.claim_is("Ready", "True"))["metadata"]["uid"]
        await until("served", lambda: host.served == {uid})
        assert host.held.term == operator.term


async def test_gateway_that_names_a_term_beyond_belief_harms_nobody_else(cluster: OperatorCluster) -> None:
    async with cluster.operator(leader_election=True, lease_name=cluster.prefix) as operator:
        await until("it leads", lambda: operator.leads())
        cluster.policy()
        liar, honest = await cluster.ready("a"), await cluster.ready("b")
        await until("both are open", lambda: is_open(liar) and is_open(honest))
        term = operator.term
        liar.held.term = MAX_TOLD_TERM + 1
        await until("it was heard", lambda: counted(operator.metrics.outranked, "refused") > 1)
        taken = len(honest.held.taken)
        await until("the other is told the news", lambda: len(honest.held.taken) > taken)
        assert operator.term == term
        assert operator.leads()


async def test_gateway_with_an_unattested_key_moves_no_term(cluster: OperatorCluster) -> None:
    """Its certificate is good, but no quote binds its key; nor may it end the operator by what it says."""
    async with cluster.operator(leader_election=True, lease_name=cluster.prefix) as operator:
        await until("it leads", lambda: operator.leads())
        cluster.policy(freshness={"maxAgeSeconds": 5})
        host = await cluster.ready()
        term = operator.term
        await host.stop()
        host.gateway_leaf = cluster.double(host).gateway_leaf
        host.held.term += 40
        greeted = host.held.greeted
        await host.start()
        await until("the listener was reached", lambda: host.held.greeted > greeted)
        await until(
            "it does not count", lambda: condition_of(cluster.get_hsm(host), "Attested")["reason"] == "EvidenceExpired"
        )
        assert operator.term == term
        assert counted(operator.metrics.outranked, "followed") == 0
