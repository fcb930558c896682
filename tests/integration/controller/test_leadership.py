"""One leads; when it goes, the other takes over in a later term, and gateways follow the later term only."""

from __future__ import annotations

from contextlib import AsyncExitStack

from support.operator_cluster import OperatorCluster
from support.waiting import until


async def test_the_second_takes_over_in_a_later_term(cluster: OperatorCluster) -> None:
    elected = {"leader_election": True, "lease_name": cluster.prefix}
    async with AsyncExitStack() as both:
        leaving = await both.enter_async_context(AsyncExitStack())
        first = await leaving.enter_async_context(cluster.operator(**elected))
        await until("the first leads", lambda: first.leads())
        second = await both.enter_async_context(cluster.operator(**elected))
        cluster.policy()
        host = await cluster.ready()
        await until("a view was taken", lambda: host.held.standing is not None)
        term = host.held.term
        assert term == first.term
        assert not second.leads()
        assert not second.kopf.runs
        assert second.hosts.all() == ()

        await leaving.aclose()
        await until("the second leads", lambda: second.leads())
        await until("the gateway follows", lambda: host.held.term > term)
        await until("and is open", lambda: host.held.standing.verdict == "Trusted")
        assert host.held.term == second.term
        cluster.claim()
        uid = (await cluster.claim_is("Ready", "True"))["metadata"]["uid"]
        await until("served", lambda: host.served == {uid})
    assert [update.term for update in host.held.taken] == sorted(update.term for update in host.held.taken)
