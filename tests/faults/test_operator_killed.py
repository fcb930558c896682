"""kill -9 after every step of binding, revoking and deleting: a fresh operator ends where none was killed.

Steps are actions of plans and views that gateways took. Events are not compared: they are best effort (docs/adr/0011).
"""

from __future__ import annotations

import copy
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from support.operator_cluster import API, OperatorCluster
from support.simulated_host import SimulatedHost
from support.waiting import until

MOST = 40
"""More steps than any of these stories takes: a run that never rests is a fault too."""

Story = Callable[[OperatorCluster, SimulatedHost], Awaitable[None]]


async def killed_at_every_step(
    cluster: OperatorCluster, before: Story, event: Story, after: Story
) -> list[dict[str, Any]]:
    """For n = 1, 2, …: a new host and claim, `event`, an operator that dies after n steps, a fresh one, the world.

    The last world is that of the operator that rested before its nth step: the uninterrupted one.
    """
    worlds = []
    for number in range(1, MOST):
        async with cluster.operator() as operator:
            host = await cluster.host(f"h{number}")
            cluster.hsm(host)
            await cluster.hsm_is(host, "Ready", "True")
            await before(cluster, host)
            await operator.queue.settled()
        await event(cluster, host)
        died = await cluster.mortal(number)
        async with cluster.operator() as operator:
            await after(cluster, host)
            await operator.queue.settled()
            worlds.append(world(cluster, host))
        await forget(cluster, host)
        if died is None:
            assert number > 2, "nothing was ever interrupted"
            return worlds
    raise AssertionError("the operator never rests")


def world(cluster: OperatorCluster, host: SimulatedHost) -> dict[str, Any]:
    """What stands there, without names, uids, digests and times that differ from run to run."""
    hsm, claim = cluster.get_hsm(host), cluster.get_claim()
    status = copy.deepcopy(claim.get("status", {}))
    secret = secret_of_c1(cluster)
    policies = cluster.list(f"/apis/networking.k8s.io/v1/namespaces/{cluster.namespace}/networkpolicies")
    return {
        "claim": bool(claim),
        "finalizers": claim.get("metadata", {}).get("finalizers"),
        "sequence": status.get("allocation", {}).get("sequence"),
        "versions": [
            [(version["version"], version["state"]) for version in key["versions"]] for key in status.get("keys", [])
        ],
        "conditions": [(c["type"], c["status"], c["reason"]) for c in status.get("conditions", [])],
        "hsm conditions": [(c["type"], c["status"], c["reason"]) for c in hsm["status"]["conditions"]],
        "verdict": hsm["status"]["attestation"]["verdict"],
        "seats": len(hsm["status"].get("allocations", [])),
        "retained": [[(k["name"], k["version"]) for k in kept["keys"]] for kept in hsm["status"].get("retained", [])],
        "keys in the token": len(host.pairs),
        "keys ever made": len(host.made),
        "secret": sorted(secret["data"]) if secret else None,
        "policies": sorted(str(policy["spec"]) for policy in policies),
        "served": len(host.served),
    }


def secret_of_c1(cluster: OperatorCluster) -> dict[str, Any] | None:
    return cluster.find("v1", "Secret", "c1-hsm", cluster.namespace)


async def forget(cluster: OperatorCluster, host: SimulatedHost) -> None:
    """Take claim and Hsm away for the next turn."""
    for found, kind in ((cluster.get_claim(), "HsmClaim"), (cluster.get_hsm(host), "Hsm")):
        if found:
            found |= {"apiVersion": API, "kind": kind}
            if found["metadata"].get("finalizers"):
                cluster.admin.merge(found, {"metadata": {"finalizers": []}})
            cluster.admin.delete(found)
    await until("claim and Hsm are gone", lambda: not cluster.get_claim() and not cluster.get_hsm(host))
    secret = secret_of_c1(cluster)
    if secret:
        cluster.admin.delete(secret)
    await host.stop()


def claim_on(cluster: OperatorCluster, host: SimulatedHost, **spec: Any) -> None:
    cluster.claim(selector=None, hsmRef={"name": host.name}, **spec)


async def nothing(_cluster: OperatorCluster, _host: SimulatedHost) -> None:
    """No step here."""


async def bound(cluster: OperatorCluster, host: SimulatedHost) -> None:
    claim_on(cluster, host)
    found = await cluster.claim_is("Ready", "True")
    await until("served", lambda: host.served == {found["metadata"]["uid"]})


def all_equal(worlds: list[dict[str, Any]]) -> None:
    for number, one in enumerate(worlds, 1):
        assert one == worlds[-1], f"killed after step {number}"


async def test_kill_between_every_two_actions_of_binding(cluster: OperatorCluster) -> None:
    cluster.policy()

    async def ask(cluster: OperatorCluster, host: SimulatedHost) -> None:
        claim_on(cluster, host)

    async def ready(cluster: OperatorCluster, host: SimulatedHost) -> None:
        found = await cluster.claim_is("Ready", "True")
        await until("served", lambda: host.served == {found["metadata"]["uid"]})
        await until("the Secret is there", lambda: secret_of_c1(cluster))

    worlds = await killed_at_every_step(cluster, nothing, ask, ready)
    all_equal(worlds)
    assert worlds[-1]["keys ever made"] == 1
    assert worlds[-1]["seats"] == 1


async def test_kill_between_every_two_actions_of_revoking(cluster: OperatorCluster) -> None:
    cluster.policy()

    async def tamper(_cluster: OperatorCluster, host: SimulatedHost) -> None:
        host.tamper()

    async def cut(cluster: OperatorCluster, host: SimulatedHost) -> None:
        await cluster.hsm_is(host, "Attested", "False", "EvidenceRefuted")
        await cluster.claim_is("Attested", "False", "EvidenceRefuted")
        await until("not served", lambda: not host.served and host.held.standing.verdict == "Untrusted")

    worlds = await killed_at_every_step(cluster, bound, tamper, cut)
    all_equal(worlds)
    assert worlds[-1]["verdict"] == "Untrusted"


@pytest.mark.parametrize("reclaim", ["Retain", "Destroy"])
async def test_kill_between_every_two_actions_of_deleting(cluster: OperatorCluster, reclaim: str) -> None:
    cluster.policy()

    async def bind(cluster: OperatorCluster, host: SimulatedHost) -> None:
        claim_on(cluster, host, reclaimPolicy=reclaim)
        await cluster.claim_is("Ready", "True")

    async def delete(cluster: OperatorCluster, _host: SimulatedHost) -> None:
        cluster.admin.delete(cluster.get_claim() | {"apiVersion": API, "kind": "HsmClaim"})

    async def gone(cluster: OperatorCluster, host: SimulatedHost) -> None:
        await until("the claim is gone", lambda: not cluster.get_claim())
        await until("the seat is free", lambda: not cluster.get_hsm(host)["status"].get("allocations"))
        await until("not served", lambda: not host.held.claims)
        # The cluster's garbage collector takes it, and looks for new kinds every 30 s only.
        await until("the Secret is gone", lambda: not secret_of_c1(cluster), seconds=90)

    worlds = await killed_at_every_step(cluster, bind, delete, gone)
    all_equal(worlds)
    assert worlds[-1]["keys in the token"] == (1 if reclaim == "Retain" else 0)
