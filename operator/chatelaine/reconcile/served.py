"""May this claim use this HSM right now? The one answer that the status, the network and the gateway's view share.

All of these must hold: the HSM lists the claim's *uid* among its seats (what a claim's status says of itself counts
for nothing); the claim's status names that very Hsm object, under the number that the seat was given for; release
rules still let it; the HSM's standing serves; and the claim's own policy, if it names one, holds on the same evidence.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from chatelaine.appraisal.appraise import appraise, compliance_of
from chatelaine.evidence.bundle import VerifiedEvidence
from chatelaine.model.claim import ClaimAllocation, HsmClaim, KeyVersionStatus
from chatelaine.model.conditions import is_true
from chatelaine.model.hsm import Hsm
from chatelaine.model.keys import KeyState, Sensitivity
from chatelaine.model.policy import AttestationPolicy, Enforcement
from chatelaine.model.reasons import ConditionType, Reason
from chatelaine.model.verdict import Finding, Outcome, PolicyStamp, all_of
from chatelaine.reconcile.claim_snapshot import HsmView, NamespaceFacts
from chatelaine.reconcile.endorsed import finding_of_enrolled
from chatelaine.reconcile.judged import sentence, stamp_of
from chatelaine.reconcile.policy import faults
from chatelaine.release.rules import ReleaseRequest, judge_release


@dataclass(frozen=True, slots=True)
class ClaimStanding:
    """The answer.

    Attributes:
        outcome: HOLDS serves; REFUTED: a rule says no; CANNOT_TELL: fresh evidence would decide.
        reason, message: as in the condition Attested (or Bound, for what concerns the seat).
        fresh: resting on evidence that this process has seen; only then may anything new be made.
        valid_until: hard end, seconds since the epoch; None where nothing is served.
        stamps: the policies that held, the Hsm's first.
        seated: the seat and the status agree and release rules let the claim keep it.
    """

    outcome: Outcome
    reason: Reason
    message: str
    fresh: bool = False
    valid_until: float | None = None
    stamps: tuple[PolicyStamp, ...] = ()
    seated: bool = False

    @property
    def serves(self) -> bool:
        """Operations may be served, the network path may be open."""
        return self.outcome is Outcome.HOLDS


def served(
    claim: HsmClaim,
    namespace: NamespaceFacts,
    view: HsmView,
    policies: Mapping[str, AttestationPolicy],
    now: float,
) -> ClaimStanding:
    """The checks at the top of this module, for a claim that says it is bound to `view`."""
    allocation, uid = claim.status.allocation, claim.metadata.uid
    if uid not in view.seats or uid in view.pending:
        return ClaimStanding(Outcome.REFUTED, Reason.NO_SUITABLE_HSM, f"Hsm {view.name} has no seat for this claim.")
    if allocation is None or allocation.hsm.uid != view.uid or allocation.hsm.name != view.name:
        return ClaimStanding(Outcome.CANNOT_TELL, Reason.PROGRESSING, "The seat is not written to the claim yet.")
    if not stands_for(view, uid, allocation):
        return ClaimStanding(Outcome.REFUTED, Reason.NO_SUITABLE_HSM, "The seat was given for another allocation.")
    if claim.metadata.deletion_timestamp is not None:
        return ClaimStanding(Outcome.REFUTED, Reason.DELETING, "The claim is being deleted.")
    released = release_finding(claim, namespace, view, policies, bound_claims=None)
    if released.outcome is not Outcome.HOLDS:
        return ClaimStanding(
            Outcome.REFUTED,
            Reason.RELEASE_REFUSED,
            f"The seat is kept, access is cut: {sentence(released, released.outcome)}",
        )
    attested = attested_for(claim, view, policies, now)
    return ClaimStanding(
        attested.outcome, attested.reason, attested.message, attested.fresh, attested.valid_until, attested.stamps, True
    )


def stands_for(view: HsmView, claim_uid: str, allocation: ClaimAllocation) -> bool:
    """Was the seat given for this very allocation?"""
    return seat_sequence(view, claim_uid) in (None, allocation.sequence)


def seat_sequence(view: HsmView, claim_uid: str) -> int | None:
    """The number that the claim's seat was given for; one rebuilt from the token may not say."""
    return view.sequences.get(claim_uid)


def attested_for(
    claim: HsmClaim, view: HsmView, policies: Mapping[str, AttestationPolicy], now: float
) -> ClaimStanding:
    """The HSM's standing and the claim's own policy, nothing about seats."""
    standing = view.standing
    if not standing.serves:
        outcome = Outcome.CANNOT_TELL if _asking_helps(view) else Outcome.REFUTED
        return ClaimStanding(outcome, standing.reason, f"Hsm {view.name}: {standing.message}")
    stamps = standing.stamps or ((stamp_of(view.policy),) if view.policy else ())
    message = f"Hsm {view.name} has proven itself."
    if standing.reason is Reason.AUDIT_ONLY:
        message = f"Hsm {view.name}: {standing.message}"
    hsms = ClaimStanding(Outcome.HOLDS, standing.reason, message, standing.fresh, standing.valid_until, stamps)
    if claim.spec.policy_ref is None:
        return hsms
    return _own_policy(claim, claim.spec.policy_ref.name, hsms, view, policies, now)


def _asking_helps(view: HsmView) -> bool:
    standing = view.standing
    if standing.enrolment.admits or standing.reason in (Reason.EVIDENCE_EXPIRED, Reason.EVIDENCE_UNDECIDED):
        return True
    return standing.reason is Reason.NOT_ENROLLED and standing.enrolment.reason is Reason.PENDING


def _own_policy(
    claim: HsmClaim,
    name: str,
    hsms: ClaimStanding,
    view: HsmView,
    policies: Mapping[str, AttestationPolicy],
    now: float,
) -> ClaimStanding:
    policy = policies.get(name)
    if policy is None:
        return ClaimStanding(Outcome.REFUTED, Reason.POLICY_NOT_FOUND, f"AttestationPolicy {name} does not exist.")
    if wrong := faults(policy):
        broken = ClaimStanding(Outcome.REFUTED, Reason.POLICY_INVALID, f"AttestationPolicy {name}: {wrong[0]}")
        return _until_its_end(policy, view, hsms, broken, now)
    found = _on_the_last_round(policy, view) if hsms.fresh else None
    if found is None:
        what = (
            "asks for evidence that was not asked for yet" if hsms.fresh else f"waits for fresh evidence of {view.name}"
        )
        return _stands(claim, policy, view, hsms, f"AttestationPolicy {name} {what}.", now)
    judged, ends = found
    until = min(ends, hsms.valid_until or 0.0)
    both = (*hsms.stamps, stamp_of(policy))
    outcome = judged.outcome
    if outcome is Outcome.HOLDS and now < until:
        return ClaimStanding(Outcome.HOLDS, hsms.reason, hsms.message, hsms.fresh, until, both)
    if policy.spec.enforcement is Enforcement.AUDIT:
        shown = sentence(judged, outcome) if outcome is not Outcome.HOLDS else "the evidence is too old"
        message = f"AttestationPolicy {name}: {shown}"
        return ClaimStanding(Outcome.HOLDS, Reason.AUDIT_ONLY, message, hsms.fresh, hsms.valid_until, both)
    if outcome is Outcome.HOLDS:
        return ClaimStanding(
            Outcome.CANNOT_TELL, Reason.EVIDENCE_EXPIRED, f"AttestationPolicy {name}: the evidence is too old."
        )
    reason = Reason.EVIDENCE_REFUTED if outcome is Outcome.REFUTED else Reason.EVIDENCE_UNDECIDED
    said = ClaimStanding(outcome, reason, f"AttestationPolicy {name}: {sentence(judged, outcome)}")
    return said if outcome is Outcome.REFUTED else _until_its_end(policy, view, hsms, said, now)


def _on_the_last_round(policy: AttestationPolicy, view: HsmView) -> tuple[Finding, float] | None:
    """What the last round shows under the policy of a claim, and until when that counts; None: it does not cover it."""
    round_ = view.host.round_of(view.hsm.status.identity) if view.host else None
    evidence = round_.evidence if round_ else None
    if round_ is None or not isinstance(evidence, VerifiedEvidence) or not round_.covers(policy):
        return None
    appraisal = appraise(
        evidence,
        ((stamp_of(policy), policy.spec, policy.material),),
        subject=view.uid,
        generation=view.standing.epoch.generation if view.standing.epoch else 1,
        issued_at=int(round_.received_at),
        accounted=view.accounted | round_.accounted,
        ima=round_.ima,
    )
    endorsed = finding_of_enrolled(view.hsm, view.host, policy, at=round_.received_at)
    return all_of("host", (endorsed, appraisal.findings)), float(appraisal.valid_until)


def proofs(view: HsmView, policies: Iterable[AttestationPolicy], now: float) -> dict[str, float]:
    """Until when evidence holds that was judged under each of `policies`, by uid; worth remembering with every round.

    What the last round leaves undecided is as it was known before; what it refutes is forgotten.
    """
    known = view.host.own_policies_until if view.host else {}
    found: dict[str, float] = {}
    for policy in policies:
        uid = policy.metadata.uid
        judged = _on_the_last_round(policy, view) if view.standing.fresh and not faults(policy) else None
        if judged is not None and judged[0].outcome is Outcome.HOLDS:
            found[uid] = judged[1]
        elif (judged is None or judged[0].outcome is Outcome.CANNOT_TELL) and known.get(uid, 0.0) > now:
            found[uid] = known[uid]
    return found


def _until_its_end(
    policy: AttestationPolicy, view: HsmView, hsms: ClaimStanding, undecided: ClaimStanding, now: float
) -> ClaimStanding:
    """What was proven under the claim's own policy stands until its end, and not shorter, while nothing refutes it."""
    known = view.host.own_policies_until.get(policy.metadata.uid, 0.0) if view.host else 0.0
    until = min(known, hsms.valid_until or 0.0)
    if now >= until:
        return undecided
    message = f"{hsms.message} {undecided.message}"
    return ClaimStanding(Outcome.HOLDS, hsms.reason, message, False, until, (*hsms.stamps, stamp_of(policy)))


def _stands(
    claim: HsmClaim, policy: AttestationPolicy, view: HsmView, hsms: ClaimStanding, message: str, now: float
) -> ClaimStanding:
    """Nothing is judged under the policy as it is today. Right after a start what held under it stands as long as the
    HSM's own last verdict does.
    """
    undecided = ClaimStanding(Outcome.CANNOT_TELL, Reason.EVIDENCE_UNDECIDED, message)
    if view.host is not None and policy.metadata.uid in view.host.own_policies_until:
        return _until_its_end(policy, view, hsms, undecided, now)
    allocation = claim.status.allocation
    held = allocation is not None and policy.metadata.uid in {one.uid for one in allocation.policies}
    if held and not hsms.fresh and is_true(claim.status.conditions, ConditionType.ATTESTED.value):
        both = (*hsms.stamps, stamp_of(policy))
        return ClaimStanding(Outcome.HOLDS, hsms.reason, hsms.message, False, hsms.valid_until, both)
    return undecided


# --- release --------------------------------------------------------------------------------------------------


def held_compliance(hsm: Hsm, policy: AttestationPolicy | None) -> frozenset[str]:
    """Certificates by the policy's table; what the Hsm offers only narrows them."""
    token = hsm.status.token
    if token is None or policy is None:
        return frozenset()
    table = compliance_of(policy.spec, token.model, token.firmware)
    offered = hsm.spec.offers.compliance if hsm.spec.offers else None
    return table if offered is None else table & frozenset(offered)


def release_finding(
    claim: HsmClaim,
    namespace: NamespaceFacts,
    view: HsmView,
    policies: Mapping[str, AttestationPolicy],
    *,
    bound_claims: Mapping[str, int] | None,
) -> Finding:
    """The Hsm's policy must release, and so must the claim's own.

    `bound_claims`: other claims of the namespace bound, by policy name; None for a claim that has its seat.
    """
    name = view.hsm.spec.attestation.policy_ref.name
    names = [name] if claim.spec.policy_ref is None else [name, claim.spec.policy_ref.name]
    findings = []
    for policy_name in dict.fromkeys(names):
        policy = view.policy if policy_name == name else policies.get(policy_name)
        if policy is None:
            return Finding(
                "release", Outcome.REFUTED, "PolicyNotFound", f"AttestationPolicy {policy_name} does not exist"
            )
        count = None if bound_claims is None else bound_claims.get(policy_name, 0)
        findings.append(judge_release(policy_name, policy.spec, release_request(claim, namespace, view, count)))
    return all_of("release", findings)


def release_request(
    claim: HsmClaim, namespace: NamespaceFacts, view: HsmView, bound_claims: int | None
) -> ReleaseRequest:
    """What the claim asks of this HSM: all its keys and everything that its clients would do."""
    return request_of(claim, namespace.labels, held_compliance(view.hsm, view.policy), bound_claims)


def request_of(
    claim: HsmClaim, namespace_labels: Mapping[str, str], compliance: frozenset[str], bound_claims: int | None
) -> ReleaseRequest:
    """The same of an HSM that holds these certificates."""
    wants = claim.spec.requirements
    keys, clients = claim.spec.keys or (), claim.spec.clients or ()
    return ReleaseRequest(
        namespace=claim.metadata.namespace or "",
        namespace_labels=namespace_labels,
        key_types=frozenset(key.type for key in keys),
        usages=frozenset(usage for holder in (*keys, *clients) for usage in holder.usages),
        sensitivity=(wants.sensitivity if wants else None) or Sensitivity.PUBLIC,
        workload_type=wants.workload_type if wants else None,
        compliance=compliance,
        bound_claims=bound_claims,
    )


def usable_versions(claim: HsmClaim, view: HsmView) -> dict[str, tuple[KeyVersionStatus, ...]]:
    """Key name -> versions that a gateway may use for this claim: made under the allocation in force, on this Hsm.

    Active ones sign; Deactivated ones are listed so that what they signed can still be verified.
    """
    allocation = claim.status.allocation
    if allocation is None:
        return {}
    wanted = {key.name: key.type for key in claim.spec.keys or ()}
    out = {}
    for key in claim.status.keys:
        versions = tuple(
            version
            for version in key.versions
            if version.hsm.uid == view.uid
            and version.sequence == allocation.sequence
            and version.state in (KeyState.ACTIVE, KeyState.DEACTIVATED)
        )
        if versions and wanted.get(key.name) is key.type:
            out[key.name] = versions
    return out
