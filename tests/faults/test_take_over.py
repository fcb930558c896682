"""An operator that begins, or takes over: what it has not read yet cuts nobody."""

from __future__ import annotations

import time

import pytest

from chatelaine.model.conditions import seconds_of
from support.api_proxy import ApiProxy
from support.operator_cluster import OperatorCluster
from support.waiting import until


@pytest.mark.parametrize("unread", ["attestationpolicies", "hsmclaims", "pods", "namespaces"])
async def test_operator_that_has_not_read_everything_yet_cuts_nobody(
    cluster: OperatorCluster, proxy: ApiProxy, unread: str
) -> None:
    async with cluster.operator():
        # Long enough for the second operator to begin on a busy machine, before the proofs of the first one end.
        cluster.policy(freshness={"maxAgeSeconds": 10}, hsm={"inventory": "Accounted"})
        host = await cluster.ready()
        cluster.claim()
        uid = (await cluster.claim_is("Ready", "True"))["metadata"]["uid"]
        await until("served", lambda: host.served == {uid})
        # The status is stamped every five minutes only; the gateway was told of proofs that came after.
        stamped = seconds_of(cluster.get_hsm(host)["status"]["attestation"]["validUntil"])
        await until("the stamp in the status is old", lambda: time.time() > stamped + 1)
    before = len(host.held.taken)
    proxy.withheld = f"/{unread}"
    async with cluster.operator(kubeconfig=proxy.kubeconfig) as operator:
        known = await until("its Hsm is known", lambda: operator.hosts.named(host.name))
        if unread != "attestationpolicies":
            await until("its host has proven itself", lambda: known.memory.observation.last_round)
        # As many answers of the gateway as telling it something takes, and more.
        for _ in range(5):
            known.link.doubt()
            await known.link.proven_key()
        assert [view.standing.verdict for view in host.held.taken[before:]] == []
        assert host.served == {uid}
        proxy.give_out()
        await until("it is told anew", lambda: len(host.held.taken) > before)
    assert [view.standing.verdict for view in host.held.taken[before:]] == ["Trusted"] * (len(host.held.taken) - before)
    assert host.served == {uid}
