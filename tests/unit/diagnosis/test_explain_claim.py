"""A claim's chain: which link fails first, what was found, and the very command that helps."""

from __future__ import annotations

import pytest

from chatelaine.diagnosis.check import State
from chatelaine.diagnosis.sight import LeaseSight, Unread, Why
from chatelaine.model.identifiers import ANNOTATION_PAUSED
from chatelaine.model.verdict import Outcome
from support.diagnosed import check_of, commands, deciding, of_claim
from support.world import World
from support.world_hosts import BAD_PCR
from support.world_objects import (
    annotate_claim,
    change_hsm,
    delete_claim,
    delete_hsm,
    put_claim,
    put_hsm,
    put_policy,
    refuted,
    stage,
    tamper,
)

CHAIN = [
    "operator", "claim", "allocation", "hsm", "enrolment", "reachability", "attestation", "policy", "release", "keys",
    "network",
]  # fmt: skip
FORBIDDEN = Unread("list hsms", Why.FORBIDDEN)


def ready() -> World:
    world = stage()
    put_claim(world)
    world.settle()
    return world


class TestBound:
    def test_a_ready_claim_shows_what_holds_it_up_in_order(self) -> None:
        found = of_claim(ready())
        assert found.state is State.READY
        assert [check.name for check in found.checks] == CHAIN
        assert [check.outcome for check in found.checks] == [Outcome.HOLDS] * len(CHAIN)
        assert all(not check.advice for check in found.checks)
        assert found.deciding is None

    def test_a_refuted_host_decides_and_the_command_that_readmits_it_names_its_evidence(self) -> None:
        world = refuted(stage())
        found = of_claim(world)
        assert deciding(found) == ("NotReady", "attestation", "EvidenceRefuted")
        check = check_of(found, "attestation")
        assert "PCR 7" in check.found
        digest = world.hsms["hsm-a"].status.attestation.evidence_digest
        assert f"kubectl annotate hsm hsm-a chatelaine.dev/readmit={digest} --overwrite" in commands(check)
        assert check_of(found, "keys").reason == "KeysSuspect"
        assert check_of(found, "network").reason == "PoliciesRemoved"

    def test_the_events_that_explain_a_refusal_are_shown(self) -> None:
        world = refuted(stage())
        assert world.hsms["hsm-a"].status.attestation is not None
        for sentence in world.hsms["hsm-a"].status.attestation.explanation:
            assert sentence in check_of(of_claim(world), "attestation").notes

    def test_a_silent_host_is_not_reachable(self) -> None:
        world = ready()
        name = world.claims["payments", "checkout"].status.allocation.hsm.name
        world.hosts[name].reachable = False
        world.attest()
        world.pass_time(31)
        world.settle()
        assert deciding(of_claim(world)) == ("NotReady", "reachability", "Unreachable")

    def test_a_release_rule_that_was_taken_away_is_found(self) -> None:
        world = ready()
        rule = {"namespaces": {"matchLabels": {"team": "billing"}}}
        put_policy(world, release={"anyOf": [rule]})
        world.attest()
        world.settle()
        found = of_claim(world)
        assert deciding(found)[0] == "NotReady"
        check = check_of(found, "release")
        assert (check.outcome, check.reason) == (Outcome.REFUTED, "ReleaseRefused")
        assert "team=billing" in check.parts[0].expected
        assert "team=payments" in check.parts[0].found

    def test_an_hsm_that_is_gone_is_named(self) -> None:
        world = ready()
        name = world.claims["payments", "checkout"].status.allocation.hsm.name
        del world.hsms[name]
        put_hsm(world, name)
        world.settle()
        found = of_claim(world)
        assert check_of(found, "hsm").reason == "HsmGone"
        assert any("failover" in command for command in commands(check_of(found, "hsm")))

    def test_another_hsm_of_the_same_name_is_not_the_bound_one(self) -> None:
        world = ready()
        claim = world.claims["payments", "checkout"]
        name = claim.status.allocation.hsm.name
        item = world.hsms[name]
        other = item.model_copy(update={"metadata": item.metadata.model_copy(update={"uid": "another"})})
        hsms = tuple(other if hsm.metadata.name == name else hsm for hsm in world.hsms.values())
        assert check_of(of_claim(world, hsms=hsms), "hsm").found == "Another Hsm has that name by now."

    def test_a_place_that_the_hsm_does_not_list_counts_for_nothing(self) -> None:
        """What a claim's status says of itself is no seat."""
        world = ready()
        empty = tuple(
            hsm.model_copy(update={"status": hsm.status.model_copy(update={"allocations": []})})
            for hsm in world.hsms.values()
        )
        found = of_claim(world, hsms=empty)
        assert check_of(found, "hsm").outcome is Outcome.REFUTED
        assert found.state is State.CANNOT_TELL

    def test_a_paused_claim_is_said_to_be_paused_with_the_command_that_goes_on(self) -> None:
        world = ready()
        annotate_claim(world, ANNOTATION_PAUSED, "true")
        world.settle()
        check = check_of(of_claim(world), "claim")
        assert check.reason == "Paused"
        assert commands(check) == ["kubectl --namespace payments annotate hsmclaim checkout chatelaine.dev/paused-"]

    def test_a_claim_being_deleted_is_said_to_be(self) -> None:
        world = ready()
        delete_claim(world)
        assert check_of(of_claim(world), "claim").reason == "Deleting"

    def test_a_secret_of_somebody_else_is_named(self) -> None:
        world = stage()
        world.secrets["payments", "checkout-hsm"] = ("another", "digest")
        put_claim(world)
        world.settle()
        assert deciding(of_claim(world)) == ("NotReady", "claim", "SecretNameTaken")


class TestUnbound:
    @pytest.mark.parametrize(
        ("changes", "reason", "says"),
        [
            ({"cordoned": "Enabled"}, "Cordoned", "is cordoned"),
            ({"capacity": {"claims": 0}}, "Full", "0 of 0"),
            ({"offers": {"maxSensitivity": "Restricted", "keyTypes": ["Rsa2048"]}}, "KeyTypeNotOffered", "Rsa2048"),
        ],
    )
    def test_every_hsm_says_why_it_does_not_fit(self, changes: dict[str, object], reason: str, says: str) -> None:
        world = stage()
        for name in ("hsm-a", "hsm-b"):
            change_hsm(world, name, **changes)
        put_claim(world)
        world.settle()
        found = of_claim(world)
        assert deciding(found) == ("NotReady", "allocation", "NoSuitableHsm")
        assert [(part.name, part.reason) for part in check_of(found, "allocation").parts] == [
            ("Hsm hsm-a", reason),
            ("Hsm hsm-b", reason),
        ]
        assert says in check_of(found, "Hsm hsm-a").found

    def test_the_rules_are_asked_as_the_operator_asks_them(self) -> None:
        """The first requirement that fails, seen from the objects, is the one that the operator's message names."""
        world = stage("hsm-a", "hsm-b", "hsm-c")
        change_hsm(world, "hsm-b", cordoned="Enabled")
        put_claim(world, requirements={"sensitivity": "Confidential", "compliance": ["NationalEval"]})
        tamper(world, "hsm-c")
        said = next(c.message for c in world.claims["payments", "checkout"].status.conditions if c.type == "Bound")
        for part in check_of(of_claim(world), "allocation").parts:
            assert f"{part.name.removeprefix('Hsm ')}: {part.found.rstrip('.')[:100]}" in said

    def test_links_after_the_binding_are_named_and_not_asked(self) -> None:
        world = stage("hsm-a")
        change_hsm(world, "hsm-a", cordoned="Enabled")
        put_claim(world)
        world.settle()
        assert [check.outcome for check in of_claim(world).checks[3:]] == [None] * 8

    def test_a_namespace_that_no_rule_lets_in_is_told_what_the_rules_ask(self) -> None:
        world = stage("hsm-a")
        put_claim(world, namespace="other")
        world.settle()
        found = of_claim(world, namespace="other")
        assert deciding(found) == ("NotReady", "allocation", "ReleaseRefused")
        assert "team=payments" in check_of(found, "Hsm hsm-a").found
        assert "kubectl edit attestationpolicy baseline" in commands(check_of(found, "allocation"))

    def test_claims_over_the_limit_of_a_namespace_are_counted_as_the_operator_counts(self) -> None:
        rule = {"namespaces": {"matchLabels": {"team": "payments"}}, "maxClaims": 1}
        world = stage("hsm-a", release={"anyOf": [rule]})
        put_claim(world, "first")
        world.settle()
        put_claim(world)
        world.settle()
        assert "has 1 claims bound, 1 are allowed" in check_of(of_claim(world), "Hsm hsm-a").found

    def test_whether_evidence_meets_the_claims_own_policy_is_not_guessed(self) -> None:
        world = stage("hsm-a")
        put_policy(world, "strict", tpm={"pcrs": {"bank": "Sha256", "values": [{"index": 7, "anyOf": [BAD_PCR]}]}})
        put_claim(world, policyRef={"name": "strict"})
        world.settle()
        check = check_of(of_claim(world), "Hsm hsm-a")
        assert (check.outcome, check.reason) == (Outcome.CANNOT_TELL, "OwnPolicy")

    def test_the_claims_own_policy_must_exist(self) -> None:
        world = stage("hsm-a")
        put_claim(world, policyRef={"name": "nowhere"})
        world.settle()
        assert deciding(of_claim(world)) == ("NotReady", "own policy", "PolicyNotFound")

    def test_an_empty_pool_is_said(self) -> None:
        world = stage("hsm-a")
        put_claim(world)
        del world.hsms["hsm-a"]
        world.settle()
        assert check_of(of_claim(world), "allocation").found == "There are no Hsms."


class TestNotKnown:
    def test_without_the_right_to_read_hsms_the_operators_word_stands_and_nothing_is_guessed(self) -> None:
        world = refuted(stage())
        found = of_claim(world, hsms=FORBIDDEN, policies=Unread("list attestationpolicies", Why.FORBIDDEN))
        assert deciding(found) == ("NotReady", "attestation", "EvidenceRefuted")
        assert check_of(found, "hsm").outcome is None
        assert "you may not list hsms" in check_of(found, "hsm").found

    def test_an_unbound_claim_of_somebody_who_may_not_read_hsms_shows_the_condition(self) -> None:
        world = stage("hsm-a")
        change_hsm(world, "hsm-a", cordoned="Enabled")
        put_claim(world)
        world.settle()
        check = check_of(of_claim(world, hsms=FORBIDDEN), "allocation")
        assert check.parts == ()
        assert "is cordoned" in check.found
        assert any("you may not list hsms" in note for note in check.notes)

    def test_a_ready_claim_that_nobody_may_see_the_hsm_of_is_ready(self) -> None:
        assert of_claim(ready(), hsms=FORBIDDEN).state is State.READY

    def test_statuses_that_a_dead_operator_left_behind_are_not_believed(self) -> None:
        """An attacker who stops the operator leaves every claim Ready for ever, by its own word."""
        world = ready()
        found = of_claim(world, lease=LeaseSight("operator-1", world.now - 3600, 3))
        assert deciding(found) == ("CannotTell", "operator", "LeaseStale")
        nobody = of_claim(world, lease=LeaseSight("", world.now, 3))
        assert deciding(nobody) == ("CannotTell", "operator", "NobodyLeads")

    def test_a_clock_that_goes_wrong_is_not_taken_for_a_dead_operator(self) -> None:
        world = ready()
        lease = LeaseSight("operator-1", world.now - 1, 3)
        assert of_claim(world, now=world.now + 200, skew_seconds=200.0, lease=lease).state is State.READY

    def test_a_verdict_that_nobody_renewed_is_not_believed(self) -> None:
        world = ready()
        found = of_claim(world, now=world.now + 3600, lease=None)
        assert deciding(found) == ("CannotTell", "attestation", "EvidenceExpired")

    def test_a_claim_that_was_changed_since_is_not_said_to_be_ready(self) -> None:
        world = ready()
        claim = world.claims["payments", "checkout"]
        newer = claim.metadata.model_copy(update={"generation": claim.metadata.generation + 1})
        world.claims["payments", "checkout"] = claim.model_copy(update={"metadata": newer})
        assert deciding(of_claim(world)) == ("CannotTell", "claim", "NotExamined")

    def test_a_reason_of_a_newer_operator_is_shown_as_it_is(self) -> None:
        world = refuted(stage())
        claim = world.claims["payments", "checkout"]
        strange = [c.model_copy(update={"reason": "Hexed"}) for c in claim.status.conditions]
        status = claim.status.model_copy(update={"conditions": strange})
        world.claims["payments", "checkout"] = claim.model_copy(update={"status": status})
        check = check_of(of_claim(world, hsms=FORBIDDEN), "attestation")
        assert check.reason == "Hexed"
        assert "not known to this version" in check.advice[0].text

    def test_names_in_commands_are_quoted_for_a_shell(self) -> None:
        """`readmit=$(…)` in a status must not run when the command is pasted."""
        world = refuted(stage())
        hsm = world.hsms["hsm-a"]
        assert hsm.status.attestation is not None
        evil = hsm.status.attestation.model_copy(update={"evidence_digest": "$(reboot)"})
        item = hsm.model_copy(update={"status": hsm.status.model_copy(update={"attestation": evil})})
        found = of_claim(world, hsms=(item,))
        pasted = [command for command in commands(check_of(found, "attestation")) if "reboot" in command]
        assert pasted
        assert all("'$(reboot)'" in command for command in pasted)


def test_an_hsm_that_is_being_deleted_is_said_to_wait_for_this_claim() -> None:
    world = ready()
    name = world.claims["payments", "checkout"].status.allocation.hsm.name
    delete_hsm(world, name)
    world.settle()
    assert any("being deleted" in note for note in check_of(of_claim(world), "hsm").notes)
