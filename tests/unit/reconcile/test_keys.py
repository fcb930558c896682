"""Versions of a claim's keys: intents, removal, return, destruction, damage."""

from __future__ import annotations

from chatelaine.model.identifiers import ANNOTATION_DESTROY, key_label
from chatelaine.model.keys import KeyState
from chatelaine.model.reasons import Reason
from chatelaine.reconcile import claim as claim_room
from chatelaine.reconcile.claim_snapshot import KeyFault
from chatelaine.reconcile.plan import EnsureKey, SetClaimStatus
from support.world_objects import (
    annotate_claim,
    change_claim,
    condition,
    put_claim,
    stage,
    versions,
)


class TestKeys:
    def test_intent_stands_before_the_key_is_made(self) -> None:
        world = stage("hsm-a")
        put_claim(world)
        world.run(claim_room.reconcile(world.claim_snapshot("payments", "checkout")))
        plan = claim_room.reconcile(world.claim_snapshot("payments", "checkout"))
        kinds = [type(action) for action in plan.actions]
        assert kinds.index(SetClaimStatus) < kinds.index(EnsureKey)

    def test_removed_key_is_deactivated_and_comes_back_the_same(self) -> None:
        world = stage("hsm-a")
        claim = put_claim(world)
        world.settle()
        label = key_label(claim.metadata.uid, "signing", 1)
        change_claim(world, keys=[{"name": "other", "type": "EcP256", "usages": ["Sign"]}], clients=None)
        world.settle()
        assert [(v.state, v.version) for v in versions(world)] == [(KeyState.DEACTIVATED, 1)]
        assert label in world.hosts["hsm-a"].labels
        change_claim(world, keys=[{"name": "signing", "type": "EcP256", "usages": ["Sign"]}])
        world.settle()
        assert [(v.state, v.version) for v in versions(world)] == [(KeyState.ACTIVE, 1)]

    def test_destroy_needs_reclaim_policy_annotation_and_a_deactivated_version(self) -> None:
        world = stage("hsm-a")
        claim = put_claim(world)
        world.settle()
        label = key_label(claim.metadata.uid, "signing", 1)
        annotate_claim(world, ANNOTATION_DESTROY, "signing/1")
        world.settle()
        assert label in world.hosts["hsm-a"].labels
        change_claim(world, reclaimPolicy="Destroy")
        world.settle()
        assert label in world.hosts["hsm-a"].labels
        change_claim(world, keys=None, clients=None)
        world.settle()
        assert label not in world.hosts["hsm-a"].labels
        assert [v.state for v in versions(world)] == [KeyState.DESTROYED]
        assert Reason.KEY_DESTROYED in [event.reason for event in world.events]

    def test_key_of_another_type_under_the_same_name_stalls(self) -> None:
        world = stage("hsm-a")
        put_claim(world)
        world.settle()
        change_claim(world, keys=[{"name": "signing", "type": "Rsa3072", "usages": ["Sign"]}])
        world.settle()
        assert condition(world.claims["payments", "checkout"], "KeysReady") == ("False", "KeyTypeChanged")
        assert condition(world.claims["payments", "checkout"], "Stalled") == ("True", "KeyTypeChanged")

    def test_damaged_key_is_shown(self) -> None:
        world = stage("hsm-a")
        claim = put_claim(world)
        world.settle()
        label = key_label(claim.metadata.uid, "signing", 1)
        world.key_faults[label] = KeyFault(damaged=True, message="the public half is missing")
        world.settle()
        assert condition(world.claims["payments", "checkout"], "KeysReady") == ("False", "KeyDamaged")
        world.key_faults[label] = KeyFault(damaged=False, message="slow")
        world.settle()
        assert condition(world.claims["payments", "checkout"], "KeysReady") == ("True", "KeysActive")
