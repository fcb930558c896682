"""Which HSM a claim gets: room, requirements, policies of its own, release rules."""

from __future__ import annotations

import pytest

from chatelaine.model.hsm import Mode
from chatelaine.model.keys import KeyState
from chatelaine.reconcile import claim as claim_room
from chatelaine.reconcile.candidates import best_now, candidates
from chatelaine.reconcile.claim_snapshot import NamespaceFacts
from chatelaine.reconcile.plan import RequestEvidence
from support.world_hosts import BAD_PCR, GOOD_PCR
from support.world_objects import (
    bound_to,
    change_hsm,
    condition,
    message,
    policy_spec,
    put_claim,
    put_policy,
    stage,
    uid_of,
    versions,
)


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

    def test_the_quick_choice_is_the_best_of_all_candidates(self) -> None:
        world = stage(*(f"hsm-{n}" for n in range(5)))
        change_hsm(world, "hsm-0", cordoned="Enabled")
        change_hsm(world, "hsm-1", capacity={"claims": 3})
        world.hosts["hsm-2"].reachable = False
        world.attest()
        for number in range(6):
            put_claim(world, f"claim-{number}")
            snapshot = world.claim_snapshot("payments", f"claim-{number}")
            for without in (None, *(view.uid for view in snapshot.hsms)):
                best = candidates(snapshot, without=without)[0].view
                assert best_now(snapshot, without=without) is best
            world.settle()

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
