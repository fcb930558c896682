"""Why a claim is not Ready: from the claim over its HSM and that HSM's proof to its keys and its network path."""

from __future__ import annotations

from dataclasses import replace

from chatelaine.diagnosis.advice import advice_on
from chatelaine.diagnosis.binding import unbound
from chatelaine.diagnosis.check import Advice, Check, Diagnosis
from chatelaine.diagnosis.conditions import condition_check, object_check, operator_check
from chatelaine.diagnosis.hsm import host_checks, names_of, state_of_object
from chatelaine.diagnosis.names import Names
from chatelaine.diagnosis.outlook import outcome_of, snapshot_of
from chatelaine.diagnosis.policy import policy_check
from chatelaine.diagnosis.sight import Sight, Unread, known
from chatelaine.model.claim import ClaimAllocation, HsmClaim
from chatelaine.model.conditions import find
from chatelaine.model.hsm import Hsm
from chatelaine.model.keys import KeyState
from chatelaine.model.reasons import ConditionType, Reason
from chatelaine.model.verdict import Finding, Outcome
from chatelaine.reconcile.served import release_finding

AFTER_BINDING = ("hsm", "enrolment", "reachability", "attestation", "policy", "release", "keys", "network")


def explain_claim(claim: HsmClaim, sight: Sight, names: Names) -> Diagnosis:
    """Every link of the chain; those that an unbound claim does not have yet are named, and not asked."""
    meta = claim.metadata
    names = replace(
        names, kind="hsmclaim", name=meta.name, namespace=meta.namespace, claim=meta.name,
        in_namespace=f" --namespace {meta.namespace}",
    )  # fmt: skip
    own = object_check("claim", meta, claim.status.observed_generation, names)
    head = (operator_check(sight, names), *_own_policy(claim, sight, names), _secret(own, claim, names))
    allocation = claim.status.allocation
    if allocation is None:
        waits = tuple(Check(name, None, "NotBound", decides=False) for name in AFTER_BINDING)
        checks = (*head, unbound(claim, sight, names), *waits)
    else:
        checks = (*head, *_bound(claim, allocation, sight, names))
    ready = outcome_of(find(claim.status.conditions, ConditionType.READY.value))
    where = f"{meta.namespace}/{meta.name}"
    return Diagnosis(f"HsmClaim {where}", state_of_object(checks, ready), checks)


def _own_policy(claim: HsmClaim, sight: Sight, names: Names) -> tuple[Check, ...]:
    """A policy that the claim itself names must hold besides the Hsm's."""
    ref = claim.spec.policy_ref
    if ref is None:
        return ()
    return (replace(policy_check(ref.name, sight.policy(ref.name), names), name="own policy"),)


def _secret(check: Check, claim: HsmClaim, names: Names) -> Check:
    """A Secret of somebody else's stands where the binding should."""
    ready = find(claim.status.conditions, ConditionType.READY.value)
    if ready is None or ready.reason != Reason.SECRET_NAME_TAKEN.value or check.fails:
        return check
    return replace(
        check, outcome=Outcome.REFUTED, reason=ready.reason, found=ready.message,
        expected="The binding Secret has a name that nobody else uses.", advice=advice_on(ready.reason, names),
    )  # fmt: skip


def _bound(claim: HsmClaim, allocation: ClaimAllocation, sight: Sight, names: Names) -> tuple[Check, ...]:
    meta, conditions = claim.metadata, claim.status.conditions
    hsm = sight.hsm(allocation.hsm.name)
    names = replace(names, hsm=allocation.hsm.name)
    if isinstance(hsm, Hsm):
        names = names_of(hsm, names)
    bound = condition_check(
        "allocation", conditions, ConditionType.BOUND, "The claim has its place on an Hsm.", names,
        generation=meta.generation,
    ).with_notes(f"Allocation {allocation.sequence}, to Hsm {allocation.hsm.name}, at {allocation.at}.")  # fmt: skip
    keys = condition_check(
        "keys", conditions, ConditionType.KEYS_READY, "Every key asked for is active inside the HSM.", names,
        generation=meta.generation,
    ).with_notes(*_suspect(claim))  # fmt: skip
    network = condition_check(
        "network", conditions, ConditionType.NETWORK_READY, "Exactly the claim's clients reach the gateway.", names,
        generation=meta.generation,
    )  # fmt: skip
    return bound, *_host(claim, allocation, hsm, sight, names), keys, network


def _host(
    claim: HsmClaim, allocation: ClaimAllocation, hsm: Hsm | Unread | None, sight: Sight, names: Names
) -> tuple[Check, ...]:
    name = allocation.hsm.name
    told = condition_check(
        "attestation", claim.status.conditions, ConditionType.ATTESTED,
        f"Fresh evidence of Hsm {name} meets the policies.", names, generation=claim.metadata.generation,
    )  # fmt: skip
    if isinstance(hsm, Unread):
        found = f"Not known: {hsm}. What the operator says of it on the claim is below."
        advice = Advice(
            "Ask the platform team to run this.",
            tuple(filter(None, (names.fill("{chatelaine} explain hsm {hsm}"),))),
        )
        unread = Check("hsm", None, hsm.why.value, "", found, decides=False, advice=(advice,) if told.fails else ())
        return unread, told
    seat = _seat(claim, allocation, hsm, names)
    if hsm is None or seat.reason == Reason.HSM_GONE.value:
        return seat, told
    enrolled, reachable, attested, policy = host_checks(hsm, sight, names)
    if told.fails and not attested.fails:
        # The HSM is fine, and yet not for this claim: its own policy, or its seat.
        attested = told
    elif told.found != attested.found and told.fails:
        attested = attested.with_notes(f"On the claim: {told.reason}: {told.found}")
    return seat, enrolled, reachable, attested, policy, _released(claim, hsm, sight, names)


def _seat(claim: HsmClaim, allocation: ClaimAllocation, hsm: Hsm | None, names: Names) -> Check:
    """Only the Hsm's own list says who has a place; uids, because names are given anew."""
    expected = f"Hsm {allocation.hsm.name} is the very one that was bound, and has a place for the claim."
    if hsm is None or hsm.metadata.uid != allocation.hsm.uid:
        reason = Reason.HSM_GONE.value
        found = "It does not exist." if hsm is None else "Another Hsm has that name by now."
        return Check("hsm", Outcome.REFUTED, reason, expected, found, advice=advice_on(reason, names))
    seats = {seat.claim_uid: seat for seat in hsm.status.allocations}
    seat = seats.get(claim.metadata.uid)
    if seat is None or seat.sequence not in (None, allocation.sequence):
        found = "It has no place for this claim." if seat is None else "The place was given for another allocation."
        lost = hsm.status.identity is None
        reason = Reason.AWAITING_READMISSION.value if lost else Reason.NO_SUITABLE_HSM.value
        advice = advice_on(reason if lost else Reason.PROGRESSING.value, names)
        return Check("hsm", Outcome.REFUTED, reason, expected, found, advice=advice)
    check = Check("hsm", Outcome.HOLDS, "Seated", expected, f"Hsm {hsm.metadata.name} has a place for it.")
    if hsm.metadata.deletion_timestamp is not None:
        return check.with_notes("The Hsm is being deleted; it waits for this claim.")
    return check


def _released(claim: HsmClaim, hsm: Hsm, sight: Sight, names: Names) -> Check:
    """The release rules, asked as the operator asks them."""
    expected = "A release rule of every policy in force lets this claim keep its place."
    labels = sight.namespaces.get(claim.metadata.namespace or "", {})
    if isinstance(labels, Unread) or isinstance(sight.policies, Unread):
        unread = labels if isinstance(labels, Unread) else sight.policies
        return Check("release", None, "NotRead", expected, f"Not known: {unread}.", decides=False)
    snapshot = snapshot_of(claim, labels, (hsm,), sight.policies, known(sight.claims), sight.now)
    view = snapshot.hsms[0]
    finding = release_finding(claim, snapshot.namespace, view, snapshot.policies, bound_claims=None)
    return release_check(finding, expected, names)


def release_check(finding: Finding, expected: str, names: Names) -> Check:
    """The tree of release rules as a check; leaves that hold are left out where something else fails."""
    if finding.outcome is Outcome.HOLDS:
        return Check("release", Outcome.HOLDS, finding.reason, expected, "")
    reason = Reason.RELEASE_REFUSED.value
    leaves = [leaf for leaf in finding.leaves() if leaf.outcome is not Outcome.HOLDS]
    parts = tuple(
        Check(leaf.check, leaf.outcome, leaf.reason, leaf.expected or "", leaf.found or leaf.detail) for leaf in leaves
    )
    found = finding.detail or "; ".join(dict.fromkeys(leaf.detail for leaf in leaves if leaf.detail))
    return Check("release", finding.outcome, reason, expected, found, advice=advice_on(reason, names), parts=parts)


def _suspect(claim: HsmClaim) -> tuple[str, ...]:
    """Keys that were in a token while its host was refuted."""
    return tuple(
        f"Version {version.version} of key {key.name} is suspect since {version.suspect_since}."
        for key in claim.status.keys
        for version in key.versions
        if version.suspect_since is not None and version.state is KeyState.ACTIVE
    )
