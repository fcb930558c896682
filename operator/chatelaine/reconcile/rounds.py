"""Appraisal of one authenticated round, and what a deviation means: a changed host, or a changed policy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from chatelaine.appraisal.endorsement import CHECK, UNKNOWN
from chatelaine.appraisal.explain import NOTHING_CHANGED, Boot, explain, refuted_pcrs
from chatelaine.appraisal.host import HostCase, appraise_host, appraise_refusal
from chatelaine.appraisal.ima_rules import by_time_alone
from chatelaine.evidence import epoch as epochs
from chatelaine.evidence.bundle import VerifiedEvidence
from chatelaine.model.conditions import timestamp
from chatelaine.model.hsm import AttestationStatus, EpochStatus
from chatelaine.model.identifiers import key_label, parse_key_label
from chatelaine.model.policy import AttestationPolicy, Enforcement
from chatelaine.model.reasons import Reason
from chatelaine.model.verdict import Epoch, Finding, Outcome, Verdict
from chatelaine.reconcile.endorsed import certificate_of
from chatelaine.reconcile.enrolment import Enrolment
from chatelaine.reconcile.facts import facts_of, unchanged
from chatelaine.reconcile.judged import (
    Judged,
    Standing,
    is_held,
    is_sticky,
    policy_ref,
    readmission_message,
    reference_ref,
    sentence,
    stamp_of,
    stamped,
)
from chatelaine.reconcile.snapshot import AuthenticatedRefusal, EvidenceRound, HsmSnapshot

MAX_FOUND_CHARACTERS: Final = 280
MAX_TOLD_CHARACTERS: Final = 1000
"""What an Event can carry, what to do included. All of an explanation stands in the status."""


def accounted_labels(snapshot: HsmSnapshot) -> frozenset[str]:
    """Labels that belong in the token: of claims and their intents, retained ones, and those that an allocation whose
    claim is gone leaves behind until they are retained. Service keys are the appraisal's own knowledge.
    """
    labels = {label for claim in snapshot.claims for label in claim.key_labels}
    for kept in snapshot.hsm.status.retained:
        labels.update(key_label(kept.claim_uid, key.name, key.version) for key in kept.keys)
    gone = {claim.uid for claim in snapshot.claims if not claim.exists}
    if gone:
        parsed = ((label, parse_key_label(label)) for label in snapshot.token_labels or ())
        labels.update(label for label, key in parsed if key is not None and key.claim_uid in gone)
    return frozenset(labels)


def unread_labels(snapshot: HsmSnapshot) -> frozenset[str]:
    """Labels in the token that may be keys of claims which this process has not read yet."""
    if snapshot.claims_read:
        return frozenset()
    found = {label for label in snapshot.token_labels or () if parse_key_label(label) is not None}
    return frozenset(found) - accounted_labels(snapshot)


def went_back(before: AttestationStatus, evidence: VerifiedEvidence) -> bool:
    """Did a counter of the TPM fall since the last accepted round?"""
    quoted = Epoch(evidence.quote.reset_count, evidence.quote.restart_count)
    return epochs.compare(before.epoch.epoch(), quoted) is epochs.EpochChange.WENT_BACK


def appraised(
    snapshot: HsmSnapshot, policy: AttestationPolicy, round_: EvidenceRound, enrolment: Enrolment, *, generation: int,
    also: frozenset[str] = frozenset(),
) -> Standing:  # fmt: skip
    """Appraisal of one round, with the endorsement rules judged again: a policy may have dropped this TPM.

    `also`: labels that are accounted for besides those that are known to be.
    """
    stamp = stamp_of(policy)
    before, identity = snapshot.hsm.status.attestation, enrolment.identity
    evidence = round_.evidence
    accounted = accounted_labels(snapshot) | round_.accounted | also
    case = HostCase(
        subject=snapshot.hsm.metadata.uid, stamp=stamp, policy=policy,
        ek_digest=identity.ek_digest if identity else "",
        ek_certificate=certificate_of(snapshot.hsm, snapshot.host, identity) if identity else None,
        generation=generation, issued_at=int(round_.received_at), accounted=accounted,
        last_epoch=before.epoch.epoch() if before else None, ima_before=round_.ima_before,
    )  # fmt: skip
    if isinstance(evidence, AuthenticatedRefusal):
        appraisal = appraise_refusal(evidence.reason, evidence.detail, round_.evidence_digest, case)
        facts: tuple[str, ...] = (f"refused={evidence.reason}",)
    else:
        appraisal = appraise_host(evidence, case, ima=round_.ima)
        facts = facts_of(evidence, accounted, policy, round_)
    verdict, findings, epoch = appraisal.verdict, appraisal.findings, appraisal.epoch
    valid_until = appraisal.valid_until
    trusted = verdict is Verdict.TRUSTED
    reason = Reason.EVIDENCE_HOLDS if trusted else Reason.EVIDENCE_UNDECIDED
    attestation = AttestationStatus(
        verdict=verdict,
        reason=reason.value,
        policy=policy_ref(stamp),
        reference=reference_ref(policy.material.reference),
        evidence_digest=round_.evidence_digest,
        compared=list(appraisal.compared)[:64],
        facts=list(facts),
        explanation=list(_explained(snapshot, round_, findings)),
        epoch=EpochStatus(
            reset_count=epoch.reset_count, restart_count=epoch.restart_count, generation=epoch.generation
        ),
        valid_until=timestamp(valid_until),
        suspect_since=before.suspect_since if before else None,
    )
    return Standing(
        verdict, reason,
        _trusted_message(stamp.name, evidence) if trusted else sentence(findings, findings.outcome),
        serves=trusted, enrolment=enrolment, fresh=trusted, valid_until=valid_until if trusted else None,
        stamps=(stamp,), evidence_digest=round_.evidence_digest, epoch=epoch, findings=findings,
        judged=Judged(case, appraisal), ask_identity=_endorsement(findings).reason == UNKNOWN,
        attestation=stamped(before, attestation) if trusted else attestation,
        identity=snapshot.hsm.status.identity,
    )  # fmt: skip


def _explained(snapshot: HsmSnapshot, round_: EvidenceRound, findings: Finding) -> tuple[str, ...]:
    """Which event it was, as far as it can be told."""
    evidence = round_.evidence
    if findings.outcome is not Outcome.REFUTED or isinstance(evidence, AuthenticatedRefusal):
        return ()
    known = snapshot.host.last_trusted if snapshot.host is not None else None
    trusted = known.boot if known is not None and known.keys == round_.keys else None
    now = Boot.of(evidence.quote, evidence.boot_log.log if evidence.boot_log is not None else round_.flawed_log)
    return explain(now, trusted, refuted_pcrs(findings), log_asked=round_.wanted_log)


def _endorsement(findings: Finding) -> Finding:
    """What was found of the TPM's maker; it stands first."""
    return findings.children[0] if findings.children else findings


def _trusted_message(policy: str, evidence: VerifiedEvidence | AuthenticatedRefusal) -> str:
    """An unsafe clock refutes nothing (trust rules, §1.7), but whoever looks at the host shall see it."""
    message = f"Fresh evidence meets AttestationPolicy {policy}."
    if isinstance(evidence, VerifiedEvidence) and not evidence.quote.safe:
        message += (
            " The TPM says that its clock is not safe: it lost power without an orderly shutdown, and the clock may"
            " have gone back."
        )
    return message


def refuted(snapshot: HsmSnapshot, judged: Standing, before: AttestationStatus | None) -> Standing:
    """A deviation. If only the policy has changed since the host was last accepted, or a grace of its reference values
    has ended, the host has not deviated.
    """
    after = judged.attestation
    assert after is not None  # noqa: S101 - `appraised` always makes one
    held = is_sticky(before) or is_held(before)
    same = before is not None and unchanged(before.facts, after.facts)
    blocked = not held and (_only_the_maker(judged.findings) or (same and _only_time(judged.findings)))
    blocked = blocked or (
        before is not None
        and not held
        and (before.policy.digest != after.policy.digest or before.reason == Reason.POLICY_CHANGED.value)
        and same
    )
    if blocked:
        explanation = [NOTHING_CHANGED] if same else after.explanation
        stored = after.model_copy(
            update={"verdict": Verdict.UNKNOWN, "reason": Reason.POLICY_CHANGED.value, "explanation": explanation}
        )
        return replace(
            judged, verdict=Verdict.UNKNOWN, reason=Reason.POLICY_CHANGED, blocked_by_policy=True,
            attestation=stamped(before, stored),
        )  # fmt: skip
    stored = after.model_copy(
        update={"reason": Reason.EVIDENCE_REFUTED.value, "suspect_since": timestamp(snapshot.now)}
    )
    message = _told(judged.message, stored.explanation, readmission_message(stored))
    return replace(judged, reason=Reason.EVIDENCE_REFUTED, message=message, sticky=True, attestation=stored)


def _only_time(findings: Finding | None) -> bool:
    """Is all that fails the contents of files whose grace has ended? The reference values said beforehand that they
    would come to refuse them, which is a change of the policy; that nothing of it ran since, the facts say.
    """
    return findings is not None and by_time_alone(findings)


def _told(found: str, explanation: Sequence[str], to_do: str) -> str:
    """What was found, as much of why as fits, and what to do."""
    told = f"{found}." if len(found) < MAX_FOUND_CHARACTERS else f"{found[: MAX_FOUND_CHARACTERS - 1]}…"
    for more in explanation:
        if len(told) + len(more) + len(to_do) + 2 > MAX_TOLD_CHARACTERS:
            break
        told = f"{told} {more}"
    return f"{told} {to_do}"


def _only_the_maker(findings: Finding | None) -> bool:
    """Is the policy's word on who makes TPMs all that fails? The enrolled TPM is the same as ever: no deviation."""
    if findings is None or _endorsement(findings).check != CHECK:
        return False
    return all(part.outcome is Outcome.HOLDS for part in findings.children[1:])


def audited(judged: Standing, policy: AttestationPolicy, now: float) -> Standing:
    """Audit shows what is found and cuts nothing that the policy decides."""
    if policy.spec.enforcement is not Enforcement.AUDIT or judged.verdict is Verdict.TRUSTED:
        return judged
    if judged.reason is Reason.IDENTITY_CONFLICT:
        return judged
    stored = judged.attestation
    if stored is not None:
        stored = stored.model_copy(update={"reason": Reason.AUDIT_ONLY.value, "suspect_since": None})
    return replace(
        judged, reason=Reason.AUDIT_ONLY, serves=True, fresh=judged.evidence_digest is not None, sticky=False,
        blocked_by_policy=False, valid_until=now + policy.spec.freshness.max_age_seconds, attestation=stored,
    )  # fmt: skip
