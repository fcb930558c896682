"""Verdicts, and the tree of findings that explains them. Three outcomes, never a boolean.

The combination rule, in this order: one refuted child refutes; else one child that cannot tell leaves the
whole undecided; else it holds. Nothing holds on an empty list.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field


class Outcome(enum.StrEnum):
    """What one check found."""

    HOLDS = "Holds"
    REFUTED = "Refuted"
    CANNOT_TELL = "CannotTell"


class Verdict(enum.StrEnum):
    """What appraisal says of a subject."""

    TRUSTED = "Trusted"
    UNTRUSTED = "Untrusted"
    UNKNOWN = "Unknown"


@dataclass(frozen=True, slots=True)
class Finding:
    """One check's answer. `reason` is an UpperCamelCase code, `detail` a sentence for a person."""

    check: str
    outcome: Outcome
    reason: str
    detail: str = ""
    expected: str | None = None
    found: str | None = None
    children: tuple[Finding, ...] = ()

    def leaves(self) -> Iterator[Finding]:
        """Every finding without children, depth first."""
        if not self.children:
            yield self
        for child in self.children:
            yield from child.leaves()

    def first(self, outcome: Outcome) -> Finding | None:
        """The first leaf with `outcome`: the sentence that a condition shows."""
        return next((leaf for leaf in self.leaves() if leaf.outcome is outcome), None)

    def as_dict(self) -> dict[str, object]:
        """Plain JSON value; absent fields are left out."""
        out: dict[str, object] = {"check": self.check, "outcome": self.outcome.value, "reason": self.reason}
        if self.detail:
            out["detail"] = self.detail
        if self.expected is not None:
            out["expected"] = self.expected
        if self.found is not None:
            out["found"] = self.found
        if self.children:
            out["children"] = [child.as_dict() for child in self.children]
        return out


def all_of(check: str, children: Sequence[Finding]) -> Finding:
    """Every child must hold.

    Raises:
        ValueError: `children` is empty; an empty rule set must never hold by accident.
    """
    if not children:
        raise ValueError(f"{check}: no rules; an empty rule set never holds")
    worst = _worst(child.outcome for child in children)
    deciding = next(child for child in children if child.outcome is worst)
    reason = "AllHold" if worst is Outcome.HOLDS else deciding.reason
    return Finding(
        check, worst, reason, deciding.detail if worst is not Outcome.HOLDS else "", children=tuple(children)
    )


def any_of(check: str, children: Sequence[Finding]) -> Finding:
    """One child that holds is enough; every refusal stays in the tree.

    Raises:
        ValueError: `children` is empty.
    """
    if not children:
        raise ValueError(f"{check}: no rules; an empty rule set never holds")
    for child in children:
        if child.outcome is Outcome.HOLDS:
            return Finding(check, Outcome.HOLDS, child.reason, child.detail, children=tuple(children))
    undecided = any(child.outcome is Outcome.CANNOT_TELL for child in children)
    outcome = Outcome.CANNOT_TELL if undecided else Outcome.REFUTED
    deciding = next(child for child in children if child.outcome is outcome)
    return Finding(check, outcome, deciding.reason, deciding.detail, children=tuple(children))


def _worst(outcomes: Iterable[Outcome]) -> Outcome:
    seen = set(outcomes)
    if Outcome.REFUTED in seen:
        return Outcome.REFUTED
    return Outcome.CANNOT_TELL if Outcome.CANNOT_TELL in seen else Outcome.HOLDS


def verdict_of(outcome: Outcome) -> Verdict:
    """The verdict that an outcome of the whole tree gives."""
    return {
        Outcome.HOLDS: Verdict.TRUSTED,
        Outcome.REFUTED: Verdict.UNTRUSTED,
        Outcome.CANNOT_TELL: Verdict.UNKNOWN,
    }[outcome]


@dataclass(frozen=True, slots=True, order=True)
class Epoch:
    """`(resetCount, restartCount)` of the TPM clock, and the number of admissions of this identity."""

    reset_count: int
    restart_count: int
    generation: int = 1

    def __str__(self) -> str:
        return f"{self.reset_count}.{self.restart_count}.{self.generation}"


@dataclass(frozen=True, slots=True)
class PolicyStamp:
    """Which policy judged: enough to find the very object again."""

    name: str
    uid: str
    generation: int
    digest: str


@dataclass(frozen=True, slots=True)
class Appraisal:
    """A verdict with all that it rests on. Times are seconds since the epoch (UTC, integers)."""

    subject: str
    verdict: Verdict
    findings: Finding
    policies: tuple[PolicyStamp, ...]
    evidence_digest: str
    epoch: Epoch
    issued_at: int
    valid_until: int
    reference_digest: str | None = None
    compared: tuple[str, ...] = field(default=())
