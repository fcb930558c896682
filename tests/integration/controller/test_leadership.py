"""One leads; when it goes, the other takes over in a later term, and gateways follow the later term only."""

from __future__ import annotations

from support.operator_cluster import OperatorCluster
from support.simulated_host import until


async def test_the_second_takes_over_in_a_later_term(cluster: OperatorCluster) -> None:
    elected = {"leader_election": True, "lease_name": cluster.prefix}
    async with cluster.operator(**elected) as second:
        async with cluster.operator(**elected) as first:
            await until("one leads", lambda: first.leads() or second.leads())
            assert first.leads() != second.leads()
            leader, standby = (first, second) if first.leads() else (second, first)
            cluster.policy()
            host = await cluster.ready()
            await until("a view was taken", lambda: host.held.standing is not None)
            term = host.held.term
            assert term == leader.term
            assert not standby.kopf.runs
            assert standby.hosts.all() == ()
        await until("the other leads", lambda: second.leads())
        if second is standby:
            await until("the gateway follows", lambda: host.held.term > term)
            await until("and is open", lambda: host.held.standing.verdict == "Trusted")  # type: ignore[union-attr]
        cluster.claim()
        uid = (await cluster.claim_is("Ready", "True"))["metadata"]["uid"]
        await until("served", lambda: host.served == {uid})
        assert [update.term for update in host.held.taken] == sorted(update.term for update in host.held.taken)
