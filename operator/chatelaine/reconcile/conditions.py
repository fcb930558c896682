"""Conditions of one object while it is being examined, and the Events that their changes deserve."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from chatelaine.model.common import Condition
from chatelaine.model.conditions import find, set_condition, status_of
from chatelaine.model.reasons import ConditionType, Reason
from chatelaine.model.verdict import Outcome
from chatelaine.reconcile.plan import EmitEvent, EventType, ObjectRef


class ConditionDraft:
    """The conditions that will be written. Only what is put differs from before."""

    def __init__(self, before: Sequence[Condition], *, generation: int, now: float) -> None:
        self.before = tuple(before)
        self._conditions = list(before)
        self._generation = generation
        self._now = now

    def put(self, type_: ConditionType, outcome: Outcome, reason: Reason, message: str = "") -> None:
        """Set one condition. `message` must not hold what changes by itself, or every look would be a write."""
        self._conditions = set_condition(
            self._conditions,
            type_.value,
            status_of(outcome),
            reason,
            message,
            generation=self._generation,
            now=self._now,
        )

    def result(self, order: Iterable[ConditionType]) -> list[Condition]:
        """In a fixed order; what nobody has put and nobody wrote before is Unknown."""
        for type_ in order:
            if find(self._conditions, type_.value) is None:
                self.put(type_, Outcome.CANNOT_TELL, Reason.PENDING, "")
        place = {type_.value: index for index, type_ in enumerate(order)}
        return sorted(self._conditions, key=lambda condition: place.get(condition.type, len(place)))


QUIET: Final = frozenset(
    {
        Reason.PENDING.value,
        Reason.PROGRESSING.value,
        Reason.RUNNING.value,
        Reason.NOT_READY.value,
        Reason.NOT_ENROLLED.value,
        Reason.KEYS_PENDING.value,
    }
)
"""Reasons that deserve no Event: work goes on, or another condition says why."""
SUMMARIES: Final = frozenset({ConditionType.READY.value, ConditionType.STALLED.value})


def events(ref: ObjectRef, before: Sequence[Condition], after: Sequence[Condition]) -> list[EmitEvent]:
    """One Event a condition whose status or reason has changed.

    The summaries repeat the others and get none; nor does what is good from the first look on: an Event is a write,
    and a thousand claims that simply bind shall not cost a thousand more.
    """
    out = []
    for condition in after:
        was = find(before, condition.type)
        if condition.type in SUMMARIES or condition.reason in QUIET:
            continue
        good = condition.status == "True" or condition.reason == Reason.NOT_ENFORCEABLE.value
        fresh = was is None or was.reason in QUIET
        if (fresh and good) or (was is not None and (was.status, was.reason) == (condition.status, condition.reason)):
            continue
        kind = EventType.NORMAL if good else EventType.WARNING
        out.append(EmitEvent(ref, kind, Reason(condition.reason), condition.message))
    return out
