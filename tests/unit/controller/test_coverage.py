"""What quotes of a host cover: policies of claims that sit there or wait, not of those that left."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from chatelaine.controller.coverage import Coverage
from chatelaine.controller.emitted import EmittedObjects
from chatelaine.controller.hosts import Surroundings
from chatelaine.controller.leadership import Alone
from chatelaine.controller.policies import PolicyBook
from chatelaine.controller.queue import WorkQueue
from chatelaine.controller.reactions import Reactions
from chatelaine.controller.reference_folder import ReferenceFolder
from chatelaine.controller.registry import HostRegistry
from chatelaine.controller.snapshots import Snapshots
from chatelaine.controller.source import Views
from chatelaine.controller.world import World
from chatelaine.kube.port import ObjectKey
from chatelaine.telemetry.metrics import OperatorMetrics
from support.quiet_server import QuietServer

HSM = {
    "metadata": {"name": "hsm-a", "uid": "uid-a", "resourceVersion": "2"},
    "spec": {
        "token": "pkcs11:token=a",
        "gateway": {"external": {"host": "127.0.0.1", "port": 1}},
        "agent": {"host": "127.0.0.1", "port": 1},
        "attestation": {"policyRef": {"name": "base"}, "intervalSeconds": 60},
    },
}


def policy(name: str) -> dict[str, Any]:
    pcrs = {"bank": "Sha256", "values": [{"index": 7, "anyOf": ["0" * 64]}]}
    return {
        "metadata": {"name": name, "uid": f"uid-{name}", "resourceVersion": "2"},
        "spec": {"freshness": {"maxAgeSeconds": 30}, "tpm": {"pcrs": pcrs}},
    }


def claim(name: str, policy: str, version: int, *, bound: bool = False) -> dict[str, Any]:
    met = {"type": "Bound", "status": "True", "reason": "Bound", "lastTransitionTime": "2026-01-01T00:00:00Z"}
    return {
        "metadata": {"namespace": "payments", "name": name, "uid": f"uid-{name}", "resourceVersion": str(version)},
        "spec": {"selector": {"matchLabels": {"a": "b"}}, "policyRef": {"name": policy}},
        "status": {"conditions": [met] if bound else []},
    }


@pytest.fixture
async def parts() -> AsyncIterator[tuple[World, HostRegistry, Coverage]]:
    metrics = OperatorMetrics()
    reactions = Reactions(metrics, lambda: 0.0)
    world = World(QuietServer(), reactions, lambda: 0.0, "system")
    book = PolicyBook(world, "system", ReferenceFolder(None))
    hosts = HostRegistry(world)
    snapshots = Snapshots(world, book, hosts, EmittedObjects(world), operator=None, bundle=lambda: "", wall=lambda: 0.0)
    coverage = Coverage(world, book, hosts, snapshots)

    async def nothing(*_: object) -> None:
        await asyncio.sleep(0)

    queue: WorkQueue[ObjectKey] = WorkQueue(nothing, failed=lambda *_: None, clock=lambda: 0.0, jitter=lambda: 0.0)
    around = Surroundings(
        hsm=world.hsms.typed, policies=coverage.policies, accounted=coverage.accounted, addresses=lambda _: (),
        observed=reactions.observed, context=lambda: None, renew=nothing, clock=lambda: 0.0, wall=lambda: 0.0,
        jitter=lambda: 0.5, metrics=metrics,
    )  # fmt: skip
    hosts.bind(around, Views(world, book, snapshots, Alone(), lambda: 0.0))
    reactions.bind(queue, world, book, hosts, snapshots)
    for name in ("base", "strict", "stricter"):
        world.policies.took(policy(name))
    world.hsms.took(HSM)
    yield world, hosts, coverage
    await hosts.close()


def names(coverage: Coverage) -> list[str]:
    return [policy.metadata.name for policy in coverage.policies("hsm-a")]


async def test_policies_of_claims_that_wait_are_covered(parts: tuple[World, HostRegistry, Coverage]) -> None:
    world, hosts, coverage = parts
    world.claims.took(claim("one", "strict", 3))
    hosts.cover("hsm-a", ("strict",))
    assert names(coverage) == ["base", "strict"]


async def test_two_claims_that_wait_do_not_take_turns(parts: tuple[World, HostRegistry, Coverage]) -> None:
    world, hosts, coverage = parts
    for name in ("strict", "stricter"):
        world.claims.took(claim(name, name, 3))
        hosts.cover("hsm-a", (name,))
    assert names(coverage) == ["base", "strict", "stricter"]


@pytest.mark.parametrize("end", ["deleted", "bound elsewhere", "names another policy"])
async def test_claim_that_left_is_not_quoted_for_any_more(
    parts: tuple[World, HostRegistry, Coverage], end: str
) -> None:
    world, hosts, coverage = parts
    world.claims.took(claim("one", "strict", 3))
    hosts.cover("hsm-a", ("strict",))
    if end == "deleted":
        world.claims.gone(claim("one", "strict", 4))
    elif end == "bound elsewhere":
        world.claims.took(claim("one", "strict", 4, bound=True))
    else:
        world.claims.took(claim("one", "stricter", 4))
    assert names(coverage) == ["base"]
    host = hosts.named("hsm-a")
    assert host is not None
    assert host.extra_policies == set()


async def test_nothing_is_covered_while_the_hsms_own_policy_is_missing(
    parts: tuple[World, HostRegistry, Coverage],
) -> None:
    world, _, coverage = parts
    world.policies.gone(policy("base"))
    assert names(coverage) == []
