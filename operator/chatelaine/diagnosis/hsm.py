"""Why an Hsm is not Ready: the object, its enrolment, its host's answers, its evidence, the policy that judges it."""

from __future__ import annotations

from dataclasses import replace

from chatelaine.diagnosis.advice import advice_on
from chatelaine.diagnosis.check import Check, Diagnosis, State
from chatelaine.diagnosis.conditions import condition_check, object_check, operator_check
from chatelaine.diagnosis.names import Names
from chatelaine.diagnosis.outlook import ends_at, outcome_of
from chatelaine.diagnosis.policy import policy_check
from chatelaine.diagnosis.sight import Sight, Unread
from chatelaine.model.conditions import find
from chatelaine.model.hsm import Cordon, Hsm
from chatelaine.model.policy import AttestationPolicy
from chatelaine.model.reasons import ConditionType, Reason
from chatelaine.model.verdict import Outcome
from chatelaine.reconcile.candidates import DEFAULT_CAPACITY
from chatelaine.reconcile.hsm import was_serving


def explain_hsm(hsm: Hsm, sight: Sight, names: Names) -> Diagnosis:
    """Every link of the chain, whether it holds or not."""
    meta = hsm.metadata
    names = names_of(hsm, replace(names, kind="hsm", name=meta.name))
    object_ = object_check("hsm", meta, hsm.status.observed_generation, names)
    checks = (operator_check(sight, names), _leaving(object_, hsm, names), *host_checks(hsm, sight, names), _room(hsm))
    return Diagnosis(f"Hsm {meta.name}", state_of_object(checks, ready_of(hsm)), checks)


def ready_of(item: Hsm | AttestationPolicy) -> Outcome:
    """What its condition Ready says."""
    return outcome_of(find(item.status.conditions, ConditionType.READY.value))


def state_of_object(checks: tuple[Check, ...], ready: Outcome) -> State:
    """The operator's word, unless something shows that it is not up to date: then nobody can tell."""
    undecided = any(check.decides and check.outcome is Outcome.CANNOT_TELL for check in checks)
    if ready is Outcome.HOLDS:
        refuted = any(check.decides and check.outcome is Outcome.REFUTED for check in checks)
        return State.CANNOT_TELL if undecided or refuted else State.READY
    stale = any(check.name == "operator" and check.fails for check in checks)
    return State.CANNOT_TELL if stale else State.NOT_READY


def names_of(hsm: Hsm, names: Names) -> Names:
    """With those of an Hsm."""
    attestation = hsm.status.attestation
    return replace(
        names,
        hsm=hsm.metadata.name,
        policy=hsm.spec.attestation.policy_ref.name,
        evidence=attestation.evidence_digest if attestation is not None else None,
    )


def host_checks(hsm: Hsm, sight: Sight, names: Names) -> tuple[Check, ...]:
    """Enrolment, reachability, attestation, policy: what a claim's chain goes through as well."""
    conditions, generation = hsm.status.conditions, hsm.metadata.generation
    policy = hsm.spec.attestation.policy_ref.name
    enrolled = condition_check(
        "enrolment", conditions, ConditionType.ENROLLED,
        "The host proves to be the one that a person approved in spec.identity.", names, generation=generation,
    )  # fmt: skip
    reachable = condition_check(
        "reachability", conditions, ConditionType.REACHABLE,
        "Agent and gateway answer, authenticated as this host.", names, generation=generation,
    )  # fmt: skip
    attested = condition_check(
        "attestation", conditions, ConditionType.ATTESTED,
        f"Fresh evidence meets AttestationPolicy {policy}.", names, generation=generation,
    )  # fmt: skip
    return enrolled, reachable, _attested(attested, hsm, sight, names), _policy(hsm, sight, names)


def _attested(check: Check, hsm: Hsm, sight: Sight, names: Names) -> Check:
    """With the finding and the events that decided, and the end of the verdict."""
    attestation, end = hsm.status.attestation, ends_at(hsm)
    if attestation is None:
        return check
    judged = attestation.policy
    check = check.with_notes(
        *attestation.explanation,
        f"The evidence is {attestation.evidence_digest}, judged by AttestationPolicy {judged.name},"
        f" generation {judged.generation}.",
        f"Keys of this token are suspect since {attestation.suspect_since}." if attestation.suspect_since else "",
    )
    if check.outcome is Outcome.HOLDS and was_serving(attestation) and end is not None and sight.now > end:
        return replace(
            check,
            outcome=Outcome.CANNOT_TELL,
            reason=Reason.EVIDENCE_EXPIRED.value,
            found=f"The verdict was to end at {attestation.valid_until}, and nobody renewed or withdrew it.",
            advice=advice_on(Reason.PENDING.value, names),
        )
    return check


def _policy(hsm: Hsm, sight: Sight, names: Names) -> Check:
    name = hsm.spec.attestation.policy_ref.name
    found = sight.policy(name)
    check = policy_check(name, found, names)
    if isinstance(found, Unread) or found is None or check.fails:
        return check
    age, asked = found.spec.freshness.max_age_seconds, hsm.spec.attestation.interval_seconds
    if asked >= age:
        advice = advice_on(Reason.DEADLINES_CONTRADICT.value, names)
        text = f"intervalSeconds of the Hsm is {asked}, maxAgeSeconds of the policy is {age}."
        return replace(
            check, outcome=Outcome.REFUTED, reason=Reason.DEADLINES_CONTRADICT.value,
            expected="The host is asked more often than its proof may grow old.", found=text, advice=advice,
        )  # fmt: skip
    return check


def _leaving(check: Check, hsm: Hsm, names: Names) -> Check:
    """One that is being deleted waits for the claims bound there."""
    if hsm.metadata.deletion_timestamp is None or not hsm.status.allocations:
        return check
    bound = sorted(f"{seat.namespace}/{seat.name}" for seat in hsm.status.allocations)
    advice = advice_on(Reason.ALLOCATIONS_REMAIN.value, names)
    check = replace(check, reason=Reason.ALLOCATIONS_REMAIN.value, advice=advice)
    return check.with_notes(f"{len(bound)} claims are bound here: {', '.join(bound[:8])}.")


def _room(hsm: Hsm) -> Check:
    """Whether new claims are taken: nothing that keeps an Hsm from being Ready."""
    limit = hsm.spec.capacity.claims if hsm.spec.capacity is not None else DEFAULT_CAPACITY
    taken = len(hsm.status.allocations)
    cordoned = hsm.spec.cordoned is Cordon.ENABLED
    found = f"{taken} of {limit} places are taken." + (" It is cordoned: no new claims." if cordoned else "")
    full = taken >= limit
    reason = "Cordoned" if cordoned else "Full" if full else "Room"
    return Check("room", Outcome.HOLDS, reason, "", found, decides=False)
