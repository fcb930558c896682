"""Claims that go: what becomes of keys and seats, and what must not hang."""

from __future__ import annotations

from dataclasses import replace

import pytest

from chatelaine.model.identifiers import ANNOTATION_PAUSED, key_label
from chatelaine.model.reasons import Reason
from chatelaine.reconcile.plan import EventType
from support.world_objects import (
    annotate_claim,
    change_claim,
    condition,
    delete_claim,
    delete_hsm,
    message,
    put_claim,
    stage,
    tamper,
)


class TestDeletion:
    def test_retain_lists_the_keys_before_the_seat_goes(self) -> None:
        world = stage("hsm-a")
        claim = put_claim(world)
        world.settle()
        order: list[str] = []
        world.before_write = lambda action: order.append(type(action).__name__)
        delete_claim(world)
        world.settle()
        assert ("payments", "checkout") not in world.claims
        assert order[:4] == ["DeleteNetworkPolicy", "RetainKeys", "ReleaseAllocation", "RemoveFinalizer"]
        assert key_label(claim.metadata.uid, "signing", 1) in world.hosts["hsm-a"].labels
        world.attest()
        world.settle()
        assert condition(world.hsms["hsm-a"], "Ready") == ("True", "AllReady")
        assert world.secrets == {}

    def test_destroy_destroys_before_the_seat_goes(self) -> None:
        world = stage("hsm-a")
        put_claim(world, reclaimPolicy="Destroy")
        world.settle()
        delete_claim(world)
        world.settle()
        assert world.claims == {}
        assert world.hosts["hsm-a"].labels == set()
        assert world.hsms["hsm-a"].status.retained == []

    def test_destroy_waits_for_an_untrusted_hsm_and_says_so(self) -> None:
        world = stage("hsm-a")
        put_claim(world, reclaimPolicy="Destroy")
        world.settle()
        tamper(world, "hsm-a")
        delete_claim(world)
        world.settle()
        claim = world.claims["payments", "checkout"]
        assert condition(claim, "Ready") == ("False", "Deleting")
        assert "set reclaimPolicy to Retain" in message(claim, "Ready")
        change_claim(world, reclaimPolicy="Retain")
        world.settle()
        assert world.claims == {}

    def test_a_namespace_that_goes_does_not_hang_on_an_untrusted_hsm(self) -> None:
        world = stage("hsm-a")
        put_claim(world, reclaimPolicy="Destroy")
        world.settle()
        tamper(world, "hsm-a")
        world.namespaces["payments"] = replace(world.namespaces["payments"], deleting=True)
        delete_claim(world)
        world.settle()
        assert world.claims == {}
        assert [(k.name, k.version) for k in world.hsms["hsm-a"].status.retained[0].keys] == [("signing", 1)]
        assert (Reason.KEYS_RETAINED, EventType.WARNING) in [(e.reason, e.type) for e in world.events]

    def test_a_namespace_that_goes_does_not_hang_on_a_silent_hsm_even_under_audit(self) -> None:
        world = stage("hsm-a", enforcement="Audit")
        put_claim(world, reclaimPolicy="Destroy")
        world.settle()
        world.hosts["hsm-a"].reachable = False
        world.attest()
        world.namespaces["payments"] = replace(world.namespaces["payments"], deleting=True)
        delete_claim(world)
        world.settle()
        assert world.claims == {}
        assert Reason.KEYS_RETAINED in [event.reason for event in world.events]

    @pytest.mark.parametrize("reclaim", ["Retain", "Destroy"])
    def test_a_claim_whose_hsm_is_gone_can_go(self, reclaim: str) -> None:
        world = stage("hsm-a")
        put_claim(world, reclaimPolicy=reclaim)
        world.settle()
        del world.hsms["hsm-a"]
        delete_claim(world)
        world.settle()
        assert world.claims == {}

    def test_an_allocated_hsm_waits_with_its_deletion(self) -> None:
        world = stage("hsm-a")
        put_claim(world)
        world.settle()
        delete_hsm(world, "hsm-a")
        world.settle()
        assert condition(world.hsms["hsm-a"], "Ready") == ("False", "AllocationsRemain")
        assert "payments/checkout" in message(world.hsms["hsm-a"], "Ready")
        delete_claim(world)
        world.settle()
        assert world.hsms == {}
        assert world.network == {}

    def test_seat_of_a_claim_that_vanished_is_settled(self) -> None:
        world = stage("hsm-a")
        put_claim(world)
        world.settle()
        del world.claims["payments", "checkout"]
        world.attest()
        world.settle()
        item = world.hsms["hsm-a"]
        assert item.status.allocations == []
        assert [(k.name, k.version) for k in item.status.retained[0].keys] == [("signing", 1)]
        assert condition(item, "Ready") == ("True", "AllReady")

    def test_deletion_goes_on_while_paused(self) -> None:
        world = stage("hsm-a")
        put_claim(world)
        world.settle()
        annotate_claim(world, ANNOTATION_PAUSED, "true")
        delete_claim(world)
        world.settle()
        assert world.claims == {}
