"""What leaves a claim's own policy undecided cuts nobody before the deadline, and trusts nobody after it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from chatelaine.model.material import PolicyMaterial
from chatelaine.model.verdict import Finding, Outcome
from support.world import World
from support.world_hosts import BAD_PCR, GOOD_PCR
from support.world_objects import condition, lean, put_claim, put_policy, stage

MAX_AGE = 30
HOLDS = Finding("ima", Outcome.HOLDS, "ImaFilesAllowed")
OPEN = Finding("ima", Outcome.CANNOT_TELL, "ImaNoPrefix", "the list leads nowhere")
VENDOR = PolicyMaterial(endorsement_roots=(b"a vendor",))


def strict(world: World, **changes: Any) -> None:
    pcrs = {"bank": "Sha256", "values": [{"index": 12, "anyOf": [GOOD_PCR]}]}
    put_policy(world, "strict", tpm={"pcrs": pcrs, "ima": {}}, freshness={"maxAgeSeconds": MAX_AGE}, **changes)


def bound() -> World:
    """The Hsm's own policy asks for less, and is patient."""
    world = stage("hsm-a", freshness={"maxAgeSeconds": 600})
    world.hosts["hsm-a"].what_ran = HOLDS
    strict(world)
    put_claim(world, policyRef={"name": "strict"})
    world.settle()
    world.attest()
    world.settle()
    assert serves(world)
    return world


def serves(world: World) -> bool:
    return world.served("payments", "checkout").serves


def rounds(world: World) -> None:
    world.attest()
    world.settle()


def material_vanishes(world: World) -> None:
    lean(world, PolicyMaterial(missing=("ConfigMap vendors cannot be read now",)), "strict")


def list_leads_nowhere(world: World) -> None:
    world.hosts["hsm-a"].what_ran = OPEN


def is_not_asked_yet(world: World) -> None:
    """New reference values: the last round was not judged by them, and the host does not answer."""
    lean(world, VENDOR, "strict")
    world.hosts["hsm-a"].reachable = False


WAYS = pytest.mark.parametrize("happens", [material_vanishes, list_leads_nowhere, is_not_asked_yet])


@WAYS
def test_claim_is_served_until_what_was_proven_ends(happens: Callable[[World], None]) -> None:
    world = bound()
    happens(world)
    assert serves(world)
    rounds(world)
    assert serves(world)
    assert condition(world.claims["payments", "checkout"], "Attested")[0] == "True"
    world.pass_time(MAX_AGE - 1)
    rounds(world)
    assert serves(world)
    world.pass_time(1)
    rounds(world)
    assert not serves(world)
    assert condition(world.claims["payments", "checkout"], "Attested")[0] != "True"


@WAYS
def test_what_ran_out_is_not_served_again_by_a_restart(happens: Callable[[World], None]) -> None:
    world = bound()
    happens(world)
    rounds(world)
    world.pass_time(MAX_AGE)
    rounds(world)
    world.restart()
    rounds(world)
    assert not serves(world)


@WAYS
def test_nothing_new_is_bound_by_a_policy_that_is_undecided(happens: Callable[[World], None]) -> None:
    world = bound()
    happens(world)
    rounds(world)
    put_claim(world, "second", policyRef={"name": "strict"})
    world.settle()
    assert not world.served("payments", "second").serves


@WAYS
def test_deviation_cuts_at_once_and_is_not_forgotten_by_an_undecided_round(happens: Callable[[World], None]) -> None:
    world = bound()
    world.hosts["hsm-a"].pcrs[12] = BAD_PCR
    rounds(world)
    assert not serves(world)
    world.hosts["hsm-a"].pcrs[12] = GOOD_PCR
    happens(world)
    rounds(world)
    assert not serves(world)


def test_policy_of_the_same_name_that_was_made_anew_inherits_nothing() -> None:
    world = bound()
    material_vanishes(world)
    del world.policies["strict"]
    strict(world)
    material_vanishes(world)
    assert not serves(world)


def test_restart_after_an_edit_of_the_policy_cuts_nobody() -> None:
    """Its digest is not the one under which the claim was bound; that of the host's own policy is not asked for."""
    world = bound()
    lean(world, VENDOR, "strict")
    rounds(world)
    assert serves(world)
    world.restart()
    world.hosts["hsm-a"].reachable = False
    world.settle()
    assert serves(world)
