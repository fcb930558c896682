"""Why a claim has no place: every Hsm of the pool, and the first requirement that it does not meet."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from chatelaine.diagnosis.advice import advice_on
from chatelaine.diagnosis.check import Advice, Check
from chatelaine.diagnosis.conditions import condition_check
from chatelaine.diagnosis.names import Names
from chatelaine.diagnosis.outlook import fitting, snapshot_of
from chatelaine.diagnosis.sight import Sight, Unread, known
from chatelaine.model.claim import HsmClaim
from chatelaine.model.reasons import ConditionType, Reason
from chatelaine.model.verdict import Outcome
from chatelaine.reconcile.candidates import Candidate

EXPECTED: Final = "One Hsm meets everything that the claim asks for."
SHOWN_HSMS: Final = 50

_REMEDIES: Final[dict[str, tuple[str, tuple[str, ...]]]] = {
    "hsmRef": ("", ()),
    "selector": ("Label the Hsm, if it is to serve this claim.", ("kubectl label hsm {hsm} --help",)),
    "deletion": ("", ()),
    "cordoned": (
        "Let it take claims again.",
        ('kubectl patch hsm {hsm} --type merge --patch \'{{"spec":{{"cordoned":"Disabled"}}}}\'',),
    ),
    "keyTypes": ("Ask for keys of a type that it makes, or offer the type in spec.offers.keyTypes.", ()),
    "sensitivity": ("Raise spec.offers.maxSensitivity of the Hsm, if that is what it is good for.", ()),
    "enrolled": ("Enrol the host.", ("{chatelaine} explain hsm {hsm}",)),
    "compliance": ("The certificate must stand in the policy's table and in the Hsm's offers.", ()),
    "release": (
        "Let the claim in by a release rule.",
        ("kubectl edit attestationpolicy {policy}",),
    ),
    "bank": ("Let both policies ask for one bank of PCRs.", ()),
    "deadlines": ("Set intervalSeconds below maxAgeSeconds.", ("kubectl edit hsm {hsm}",)),
    "mode": ("", ()),
    "capacity": ("Raise spec.capacity.claims, delete claims that nobody needs, or add an Hsm.", ()),
    "attested": ("See what its host must prove.", ("{chatelaine} explain hsm {hsm}",)),
}
"""What to do about each requirement, by the name that `reconcile.candidates` gives it."""


def unbound(claim: HsmClaim, sight: Sight, names: Names) -> Check:
    """The condition Bound, and what the pool looks like."""
    meta = claim.metadata
    told = condition_check(
        "allocation", claim.status.conditions, ConditionType.BOUND, EXPECTED, names, generation=meta.generation
    )
    labels = sight.namespaces.get(meta.namespace or "", {})
    if isinstance(labels, Unread) or isinstance(sight.hsms, Unread) or isinstance(sight.policies, Unread):
        unread = next(read for read in (sight.hsms, sight.policies, labels) if isinstance(read, Unread))
        return told.with_notes(f"Each Hsm cannot be looked at from here: {unread}. Above is the operator's word.")
    snapshot = snapshot_of(claim, labels, sight.hsms, sight.policies, known(sight.claims), sight.now)
    found = fitting(snapshot)
    if not found:
        return _failed(told, "There are no Hsms.", (Advice("Add a host to the pool.", ("kubectl get hsms",)),))
    parts = tuple(_candidate(candidate, names) for candidate in found[:SHOWN_HSMS])
    check = replace(_failed(told, told.found, _first(told, found, names)), parts=parts)
    best = found[0]
    if best.outcome is Outcome.HOLDS:
        check = check.with_notes(f"Hsm {best.view.name} meets everything by now; the operator should bind it next.")
    if isinstance(sight.claims, Unread):
        check = check.with_notes(f"Places are counted without the claims' own policies: {sight.claims}.")
    rest = len(found) - SHOWN_HSMS
    return check.with_notes(f"{rest} more Hsms fit no better." if rest > 0 else "")


def _failed(check: Check, found: str, advice: tuple[Advice, ...]) -> Check:
    outcome = check.outcome if check.fails else Outcome.CANNOT_TELL
    return replace(check, outcome=outcome, found=found or check.found, advice=advice or check.advice)


def _first(told: Check, found: list[Candidate], names: Names) -> tuple[Advice, ...]:
    """What would help the most promising one; then what the condition's reason says."""
    best = found[0]
    advice = _candidate(best, names).advice
    names = replace(names, hsm=best.view.name, policy=best.view.hsm.spec.attestation.policy_ref.name)
    general = advice_on(told.reason, names)
    named = tuple(replace(one, text=f"Hsm {best.view.name} comes closest. {one.text}") for one in advice)
    return (*named, *(one for one in general if told.reason != Reason.PENDING.value))


def _candidate(candidate: Candidate, names: Names) -> Check:
    """One Hsm."""
    view, deciding = candidate.view, candidate.deciding
    names = replace(names, hsm=view.name, policy=view.hsm.spec.attestation.policy_ref.name)
    if candidate.outcome is Outcome.HOLDS:
        return Check(f"Hsm {view.name}", Outcome.HOLDS, "Fits", "", "It meets everything.", decides=False)
    text, commands = _REMEDIES.get(deciding.check, ("", ()))
    filled = tuple(command for command in map(names.fill, commands) if command is not None)
    advice = (Advice(text, filled),) if text else ()
    found = deciding.detail or deciding.reason
    return Check(
        f"Hsm {view.name}", candidate.outcome, deciding.reason, "", f"{found}.", advice=advice, decides=False,
        notes=(f"It meets {candidate.held} requirements that come before.",) if candidate.held > 1 else (),
    )  # fmt: skip
