"""Attacks by hosts and impostors, each test named by one; each was seen red with its check taken out."""

from __future__ import annotations

from dataclasses import replace

from chatelaine.evidence.tpm_types import Selection
from chatelaine.model.hsm import HsmStatus
from chatelaine.model.identifiers import ANNOTATION_READMIT
from chatelaine.model.reasons import Reason
from chatelaine.model.tpm_policy import Bank
from chatelaine.model.verdict import Outcome
from chatelaine.reconcile import hsm as hsm_room
from chatelaine.reconcile.enrolment import prove
from chatelaine.reconcile.plan import RequestIdentity
from chatelaine.reconcile.snapshot import AuthenticatedRefusal
from chatelaine.reconcile.standing import judge
from support.world_hosts import BAD_PCR, GOOD_PCR
from support.world_objects import (
    annotate_hsm,
    condition,
    put_claim,
    put_hsm,
    readmit,
    stage,
    verdict,
)


def test_recreated_hsm_of_the_same_name_is_another_hsm() -> None:
    world = stage("hsm-a")
    put_claim(world)
    world.settle()
    put_hsm(world, "hsm-a")
    world.restart()
    world.settle()
    claim = world.claims["payments", "checkout"]
    assert condition(claim, "Bound") == ("False", "HsmGone")
    assert not world.served("payments", "checkout").serves
    assert condition(world.hsms["hsm-a"], "Enrolled") == ("False", "AwaitingReadmission")
    assert world.hsms["hsm-a"].status.allocations == []


def test_recreated_hsm_does_not_inherit_the_readmission_annotation() -> None:
    refuted_by = "sha256:" + "e" * 64
    world = stage("hsm-a")
    put_claim(world)
    world.settle()
    annotate_hsm(world, "hsm-a", ANNOTATION_READMIT, refuted_by)
    put_hsm(world, "hsm-a")
    annotate_hsm(world, "hsm-a", ANNOTATION_READMIT, refuted_by)
    world.restart()
    world.settle()
    assert condition(world.hsms["hsm-a"], "Enrolled") == ("False", "AwaitingReadmission")


def test_proof_from_before_the_refutation_does_not_readmit() -> None:
    world = stage("hsm-a")
    world.touch("hsm-a", identity=True)
    world.hosts["hsm-a"].pcrs[7] = BAD_PCR
    world.attest()
    world.settle()
    world.hosts["hsm-a"].pcrs[7] = GOOD_PCR
    attestation = world.hsms["hsm-a"].status.attestation
    assert attestation is not None
    annotate_hsm(world, "hsm-a", "chatelaine.dev/readmit", attestation.evidence_digest)
    world.attest()
    world.settle()
    after = world.hsms["hsm-a"].status.attestation
    assert after is not None
    assert after.verdict == "Untrusted"


def test_proof_in_the_second_of_the_refutation_is_asked_for_again_until_it_counts() -> None:
    world = stage("hsm-a")
    world.hosts["hsm-a"].pcrs[7] = BAD_PCR
    world.attest()
    world.settle()
    world.hosts["hsm-a"].pcrs[7] = GOOD_PCR
    attestation = world.hsms["hsm-a"].status.attestation
    assert attestation is not None
    annotate_hsm(world, "hsm-a", "chatelaine.dev/readmit", attestation.evidence_digest)
    world.settle()
    assert verdict(world)[0] == "Untrusted"
    plan = hsm_room.reconcile(world.hsm_snapshot("hsm-a"))
    assert [type(action) for action in plan.actions] == [RequestIdentity]
    assert plan.wake_at is not None
    world.pass_time(plan.wake_at - world.now)
    world.settle()
    assert verdict(world)[0] == "Trusted"


def test_proof_from_the_middle_of_a_repair_neither_admits_nor_refutes() -> None:
    """Shown after the refutation, but before anybody asked: only what the host shows from then on counts."""
    world = stage("hsm-a")
    world.hosts["hsm-a"].pcrs[7] = BAD_PCR
    world.attest()
    world.settle()
    world.pass_time(2)
    world.touch("hsm-a", identity=True)
    world.pass_time(1)
    world.hosts["hsm-a"].pcrs[7] = GOOD_PCR
    refuted = world.hsms["hsm-a"].status.attestation
    assert refuted is not None
    annotate_hsm(world, "hsm-a", "chatelaine.dev/readmit", refuted.evidence_digest)
    world.settle()
    after = world.hsms["hsm-a"].status.attestation
    assert after is not None
    assert (after.verdict, after.epoch.generation) == ("Trusted", refuted.epoch.generation + 1)


def test_evidence_refuted_again_after_the_proof_does_not_readmit() -> None:
    world = stage("hsm-a")
    world.hosts["hsm-a"].pcrs[7] = BAD_PCR
    world.attest()
    world.settle()
    world.pass_time(2)
    world.hosts["hsm-a"].pcrs[7] = GOOD_PCR
    world.touch("hsm-a", identity=True)
    world.pass_time(1)
    world.hosts["hsm-a"].pcrs[7] = BAD_PCR
    world.attest()
    attestation = world.hsms["hsm-a"].status.attestation
    assert attestation is not None
    annotate_hsm(world, "hsm-a", "chatelaine.dev/readmit", attestation.evidence_digest)
    world.settle()
    after = world.hsms["hsm-a"].status.attestation
    assert after is not None
    assert after.verdict == "Untrusted"
    assert Reason.READMITTED not in [event.reason for event in world.events]


def test_evidence_of_another_attestation_key_than_the_proven_one_does_not_readmit() -> None:
    world = stage("hsm-a")
    world.hosts["hsm-a"].pcrs[7] = BAD_PCR
    world.attest()
    world.settle()
    world.hosts["hsm-a"].pcrs[7] = GOOD_PCR
    readmit(world, "hsm-a")
    proof = world.hosts["hsm-a"].presents()
    world.touch("hsm-a", identity=True)
    uid = world.hsms["hsm-a"].metadata.uid
    seen = world.memory[uid]
    assert seen.admission is not None
    assert judge(world.hsm_snapshot("hsm-a")).readmitted
    world.hosts["hsm-a"].ak = "ak-of-somebody-else"
    stolen = world.hosts["hsm-a"].evidence(Selection(Bank.SHA256, (0, 7)))
    theirs = world.hosts["hsm-a"].presents().keys
    swapped = replace(
        seen.admission, evidence=stolen, evidence_digest=stolen.evidence_digest, keys=theirs, presented=proof
    )
    world.memory[uid] = replace(seen, last_round=swapped, admission=swapped)
    assert judge(world.hsm_snapshot("hsm-a")).verdict == "Untrusted"


def test_round_of_another_attestation_key_than_the_enrolled_one_is_not_judged() -> None:
    world = stage("hsm-a")
    uid = world.hsms["hsm-a"].metadata.uid
    seen = world.memory[uid]
    assert seen.last_round is not None
    world.pass_time(100)
    world.hosts["hsm-a"].ak = "ak-of-somebody-else"
    theirs = world.hosts["hsm-a"].evidence(Selection(Bank.SHA256, (0, 7)))
    keys = world.hosts["hsm-a"].presents().keys
    round_ = replace(seen.last_round, evidence=theirs, keys=keys, received_at=world.now)
    world.memory[uid] = replace(seen, last_round=round_)
    assert not judge(world.hsm_snapshot("hsm-a")).serves


def test_round_under_a_fake_hsm_key_beside_the_true_tpm_is_not_judged() -> None:
    world = stage("hsm-a")
    uid = world.hsms["hsm-a"].metadata.uid
    seen = world.memory[uid]
    assert seen.last_round is not None
    world.pass_time(100)
    fake = seen.last_round.keys._replace(attestation_key_thumbprint="sha256:" + "f" * 64)
    world.memory[uid] = replace(seen, last_round=replace(seen.last_round, keys=fake, received_at=world.now))
    assert not judge(world.hsm_snapshot("hsm-a")).fresh


def test_refusal_of_an_impostors_own_evidence_never_makes_the_enrolled_host_untrusted() -> None:
    world = stage("hsm-a")
    uid = world.hsms["hsm-a"].metadata.uid
    seen = world.memory[uid]
    assert seen.last_round is not None
    impostor = replace(world.hosts["hsm-a"], ak="ak-of-an-impostor", ek="ek-of-an-impostor").presents()
    refusal = AuthenticatedRefusal("StatementSerialMismatch", "another token speaks")
    theirs = replace(
        seen.last_round, evidence=refusal, evidence_digest="sha256:" + "6" * 64, keys=impostor.keys,
        received_at=world.now + 1, presented=impostor,
    )  # fmt: skip
    world.memory[uid] = replace(seen, last_round=theirs, admission=theirs)
    world.pass_time(2)
    world.settle()
    after = world.hsms["hsm-a"].status.attestation
    assert after is not None
    assert after.verdict == "Trusted"


def test_identity_without_evidence_under_its_own_keys_is_not_enrolled() -> None:
    world = stage("hsm-a")
    uid = world.hsms["hsm-a"].metadata.uid
    seen = world.memory[uid]
    world.hsms["hsm-a"] = world.hsms["hsm-a"].model_copy(update={"status": HsmStatus()})
    assert prove(world.hsm_snapshot("hsm-a"), seen.presented).outcome is Outcome.HOLDS
    for weaker in (None, replace(seen.admission, evidence=AuthenticatedRefusal("StatementSerialMismatch", "no"))):
        world.memory[uid] = replace(seen, admission=weaker)
        assert prove(world.hsm_snapshot("hsm-a"), seen.presented).outcome is Outcome.CANNOT_TELL


def test_lost_status_is_not_readmitted_before_its_seats_are_rebuilt() -> None:
    world = stage("hsm-a")
    put_claim(world)
    world.settle()
    lost = HsmStatus()
    world.put_hsm(world.hsms["hsm-a"], **{name: getattr(lost, name) for name in HsmStatus.model_fields})
    world.restart()
    world.settle()
    readmit(world, "hsm-a")
    world.put_hsm(world.hsms["hsm-a"], allocations=[])
    world.touch("hsm-a", identity=True)
    world.claims.clear()
    standing = judge(world.hsm_snapshot("hsm-a"))
    assert (standing.verdict, standing.readmitted) == ("Unknown", False)
