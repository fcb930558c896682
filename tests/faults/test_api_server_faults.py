"""An API server that refuses, forgets, hangs up, crawls or is away: all recovers by itself, nothing is doubled."""

from __future__ import annotations

import asyncio

from support.api_proxy import ApiProxy
from support.operator_cluster import OperatorCluster, condition_of
from support.simulated_host import SimulatedHost
from support.waiting import until


async def bound_once(cluster: OperatorCluster, host: SimulatedHost, name: str = "c1") -> None:
    claim = await cluster.claim_is("Ready", "True", name=name)
    seats = [seat["claimUid"] for seat in cluster.get_hsm(host)["status"]["allocations"]]
    assert seats.count(claim["metadata"]["uid"]) == 1
    assert claim["status"]["allocation"]["sequence"] == 1


async def test_conflicts_are_replayed(cluster: OperatorCluster, proxy: ApiProxy) -> None:
    async with cluster.operator(kubeconfig=proxy.kubeconfig):
        cluster.policy()
        host = await cluster.ready()
        proxy.fail(409, 6, method="PATCH", path="/hsms/")
        proxy.fail(409, 4, method="PATCH", path="/hsmclaims/")
        cluster.claim()
        await bound_once(cluster, host)
        assert proxy.faults[409] == 10


async def test_too_many_requests_are_waited_out(cluster: OperatorCluster, proxy: ApiProxy) -> None:
    async with cluster.operator(kubeconfig=proxy.kubeconfig):
        cluster.policy()
        host = await cluster.ready()
        proxy.fail(429, 5, method="PATCH", path="/hsmclaims/", retry_after_seconds=1)
        cluster.claim()
        await bound_once(cluster, host)
        assert proxy.faults[429] == 5


async def test_server_errors_and_lost_connections_are_tried_again(cluster: OperatorCluster, proxy: ApiProxy) -> None:
    async with cluster.operator(kubeconfig=proxy.kubeconfig):
        cluster.policy()
        host = await cluster.ready()
        proxy.fail(500, 3, method="PATCH", path="/hsms/")
        proxy.fail(0, 3, method="PATCH", path="/hsmclaims/")
        cluster.claim()
        await bound_once(cluster, host)
        assert (proxy.faults[500], proxy.faults[0]) == (3, 3)


async def test_watches_that_are_cut_or_expired_are_taken_up_again(cluster: OperatorCluster, proxy: ApiProxy) -> None:
    async with cluster.operator(kubeconfig=proxy.kubeconfig) as operator:
        cluster.policy()
        host = await cluster.ready()
        proxy.fail(410, 1, method="GET", path="/pods")
        proxy.fail(410, 1, method="GET", path="/hsmclaims", watches=True)
        assert proxy.cut_watches() >= 8
        # What happens while nobody watches is seen afterwards.
        cluster.claim()
        await bound_once(cluster, host)
        await until("every watch was expired", lambda: proxy.faults[410] == 2)
        cluster.claim("c2")
        await bound_once(cluster, host, "c2")
        assert operator.world.complete


async def test_a_slow_server_only_slows(cluster: OperatorCluster, proxy: ApiProxy) -> None:
    async with cluster.operator(kubeconfig=proxy.kubeconfig):
        cluster.policy()
        host = await cluster.ready()
        proxy.delay_seconds = 0.3
        cluster.claim()
        await bound_once(cluster, host)
        # Seat, finalizer, allocation and keys were all written through the delay.
        assert proxy.delayed["PATCH hsms/status"] >= 1
        assert proxy.delayed["PATCH hsmclaims"] >= 1
        assert proxy.delayed["PATCH hsmclaims/status"] >= 2


async def test_while_the_server_is_away_gateways_stay_fresh_and_binding_waits(
    cluster: OperatorCluster, proxy: ApiProxy
) -> None:
    elected = {"leader_election": True, "lease_name": cluster.prefix}
    async with cluster.operator(kubeconfig=proxy.kubeconfig, **elected) as operator:
        cluster.policy(freshness={"maxAgeSeconds": 6})
        host = await cluster.ready()
        cluster.claim()
        uid = (await cluster.claim_is("Ready", "True"))["metadata"]["uid"]
        await until("served", lambda: host.served == {uid})
        await proxy.stop()
        await until("this operator does not lead", lambda: not operator.leads())
        standing = host.held.standing
        assert standing is not None
        first = standing.valid_until
        cluster.claim("c2")
        # Longer than a verdict lives: without fresh ones the gateway would have shut by now.
        await until("fresh verdicts come all the same", lambda: host.held.standing.valid_until > first + 7)
        assert host.served == {uid}
        assert "status" not in cluster.get_claim("c2")

        # What is found while the server is away is acted on.
        host.tamper()
        await until("cut", lambda: host.held.standing.verdict == "Untrusted")
        assert cluster.get_hsm(host)["status"]["attestation"]["verdict"] == "Trusted"
        await proxy.start()
        await cluster.hsm_is(host, "Attested", "False", "EvidenceRefuted")
        await cluster.claim_is("Bound", "False", name="c2")


async def test_two_operators_without_a_lease_never_bind_a_place_twice(cluster: OperatorCluster) -> None:
    seen: list[tuple[str, list[str]]] = []

    async def look(hosts: list[SimulatedHost], stop: asyncio.Event) -> None:
        while not stop.is_set():
            for host in hosts:
                seats = cluster.get_hsm(host).get("status", {}).get("allocations", [])
                seen.append((host.name, [seat["claimUid"] for seat in seats]))
            await asyncio.sleep(0.02)

    async with cluster.operator(), cluster.operator():
        cluster.policy()
        hosts = [await cluster.ready(name, capacity={"claims": 2}) for name in ("a", "b")]
        stop = asyncio.Event()
        looking = asyncio.create_task(look(hosts, stop))
        names = [f"c{number}" for number in range(6)]
        for name in names:
            cluster.claim(name, binding=None)

        def settled() -> bool:
            found = [condition_of(cluster.get_claim(name), "Ready") for name in names]
            places = [ready.get("reason") for ready in found if ready.get("status") == "False"]
            return sum(ready.get("status") == "True" for ready in found) == 4 and places == ["NoSuitableHsm"] * 2

        await until("four places are taken", settled, seconds=60)
        stop.set()
        await looking
    assert all(len(uids) <= 2 and len(set(uids)) == len(uids) for _, uids in seen)
    final = [uid for host in hosts for uid in
             (seat["claimUid"] for seat in cluster.get_hsm(host)["status"]["allocations"])]  # fmt: skip
    assert len(final) == len(set(final)) == 4
    active = [
        version["hsm"]["name"]
        for name in names
        for key in cluster.get_claim(name)["status"].get("keys", [])
        for version in key["versions"]
        if version["state"] == "Active"
    ]
    assert sorted(active) == [hosts[0].name] * 2 + [hosts[1].name] * 2
