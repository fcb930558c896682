"""The operator is killed after every single action, and a fresh one must reach the same end."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from chatelaine.model.hsm import Hsm
from chatelaine.reconcile import plan as p
from support.world import Killed, World
from support.world_hosts import BAD_PCR, GOOD_PCR
from support.world_objects import delete_claim, delete_hsm, put_claim, put_hsm, readmit, stage


def binding() -> World:
    world = stage("hsm-a", "hsm-b")
    put_claim(world)
    return world


def enrolling() -> World:
    world = stage("hsm-a")
    put_hsm(world, "hsm-b")
    return world


def cutting() -> World:
    world = binding()
    world.settle()
    world.hosts["hsm-a"].pcrs[7] = BAD_PCR
    world.attest()
    return world


def moving() -> World:
    world = stage("hsm-a", "hsm-b")
    put_claim(world, failover="Rebind")
    world.settle()
    world.hosts["hsm-a"].pcrs[7] = BAD_PCR
    world.attest()
    return world


def readmitting() -> World:
    world = cutting()
    world.settle()
    world.hosts["hsm-a"].pcrs[7] = GOOD_PCR
    readmit(world, "hsm-a")
    return world


def retaining() -> World:
    world = binding()
    world.settle()
    delete_claim(world)
    return world


def destroying() -> World:
    world = stage("hsm-a", "hsm-b")
    put_claim(world, reclaimPolicy="Destroy")
    world.settle()
    delete_claim(world)
    return world


def leaving() -> World:
    world = retaining()
    delete_hsm(world, "hsm-a")
    return world


def namespace_going() -> World:
    world = stage("hsm-a")
    put_claim(world, reclaimPolicy="Destroy")
    world.settle()
    world.hosts["hsm-a"].pcrs[7] = BAD_PCR
    world.attest()
    world.namespaces["payments"] = replace(world.namespaces["payments"], deleting=True)
    delete_claim(world)
    return world


STORIES = [
    binding, enrolling, cutting, moving, readmitting, retaining, destroying, leaving, namespace_going,
]  # fmt: skip


def outcome(world: World) -> Any:
    """All that is left in the world, without counters, times and digests that every round has of its own."""
    claims = {
        key: (
            claim.status.allocation and (claim.status.allocation.hsm.name, claim.status.allocation.sequence),
            [(k.name, [(v.version, v.state, v.hsm.name) for v in k.versions]) for k in claim.status.keys],
            [(c.type, c.status, c.reason) for c in claim.status.conditions],
            claim.metadata.finalizers,
            claim.status.binding and claim.status.binding.name,
        )
        for key, claim in world.claims.items()
    }
    hsms = {name: _hsm(item) for name, item in world.hsms.items()}
    labels = {name: sorted(label.split("/", 2)[2] for label in host.labels) for name, host in world.hosts.items()}
    return claims, hsms, labels, len(world.network), sorted(world.secrets)


def _hsm(item: Hsm) -> Any:
    status = item.status
    return (
        status.attestation and (status.attestation.verdict, status.attestation.epoch.generation),
        len(status.allocations),
        [[(k.name, k.version) for k in kept.keys] for kept in status.retained],
        [(c.type, c.status, c.reason) for c in status.conditions],
        item.metadata.finalizers,
        status.identity is not None,
    )


def kill_after(world: World, count: int) -> None:
    """The next `count` writes happen, then the operator dies."""
    left = [count]

    def guard(action: p.Action) -> None:
        if isinstance(action, p.RequestIdentity | p.RequestEvidence):
            return
        if left[0] == 0:
            raise Killed
        left[0] -= 1

    world.before_write = guard


@pytest.mark.parametrize("story", STORIES, ids=lambda story: story.__name__)
def test_killed_after_every_action_reaches_the_same_end(story: Callable[[], World]) -> None:
    straight = story()
    before = straight.writes
    straight.settle()
    straight.check_settled()
    count = straight.writes - before
    assert count >= 3
    for number in range(count):
        world = story()
        kill_after(world, number)
        with pytest.raises(Killed):
            world.settle()
        world.before_write = lambda action: None
        world.restart()
        world.settle()
        world.check_settled()
        assert outcome(world) == outcome(straight), f"killed after action {number}"


@pytest.mark.parametrize("story", STORIES, ids=lambda story: story.__name__)
def test_every_action_done_twice_changes_nothing(story: Callable[[], World]) -> None:
    straight = story()
    straight.settle()
    world = story()
    apply = world.apply

    def twice(action: p.Action) -> None:
        apply(action)
        if not isinstance(action, p.SetHsmStatus) or action.resource_version is None:
            apply(action)

    world.apply = twice
    world.settle()
    world.check_settled()
    assert outcome(world) == outcome(straight)


def test_two_operators_that_plan_from_the_same_world_bind_once() -> None:
    from chatelaine.reconcile import claim as claim_room

    world = stage("hsm-a", "hsm-b")
    put_claim(world, mode="Exclusive")
    first = claim_room.reconcile(world.claim_snapshot("payments", "checkout"))
    world.hosts["hsm-a"].reachable = False
    world.pass_time(60)
    world.touch("hsm-b")
    second = claim_room.reconcile(world.claim_snapshot("payments", "checkout"))
    world.run(second)
    world.run(first)
    world.hosts["hsm-a"].reachable = True
    world.settle()
    world.check_settled()
    allocation = world.claims["payments", "checkout"].status.allocation
    assert allocation is not None
    assert allocation.sequence == 1
