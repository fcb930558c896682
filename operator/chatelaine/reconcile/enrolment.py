"""Who is this host? Decided from what a person approved, what stands in the status, and what was presented.

In this order (trust rules, §3):

1. nothing is enrolled without `spec.identity`; the message names the two digests to commit;
2. an enrolled identity stands as long as the approval names it; another one presented is a conflict for a person;
3. a new identity is written only if it was presented, proven by credential activation, equal to the approval, and
   admitted by the policy's endorsement rules;
4. a token that holds keys of ours while no identity is enrolled has lost its status: a person re-admits it.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass
from typing import Final

from chatelaine.model.conditions import find, timestamp
from chatelaine.model.hsm import ApprovedIdentity, AttestationKeyStatus, EnrolledIdentity
from chatelaine.model.identifiers import ANNOTATION_READMIT, parse_key_label
from chatelaine.model.policy import AttestationPolicy
from chatelaine.model.reasons import ConditionType, Reason
from chatelaine.model.verdict import Finding, Outcome
from chatelaine.reconcile.endorsed import finding_of_enrolled, finding_of_presented, same
from chatelaine.reconcile.snapshot import HsmSnapshot, PresentedIdentity

ENROLLED: Final = "The approved identity is enrolled."

__all__ = ["ENROLLED", "Enrolment", "claim_labels", "examine", "identity_of", "prove", "same"]


@dataclass(frozen=True, slots=True)
class Enrolment:
    """Where enrolment stands.

    Attributes:
        outcome: HOLDS: `identity` may be judged. REFUTED: a person must act. CANNOT_TELL: waiting for the host.
        identity: the identity in force, or the one to be written now (`admits`).
        admits: `identity` is new and must be written, guarded by resourceVersion.
        readmission: only the annotation lets this host in.
        ask: the host must present itself (again).
    """

    outcome: Outcome
    reason: Reason
    message: str
    identity: EnrolledIdentity | None = None
    admits: bool = False
    readmission: bool = False
    ask: bool = False


def examine(snapshot: HsmSnapshot) -> Enrolment:
    """The steps at the top of this module."""
    approved = snapshot.hsm.spec.identity
    enrolled = snapshot.hsm.status.identity
    presented = snapshot.host.presented if snapshot.host else None
    if approved is None:
        return _unapproved(presented)
    if enrolled is not None and _approves(approved, enrolled):
        return _known(snapshot, enrolled, presented)
    new = prove(snapshot, presented)
    if new.outcome is not Outcome.HOLDS:
        return new
    if enrolled is not None:
        return _readmit(new, "spec.identity now names another host than the one enrolled")
    if snapshot.token_labels is None:
        return Enrolment(Outcome.CANNOT_TELL, Reason.PENDING, "The token's keys have not been listed yet.", ask=True)
    if claim_labels(snapshot.token_labels):
        return _readmit(new, "the token holds keys of claims, but this object knows of none")
    return new


def claim_labels(labels: frozenset[str]) -> frozenset[str]:
    """Those of `labels` that are keys of claims, not service keys and not somebody else's."""
    return frozenset(label for label in labels if parse_key_label(label) is not None)


def identity_of(presented: PresentedIdentity, now: float) -> EnrolledIdentity:
    """The presented identity as it is written to the status."""
    return EnrolledIdentity(
        ek_digest=presented.ek_digest,
        ak_name=presented.ak_name_hex,
        ak_public=base64.b64encode(presented.ak_public).decode(),
        attestation_key=AttestationKeyStatus(thumbprint=presented.attestation_key_thumbprint),
        attestation_key_public=base64.b64encode(presented.attestation_key_spki).decode(),
        enrolled_at=timestamp(now),
    )


def _approves(approved: ApprovedIdentity, enrolled: EnrolledIdentity) -> bool:
    return (approved.ek_digest, approved.attestation_key_thumbprint) == (
        enrolled.ek_digest,
        enrolled.attestation_key.thumbprint,
    )


def _unapproved(presented: PresentedIdentity | None) -> Enrolment:
    if presented is None:
        return Enrolment(Outcome.CANNOT_TELL, Reason.PENDING, "The host has not shown its identity yet.", ask=True)
    return Enrolment(
        Outcome.REFUTED,
        Reason.AWAITING_APPROVAL,
        "If this is the host you mean, commit to spec.identity:"
        f" ekDigest: {presented.ek_digest}, attestationKeyThumbprint: {presented.attestation_key_thumbprint}",
    )


def _known(snapshot: HsmSnapshot, enrolled: EnrolledIdentity, presented: PresentedIdentity | None) -> Enrolment:
    if presented is None or same(enrolled, presented):
        return Enrolment(Outcome.HOLDS, Reason.IDENTITY_APPROVED, _how_admitted(snapshot), identity=enrolled)
    ours = (enrolled.ek_digest, enrolled.attestation_key.thumbprint)
    theirs = (presented.ek_digest, presented.attestation_key_thumbprint)
    if ours == theirs:
        what = f"attestation key {presented.ak_name_hex}; enrolled is {enrolled.ak_name}"
        remedy = (
            "If its TPM was cleared or its agent's state lost on purpose, re-admit it:"
            f" annotate {ANNOTATION_READMIT}=<status.attestation.evidenceDigest>."
        )
    else:
        what = f"EK {theirs[0]} and HSM attestation key {theirs[1]}; enrolled are {ours[0]} and {ours[1]}"
        remedy = "If the new host is meant, commit its two digests to spec.identity, then re-admit it."
    return Enrolment(
        Outcome.REFUTED,
        Reason.IDENTITY_CONFLICT,
        f"The host shows {what}. {remedy}",
        identity=enrolled,
        readmission=True,
    )


def prove(snapshot: HsmSnapshot, presented: PresentedIdentity | None) -> Enrolment:
    """What first admission asks of a presented identity. Re-admission asks the same."""
    approved = snapshot.hsm.spec.identity
    if approved is None:
        return _unapproved(presented)
    if presented is None:
        return Enrolment(Outcome.CANNOT_TELL, Reason.PENDING, "The host has not shown its identity yet.", ask=True)
    found = (presented.ek_digest, presented.attestation_key_thumbprint)
    if found != (approved.ek_digest, approved.attestation_key_thumbprint):
        return Enrolment(
            Outcome.REFUTED,
            Reason.IDENTITY_CONFLICT,
            f"The host shows EK {found[0]} and HSM attestation key {found[1]};"
            f" approved are {approved.ek_digest} and {approved.attestation_key_thumbprint}.",
            ask=True,
        )
    if snapshot.policy is None:
        return Enrolment(
            Outcome.CANNOT_TELL,
            Reason.POLICY_NOT_FOUND,
            f"AttestationPolicy {snapshot.hsm.spec.attestation.policy_ref.name} does not exist.",
        )
    if missing := snapshot.policy.material.missing:
        message = f"AttestationPolicy {snapshot.policy.metadata.name}: {missing[0]}"
        return Enrolment(Outcome.CANNOT_TELL, Reason.POLICY_INVALID, message)
    endorsed = finding_of_presented(presented, snapshot.policy, at=snapshot.now)
    if endorsed.outcome is not Outcome.HOLDS:
        return Enrolment(Outcome.REFUTED, Reason.ENDORSEMENT_REFUSED, endorsed.detail or endorsed.reason)
    if not presented.activated:
        why = snapshot.host.activation_failed if snapshot.host else None
        if why is not None:
            return Enrolment(Outcome.REFUTED, Reason.ACTIVATION_FAILED, why, ask=True)
        return Enrolment(Outcome.CANNOT_TELL, Reason.PENDING, "Credential activation has not been done yet.", ask=True)
    if snapshot.host is None or snapshot.host.proof_of(presented) is None:
        message = "The host has not signed evidence with the keys that it shows."
        return Enrolment(Outcome.CANNOT_TELL, Reason.PENDING, message, ask=True)
    return Enrolment(
        Outcome.HOLDS,
        Reason.IDENTITY_APPROVED,
        _admitted_by(endorsed, snapshot.policy),
        identity=identity_of(presented, snapshot.now),
        admits=True,
    )


def _admitted_by(endorsed: Finding, policy: AttestationPolicy) -> str:
    """Which rule let this EK in (trust rules, §3.1): the use of a list is shown."""
    why = f": {endorsed.detail}" if endorsed.detail else ""
    return f"{ENROLLED} AttestationPolicy {policy.metadata.name} let its EK in by {endorsed.reason}{why}."


def _how_admitted(snapshot: HsmSnapshot) -> str:
    """As it was said at the admission; where that is lost, as today's policy would."""
    said = find(snapshot.hsm.status.conditions, ConditionType.ENROLLED.value)
    if said is not None and (said.status, said.reason) == ("True", Reason.IDENTITY_APPROVED.value):
        return said.message
    if snapshot.policy is None:
        return ENROLLED
    endorsed = finding_of_enrolled(snapshot.hsm, snapshot.host, snapshot.policy, at=snapshot.now)
    return _admitted_by(endorsed, snapshot.policy) if endorsed.outcome is Outcome.HOLDS else ENROLLED


def _readmit(new: Enrolment, why: str) -> Enrolment:
    return Enrolment(
        Outcome.REFUTED,
        Reason.AWAITING_READMISSION,
        f"Held: {why}. Check the host, then annotate {ANNOTATION_READMIT} as the condition Attested says.",
        identity=new.identity,
        readmission=True,
    )
