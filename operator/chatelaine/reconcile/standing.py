"""One judgement over one host: may its HSM be used now, and if not, why, and what would change that.

`judge` asks in this order (trust rules, §0, §1.7, §3); the first that decides ends it:

1. re-admission: a person names the refuted evidence, the host proves everything that first admission asks;
2. an Untrusted verdict stays, whatever evidence comes;
3. enrolment: without an approved, proven identity nothing is judged;
4. a hold (lost status, another identity, counters that went back) stays until re-admission;
5. the policy exists and can be enforced, and the evidence in memory covers what it names;
6. counters that went back: the host must be re-admitted;
7. appraisal of the last authenticated round: holds, is refuted (by a change of the host: Untrusted; by a change of
   the policy: blocked), or cannot tell;
8. where nothing fresh can be told, the last verdict stands until its deadline, not shorter and not longer.

Whatever is not authenticated as this host's never gets here, so a stranger can at most let a verdict run out.
"""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

from chatelaine.evidence.bundle import VerifiedEvidence
from chatelaine.model.conditions import find, seconds_of, timestamp
from chatelaine.model.hsm import AttestationStatus, EpochStatus
from chatelaine.model.identifiers import ANNOTATION_READMIT, claim_prefix
from chatelaine.model.policy import AttestationPolicy
from chatelaine.model.reasons import ConditionType, Reason
from chatelaine.model.verdict import Outcome, Verdict
from chatelaine.reconcile import enrolment as enrolments
from chatelaine.reconcile.enrolment import Enrolment
from chatelaine.reconcile.judged import (
    STAMP_SECONDS,
    Standing,
    is_held,
    is_sticky,
    mark,
    marked,
    policy_ref,
    readmission_message,
    stamp_of,
)
from chatelaine.reconcile.policy import faults
from chatelaine.reconcile.rounds import accounted_labels, appraised, audited, refuted, unread_labels, went_back
from chatelaine.reconcile.snapshot import (
    AuthenticatedRefusal,
    EvidenceRound,
    HostObservation,
    HsmSnapshot,
    PresentedIdentity,
)

__all__ = ["Standing", "accounted_labels", "judge"]


def judge(snapshot: HsmSnapshot) -> Standing:
    """The steps at the top of this module."""
    status = snapshot.hsm.status
    enrolment = enrolments.examine(snapshot)
    before = status.attestation
    # 1
    if before is not None and _readmission_asked(snapshot, before):
        decided = _readmit(snapshot, before)
        if decided is not None:
            return decided
        held = _hold(snapshot, enrolment)
        return replace(held, ask_identity=True, readmitting=True)
    # 2, 3, 4
    if is_sticky(before) or is_held(before) or enrolment.outcome is not Outcome.HOLDS or enrolment.admits:
        return _hold(snapshot, enrolment)
    # 5
    policy = _enforceable(snapshot)
    if isinstance(policy, _Problem):
        return _lapse(snapshot, enrolment, policy.reason, policy.message)
    # 6, 7, 8
    return audited(_judge_round(snapshot, policy, enrolment), policy, snapshot.now)


# --- 1: re-admission ------------------------------------------------------------------------------------------


def _readmission_asked(snapshot: HsmSnapshot, before: AttestationStatus) -> bool:
    """The annotation names the evidence that stands in the status, and there is something to re-admit from."""
    asked = snapshot.hsm.metadata.annotations.get(ANNOTATION_READMIT) == before.evidence_digest
    waits = is_sticky(before) or is_held(before) or enrolments.examine(snapshot).readmission
    return asked and waits


def _readmit(snapshot: HsmSnapshot, before: AttestationStatus) -> Standing | None:
    """The checks of a first admission, over a round made for it. None: the host has not shown all of it yet."""
    policy = _enforceable(snapshot)
    shown = _shown_since(snapshot.host, before, asked_at=snapshot.readmission_asked_at)
    if shown is None:
        return None
    presented, round_ = shown
    if isinstance(policy, _Problem) or not round_.covers(policy):
        return None
    proof = enrolments.prove(snapshot, presented)
    if proof.outcome is not Outcome.HOLDS or snapshot.now >= round_.received_at + policy.spec.freshness.max_age_seconds:
        return None
    if snapshot.hsm.status.identity is None and not _rebuilt(snapshot):
        return None
    admitted = replace(proof, admits=False)
    judged = appraised(snapshot, policy, round_, admitted, generation=before.epoch.generation + 1)
    if judged.verdict is Verdict.UNKNOWN:
        return None
    identity = snapshot.hsm.status.identity
    if judged.verdict is Verdict.TRUSTED and (identity is None or not enrolments.same(identity, presented)):
        identity = proof.identity
    elif judged.verdict is Verdict.UNTRUSTED:
        # Refused again: no admission, so no new generation either.
        again = appraised(snapshot, policy, round_, admitted, generation=before.epoch.generation)
        judged = refuted(snapshot, again, before)
    judged = replace(judged, identity=identity, guarded=True, readmitted=judged.verdict is Verdict.TRUSTED)
    return audited(judged, policy, snapshot.now)


def _shown_since(
    host: HostObservation | None, before: AttestationStatus, *, asked_at: float
) -> tuple[PresentedIdentity, EvidenceRound] | None:
    """The identity proven after the refutation and after somebody asked, and the newest evidence. What was shown
    before does not count, and evidence that came after the proof must hold as well.
    """
    proof = host.admission if host is not None else None
    if host is None or proof is None or proof.presented is None or proof.evidence_digest == before.evidence_digest:
        return None
    if proof.keys != proof.presented.keys:
        return None
    refuted_before = seconds_of(before.suspect_since) + 1 if before.suspect_since is not None else 0
    if proof.received_at < max(refuted_before, asked_at):
        return None
    last = host.last_round
    newer = last is not None and last.keys == proof.keys and last.received_at >= proof.received_at
    newest = last if last is not None and newer else proof
    return None if newest.evidence_digest == before.evidence_digest else (proof.presented, newest)


def _rebuilt(snapshot: HsmSnapshot) -> bool:
    """After a lost status: every key of a claim in the token has its seat or its place among the retained again."""
    if snapshot.token_labels is None:
        return False
    owners = {seat.claim_uid for seat in snapshot.hsm.status.allocations}
    seated = tuple(map(claim_prefix, owners))
    left = enrolments.claim_labels(snapshot.token_labels) - accounted_labels(snapshot)
    return all(label.startswith(seated) for label in left)


# --- 2, 3, 4: what stays --------------------------------------------------------------------------------------


def _hold(snapshot: HsmSnapshot, enrolment: Enrolment) -> Standing:
    before = snapshot.hsm.status.attestation
    identity = snapshot.hsm.status.identity
    if before is not None and is_sticky(before):
        return Standing(
            Verdict.UNTRUSTED, Reason.EVIDENCE_REFUTED, _kept_message(snapshot, Reason.EVIDENCE_REFUTED),
            serves=False, enrolment=enrolment, sticky=True, evidence_digest=before.evidence_digest,
            epoch=before.epoch.epoch(), attestation=before, identity=identity,
        )  # fmt: skip
    if before is not None and is_held(before):
        reason = Reason(before.reason)
        return Standing(
            Verdict.UNKNOWN, reason, readmission_message(before), serves=False, enrolment=enrolment,
            evidence_digest=before.evidence_digest, epoch=before.epoch.epoch(), attestation=before, identity=identity,
        )  # fmt: skip
    if enrolment.reason is Reason.IDENTITY_CONFLICT and enrolment.identity is not None:
        # Who shows another identity has proven nothing about the enrolled one: what was proven runs out by itself.
        return _lapse(snapshot, enrolment, Reason.EVIDENCE_EXPIRED, "The enrolled host has not proven itself.")
    if enrolment.reason is Reason.AWAITING_READMISSION:
        return _await_readmission(snapshot, enrolment)
    message = "The host is being enrolled." if enrolment.admits else enrolment.message
    return Standing(
        Verdict.UNKNOWN, Reason.NOT_ENROLLED, message, serves=False, enrolment=enrolment,
        attestation=marked(before, Reason.NOT_ENROLLED),
        identity=enrolment.identity if enrolment.admits else identity,
        guarded=enrolment.admits, ask_identity=enrolment.ask,
    )  # fmt: skip


def _await_readmission(snapshot: HsmSnapshot, enrolment: Enrolment) -> Standing:
    """Cut, and written down, so that a restart does not forget it. The annotation has to name some evidence."""
    before = snapshot.hsm.status.attestation
    if before is None:
        round_ = snapshot.host.admission if snapshot.host else None
        before = _first_held(snapshot, round_) if round_ is not None and snapshot.policy is not None else None
    held = marked(before, Reason.AWAITING_READMISSION)
    return Standing(
        Verdict.UNKNOWN, Reason.AWAITING_READMISSION,
        readmission_message(held) if held else "The host must show its identity and evidence first.",
        serves=False, enrolment=enrolment, attestation=held, identity=snapshot.hsm.status.identity,
        ask_identity=held is None,
    )  # fmt: skip


def _first_held(snapshot: HsmSnapshot, round_: EvidenceRound) -> AttestationStatus | None:
    if isinstance(round_.evidence, AuthenticatedRefusal) or snapshot.policy is None:
        return None
    generation = max((claim.allocation_generation for claim in snapshot.claims), default=0)
    quote = round_.evidence.quote
    return AttestationStatus(
        verdict=Verdict.UNKNOWN,
        reason=Reason.AWAITING_READMISSION.value,
        policy=policy_ref(stamp_of(snapshot.policy)),
        evidence_digest=round_.evidence_digest,
        epoch=EpochStatus(
            reset_count=quote.reset_count, restart_count=quote.restart_count, generation=max(1, generation)
        ),
        valid_until=timestamp(round_.received_at),
    )


def _kept_message(snapshot: HsmSnapshot, reason: Reason) -> str:
    """The message that explained it when it happened; the tree of findings is not kept in memory."""
    condition = find(snapshot.hsm.status.conditions, ConditionType.ATTESTED.value)
    return condition.message if condition is not None and condition.reason == reason.value else "Evidence was refuted."


# --- 5: policy ------------------------------------------------------------------------------------------------


class _Problem(NamedTuple):
    reason: Reason
    message: str


def _enforceable(snapshot: HsmSnapshot) -> AttestationPolicy | _Problem:
    """The Hsm's own policy, or why nothing can be judged by it."""
    name = snapshot.hsm.spec.attestation.policy_ref.name
    if snapshot.policy is None:
        return _Problem(Reason.POLICY_NOT_FOUND, f"AttestationPolicy {name} does not exist.")
    wrong = faults(snapshot.policy)
    return _Problem(Reason.POLICY_INVALID, f"AttestationPolicy {name}: {wrong[0]}") if wrong else snapshot.policy


# --- 6, 7: the round ------------------------------------------------------------------------------------------


def _judge_round(snapshot: HsmSnapshot, policy: AttestationPolicy, enrolment: Enrolment) -> Standing:
    before = snapshot.hsm.status.attestation
    round_ = snapshot.host.round_of(snapshot.hsm.status.identity) if snapshot.host else None
    if round_ is None:
        # Nothing, or nothing of the identity that is enrolled today.
        late = _lapse(snapshot, enrolment, Reason.EVIDENCE_EXPIRED, "The host has not proven itself in time.")
        return replace(late, ask_evidence=True)
    evidence = round_.evidence
    if isinstance(evidence, VerifiedEvidence):
        identity = snapshot.hsm.status.identity
        if before is not None and went_back(before, evidence):
            held = mark(before, Reason.IDENTITY_CONFLICT)
            return Standing(
                Verdict.UNKNOWN, Reason.IDENTITY_CONFLICT,
                f"The TPM's reset or restart counter went back. {readmission_message(held)}",
                serves=False, enrolment=enrolment, attestation=held, identity=identity,
            )  # fmt: skip
        if not round_.covers(policy):
            message = "The policy asks for evidence that the host has not been asked for yet."
            late = _lapse(snapshot, enrolment, Reason.EVIDENCE_UNDECIDED, message)
            return replace(late, ask_evidence=True)
    generation = before.epoch.generation if before is not None else 1
    judged = appraised(snapshot, policy, round_, enrolment, generation=generation)
    unread = unread_labels(snapshot)
    if unread and judged.verdict is Verdict.UNTRUSTED:
        excused = appraised(snapshot, policy, round_, enrolment, generation=generation, also=unread)
        if excused.verdict is not Verdict.UNTRUSTED:
            message = "Not all claims have been read yet: whose keys are in the token cannot be told."
            return _lapse(snapshot, enrolment, Reason.EVIDENCE_UNDECIDED, message)
    if judged.verdict is Verdict.UNTRUSTED:
        return refuted(snapshot, judged, before)
    if judged.verdict is Verdict.UNKNOWN:
        late = _lapse(snapshot, enrolment, Reason.EVIDENCE_UNDECIDED, judged.message)
        # Identity is asked for together with evidence.
        return replace(late, findings=judged.findings, ask_evidence=True, ask_identity=judged.ask_identity)
    if judged.valid_until is None or snapshot.now >= judged.valid_until:
        return Standing(
            Verdict.UNKNOWN, Reason.EVIDENCE_EXPIRED, "The host has not proven itself in time.",
            serves=False, enrolment=enrolment, stamps=judged.stamps,
            attestation=marked(before or judged.attestation, Reason.EVIDENCE_EXPIRED),
            identity=snapshot.hsm.status.identity, ask_evidence=True,
        )  # fmt: skip
    return judged


# --- 8: time --------------------------------------------------------------------------------------------------


def _lapse(snapshot: HsmSnapshot, enrolment: Enrolment, reason: Reason, message: str) -> Standing:
    """Nothing fresh can be told: the last verdict stands until its deadline."""
    before, now = snapshot.hsm.status.attestation, snapshot.now
    identity = snapshot.hsm.status.identity
    if before is not None and before.reason == Reason.POLICY_CHANGED.value:
        return Standing(
            Verdict.UNKNOWN, Reason.POLICY_CHANGED, _kept_message(snapshot, Reason.POLICY_CHANGED), serves=False,
            enrolment=enrolment, blocked_by_policy=True, attestation=before, identity=identity,
        )  # fmt: skip
    if before is not None and before.verdict is Verdict.TRUSTED:
        deadline = _deadline(snapshot, before)
        if now < deadline:
            return Standing(
                Verdict.TRUSTED, Reason.EVIDENCE_HOLDS, _kept_trust(snapshot, before), serves=True,
                enrolment=enrolment, valid_until=deadline, evidence_digest=before.evidence_digest,
                epoch=before.epoch.epoch(), attestation=before, identity=identity,
            )  # fmt: skip
    return Standing(
        Verdict.UNKNOWN, reason, message, serves=False, enrolment=enrolment,
        attestation=marked(before, reason), identity=identity,
    )  # fmt: skip


def _deadline(snapshot: HsmSnapshot, before: AttestationStatus) -> float:
    """The stamp in the status may be 300 s old; memory knows better, and right after a start nobody does. Then the
    host gets as long to answer as the stamp may be late, and not a second more: a verdict that ran out stays so.
    """
    known = float(seconds_of(before.valid_until))
    host = snapshot.host
    if host is not None and host.proven_until is not None:
        known = max(known, host.proven_until)
    elif snapshot.policy is not None:
        grace = snapshot.watching_since + snapshot.policy.spec.freshness.max_age_seconds
        known = max(known, min(grace, known + STAMP_SECONDS))
    return known


def _kept_trust(snapshot: HsmSnapshot, before: AttestationStatus) -> str:
    condition = find(snapshot.hsm.status.conditions, ConditionType.ATTESTED.value)
    if condition is not None and condition.reason == Reason.EVIDENCE_HOLDS.value:
        return condition.message
    return f"Fresh evidence meets AttestationPolicy {before.policy.name}."
