from __future__ import annotations

from dataclasses import replace

import pytest

from chatelaine.model.claim import KeyVersionStatus
from chatelaine.model.hsm import Mode
from chatelaine.model.identifiers import ANNOTATION_DESTROY, ANNOTATION_PAUSED, LABEL_EGRESS, key_label
from chatelaine.model.keys import KeyState
from chatelaine.model.reasons import Reason
from chatelaine.reconcile import claim as claim_room
from chatelaine.reconcile.plan import EnsureKey, EventType, RequestEvidence, SetClaimStatus
from chatelaine.reconcile.snapshot import KeyFault, NamespaceFacts
from support.world import World
from support.world_hosts import BAD_PCR, GOOD_PCR
from support.world_objects import (
    annotate_claim,
    change_claim,
    change_hsm,
    condition,
    delete_claim,
    delete_hsm,
    message,
    policy_spec,
    put_claim,
    put_hsm,
    put_policy,
    readmit,
    stage,
    uid_of,
)


def bound_to(world: World, name: str = "checkout") -> str | None:
    allocation = world.claims["payments", name].status.allocation
    return allocation.hsm.name if allocation is not None else None


def versions(world: World, key: str = "signing", name: str = "checkout") -> list[KeyVersionStatus]:
    return next((k.versions for k in world.claims["payments", name].status.keys if k.name == key), [])


def tamper(world: World, name: str) -> None:
    world.hosts[name].pcrs[7] = BAD_PCR
    world.attest()
    world.settle()


class TestBinding:
    def test_a_claim_binds_and_everything_of_it_appears(self) -> None:
        world = stage()
        put_claim(world)
        world.settle()
        claim = world.claims["payments", "checkout"]
        assert condition(claim, "Ready") == ("True", "AllReady")
        assert [v.state for v in versions(world)] == [KeyState.ACTIVE]
        assert world.secrets["payments", "checkout-hsm"][0] == claim.metadata.uid
        assert world.served("payments", "checkout").serves
        assert [c.type for c in claim.status.conditions] == [
            "Bound", "Attested", "KeysReady", "NetworkReady", "Ready", "Stalled", "Paused",
        ]  # fmt: skip
        assert [ref.name for ref in claim.status.network_policies] == [f"chat-{claim.metadata.uid[:13]}-in"]

    def test_a_claim_without_keys_is_bound_by_one_status_write(self) -> None:
        world = stage()
        put_claim(world, keys=None, clients=None, binding=None)
        writes: list[str] = []
        world.before_write = lambda action: writes.append(type(action).__name__)
        world.settle()
        assert [name for name in writes if not name.startswith("Request")] == [
            "AddFinalizer", "AllocateHsm", "SetClaimStatus",
        ]  # fmt: skip
        assert condition(world.claims["payments", "checkout"], "KeysReady") == ("True", "NoKeys")

    def test_most_free_capacity_then_fewest_claims_then_name(self) -> None:
        world = stage("hsm-a", "hsm-b", "hsm-c")
        change_hsm(world, "hsm-b", capacity={"claims": 101})
        world.settle()
        for number in range(4):
            put_claim(world, f"c{number}")
            world.settle()
        assert [bound_to(world, f"c{n}") for n in range(4)] == ["hsm-b", "hsm-a", "hsm-c", "hsm-b"]

    def test_exclusive_wants_an_empty_hsm_and_keeps_it(self) -> None:
        world = stage()
        put_claim(world, "first")
        world.settle()
        put_claim(world, "alone", mode="Exclusive")
        world.settle()
        put_claim(world, "late")
        world.settle()
        assert (bound_to(world, "first"), bound_to(world, "alone"), bound_to(world, "late")) == (
            "hsm-a", "hsm-b", "hsm-a",
        )  # fmt: skip
        put_claim(world, "another", mode="Exclusive")
        world.settle()
        assert bound_to(world, "another") is None
        text = message(world.claims["payments", "another"], "Bound")
        assert "hsm-a: has 2 claims, the claim wants it alone" in text

    def test_nobody_sits_beside_an_exclusive_claim(self) -> None:
        world = stage("hsm-a")
        put_claim(world, "alone", mode="Exclusive")
        world.settle()
        put_claim(world, "late")
        world.settle()
        assert bound_to(world, "late") is None
        assert "taken exclusively" in message(world.claims["payments", "late"], "Bound")

    def test_nothing_is_started_on_an_hsm_that_does_not_answer(self) -> None:
        world = stage("hsm-a")
        world.hosts["hsm-a"].reachable = False
        world.attest()
        put_claim(world)
        world.settle()
        assert condition(world.claims["payments", "checkout"], "Bound") == ("False", "WaitingForAttestation")
        assert "hsm-a: does not answer" in message(world.claims["payments", "checkout"], "Bound")

    def test_nothing_is_started_on_a_gateway_for_which_no_quote_vouches(self) -> None:
        world = stage("hsm-a")
        world.unbound_gateways.add("hsm-a")
        put_claim(world)
        world.settle()
        assert condition(world.claims["payments", "checkout"], "Bound") == ("False", "WaitingForAttestation")
        world.unbound_gateways.clear()
        world.settle()
        assert bound_to(world) == "hsm-a"

    def test_named_hsm_is_the_only_one(self) -> None:
        world = stage()
        put_claim(world, selector=None, hsmRef={"name": "hsm-b"})
        world.settle()
        assert bound_to(world) == "hsm-b"

    @pytest.mark.parametrize(
        ("change", "text"),
        [
            ({"cordoned": "Enabled"}, "hsm-a: is cordoned"),
            ({"capacity": {"claims": 0}}, "hsm-a: is full: 0 of 0 claims"),
            ({"offers": {"keyTypes": ["Rsa3072"], "maxSensitivity": "Restricted"}}, "offers Rsa3072"),
            ({"offers": {}}, "is offered for sensitivity up to Public, the claim asks for Internal"),
            ({"offers": {"compliance": ["CommonCriteria"], "maxSensitivity": "Restricted"}}, "Fips140_3Level3"),
        ],
    )
    def test_the_failing_requirement_is_named(self, change: dict[str, object], text: str) -> None:
        world = stage("hsm-a")
        change_hsm(world, "hsm-a", **change)
        put_claim(world, requirements={"sensitivity": "Internal", "compliance": ["Fips140_3Level3"]})
        world.settle()
        claim = world.claims["payments", "checkout"]
        assert condition(claim, "Bound") == ("False", "NoSuitableHsm")
        assert text in message(claim, "Bound")
        assert world.hsms["hsm-a"].status.allocations == []

    def test_the_most_promising_hsm_comes_first_and_the_message_is_bounded(self) -> None:
        world = stage(*(f"hsm-{n:02}" for n in range(12)))
        for name in world.hsms:
            change_hsm(world, name, cordoned="Enabled" if name != "hsm-07" else None, capacity={"claims": 0})
        put_claim(world)
        world.settle()
        text = message(world.claims["payments", "checkout"], "Bound")
        assert text.startswith("hsm-07: is full")
        assert text.endswith("and 6 more.")

    def test_compliance_comes_from_the_table_and_offers_only_narrow_it(self) -> None:
        world = stage("hsm-a")
        change_hsm(
            world, "hsm-a", offers={"compliance": ["Fips140_3Level3", "Invented"], "maxSensitivity": "Restricted"}
        )
        put_claim(world, "real", requirements={"compliance": ["Fips140_3Level3"]})
        put_claim(world, "invented", requirements={"compliance": ["Invented"]})
        put_claim(world, "narrowed", requirements={"compliance": ["CommonCriteria"]})
        world.settle()
        assert [bound_to(world, name) for name in ("real", "invented", "narrowed")] == ["hsm-a", None, None]

    def test_waits_for_attestation_and_asks_for_it(self) -> None:
        world = stage("hsm-a")
        world.hosts["hsm-a"].reachable = False
        world.pass_time(60)
        world.settle()
        put_claim(world)
        plan = claim_room.reconcile(world.claim_snapshot("payments", "checkout"))
        asked = [action for action in plan.actions if isinstance(action, RequestEvidence)]
        assert [(action.hsm, action.urgent) for action in asked] == [("hsm-a", True)]
        world.settle()
        assert condition(world.claims["payments", "checkout"], "Bound") == ("False", "WaitingForAttestation")

    def test_claim_bound_to_the_last_seat_of_two_gets_refused_by_the_committer_and_moves_on(self) -> None:
        world = stage()
        for name in world.hsms:
            change_hsm(world, name, capacity={"claims": 1})
        put_claim(world, "one")
        put_claim(world, "two")
        plans = [claim_room.reconcile(world.claim_snapshot("payments", name)) for name in ("one", "two")]
        for plan in plans:
            world.run(plan)
        world.settle()
        assert {bound_to(world, "one"), bound_to(world, "two")} == {"hsm-a", "hsm-b"}


class TestOwnPolicy:
    def test_the_claims_own_policy_must_hold_too(self) -> None:
        world = stage("hsm-a")
        put_policy(world, "strict", tpm={"pcrs": {"bank": "Sha256", "values": [{"index": 12, "anyOf": [GOOD_PCR]}]}})
        put_claim(world, policyRef={"name": "strict"})
        world.settle()
        allocation = world.claims["payments", "checkout"].status.allocation
        assert allocation is not None
        assert [policy.name for policy in allocation.policies] == ["baseline", "strict"]
        world.hosts["hsm-a"].pcrs[12] = BAD_PCR
        world.attest()
        world.settle()
        claim = world.claims["payments", "checkout"]
        assert condition(claim, "Attested") == ("False", "EvidenceRefuted")
        assert condition(world.hsms["hsm-a"], "Attested") == ("True", "EvidenceHolds")
        world.check_settled()
        world.hosts["hsm-a"].pcrs[12] = GOOD_PCR
        world.attest()
        world.settle()
        assert world.served("payments", "checkout").serves

    def test_own_policy_that_does_not_exist_binds_nothing(self) -> None:
        world = stage("hsm-a")
        put_claim(world, policyRef={"name": "absent"})
        world.settle()
        assert bound_to(world) is None
        assert condition(world.claims["payments", "checkout"], "Ready") == ("False", "PolicyNotFound")

    def test_own_policy_in_another_bank_is_named(self) -> None:
        world = stage("hsm-a")
        put_policy(world, "other", tpm={"pcrs": {"bank": "Sha384", "values": [{"index": 0, "anyOf": ["0" * 96]}]}})
        put_claim(world, policyRef={"name": "other"})
        world.settle()
        assert "is quoted in bank Sha256, policy other needs Sha384" in message(
            world.claims["payments", "checkout"], "Bound"
        )

    def test_restart_does_not_cut_a_claim_with_its_own_policy(self) -> None:
        world = stage("hsm-a")
        put_policy(world, "strict")
        put_claim(world, policyRef={"name": "strict"})
        world.settle()
        world.restart()
        world.hosts["hsm-a"].reachable = False
        world.settle()
        assert world.served("payments", "checkout").serves


class TestCutAndFailover:
    def test_hold_waits_for_the_same_hsm(self) -> None:
        world = stage()
        put_claim(world)
        world.settle()
        tamper(world, "hsm-a")
        claim = world.claims["payments", "checkout"]
        assert bound_to(world) == "hsm-a"
        assert condition(claim, "Attested") == ("False", "EvidenceRefuted")
        assert condition(claim, "KeysReady") == ("False", "KeysSuspect")
        assert condition(claim, "NetworkReady") == ("False", "PoliciesRemoved")
        assert condition(claim, "Stalled") == ("True", "EvidenceRefuted")
        assert versions(world)[0].suspect_since is not None
        world.check_settled()
        world.hosts["hsm-a"].pcrs[7] = GOOD_PCR
        readmit(world, "hsm-a")
        world.settle()
        assert condition(world.claims["payments", "checkout"], "Ready") == ("True", "AllReady")
        assert versions(world)[0].suspect_since is not None

    def test_rebind_moves_with_new_keys_and_leaves_the_old_ones_on_record(self) -> None:
        world = stage()
        put_claim(world, failover="Rebind")
        world.settle()
        tamper(world, "hsm-a")
        claim = world.claims["payments", "checkout"]
        assert bound_to(world) == "hsm-b"
        assert claim.status.allocation is not None
        assert claim.status.allocation.sequence == 2
        assert [(v.version, v.state, v.hsm.name) for v in versions(world)] == [
            (1, KeyState.DEACTIVATED, "hsm-a"),
            (2, KeyState.ACTIVE, "hsm-b"),
        ]
        assert versions(world)[0].reason
        assert versions(world)[0].suspect_since is not None
        assert versions(world)[1].suspect_since is None
        old = world.hsms["hsm-a"].status
        assert old.allocations == []
        assert [(k.name, k.version) for k in old.retained[0].keys] == [("signing", 1)]
        assert condition(claim, "Ready") == ("True", "AllReady")
        world.check_settled()

    def test_rebind_with_nowhere_to_go_says_so_and_returns_when_the_hsm_does(self) -> None:
        world = stage("hsm-a")
        put_claim(world, failover="Rebind")
        world.settle()
        tamper(world, "hsm-a")
        claim = world.claims["payments", "checkout"]
        assert condition(claim, "Bound") == ("False", "Rebinding")
        assert "Hsm hsm-a was cut" in message(claim, "Bound")
        world.check_settled()
        world.hosts["hsm-a"].pcrs[7] = GOOD_PCR
        readmit(world, "hsm-a")
        world.settle()
        assert bound_to(world) == "hsm-a"
        assert condition(world.claims["payments", "checkout"], "Ready") == ("True", "AllReady")

    def test_hsm_that_is_gone_stalls_a_holding_claim(self) -> None:
        world = stage()
        put_claim(world)
        world.settle()
        del world.hsms["hsm-a"]
        world.settle()
        assert condition(world.claims["payments", "checkout"], "Bound") == ("False", "HsmGone")
        assert condition(world.claims["payments", "checkout"], "Stalled") == ("True", "HsmGone")

    def test_hsm_that_is_gone_makes_a_rebinding_claim_move(self) -> None:
        world = stage()
        put_claim(world, failover="Rebind")
        world.settle()
        del world.hsms["hsm-a"]
        world.settle()
        assert bound_to(world) == "hsm-b"

    def test_cordon_keeps_who_is_there(self) -> None:
        world = stage("hsm-a")
        put_claim(world)
        world.settle()
        change_hsm(world, "hsm-a", cordoned="Enabled")
        put_claim(world, "late")
        world.settle()
        assert (bound_to(world), bound_to(world, "late")) == ("hsm-a", None)
        assert world.served("payments", "checkout").serves


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


class TestNetworkAndSecret:
    def test_managed_egress_comes_with_an_event_and_stays_while_cut(self) -> None:
        world = stage("hsm-a")
        put_claim(world)
        labels = {"team": "payments", LABEL_EGRESS: "Managed"}
        world.namespaces["payments"] = replace(world.namespaces["payments"], labels=labels)
        world.settle()
        out = [key for key in world.network if key[0] == "payments"]
        assert len(out) == 1
        assert Reason.EGRESS_MANAGED in [event.reason for event in world.events]
        tamper(world, "hsm-a")
        assert [key for key in world.network if key[0] == "payments"] == out

    def test_drift_is_repaired(self) -> None:
        world = stage("hsm-a")
        put_claim(world)
        world.settle()
        key = next(key for key in world.network if key[1].endswith("-in"))
        del world.network[key]
        world.settle()
        assert key in world.network
        world.network[key] = replace(world.network[key], digest="sha256:other")
        world.settle()
        assert world.network[key].digest != "sha256:other"

    def test_foreign_allow_is_named(self) -> None:
        world = stage("hsm-a")
        put_claim(world)
        world.foreign = ("allow-all",)
        world.settle()
        claim = world.claims["payments", "checkout"]
        assert condition(claim, "NetworkReady") == ("False", "ForeignAllow")
        assert "allow-all" in message(claim, "NetworkReady")

    def test_external_gateway_cannot_be_enforced_and_is_ready_all_the_same(self) -> None:
        world = stage("hsm-a")
        gateway = {"external": {"host": "hsm.example.net", "port": 8443, "cidrs": ["192.0.2.10/32"]}}
        put_hsm(world, "hsm-x", gateway=gateway)
        world.settle()
        put_claim(world, selector=None, hsmRef={"name": "hsm-x"})
        world.settle()
        claim = world.claims["payments", "checkout"]
        assert condition(claim, "NetworkReady") == ("Unknown", "NotEnforceable")
        assert condition(claim, "Ready") == ("True", "AllReady")

    def test_secret_follows_its_name(self) -> None:
        world = stage("hsm-a")
        put_claim(world)
        world.settle()
        change_claim(world, binding={"secretName": "renamed"})
        world.settle()
        assert [key[1] for key in world.secrets] == ["renamed"]

    def test_paused_claim_changes_nothing_but_is_cut(self) -> None:
        world = stage("hsm-a")
        put_claim(world)
        world.settle()
        annotate_claim(world, ANNOTATION_PAUSED, "true")
        change_claim(world, binding={"secretName": "renamed"}, keys=None, clients=None)
        world.settle()
        assert [key[1] for key in world.secrets] == ["checkout-hsm"]
        assert [v.state for v in versions(world)] == [KeyState.ACTIVE]
        tamper(world, "hsm-a")
        assert not [key for key in world.network if key[1].endswith("-in")]
        assert condition(world.claims["payments", "checkout"], "Paused") == ("True", "Paused")


class TestRelease:
    def test_max_claims_of_a_namespace(self) -> None:
        rule = {"namespaces": {"matchLabels": {"team": "payments"}}, "maxClaims": 2, "maxSensitivity": "Restricted"}
        world = stage("hsm-a", "hsm-b", release={"anyOf": [rule]})
        for name in ("one", "two", "three"):
            put_claim(world, name)
            world.settle()
        assert bound_to(world, "three") is None
        assert condition(world.claims["payments", "three"], "Bound") == ("False", "ReleaseRefused")
        assert "2 claims bound, 2 are allowed" in message(world.claims["payments", "three"], "Bound")
        put_policy(world, release={"anyOf": [{**rule, "maxClaims": 1}]})
        world.attest()
        world.settle()
        assert world.served("payments", "one").serves
        assert world.served("payments", "two").serves

    def test_withdrawn_release_cuts_and_keeps_the_seat(self) -> None:
        world = stage("hsm-a")
        put_claim(world)
        world.settle()
        put_policy(world, release=None)
        world.attest()
        world.settle()
        claim = world.claims["payments", "checkout"]
        assert condition(claim, "Bound") == ("False", "ReleaseRefused")
        assert len(world.hsms["hsm-a"].status.allocations) == 1
        world.check_settled()
        put_policy(world)
        world.attest()
        world.settle()
        assert world.served("payments", "checkout").serves


def test_a_settled_world_has_empty_plans() -> None:
    world = stage()
    put_claim(world)
    put_claim(world, "other", failover="Rebind", mode="Exclusive")
    put_claim(world, "nowhere", requirements={"compliance": ["Unheard"]})
    world.settle()
    assert [plan.writes for plan in world.plans() if plan.writes] == []


def test_modes_are_written_to_the_seat() -> None:
    world = stage()
    put_claim(world, mode="Exclusive")
    world.settle()
    assert [seat.mode for seat in world.hsms["hsm-a"].status.allocations] == [Mode.EXCLUSIVE]


def test_claims_of_a_namespace_that_no_rule_names_are_refused() -> None:
    world = stage("hsm-a")
    world.namespaces["strangers"] = NamespaceFacts(uid_of(), {"team": "strangers"})
    put_claim(world, namespace="strangers")
    world.settle()
    claim = world.claims["strangers", "checkout"]
    assert condition(claim, "Bound") == ("False", "ReleaseRefused")
    assert "does not carry team=payments" in message(claim, "Bound")
    assert policy_spec()["release"]
