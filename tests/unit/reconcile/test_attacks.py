"""Each test is named by the attack; each was seen red with its check taken out."""

from __future__ import annotations

from dataclasses import replace

from chatelaine.evidence.tpm_types import Selection
from chatelaine.model.claim import ClaimAllocation, HsmClaimStatus, HsmRefStatus, KeyStatus, KeyVersionStatus
from chatelaine.model.common import Condition
from chatelaine.model.conditions import timestamp
from chatelaine.model.hsm import EpochStatus, HsmStatus
from chatelaine.model.identifiers import LABEL_NAMESPACE_NAME, key_label
from chatelaine.model.keys import KeyState, KeyType
from chatelaine.model.policy import Bank
from chatelaine.model.reasons import Reason
from chatelaine.model.verdict import Outcome
from chatelaine.reconcile import claim as claim_room
from chatelaine.reconcile.enrolment import prove
from chatelaine.reconcile.plan import EnsureKey
from chatelaine.reconcile.served import usable_versions
from chatelaine.reconcile.snapshot import AuthenticatedRefusal, NamespaceFacts
from chatelaine.reconcile.standing import judge
from support.world import World
from support.world_hosts import BAD_PCR, GOOD_PCR
from support.world_objects import (
    annotate_hsm,
    change_claim,
    change_hsm,
    condition,
    delete_claim,
    message,
    put_claim,
    put_hsm,
    put_policy,
    readmit,
    stage,
    uid_of,
)

EVIDENCE = "sha256:" + "e" * 64


def forged(world: World, hsm: str, *, sequence: int = 7) -> HsmClaimStatus:
    """A status as a tenant would like to have it."""
    item = world.hsms[hsm]
    ref = HsmRefStatus(name=hsm, uid=item.metadata.uid)
    allocation = ClaimAllocation(
        sequence=sequence, hsm=ref, at=timestamp(world.now), policies=[], evidence_digest=EVIDENCE,
        epoch=EpochStatus(reset_count=3, restart_count=0, generation=1),
    )  # fmt: skip
    version = KeyVersionStatus(
        version=1, state=KeyState.ACTIVE, sequence=sequence, hsm=ref, pkcs11_uri="pkcs11:object=x"
    )
    conditions = [
        Condition(type=type_, status="True", last_transition_time=timestamp(world.now), reason=reason)
        for type_, reason in (("Bound", "Bound"), ("Attested", "EvidenceHolds"), ("Ready", "AllReady"))
    ]
    keys = [KeyStatus(name="signing", type=KeyType.EC_P256, versions=[version])]
    return HsmClaimStatus(allocation=allocation, keys=keys, conditions=conditions)


def test_forged_claim_status_without_a_seat_is_not_served() -> None:
    world = stage("hsm-a")
    change_hsm(world, "hsm-a", cordoned="Enabled")
    claim = put_claim(world)
    world.put_claim(claim, forged(world, "hsm-a"))
    assert not world.served("payments", "checkout").serves
    world.settle()
    claim = world.claims["payments", "checkout"]
    assert not world.served("payments", "checkout").serves
    assert condition(claim, "Bound") == ("False", "NoSuitableHsm")
    assert condition(claim, "Ready")[0] == "False"
    assert not [key for key in world.network if key[1].startswith(f"chat-{claim.metadata.uid[:13]}")]
    assert world.hosts["hsm-a"].labels == set()


def test_forged_allocation_to_another_hsm_than_the_seat_is_put_right() -> None:
    world = stage("hsm-a", "hsm-b")
    put_claim(world)
    world.settle()
    world.put_claim(world.claims["payments", "checkout"], forged(world, "hsm-b"))
    assert not world.served("payments", "checkout").serves
    world.settle()
    allocation = world.claims["payments", "checkout"].status.allocation
    assert allocation is not None
    assert (allocation.hsm.name, allocation.sequence) == ("hsm-a", 8)


def test_forged_active_key_is_never_served_by_the_next_allocation() -> None:
    world = stage("hsm-a")
    claim = put_claim(world)
    world.put_claim(claim, forged(world, "hsm-a"))
    world.settle()
    claim = world.claims["payments", "checkout"]
    usable = usable_versions(claim, world.view("hsm-a"))
    assert [version.version for version in usable["signing"]] == [2]
    assert claim.status.keys[0].versions[0].state is KeyState.DEACTIVATED


def test_recreated_claim_of_the_same_name_gets_nothing_of_the_old_one() -> None:
    world = stage("hsm-a")
    old = put_claim(world)
    world.settle()
    delete_claim(world)
    world.settle()
    new = put_claim(world)
    world.settle()
    assert old.metadata.uid != new.metadata.uid
    claim = world.claims["payments", "checkout"]
    labels = world.hosts["hsm-a"].labels
    assert {key_label(old.metadata.uid, "signing", 1), key_label(new.metadata.uid, "signing", 1)} <= labels
    assert old.metadata.uid not in (claim.status.keys[0].versions[0].pkcs11_uri or "")
    assert [seat.claim_uid for seat in world.hsms["hsm-a"].status.allocations] == [new.metadata.uid]


def test_recreated_claim_does_not_take_the_seat_of_one_that_vanished() -> None:
    world = stage("hsm-a")
    put_claim(world)
    world.settle()
    status = world.claims["payments", "checkout"].status
    new = put_claim(world)
    world.put_claim(new, status)
    assert not world.served("payments", "checkout").serves


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
    world = stage("hsm-a")
    put_claim(world)
    world.settle()
    annotate_hsm(world, "hsm-a", "chatelaine.dev/readmit", EVIDENCE)
    put_hsm(world, "hsm-a")
    annotate_hsm(world, "hsm-a", "chatelaine.dev/readmit", EVIDENCE)
    world.restart()
    world.settle()
    assert condition(world.hsms["hsm-a"], "Enrolled") == ("False", "AwaitingReadmission")


def test_claim_that_asks_for_more_than_the_release_rules_give_is_refused() -> None:
    rule = {
        "namespaces": {"matchLabels": {"team": "payments"}},
        "keyTypes": ["EcP256"],
        "usages": ["Sign"],
        "maxSensitivity": "Internal",
        "workloadTypes": ["PaymentSigning"],
    }
    world = stage("hsm-a", release={"anyOf": [rule]})
    wants = {"sensitivity": "Internal", "workloadType": "PaymentSigning"}
    key = {"name": "signing", "type": "EcP256", "usages": ["Sign"]}
    fine = {"requirements": wants, "keys": [key]}
    put_claim(world, "fine", **fine)
    put_claim(world, "type", **{**fine, "keys": [{**key, "type": "Rsa3072"}]})
    put_claim(world, "usage", **{**fine, "keys": [{**key, "usages": ["Sign", "Verify"]}]})
    put_claim(world, "sensitivity", **{**fine, "requirements": {**wants, "sensitivity": "Confidential"}})
    put_claim(world, "workload", **{**fine, "requirements": {"sensitivity": "Internal"}})
    world.settle()
    bound = {name for (_, name), claim in world.claims.items() if claim.status.allocation is not None}
    assert bound == {"fine"}


def test_claim_that_asks_for_more_after_it_was_bound_is_cut() -> None:
    rule = {"namespaces": {"matchLabels": {"team": "payments"}}, "keyTypes": ["EcP256"]}
    world = stage("hsm-a", release={"anyOf": [rule]})
    put_claim(world)
    world.settle()
    key = {"name": "signing", "type": "EcP256", "usages": ["Sign"]}
    change_claim(world, keys=[key, {"name": "more", "type": "Rsa3072", "usages": ["Sign"]}])
    world.settle()
    assert not world.served("payments", "checkout").serves
    assert not [label for label in world.hosts["hsm-a"].labels if "/more/" in label]
    world.check_settled()


def test_usages_of_clients_count_as_asked_for() -> None:
    rule = {"namespaces": {"matchLabels": {"team": "payments"}}, "usages": ["Sign"]}
    world = stage("hsm-a", release={"anyOf": [rule]})
    client = {
        "serviceAccount": "app", "podSelector": {"matchLabels": {"app": "x"}},
        "keys": ["signing"], "usages": ["Verify"],
    }  # fmt: skip
    put_claim(world, keys=[{"name": "signing", "type": "EcP256", "usages": ["Sign"]}], clients=[client])
    world.settle()
    assert world.claims["payments", "checkout"].status.allocation is None


def test_namespace_with_many_labels_does_not_match_a_rule_of_other_labels() -> None:
    world = stage("hsm-a", release={"anyOf": [{"namespaces": {"matchLabels": {"team": "payments", "stage": "live"}}}]})
    wide = {"team": "payments", "stage": "test", "everything": "yes", LABEL_NAMESPACE_NAME: "payments"}
    world.namespaces["payments"] = NamespaceFacts(uid_of(), wide)
    put_claim(world)
    world.settle()
    assert world.claims["payments", "checkout"].status.allocation is None


def test_namespace_that_labels_itself_with_anothers_name_is_refused() -> None:
    rule = {"namespaces": {"matchLabels": {LABEL_NAMESPACE_NAME: "payments"}}}
    world = stage("hsm-a", release={"anyOf": [rule]})
    world.namespaces["other"] = NamespaceFacts(uid_of(), {LABEL_NAMESPACE_NAME: "payments"})
    put_claim(world, namespace="other")
    put_claim(world)
    world.settle()
    assert world.claims["other", "checkout"].status.allocation is None
    assert world.claims["payments", "checkout"].status.allocation is not None


def test_policy_without_release_releases_nothing() -> None:
    world = stage("hsm-a", release=None)
    put_claim(world)
    world.settle()
    assert condition(world.claims["payments", "checkout"], "Bound") == ("False", "ReleaseRefused")
    assert "nothing is released" in message(world.claims["payments", "checkout"], "Bound")


def test_own_policy_without_release_releases_nothing() -> None:
    world = stage("hsm-a")
    put_policy(world, "mute", release=None)
    put_claim(world, policyRef={"name": "mute"})
    world.settle()
    assert world.claims["payments", "checkout"].status.allocation is None


def test_own_policy_cannot_widen_the_hsms_release_rules() -> None:
    world = stage("hsm-a")
    put_policy(world, "wide", release={"anyOf": [{"namespaces": {"matchLabels": {"team": "other"}}}]})
    put_claim(world, namespace="other", policyRef={"name": "wide"})
    world.settle()
    assert world.claims["other", "checkout"].status.allocation is None


def test_secret_of_somebody_else_is_not_touched() -> None:
    world = stage("hsm-a")
    world.secrets["payments", "checkout-hsm"] = ("uid-of-somebody-else", "sha256:theirs")
    put_claim(world)
    world.settle()
    claim = world.claims["payments", "checkout"]
    assert world.secrets["payments", "checkout-hsm"] == ("uid-of-somebody-else", "sha256:theirs")
    assert condition(claim, "Ready") == ("False", "SecretNameTaken")
    assert condition(claim, "Stalled") == ("True", "SecretNameTaken")
    assert claim.status.binding is None


def test_keys_are_not_made_in_an_hsm_that_was_refuted_meanwhile() -> None:
    world = stage("hsm-a")
    put_claim(world)
    world.run(claim_room.reconcile(world.claim_snapshot("payments", "checkout")))
    world.hosts["hsm-a"].pcrs[7] = BAD_PCR
    world.attest()
    plan = claim_room.reconcile(world.claim_snapshot("payments", "checkout"))
    assert not [action for action in plan.actions if isinstance(action, EnsureKey)]
    world.settle()
    assert world.hosts["hsm-a"].labels == set()


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
    assert not judge(world.hsm_snapshot("hsm-a")).binds


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
