"""What a person sees of the in-memory world: its objects, and nothing of the operator's memory."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from chatelaine.diagnosis.check import Check, Diagnosis
from chatelaine.diagnosis.claim import explain_claim
from chatelaine.diagnosis.hsm import explain_hsm
from chatelaine.diagnosis.names import Names
from chatelaine.diagnosis.policy import explain_policy
from chatelaine.diagnosis.sight import LeaseSight, Sight
from support.world import World

NAMES = Names()


def sight_of(world: World, **changes: Any) -> Sight:
    """Everything readable, and an operator that leads."""
    sight = Sight(
        now=world.now,
        claims=tuple(world.claims.values()),
        hsms=tuple(world.hsms[name] for name in sorted(world.hsms)),
        policies=tuple(world.policies.values()),
        namespaces={name: facts.labels for name, facts in world.namespaces.items()},
        lease=LeaseSight("operator-1", world.now - 1, 3),
        skew_seconds=0.0,
    )
    return replace(sight, **changes)


def of_claim(world: World, name: str = "checkout", namespace: str = "payments", **changes: Any) -> Diagnosis:
    """Why the claim is as it is."""
    return explain_claim(world.claims[namespace, name], sight_of(world, **changes), NAMES)


def of_hsm(world: World, name: str = "hsm-a", **changes: Any) -> Diagnosis:
    """Why the Hsm is as it is."""
    return explain_hsm(world.hsms[name], sight_of(world, **changes), NAMES)


def of_policy(world: World, name: str = "baseline", **changes: Any) -> Diagnosis:
    """Why the policy is as it is."""
    return explain_policy(world.policies[name], sight_of(world, **changes), NAMES)


def check_of(diagnosis: Diagnosis, name: str) -> Check:
    """One check of a diagnosis, its parts included."""
    return next(found for check in diagnosis.checks for found in check.all() if found.name == name)


def commands(check: Check) -> list[str]:
    """Every command that its advice names."""
    return [command for advice in check.advice for command in advice.commands]


def deciding(diagnosis: Diagnosis) -> tuple[str, str, str]:
    """State, and name and reason of the check that decides."""
    check = diagnosis.deciding
    assert check is not None
    return diagnosis.state.value, check.name, check.reason
