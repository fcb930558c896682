from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from chatelaine.model.hsm import HsmStatus
from chatelaine.model.identifiers import ANNOTATION_PAUSED, ANNOTATION_READMIT
from chatelaine.model.reasons import Reason
from chatelaine.model.verdict import Outcome, Verdict
from chatelaine.reconcile.plan import EmitEvent, SetHsmStatus
from chatelaine.reconcile.snapshot import AuthenticatedRefusal, EvidenceRound, HostObservation, Reach
from chatelaine.reconcile.standing import judge
from support.world import World
from support.world_hosts import BAD_PCR, GOOD_PCR
from support.world_objects import (
    annotate_hsm,
    change_hsm,
    condition,
    delete_claim,
    message,
    policy_spec,
    put_claim,
    put_hsm,
    put_policy,
    readmit,
    stage,
)


def verdict(world: World, name: str = "hsm-a") -> tuple[str, str]:
    attestation = world.hsms[name].status.attestation
    return (attestation.verdict.value, attestation.reason) if attestation else ("", "")


def refused(world: World) -> World:
    """hsm-a bound, then tampered with and found out."""
    put_claim(world, hsmRef={"name": "hsm-a"}, selector=None)
    world.settle()
    world.hosts["hsm-a"].pcrs[7] = BAD_PCR
    world.attest()
    world.settle()
    return world


class TestEnrolment:
    def test_an_unapproved_host_waits_and_both_digests_are_named(self) -> None:
        world = stage("hsm-a")
        put_hsm(world, "hsm-new", approved=False)
        world.settle()
        host, item = world.hosts["hsm-new"], world.hsms["hsm-new"]
        assert condition(item, "Enrolled") == ("False", "AwaitingApproval")
        assert host.ek_digest in message(item, "Enrolled")
        assert host.thumbprint in message(item, "Enrolled")
        assert item.status.identity is None
        assert condition(item, "Attested") == ("Unknown", "NotEnrolled")

    def test_approval_enrols_once(self) -> None:
        world = stage("hsm-a")
        put_hsm(world, "hsm-new", approved=False)
        world.settle()
        host = world.hosts["hsm-new"]
        approved = {"ekDigest": host.ek_digest, "attestationKeyThumbprint": host.thumbprint}
        change_hsm(world, "hsm-new", identity=approved)
        world.settle()
        item = world.hsms["hsm-new"]
        assert item.status.identity is not None
        assert item.status.identity.ak_name == host.ak_name.hex()
        assert item.status.attestation is not None
        assert item.status.attestation.epoch.generation == 1
        assert condition(item, "Ready") == ("True", "AllReady")

    def test_host_without_credential_activation_is_not_enrolled(self) -> None:
        world = stage("hsm-a")
        item = put_hsm(world, "hsm-new")
        uid = item.metadata.uid
        world.inventories[uid] = frozenset()
        world.memory[uid] = HostObservation(presented=world.hosts["hsm-new"].presents(activated=False))
        standing = judge(world.hsm_snapshot("hsm-new"))
        assert standing.identity is None
        assert standing.ask_identity
        world.memory[uid] = HostObservation(
            presented=world.hosts["hsm-new"].presents(activated=False), activation_failed="the secret was wrong"
        )
        assert judge(world.hsm_snapshot("hsm-new")).enrolment.reason is Reason.ACTIVATION_FAILED

    def test_another_tpm_than_the_approved_one_is_not_enrolled(self) -> None:
        world = stage("hsm-a")
        put_hsm(world, "hsm-new")
        world.hosts["hsm-new"].ek = "ek-of-somebody-else"
        world.settle()
        item = world.hsms["hsm-new"]
        assert item.status.identity is None
        assert condition(item, "Enrolled") == ("False", "IdentityConflict")
        assert condition(item, "Stalled") == ("True", "IdentityConflict")

    def test_tpm_that_the_policy_does_not_list_is_not_enrolled(self) -> None:
        world = stage("hsm-a")
        tpm = policy_spec()["tpm"]
        listed = [{"ekDigest": world.hosts["hsm-a"].ek_digest}]
        put_policy(world, tpm={**tpm, "endorsement": {"listed": listed}})
        put_hsm(world, "hsm-new")
        world.settle()
        assert world.hsms["hsm-new"].status.identity is None
        assert condition(world.hsms["hsm-new"], "Enrolled") == ("False", "EndorsementRefused")
        assert verdict(world) == ("Trusted", "EvidenceHolds")

    def test_endorsement_dropped_from_the_policy_cuts_an_enrolled_host(self) -> None:
        world = stage("hsm-a")
        tpm = policy_spec()["tpm"]
        put_policy(world, tpm={**tpm, "endorsement": {"listed": [{"ekDigest": "sha256:" + "9" * 64}]}})
        world.settle()
        assert verdict(world) == ("Unknown", "PolicyChanged")
        assert not judge(world.hsm_snapshot("hsm-a")).serves

    def test_replaced_attestation_key_is_a_conflict_and_never_an_overwrite(self) -> None:
        world = stage("hsm-a")
        before = world.hsms["hsm-a"].status.identity
        world.hosts["hsm-a"].ak = "ak-2"
        world.touch("hsm-a", identity=True)
        world.settle()
        item = world.hsms["hsm-a"]
        assert item.status.identity == before
        assert condition(item, "Enrolled") == ("False", "IdentityConflict")

    def test_a_stranger_who_presents_another_identity_does_not_make_it_untrusted(self) -> None:
        world = stage("hsm-a")
        world.hosts["hsm-a"].ek, world.hosts["hsm-a"].ak = "ek-2", "ak-2"
        world.touch("hsm-a", identity=True)
        world.settle()
        assert judge(world.hsm_snapshot("hsm-a")).serves
        world.pass_time(31)
        world.settle()
        standing = judge(world.hsm_snapshot("hsm-a"))
        assert (standing.verdict, standing.serves, standing.sticky) == (Verdict.UNKNOWN, False, False)

    def test_changed_approval_holds_everything_until_readmission(self) -> None:
        world = stage("hsm-a")
        put_claim(world)
        world.settle()
        host = world.hosts["hsm-a"]
        host.ek, host.ak = "ek-2", "ak-2"
        change_hsm(world, "hsm-a", identity={"ekDigest": host.ek_digest, "attestationKeyThumbprint": host.thumbprint})
        world.settle()
        world.attest()
        world.settle()
        item = world.hsms["hsm-a"]
        assert condition(item, "Enrolled") == ("False", "AwaitingReadmission")
        assert len(item.status.allocations) == 1
        assert not world.served("payments", "checkout").serves
        readmit(world, "hsm-a")
        world.settle()
        item = world.hsms["hsm-a"]
        assert item.status.identity is not None
        assert item.status.identity.ek_digest == host.ek_digest
        assert item.status.attestation is not None
        assert item.status.attestation.epoch.generation == 2
        assert world.served("payments", "checkout").serves


class TestVerdicts:
    def test_refuted_evidence_cuts_and_sticks(self) -> None:
        world = refused(stage())
        assert verdict(world) == ("Untrusted", "EvidenceRefuted")
        assert [cut.hsm for cut in world.cuts] == ["hsm-a"]
        assert condition(world.hsms["hsm-a"], "Stalled") == ("True", "EvidenceRefuted")
        assert "PCR 7" in message(world.hsms["hsm-a"], "Attested")
        world.check_settled()
        world.hosts["hsm-a"].pcrs[7] = GOOD_PCR
        for _ in range(3):
            world.attest()
            world.settle()
        world.restart()
        world.attest()
        world.settle()
        assert verdict(world) == ("Untrusted", "EvidenceRefuted")

    def test_a_policy_changed_or_deleted_does_not_free_an_untrusted_host(self) -> None:
        world = refused(stage())
        values = [{"index": 7, "anyOf": [BAD_PCR]}]
        put_policy(world, tpm={"pcrs": {"bank": "Sha256", "values": values}})
        world.attest()
        world.settle()
        assert verdict(world) == ("Untrusted", "EvidenceRefuted")
        del world.policies["baseline"]
        world.settle()
        assert verdict(world) == ("Untrusted", "EvidenceRefuted")

    def test_readmission_needs_the_digest_a_new_proof_and_good_evidence(self) -> None:
        world = refused(stage())
        annotate_hsm(world, "hsm-a", ANNOTATION_READMIT, "sha256:" + "0" * 64)
        world.hosts["hsm-a"].pcrs[7] = GOOD_PCR
        world.attest()
        world.settle()
        assert verdict(world)[0] == "Untrusted"
        readmit(world, "hsm-a")
        world.settle()
        item = world.hsms["hsm-a"]
        assert verdict(world) == ("Trusted", "EvidenceHolds")
        assert item.status.attestation is not None
        assert item.status.attestation.epoch.generation == 2
        assert world.served("payments", "checkout").serves
        assert [event.reason for event in world.events].count(Reason.READMITTED) == 1

    def test_readmission_is_honoured_once(self) -> None:
        world = refused(stage())
        world.hosts["hsm-a"].pcrs[7] = GOOD_PCR
        readmit(world, "hsm-a")
        world.settle()
        world.hosts["hsm-a"].pcrs[7] = BAD_PCR
        world.attest()
        world.settle()
        assert verdict(world)[0] == "Untrusted"
        world.hosts["hsm-a"].pcrs[7] = GOOD_PCR
        world.attest()
        world.settle()
        assert verdict(world)[0] == "Untrusted"

    def test_readmission_of_a_host_that_is_still_bad_names_the_new_evidence(self) -> None:
        world = refused(stage())
        before = world.hsms["hsm-a"].status.attestation
        readmit(world, "hsm-a")
        world.settle()
        after = world.hsms["hsm-a"].status.attestation
        assert before is not None
        assert after is not None
        assert after.verdict is Verdict.UNTRUSTED
        assert after.evidence_digest != before.evidence_digest
        assert after.evidence_digest in message(world.hsms["hsm-a"], "Attested")

    def test_readmission_without_credential_activation_is_not_honoured(self) -> None:
        world = refused(stage())
        world.hosts["hsm-a"].pcrs[7] = GOOD_PCR
        readmit(world, "hsm-a")
        world.touch("hsm-a", identity=True)
        uid = world.hsms["hsm-a"].metadata.uid
        seen = world.memory[uid]
        assert seen.last_round is not None
        weak = EvidenceRound(
            seen.last_round.evidence,
            seen.last_round.evidence_digest,
            world.now,
            world.hosts["hsm-a"].presents().keys,
            world.hosts["hsm-a"].presents(activated=False),
        )
        world.memory[uid] = HostObservation(weak.presented, weak, weak)
        standing = judge(world.hsm_snapshot("hsm-a"))
        assert standing.verdict is Verdict.UNTRUSTED
        assert standing.ask_identity

    def test_refused_statement_of_the_enrolled_identity_refutes(self) -> None:
        world = stage("hsm-a")
        refusal = AuthenticatedRefusal("StatementSerialMismatch", "another token speaks")
        uid = world.hsms["hsm-a"].metadata.uid
        keys = world.hosts["hsm-a"].presents().keys
        world.memory[uid] = HostObservation(last_round=EvidenceRound(refusal, "sha256:" + "5" * 64, world.now, keys))
        world.settle()
        assert verdict(world) == ("Untrusted", "EvidenceRefuted")
        assert message(world.hsms["hsm-a"], "Attested").startswith("another token speaks")

    def test_unaccounted_key_in_the_token_refutes(self) -> None:
        world = stage("hsm-a")
        world.hosts["hsm-a"].labels.add("somebody-elses-key")
        world.attest()
        world.settle()
        assert verdict(world) == ("Untrusted", "EvidenceRefuted")

    def test_unchanged_evidence_under_a_stricter_policy_is_blocked_and_a_mended_policy_restores(self) -> None:
        world = stage("hsm-a")
        put_claim(world)
        world.settle()
        values = [{"index": i, "anyOf": [GOOD_PCR if i != 9 else BAD_PCR]} for i in (0, 7, 9)]
        put_policy(world, tpm={"pcrs": {"bank": "Sha256", "values": values}})
        for _ in range(3):
            world.settle()
            world.attest()
        world.settle()
        assert verdict(world) == ("Unknown", "PolicyChanged")
        assert condition(world.hsms["hsm-a"], "Attested") == ("False", "PolicyChanged")
        assert not world.served("payments", "checkout").serves
        world.check_settled()
        world.restart()
        world.settle()
        assert verdict(world) == ("Unknown", "PolicyChanged")
        put_policy(world)
        world.attest()
        world.settle()
        assert verdict(world) == ("Trusted", "EvidenceHolds")
        assert world.served("payments", "checkout").serves

    def test_a_host_that_changes_while_it_is_blocked_becomes_untrusted(self) -> None:
        world = stage("hsm-a")
        values = [{"index": i, "anyOf": [GOOD_PCR if i != 9 else BAD_PCR]} for i in (0, 7, 9)]
        put_policy(world, tpm={"pcrs": {"bank": "Sha256", "values": values}})
        world.settle()
        world.hosts["hsm-a"].pcrs[0] = BAD_PCR
        world.attest()
        world.settle()
        assert verdict(world) == ("Untrusted", "EvidenceRefuted")

    def test_a_host_that_changes_together_with_the_policy_becomes_untrusted(self) -> None:
        world = stage("hsm-a")
        world.hosts["hsm-a"].pcrs[7] = BAD_PCR
        put_policy(world, freshness={"maxAgeSeconds": 60})
        world.attest()
        world.settle()
        assert verdict(world) == ("Untrusted", "EvidenceRefuted")

    def test_audit_shows_and_cuts_nothing_and_never_sticks(self) -> None:
        world = stage("hsm-a", enforcement="Audit")
        put_claim(world)
        world.settle()
        world.hosts["hsm-a"].pcrs[7] = BAD_PCR
        world.attest()
        world.settle()
        assert verdict(world) == ("Untrusted", "AuditOnly")
        assert condition(world.hsms["hsm-a"], "Attested") == ("False", "AuditOnly")
        assert condition(world.hsms["hsm-a"], "Ready") == ("True", "AuditOnly")
        assert world.served("payments", "checkout").serves
        assert world.cuts == []
        world.hosts["hsm-a"].pcrs[7] = GOOD_PCR
        world.attest()
        world.settle()
        assert verdict(world) == ("Trusted", "EvidenceHolds")

    def test_reset_is_a_new_epoch(self) -> None:
        world = stage("hsm-a")
        world.hosts["hsm-a"].reset_count += 1
        world.attest()
        world.settle()
        attestation = world.hsms["hsm-a"].status.attestation
        assert attestation is not None
        assert (attestation.verdict, attestation.epoch.reset_count) == (Verdict.TRUSTED, 4)

    @pytest.mark.parametrize(("resets", "restarts"), [(-1, 0), (0, -1)])
    def test_counters_that_go_back_are_held_until_readmission(self, resets: int, restarts: int) -> None:
        world = stage("hsm-a")
        world.hosts["hsm-a"].restart_count = 5
        world.attest()
        world.settle()
        put_claim(world)
        world.settle()
        world.hosts["hsm-a"].reset_count += resets
        world.hosts["hsm-a"].restart_count += restarts
        world.attest()
        world.settle()
        assert verdict(world) == ("Unknown", "IdentityConflict")
        assert not world.served("payments", "checkout").serves
        world.hosts["hsm-a"].reset_count += 9
        world.attest()
        world.settle()
        assert verdict(world) == ("Unknown", "IdentityConflict")
        readmit(world, "hsm-a")
        world.settle()
        assert verdict(world) == ("Trusted", "EvidenceHolds")


class TestTime:
    def test_silence_cuts_at_the_deadline_and_not_before(self) -> None:
        world = stage("hsm-a")
        put_claim(world)
        world.settle()
        world.attest()
        world.settle()
        world.hosts["hsm-a"].reachable = False
        world.pass_time(29)
        world.attest()
        world.settle()
        assert condition(world.hsms["hsm-a"], "Reachable") == ("False", "Unreachable")
        assert world.served("payments", "checkout").serves
        world.pass_time(2)
        world.settle()
        assert verdict(world) == ("Unknown", "EvidenceExpired")
        assert not world.served("payments", "checkout").serves
        world.check_settled()
        world.hosts["hsm-a"].reachable = True
        world.settle()
        assert world.served("payments", "checkout").serves

    def test_an_undecided_round_does_not_shorten_the_deadline(self) -> None:
        world = stage("hsm-a")
        put_claim(world)
        world.settle()
        values = [{"index": i, "anyOf": [GOOD_PCR]} for i in (0, 7, 11)]
        world.hosts["hsm-a"].reachable = False
        put_policy(world, tpm={"pcrs": {"bank": "Sha256", "values": values}})
        world.settle()
        assert world.served("payments", "checkout").serves
        world.pass_time(31)
        world.settle()
        assert verdict(world) == ("Unknown", "EvidenceUndecided")

    def test_a_restarted_operator_cuts_nothing_while_the_host_may_still_answer(self) -> None:
        world = stage("hsm-a")
        put_claim(world)
        world.settle()
        world.pass_time(200)
        world.restart()
        world.hosts["hsm-a"].reachable = False
        world.settle()
        assert world.served("payments", "checkout").serves
        standing = judge(world.hsm_snapshot("hsm-a"))
        assert (standing.serves, standing.fresh, standing.binds) == (True, False, False)
        assert standing.valid_until == world.now + 30
        world.pass_time(31)
        world.settle()
        assert verdict(world) == ("Unknown", "EvidenceExpired")

    def test_nothing_new_binds_on_a_verdict_from_before_the_restart(self) -> None:
        world = stage("hsm-a")
        world.restart()
        world.hosts["hsm-a"].reachable = False
        put_claim(world)
        world.settle()
        assert condition(world.claims["payments", "checkout"], "Bound") == ("False", "WaitingForAttestation")
        world.hosts["hsm-a"].reachable = True
        world.settle()
        assert condition(world.claims["payments", "checkout"], "Bound") == ("True", "Bound")

    def test_rounds_cost_no_write_but_the_stamp(self) -> None:
        world = stage("hsm-a")
        put_claim(world)
        world.settle()
        world.attest()
        world.settle()
        before, stamped = world.writes, 0
        for _ in range(60):
            world.pass_time(10)
            world.attest()
            plans = list(world.plans())
            stamped += sum(isinstance(a, SetHsmStatus) for plan in plans for a in plan.writes)
            for plan in plans:
                world.run(plan)
        assert world.writes - before == stamped == 2

    def test_policy_deleted_stops_at_the_deadline(self) -> None:
        world = stage("hsm-a")
        put_claim(world)
        world.settle()
        del world.policies["baseline"]
        world.settle()
        assert condition(world.claims["payments", "checkout"], "Bound") == ("False", "ReleaseRefused")
        world.pass_time(31)
        world.settle()
        assert verdict(world) == ("Unknown", "PolicyNotFound")

    def test_deadlines_that_contradict_stall(self) -> None:
        world = stage("hsm-a")
        put_policy(world, freshness={"maxAgeSeconds": 10})
        world.settle()
        assert condition(world.hsms["hsm-a"], "Stalled") == ("True", "DeadlinesContradict")
        put_claim(world)
        world.settle()
        assert condition(world.claims["payments", "checkout"], "Bound")[0] == "False"


class TestLostStatus:
    def test_lost_status_of_a_token_with_our_keys_awaits_readmission_and_rebuilds_the_seats(self) -> None:
        world = refused(stage())
        item = world.hsms["hsm-a"]
        world.put_hsm(item, **{name: getattr(HsmStatus(), name) for name in HsmStatus.model_fields})
        world.hosts["hsm-a"].pcrs[7] = GOOD_PCR
        world.restart()
        world.settle()
        item = world.hsms["hsm-a"]
        assert condition(item, "Enrolled") == ("False", "AwaitingReadmission")
        assert [seat.name for seat in item.status.allocations] == ["checkout"]
        assert not world.served("payments", "checkout").serves
        world.attest()
        world.settle()
        assert verdict(world) == ("Unknown", "AwaitingReadmission")
        readmit(world, "hsm-a")
        world.settle()
        attestation = world.hsms["hsm-a"].status.attestation
        assert attestation is not None
        assert attestation.epoch.generation == 2
        assert world.served("payments", "checkout").serves
        allocation = world.claims["payments", "checkout"].status.allocation
        assert allocation is not None
        assert allocation.sequence == 1

    def test_keys_of_claims_that_nobody_remembers_are_retained(self) -> None:
        world = stage("hsm-a")
        world.hosts["hsm-a"].labels.add("chat/11111111-2222-4333-8444-555555555555/old/3")
        item = world.hsms["hsm-a"]
        world.put_hsm(item, **{name: getattr(HsmStatus(), name) for name in HsmStatus.model_fields})
        world.restart()
        world.settle()
        readmit(world, "hsm-a")
        world.settle()
        item = world.hsms["hsm-a"]
        assert verdict(world) == ("Trusted", "EvidenceHolds")
        assert [(kept.name, kept.keys[0].name, kept.keys[0].version) for kept in item.status.retained] == [
            ("unknown", "old", 3)
        ]


class TestPause:
    def test_pause_stops_changes_but_not_revocation(self) -> None:
        world = stage("hsm-a")
        annotate_hsm(world, "hsm-a", ANNOTATION_PAUSED, "true")
        world.settle()
        assert condition(world.hsms["hsm-a"], "Paused") == ("True", "Paused")
        world.hosts["hsm-a"].pcrs[7] = BAD_PCR
        world.attest()
        world.settle()
        assert verdict(world)[0] == "Untrusted"
        assert len(world.cuts) == 0 or world.cuts[0].hsm == "hsm-a"
        world.hosts["hsm-a"].pcrs[7] = GOOD_PCR
        readmit(world, "hsm-a")
        world.settle()
        assert verdict(world)[0] == "Untrusted"
        annotate_hsm(world, "hsm-a", ANNOTATION_PAUSED, "false")
        world.settle()
        assert verdict(world)[0] == "Trusted"


def test_unreachable_host_is_shown_and_nothing_else() -> None:
    world = stage("hsm-a")
    uid = world.hsms["hsm-a"].metadata.uid
    seen = world.memory[uid]
    reach = Reach(Outcome.REFUTED, Reason.NOT_AUTHENTICATED, "a stranger answered", world.now)
    world.memory[uid] = replace(seen, reach=reach)
    world.settle()
    assert condition(world.hsms["hsm-a"], "Reachable") == ("False", "NotAuthenticated")
    assert verdict(world) == ("Trusted", "EvidenceHolds")


def test_conditions_are_unknown_at_first_sight() -> None:
    world = stage("hsm-a")
    put_hsm(world, "hsm-new")
    world.hosts["hsm-new"].reachable = False
    world.settle()
    item: Any = world.hsms["hsm-new"]
    assert [c.type for c in item.status.conditions] == [
        "Enrolled", "Reachable", "Attested", "Ready", "Stalled", "Paused",
    ]  # fmt: skip
    assert condition(item, "Enrolled") == ("Unknown", "Pending")
    assert not [
        e for e in world.events if isinstance(e, EmitEvent) and e.object.name == "hsm-new" and "Pending" in e.reason
    ]


def test_key_destroyed_since_the_last_round_does_not_count_against_the_host() -> None:
    world = stage("hsm-a")
    put_claim(world, reclaimPolicy="Destroy")
    world.settle()
    world.attest()
    world.settle()
    delete_claim(world)
    world.settle()
    assert world.claims == {}
    assert verdict(world) == ("Trusted", "EvidenceHolds")
