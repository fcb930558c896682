"""Verdicts: what refutes and sticks, what blocks, and what lets a host in again."""

from __future__ import annotations

import pytest

from chatelaine.model.identifiers import ANNOTATION_READMIT
from chatelaine.model.reasons import Reason
from chatelaine.model.verdict import Verdict
from chatelaine.reconcile.snapshot import AuthenticatedRefusal, EvidenceRound, HostObservation
from chatelaine.reconcile.standing import judge
from support.world_hosts import BAD_PCR, GOOD_PCR
from support.world_objects import (
    annotate_hsm,
    condition,
    message,
    put_claim,
    put_policy,
    readmit,
    refuted,
    stage,
    verdict,
)


class TestVerdicts:
    def test_refuted_evidence_cuts_and_sticks(self) -> None:
        world = refuted(stage())
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
        world = refuted(stage())
        values = [{"index": 7, "anyOf": [BAD_PCR]}]
        put_policy(world, tpm={"pcrs": {"bank": "Sha256", "values": values}})
        world.attest()
        world.settle()
        assert verdict(world) == ("Untrusted", "EvidenceRefuted")
        del world.policies["baseline"]
        world.settle()
        assert verdict(world) == ("Untrusted", "EvidenceRefuted")

    def test_readmission_needs_the_digest_a_new_proof_and_good_evidence(self) -> None:
        world = refuted(stage())
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
        world = refuted(stage())
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
        world = refuted(stage())
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
        world = refuted(stage())
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
