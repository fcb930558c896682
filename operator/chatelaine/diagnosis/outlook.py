"""What the operator's pure rooms would say, seen from the objects alone.

The operator judges with what hosts have shown it; a person has what it wrote down. Standings are rebuilt from the
conditions of Hsms, and then the very same rules are asked as the operator asks (`reconcile.candidates`,
`release.rules`): they are written once.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import replace

from chatelaine.model.claim import HsmClaim
from chatelaine.model.common import Condition
from chatelaine.model.conditions import find, seconds_of
from chatelaine.model.hsm import Hsm
from chatelaine.model.material import PolicyMaterial
from chatelaine.model.policy import AttestationPolicy
from chatelaine.model.reasons import ConditionType, Reason
from chatelaine.model.verdict import Finding, Outcome, Verdict
from chatelaine.reconcile.candidates import Candidate, candidates
from chatelaine.reconcile.claim_snapshot import ClaimSnapshot, HsmView, NamespaceFacts
from chatelaine.reconcile.enrolment import Enrolment
from chatelaine.reconcile.hsm import was_serving
from chatelaine.reconcile.judged import STAMP_SECONDS, Standing
from chatelaine.reconcile.snapshot import HostObservation, Reach

_OUTCOMES = {"True": Outcome.HOLDS, "False": Outcome.REFUTED, "Unknown": Outcome.CANNOT_TELL}


def outcome_of(condition: Condition | None) -> Outcome:
    """Of a condition; one that nobody wrote, or with a status of its own, cannot tell."""
    return _OUTCOMES.get(condition.status, Outcome.CANNOT_TELL) if condition is not None else Outcome.CANNOT_TELL


def reason_of(condition: Condition | None) -> Reason:
    """Of a condition; `Pending` for what this version does not know."""
    try:
        return Reason(condition.reason) if condition is not None else Reason.PENDING
    except ValueError:
        return Reason.PENDING


def ends_at(hsm: Hsm) -> float | None:
    """When at the latest the verdict in the status ends: the stamp may be late by `STAMP_SECONDS`."""
    attestation = hsm.status.attestation
    if attestation is None:
        return None
    try:
        return float(seconds_of(attestation.valid_until) + STAMP_SECONDS)
    except ValueError:
        return 0.0


def standing_of(hsm: Hsm, now: float) -> Standing:
    """The operator's judgement as far as the status tells it."""
    enrolled = find(hsm.status.conditions, ConditionType.ENROLLED.value)
    attested = find(hsm.status.conditions, ConditionType.ATTESTED.value)
    attestation, end = hsm.status.attestation, ends_at(hsm)
    serves = was_serving(attestation) and end is not None and now < end
    return Standing(
        verdict=attestation.verdict if attestation is not None else Verdict.UNKNOWN,
        reason=reason_of(attested),
        message=attested.message if attested is not None else "nobody has judged it yet",
        serves=serves,
        enrolment=Enrolment(
            outcome_of(enrolled),
            reason_of(enrolled),
            enrolled.message if enrolled is not None else "",
            identity=hsm.status.identity,
        ),
        fresh=serves,
        valid_until=end if serves else None,
        evidence_digest=attestation.evidence_digest if attestation is not None else None,
        epoch=attestation.epoch.epoch() if attestation is not None else None,
        attestation=attestation,
        identity=hsm.status.identity,
    )


def view_of(hsm: Hsm, policy: AttestationPolicy | None, now: float) -> HsmView:
    """An Hsm as claims see it."""
    reachable = find(hsm.status.conditions, ConditionType.REACHABLE.value)
    reach = Reach(outcome_of(reachable), reason_of(reachable), reachable.message if reachable else "", now)
    return HsmView(
        hsm=hsm,
        standing=standing_of(hsm, now),
        policy=policy,
        host=HostObservation(reach=reach),
        seats={seat.claim_uid: seat.mode for seat in hsm.status.allocations},
    )


def with_known_material(policy: AttestationPolicy) -> AttestationPolicy:
    """What a policy leans on only the operator looks up; that it is unusable, its condition says."""
    valid = find(policy.status.conditions, ConditionType.VALID.value)
    if valid is None or valid.status != "False" or valid.reason != Reason.MATERIAL_UNUSABLE.value:
        return policy
    return policy.with_material(PolicyMaterial(missing=(valid.message or valid.reason,)))


def seats_by_policy(claim: HsmClaim, hsms: Iterable[Hsm], claims: Iterable[HsmClaim]) -> dict[str, int]:
    """Policy name -> how many other claims of the namespace hold seats that it judges, once however many they have."""
    own = {other.metadata.uid: other.spec.policy_ref.name for other in claims if other.spec.policy_ref is not None}
    holders: dict[str, set[str]] = defaultdict(set)
    for hsm in hsms:
        for seat in hsm.status.allocations:
            if seat.namespace == claim.metadata.namespace and seat.claim_uid != claim.metadata.uid:
                holders[hsm.spec.attestation.policy_ref.name].add(seat.claim_uid)
                if seat.claim_uid in own:
                    holders[own[seat.claim_uid]].add(seat.claim_uid)
    return {policy: len(uids) for policy, uids in holders.items()}


def snapshot_of(
    claim: HsmClaim,
    namespace_labels: Mapping[str, str],
    hsms: tuple[Hsm, ...],
    policies: tuple[AttestationPolicy, ...],
    claims: tuple[HsmClaim, ...],
    now: float,
) -> ClaimSnapshot:
    """What the rules look at."""
    by_name = {policy.metadata.name: with_known_material(policy) for policy in policies}
    return ClaimSnapshot(
        now=now,
        claim=claim,
        namespace=NamespaceFacts("", namespace_labels),
        hsms=tuple(view_of(hsm, by_name.get(hsm.spec.attestation.policy_ref.name), now) for hsm in hsms),
        policies=by_name,
        bound_in_namespace=seats_by_policy(claim, hsms, claims),
    )


def fitting(snapshot: ClaimSnapshot) -> list[Candidate]:
    """Every Hsm and the first requirement that it does not meet, best first.

    Whether a trusted host's evidence also meets the claim's own policy only the operator knows, who has the evidence.
    """
    return [_without_guess(snapshot, candidate) for candidate in candidates(snapshot)]


def _without_guess(snapshot: ClaimSnapshot, candidate: Candidate) -> Candidate:
    own = snapshot.claim.spec.policy_ref
    if own is None or candidate.deciding.check != "attested" or not candidate.view.standing.serves:
        return candidate
    if own.name not in snapshot.policies or candidate.outcome is Outcome.REFUTED:
        return candidate
    detail = f"whether its evidence also meets AttestationPolicy {own.name}, only the operator can tell"
    finding = Finding("attested", Outcome.CANNOT_TELL, "OwnPolicy", detail)
    return replace(candidate, findings=(*candidate.findings[:-1], finding))
