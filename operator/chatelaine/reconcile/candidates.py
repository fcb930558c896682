"""Which HSMs could serve a claim, and for each that cannot, the first requirement that fails.

The requirements are asked in one order, from what a person chose to what changes by the second, so that the further
an HSM gets the more promising it is; messages name the most promising ones first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from chatelaine.model.claim import HsmClaim
from chatelaine.model.hsm import Cordon, Mode
from chatelaine.model.keys import Sensitivity
from chatelaine.model.verdict import Finding, Outcome
from chatelaine.reconcile.claim_snapshot import ClaimSnapshot, HsmView
from chatelaine.reconcile.served import attested_for, held_compliance, release_finding

DEFAULT_CAPACITY: Final = 100
NAMED_HSMS: Final = 6
"""Hsms that a message names one by one; the rest is counted."""
NAMED_CHARACTERS: Final = 140

Requirement = Callable[[ClaimSnapshot, HsmView], Finding]


@dataclass(frozen=True, slots=True)
class Candidate:
    """One HSM: every requirement that was asked, in order. `held`: how many held before the first that did not."""

    view: HsmView
    findings: tuple[Finding, ...]
    held: int

    @property
    def outcome(self) -> Outcome:
        """HOLDS: it can be bound now. CANNOT_TELL: fresh evidence would decide. REFUTED: it cannot."""
        return self.findings[-1].outcome

    @property
    def deciding(self) -> Finding:
        """The first requirement that fails; the last one asked if none does."""
        return self.findings[-1]


def best_now(snapshot: ClaimSnapshot, *, without: str | None = None) -> HsmView | None:
    """The first of `candidates` if it can be bound now, without a look at those that score less."""
    views = sorted((view for view in snapshot.hsms if view.uid != without), key=lambda view: _score(snapshot, view))
    return next((view for view in views if examine(snapshot, view).outcome is Outcome.HOLDS), None)


def candidates(snapshot: ClaimSnapshot, *, without: str | None = None) -> list[Candidate]:
    """All HSMs but the one with uid `without`, best first: those that can be bound by score, then by promise."""
    found = [examine(snapshot, view) for view in snapshot.hsms if view.uid != without]
    return sorted(found, key=lambda candidate: _order(snapshot, candidate))


def limit_of(view: HsmView) -> int:
    """Most claims at once."""
    capacity = view.hsm.spec.capacity
    return DEFAULT_CAPACITY if capacity is None else capacity.claims


def mode_of(claim: HsmClaim) -> Mode:
    """Shared when the claim does not say."""
    return claim.spec.mode or Mode.SHARED


def explain(found: list[Candidate]) -> str:
    """Per HSM the requirement that fails, as a person needs it; bounded, the most promising first."""
    if not found:
        return "There are no Hsms."
    parts = [f"{item.view.name}: {_short(item.deciding.detail or item.deciding.reason)}" for item in found[:NAMED_HSMS]]
    rest = len(found) - NAMED_HSMS
    return "; ".join(parts) + (f"; and {rest} more" if rest > 0 else "") + "."


def _short(text: str) -> str:
    return text if len(text) <= NAMED_CHARACTERS else text[: NAMED_CHARACTERS - 1] + "…"


def _score(snapshot: ClaimSnapshot, view: HsmView) -> tuple[int, int, str]:
    """Most free capacity, then fewest claims, then name."""
    seats = _others(snapshot, view)
    return seats - limit_of(view), seats, view.name


def _order(snapshot: ClaimSnapshot, candidate: Candidate) -> tuple[int, int, int, int, str]:
    """By score; those that fail by how far they got first."""
    usable = {Outcome.HOLDS: 0, Outcome.CANNOT_TELL: 1, Outcome.REFUTED: 2}[candidate.outcome]
    held = 0 if candidate.outcome is Outcome.HOLDS else candidate.held
    return usable, -held, *_score(snapshot, candidate.view)


def examine(snapshot: ClaimSnapshot, view: HsmView) -> Candidate:
    """One HSM, up to the first requirement that fails."""
    findings: list[Finding] = []
    for requirement in REQUIREMENTS:
        finding = requirement(snapshot, view)
        findings.append(finding)
        if finding.outcome is not Outcome.HOLDS:
            return Candidate(view, tuple(findings), len(findings) - 1)
    return Candidate(view, tuple(findings), len(findings))


def _finding(check: str, holds: bool, reason: str, detail: str) -> Finding:
    return Finding(check, Outcome.HOLDS if holds else Outcome.REFUTED, "Met" if holds else reason, detail)


def _chosen(snapshot: ClaimSnapshot, view: HsmView) -> Finding:
    spec = snapshot.claim.spec
    if spec.hsm_ref is not None:
        return _finding("hsmRef", view.name == spec.hsm_ref.name, "NotNamed", f"the claim names {spec.hsm_ref.name}")
    wanted = spec.selector.match_labels if spec.selector else {}
    labels = view.hsm.metadata.labels
    wrong = sorted(f"{key}={value}" for key, value in wanted.items() if labels.get(key) != value)
    holds = bool(wanted) and not wrong
    return _finding("selector", holds, "NotSelected", f"does not carry the label {', '.join(wrong)}")


def _offered(snapshot: ClaimSnapshot, view: HsmView) -> Finding:
    if view.hsm.metadata.deletion_timestamp is not None:
        return _finding("deletion", False, "Deleting", "is being deleted")
    meta = snapshot.claim.metadata
    # A claim whose keys are here already is no new one.
    cordoned = view.hsm.spec.cordoned is Cordon.ENABLED and (meta.namespace or "", meta.name) not in view.adoptions
    return _finding("cordoned", not cordoned, "Cordoned", "is cordoned: no new claims")


def _enrolled(_: ClaimSnapshot, view: HsmView) -> Finding:
    if view.hsm.status.identity is None:
        return Finding(
            "enrolled", Outcome.CANNOT_TELL if view.standing.enrolment.admits else Outcome.REFUTED,
            "NotEnrolled", f"is not enrolled ({view.standing.enrolment.reason})",
        )  # fmt: skip
    return _finding("enrolled", True, "", "")


def _key_types(snapshot: ClaimSnapshot, view: HsmView) -> Finding:
    wanted = {key.type for key in snapshot.claim.spec.keys or ()}
    offered = view.hsm.spec.offers.key_types if view.hsm.spec.offers else None
    token = view.hsm.status.token
    made = token.key_types if token else None
    for allowed, what in ((offered, "offers"), (made, "its token makes")):
        if allowed is not None and (beyond := wanted - set(allowed)):
            text = f"{what} {', '.join(sorted(allowed)) or 'nothing'}, the claim asks for {', '.join(sorted(beyond))}"
            return _finding("keyTypes", False, "KeyTypeNotOffered", text)
    return _finding("keyTypes", True, "", "")


def _sensitivity(snapshot: ClaimSnapshot, view: HsmView) -> Finding:
    wants = snapshot.claim.spec.requirements
    wanted = (wants.sensitivity if wants else None) or Sensitivity.PUBLIC
    offers = view.hsm.spec.offers
    most = (offers.max_sensitivity if offers else None) or Sensitivity.PUBLIC
    text = f"is offered for sensitivity up to {most}, the claim asks for {wanted}"
    return _finding("sensitivity", wanted.rank <= most.rank, "SensitivityNotOffered", text)


def _compliance(snapshot: ClaimSnapshot, view: HsmView) -> Finding:
    wants = snapshot.claim.spec.requirements
    held = held_compliance(view.hsm, view.policy)
    missing = sorted(set((wants.compliance if wants else None) or ()) - held)
    text = f"does not hold {', '.join(missing)} by the table of its policy and its offers"
    return _finding("compliance", not missing, "ComplianceMissing", text)


def _released(snapshot: ClaimSnapshot, view: HsmView) -> Finding:
    finding = release_finding(
        snapshot.claim, snapshot.namespace, view, snapshot.policies, bound_claims=snapshot.bound_in_namespace
    )
    if finding.outcome is Outcome.HOLDS:
        return finding
    leaves = [leaf.detail for leaf in finding.leaves() if leaf.outcome is not Outcome.HOLDS and leaf.detail]
    text = "release refused: " + " / ".join(dict.fromkeys(leaves))
    return Finding("release", finding.outcome, finding.reason, text, children=finding.children)


def _banks(snapshot: ClaimSnapshot, view: HsmView) -> Finding:
    """One quote is over one bank."""
    own = snapshot.claim.spec.policy_ref
    policy = snapshot.policies.get(own.name) if own else None
    if policy is None or view.policy is None:
        return _finding("bank", True, "", "")
    ours, theirs = policy.spec.tpm.pcrs.bank, view.policy.spec.tpm.pcrs.bank
    return _finding(
        "bank", ours is theirs, "BankConflict", f"is quoted in bank {theirs}, policy {own and own.name} needs {ours}"
    )


def _room(snapshot: ClaimSnapshot, view: HsmView) -> Finding:
    others, limit = _others(snapshot, view), limit_of(view)
    if mode_of(snapshot.claim) is Mode.EXCLUSIVE and others:
        return _finding("mode", False, "NotEmpty", f"has {others} claims, the claim wants it alone")
    if view.exclusive - {snapshot.claim.metadata.uid}:
        return _finding("mode", False, "TakenExclusively", "is taken exclusively by another claim")
    return _finding("capacity", others < limit, "Full", f"is full: {others} of {limit} claims")


def _deadlines(_: ClaimSnapshot, view: HsmView) -> Finding:
    asked = view.hsm.spec.attestation.interval_seconds
    age = view.policy.spec.freshness.max_age_seconds if view.policy else asked + 1
    text = f"intervalSeconds {asked} is not shorter than its policy's maxAgeSeconds {age}"
    return _finding("deadlines", asked < age, "DeadlinesContradict", text)


def _attested(snapshot: ClaimSnapshot, view: HsmView) -> Finding:
    standing = attested_for(snapshot.claim, view, snapshot.policies, snapshot.now)
    outcome = standing.outcome
    if outcome is Outcome.HOLDS and view.silent:
        return Finding("attested", Outcome.CANNOT_TELL, "Silent", "does not answer at the moment")
    if outcome is Outcome.HOLDS and not standing.fresh:
        outcome = Outcome.CANNOT_TELL
    text = f"not attested ({standing.reason}): {standing.message.removeprefix(f'Hsm {view.name}: ')}"
    return Finding("attested", outcome, standing.reason.value, text)


def _others(snapshot: ClaimSnapshot, view: HsmView) -> int:
    """Seats of other claims."""
    return len(view.seats) - (snapshot.claim.metadata.uid in view.seats)


REQUIREMENTS: Final[tuple[Requirement, ...]] = (
    _chosen,
    _offered,
    _key_types,
    _sensitivity,
    _enrolled,
    _compliance,
    _released,
    _banks,
    _deadlines,
    _room,
    _attested,
)


def asked_hosts(found: list[Candidate], *, most: int = 3) -> Iterator[HsmView]:
    """HSMs that only have to prove themselves, the most promising first: few at a time, not the whole pool."""
    waiting = [candidate.view for candidate in found if candidate.outcome is Outcome.CANNOT_TELL]
    yield from waiting[:most]
