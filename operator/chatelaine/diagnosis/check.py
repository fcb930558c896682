"""Checks and what they add up to: expected, found, what to do; in the order in which things rest on each other."""

from __future__ import annotations

import enum
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

from chatelaine.model.verdict import Outcome


@dataclass(frozen=True, slots=True)
class Advice:
    """One thing that a person can do, and the very commands for it."""

    text: str
    commands: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Check:
    """One link of a chain.

    Attributes:
        name: what is looked at.
        outcome: None: not asked, because something before it fails or it does not apply.
        reason: UpperCamelCase code; of a condition, its reason.
        expected, found: sentences; found may be empty where all is well.
        notes: further sentences, whatever the outcome.
        advice: what to do, most likely first; empty where nothing needs to be done.
        parts: what it is made of.
        decides: without it nothing can be said of the whole. False: worth knowing, and no more.
    """

    name: str
    outcome: Outcome | None
    reason: str
    expected: str = ""
    found: str = ""
    notes: tuple[str, ...] = ()
    advice: tuple[Advice, ...] = ()
    parts: tuple[Check, ...] = ()
    decides: bool = True

    @property
    def fails(self) -> bool:
        """It was asked, and does not hold."""
        return self.outcome not in (None, Outcome.HOLDS)

    def with_notes(self, *notes: str) -> Check:
        """The same, with more to say."""
        return replace(self, notes=(*self.notes, *(note for note in notes if note)))

    def all(self) -> Iterator[Check]:
        """Itself and every part, depth first."""
        yield self
        for part in self.parts:
            yield from part.all()

    def as_dict(self) -> dict[str, object]:
        """Plain JSON value; what is empty is left out."""
        out: dict[str, object] = {
            "check": self.name,
            "outcome": self.outcome.value if self.outcome is not None else "NotAsked",
            "reason": self.reason,
        }
        texts = {"expected": self.expected, "found": self.found, "notes": list(self.notes)}
        out |= {name: value for name, value in texts.items() if value}
        if self.advice:
            out["do"] = [{"text": advice.text, "commands": list(advice.commands)} for advice in self.advice]
        if self.parts:
            out["checks"] = [part.as_dict() for part in self.parts]
        return out


class State(enum.StrEnum):
    """What a diagnosis says of the whole."""

    READY = "Ready"
    NOT_READY = "NotReady"
    CANNOT_TELL = "CannotTell"


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """What is wrong with one object, or with a whole installation.

    `subject` is as a person says it: `HsmClaim payments/signing`.
    """

    subject: str
    state: State
    checks: tuple[Check, ...] = field(default=())

    @property
    def deciding(self) -> Check | None:
        """The first check that fails: what follows may only follow from it."""
        if self.state is State.READY:
            return None
        found = [check for check in self.checks if check.fails]
        return next((check for check in found if check.decides), next(iter(found), None))

    def as_dict(self) -> dict[str, object]:
        """Plain JSON value."""
        deciding = self.deciding
        return {
            "subject": self.subject,
            "state": self.state.value,
            "deciding": deciding.name if deciding is not None else None,
            "checks": [check.as_dict() for check in self.checks],
        }


def state_of(checks: Sequence[Check]) -> State:
    """Where nothing but the checks decides: one refuted, else one undecided, else ready."""
    outcomes = {check.outcome for check in checks if check.decides}
    if Outcome.REFUTED in outcomes:
        return State.NOT_READY
    return State.CANNOT_TELL if Outcome.CANNOT_TELL in outcomes or not outcomes else State.READY
