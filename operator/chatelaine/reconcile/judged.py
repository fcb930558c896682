"""The result of judging a host, and the little arithmetic over what stands in `Hsm.status.attestation`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from chatelaine.appraisal.host import HostCase
from chatelaine.model.conditions import seconds_of
from chatelaine.model.hsm import AttestationStatus, EnrolledIdentity, PolicyStatusRef, ReferenceStatus
from chatelaine.model.identifiers import ANNOTATION_READMIT
from chatelaine.model.material import ReferenceValues
from chatelaine.model.policy import AttestationPolicy
from chatelaine.model.reasons import Reason
from chatelaine.model.verdict import Appraisal, Epoch, Finding, Outcome, PolicyStamp, Verdict
from chatelaine.reconcile.enrolment import Enrolment

STAMP_SECONDS: Final = 300
"""While nothing else changes, `validUntil` is written at most this often."""
HELD: Final = frozenset({Reason.AWAITING_READMISSION.value, Reason.IDENTITY_CONFLICT.value})


@dataclass(frozen=True, slots=True)
class Judged:
    """The verdict over one round, and all that it rests on besides the evidence."""

    case: HostCase
    appraisal: Appraisal


@dataclass(frozen=True, slots=True)
class Standing:
    """What is known of one HSM at one moment.

    Attributes:
        verdict: what the evidence says; `Trusted` is never set together with a cut.
        reason: as in the condition Attested.
        message: for people.
        serves: claims that are bound may use it, until `valid_until`.
        fresh: resting on evidence that this process has seen; only then may anything new bind.
        valid_until: hard end of `serves`, seconds since the epoch; None where nothing is served.
        sticky: only a re-admission helps.
        blocked_by_policy: unchanged evidence fails a changed policy; a mended policy helps.
        stamps: the policies that judged.
        evidence_digest: of the evidence that decided.
        epoch: of that evidence.
        findings: the whole tree, None if nothing was appraised now.
        judged: the verdict that the tree belongs to.
        enrolment: who the host is.
        attestation: what belongs in `Hsm.status.attestation`; equal to what is there while nothing changes.
        identity: what belongs in `Hsm.status.identity`.
        guarded: the write rests on the very object that was read (first enrolment, re-admission).
        readmitting: somebody asked for a re-admission, and the host has not shown all that it needs since.
        ask_identity, ask_evidence: what would help to decide.
    """

    verdict: Verdict
    reason: Reason
    message: str
    serves: bool
    enrolment: Enrolment
    fresh: bool = False
    valid_until: float | None = None
    sticky: bool = False
    blocked_by_policy: bool = False
    stamps: tuple[PolicyStamp, ...] = ()
    evidence_digest: str | None = None
    epoch: Epoch | None = None
    findings: Finding | None = None
    judged: Judged | None = None
    attestation: AttestationStatus | None = None
    identity: EnrolledIdentity | None = None
    guarded: bool = False
    readmitted: bool = False
    readmitting: bool = False
    ask_identity: bool = False
    ask_evidence: bool = False


def stamp_of(policy: AttestationPolicy) -> PolicyStamp:
    """Which policy, exactly."""
    meta = policy.metadata
    return PolicyStamp(meta.name, meta.uid, meta.generation, policy.digest())


def sentence(finding: Finding, outcome: Outcome) -> str:
    """The deciding leaf as a person needs it."""
    leaf = finding.first(outcome) or finding
    if leaf.detail:
        return leaf.detail
    return f"{leaf.check}: {leaf.reason}; expected {leaf.expected or 'nothing'}; found {leaf.found or 'nothing'}"


def is_sticky(before: AttestationStatus | None) -> bool:
    """Untrusted, and only a re-admission helps. What an Audit policy found is shown, and never sticks."""
    return before is not None and before.verdict is Verdict.UNTRUSTED and before.reason != Reason.AUDIT_ONLY.value


def is_held(before: AttestationStatus | None) -> bool:
    """Nothing is refuted, yet a person must look first."""
    return before is not None and before.verdict is Verdict.UNKNOWN and before.reason in HELD


def readmission_message(held: AttestationStatus) -> str:
    """What a person has to do."""
    return f"Check the host, then annotate {ANNOTATION_READMIT}={held.evidence_digest}."


def mark(before: AttestationStatus, reason: Reason) -> AttestationStatus:
    """The last attestation, no longer trusted. Facts, policy and epoch stay: later rounds are compared with them."""
    return before.model_copy(update={"verdict": Verdict.UNKNOWN, "reason": reason.value})


def marked(before: AttestationStatus | None, reason: Reason) -> AttestationStatus | None:
    """`mark`, where there is one."""
    return mark(before, reason) if before is not None else None


def stamped(before: AttestationStatus | None, after: AttestationStatus) -> AttestationStatus:
    """`before` while nothing but the evidence's number and time differ and the stamp is young enough."""
    if before is None:
        return after
    same = before.model_copy(update={"evidence_digest": after.evidence_digest, "valid_until": after.valid_until})
    if same != after or seconds_of(after.valid_until) - seconds_of(before.valid_until) >= STAMP_SECONDS:
        return after
    return before


def reference_ref(reference: ReferenceValues | None) -> ReferenceStatus | None:
    """The version of the signed reference values that judged, as it is written to a status."""
    if reference is None:
        return None
    return ReferenceStatus(name=reference.name, version=reference.version, digest=reference.digest)


def policy_ref(stamp: PolicyStamp) -> PolicyStatusRef:
    """The stamp as it is written to a status."""
    return PolicyStatusRef(name=stamp.name, uid=stamp.uid, generation=stamp.generation, digest=stamp.digest)
