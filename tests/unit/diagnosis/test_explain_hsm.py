"""An Hsm's chain, and a policy's."""

from __future__ import annotations

from dataclasses import replace

import pytest

from chatelaine.diagnosis.check import State, state_of
from chatelaine.diagnosis.sight import LeaseSight, Unread, Why
from chatelaine.model.verdict import Outcome
from support.diagnosed import check_of, commands, deciding, of_hsm, of_policy
from support.world import World
from support.world_hosts import BAD_PCR, GOOD_PCR
from support.world_objects import (
    change_hsm,
    delete_hsm,
    put_claim,
    put_hsm,
    put_policy,
    readmit,
    refuted,
    stage,
    tamper,
)


class TestHsm:
    def test_a_ready_hsm_shows_what_holds_it_up_in_order(self) -> None:
        found = of_hsm(stage())
        assert found.state is State.READY
        assert [check.name for check in found.checks] == [
            "operator", "hsm", "enrolment", "reachability", "attestation", "policy", "room",
        ]  # fmt: skip
        assert check_of(found, "room").found == "0 of 100 places are taken."

    def test_a_host_that_waits_for_approval_gets_the_command_with_its_two_digests(self) -> None:
        world = stage("hsm-a")
        put_hsm(world, "hsm-b", approved=False)
        world.settle()
        found = of_hsm(world, "hsm-b")
        assert deciding(found) == ("NotReady", "enrolment", "AwaitingApproval")
        host = world.hosts["hsm-b"]
        (command,) = commands(check_of(found, "enrolment"))
        body = f'\'{{"spec":{{"identity":{{"ekDigest":"\'{host.ek_digest}\'","attestationKeyThumbprint":"\''
        assert command.startswith(f"kubectl patch hsm hsm-b --type merge --patch {body}{host.thumbprint}")

    def test_a_tampered_host_decides_by_its_attestation(self) -> None:
        world = stage()
        tamper(world, "hsm-a")
        found = of_hsm(world)
        assert deciding(found) == ("NotReady", "attestation", "EvidenceRefuted")
        assert any("policy capture hsm-a" in command for command in commands(check_of(found, "attestation")))

    def test_a_readmitted_host_is_ready_again(self) -> None:
        world = refuted(stage())
        world.hosts["hsm-a"].pcrs[7] = GOOD_PCR
        readmit(world, "hsm-a")
        for _ in range(3):
            world.pass_time(3)
            world.settle()
        assert of_hsm(world).state is State.READY

    def test_a_policy_that_is_missing_decides_at_the_first_link_that_needs_it(self) -> None:
        world = stage("hsm-a")
        put_hsm(world, "hsm-b", attestation={"policyRef": {"name": "nowhere"}, "intervalSeconds": 10})
        world.settle()
        found = of_hsm(world, "hsm-b")
        assert deciding(found) == ("NotReady", "enrolment", "PolicyNotFound")
        assert check_of(found, "policy").found == "There is no AttestationPolicy nowhere."

    def test_deadlines_that_contradict_are_found(self) -> None:
        world = stage("hsm-a")
        change_hsm(world, "hsm-a", attestation={"policyRef": {"name": "baseline"}, "intervalSeconds": 30})
        world.settle()
        check = check_of(of_hsm(world), "policy")
        assert check.reason == "DeadlinesContradict"
        assert check.found == "intervalSeconds of the Hsm is 30, maxAgeSeconds of the policy is 30."

    def test_an_hsm_that_is_deleted_waits_for_the_claims_it_names(self) -> None:
        world = stage("hsm-a")
        put_claim(world)
        world.settle()
        delete_hsm(world, "hsm-a")
        world.settle()
        check = check_of(of_hsm(world), "hsm")
        assert check.reason == "AllocationsRemain"
        assert "payments/checkout" in check.notes[0]

    def test_a_cordoned_hsm_is_ready_and_said_to_take_no_claims(self) -> None:
        world = stage("hsm-a")
        change_hsm(world, "hsm-a", cordoned="Enabled")
        world.settle()
        found = of_hsm(world)
        assert found.state is State.READY
        assert check_of(found, "room").reason == "Cordoned"

    def test_a_dead_operator_leaves_nothing_that_can_be_told(self) -> None:
        world = stage()
        found = of_hsm(world, lease=LeaseSight("operator-1", world.now - 600, 1))
        assert found.state is State.CANNOT_TELL

    def test_an_hsm_that_no_operator_has_seen_is_not_examined(self) -> None:
        world = World()
        put_hsm(world, "hsm-a")
        found = of_hsm(world, lease=None)
        assert deciding(found) == ("NotReady", "hsm", "NotExamined")


class TestPolicy:
    def test_a_policy_that_is_used_says_by_whom(self) -> None:
        world = stage()
        tamper(world, "hsm-b")
        found = of_policy(world)
        assert found.state is State.READY
        use = check_of(found, "use")
        assert use.found == "It judges 2 Hsms, 0 claims."
        assert use.notes == ("Hsm hsm-b: EvidenceRefuted.",)

    def test_rules_that_contradict_themselves_are_all_named(self) -> None:
        world = stage()
        values = [{"index": 7, "anyOf": ["ab" * 48]}, {"index": 7, "anyOf": [BAD_PCR]}]
        put_policy(world, tpm={"pcrs": {"bank": "Sha256", "values": values}})
        world.settle()
        found = of_policy(world)
        assert deciding(found) == ("NotReady", "rules", "RulesInvalid")
        assert "names PCR 7 twice" in check_of(found, "rules").found
        assert "not 64 hexadecimal digits" in check_of(found, "rules").found

    def test_rules_that_nobody_has_looked_at_yet_are_looked_at_here(self) -> None:
        world = stage()
        put_policy(world, tpm={"pcrs": {"bank": "Sha256", "values": [{"index": 7, "anyOf": ["ab" * 48]}]}})
        assert check_of(of_policy(world), "rules").reason == "RulesInvalid"

    def test_a_policy_without_release_rules_is_ready_and_warned_of(self) -> None:
        world = stage()
        put_policy(world, release=None)
        world.settle()
        found = of_policy(world)
        assert found.state is State.READY
        assert check_of(found, "release").advice

    def test_whom_it_judges_is_not_guessed(self) -> None:
        found = of_policy(stage(), hsms=Unread("list hsms", Why.FORBIDDEN))
        assert "you may not list hsms" in check_of(found, "use").found


@pytest.mark.parametrize(
    ("outcomes", "state"),
    [
        ([Outcome.HOLDS, None], State.READY),
        ([Outcome.HOLDS, Outcome.CANNOT_TELL], State.CANNOT_TELL),
        ([Outcome.CANNOT_TELL, Outcome.REFUTED], State.NOT_READY),
        ([], State.CANNOT_TELL),
    ],
)
def test_checks_alone_decide_where_no_condition_does(outcomes: list[Outcome | None], state: State) -> None:
    found = of_hsm(stage("hsm-a"))
    template = found.checks[0]
    assert state_of([replace(template, outcome=outcome) for outcome in outcomes]) is state
