"""The one setter for conditions: stamps the generation, truncates time to seconds, moves the time on change only."""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Sequence
from typing import Final

from chatelaine.model.common import Condition
from chatelaine.model.printable import printable
from chatelaine.model.reasons import Reason
from chatelaine.model.verdict import Outcome

MESSAGE_LIMIT: Final = 1024
"""Characters of a condition message that we write; longer texts end in an ellipsis."""


def timestamp(seconds: float) -> str:
    """`metav1.Time`: RFC 3339, UTC, whole seconds."""
    moment = datetime.datetime.fromtimestamp(int(seconds), tz=datetime.UTC)
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def seconds_of(text: str) -> int:
    """Inverse of `timestamp`; fractions of a second are dropped.

    Raises:
        ValueError: `text` is not an RFC 3339 time, or lacks its zone.
    """
    moment = datetime.datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError(f"{text} has no time zone")
    return int(moment.timestamp())


def find(conditions: Iterable[Condition], type_: str) -> Condition | None:
    """The condition of that type, if it has been written."""
    return next((condition for condition in conditions if condition.type == type_), None)


def is_true(conditions: Iterable[Condition], type_: str) -> bool:
    """Has it been written, and is it True?"""
    condition = find(conditions, type_)
    return condition is not None and condition.status == "True"


def status_of(outcome: Outcome) -> str:
    """`metav1.Condition` status for an outcome."""
    return {Outcome.HOLDS: "True", Outcome.REFUTED: "False", Outcome.CANNOT_TELL: "Unknown"}[outcome]


def set_condition(
    conditions: Sequence[Condition],
    type_: str,
    status: str,
    reason: Reason,
    message: str,
    *,
    generation: int,
    now: float,
) -> list[Condition]:
    """`conditions` with that one set. The transition time moves only when the status changes.

    Messages quote what hosts and people wrote: what would steer a terminal is replaced.
    The order of the list is kept, so an unchanged world gives an equal list.
    """
    message = printable(message, MESSAGE_LIMIT if len(message) <= MESSAGE_LIMIT else MESSAGE_LIMIT - 1)
    before = find(conditions, type_)
    since = before.last_transition_time if before is not None and before.status == status else timestamp(now)
    after = Condition(
        type=type_,
        status=status,
        observed_generation=generation,
        last_transition_time=since,
        reason=reason.value,
        message=message,
    )
    if before is None:
        return [*conditions, after]
    return [after if condition.type == type_ else condition for condition in conditions]
