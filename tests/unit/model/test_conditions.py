"""The one setter for conditions."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatelaine.model.common import Condition
from chatelaine.model.conditions import (
    MESSAGE_LIMIT,
    find,
    is_true,
    seconds_of,
    set_condition,
    status_of,
    timestamp,
)
from chatelaine.model.printable import printable
from chatelaine.model.reasons import ConditionType, Reason
from chatelaine.model.verdict import Outcome

TYPES = st.sampled_from([type_.value for type_ in ConditionType])
STATUSES = st.sampled_from(["True", "False", "Unknown"])
REASONS = st.sampled_from(list(Reason))
TIMES = st.floats(min_value=0, max_value=4e9)
CHANGES = st.tuples(TYPES, STATUSES, REASONS, st.text(max_size=40), st.integers(0, 99), TIMES)
Change = tuple[str, str, Reason, str, int, float]


def after(conditions: list[Condition], change: Change) -> list[Condition]:
    type_, status, reason, message, generation, now = change
    return set_condition(conditions, type_, status, reason, message, generation=generation, now=now)


def written(changes: list[Change]) -> list[Condition]:
    conditions: list[Condition] = []
    for change in changes:
        conditions = after(conditions, change)
    return conditions


@given(TIMES)
def test_times_lose_their_fraction_and_nothing_else(now: float) -> None:
    assert seconds_of(timestamp(now)) == int(now)


def test_timestamp_is_rfc_3339_in_utc() -> None:
    assert timestamp(1_700_000_000.9) == "2023-11-14T22:13:20Z"


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("2023-11-14T22:13:20Z", 1_700_000_000),
        ("2023-11-14T23:13:20+01:00", 1_700_000_000),
        ("1970-01-01T00:00:01.9Z", 1),
    ],
)
def test_other_forms_of_the_same_time_are_read(text: str, seconds: int) -> None:
    assert seconds_of(text) == seconds


@pytest.mark.parametrize("text", ["", "soon", "2023-11-14", "2023-11-14T22:13:20", "2023-13-14T22:13:20Z"])
def test_a_time_without_zone_or_sense_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        seconds_of(text)


@given(st.lists(CHANGES, max_size=12), CHANGES)
def test_setting_twice_changes_nothing(changes: list[Change], change: Change) -> None:
    once = after(written(changes), change)
    later = (*change[:5], change[5] + 100)
    assert after(once, later) == once


@given(st.lists(CHANGES, max_size=12), CHANGES)
def test_one_condition_is_set_and_the_others_stay_in_place(changes: list[Change], change: Change) -> None:
    before = written(changes)
    result = after(before, change)
    others = [condition for condition in result if condition.type != change[0]]
    assert others == [condition for condition in before if condition.type != change[0]]
    assert [condition.type for condition in result][: len(before)] == [condition.type for condition in before]
    assert len({condition.type for condition in result}) == len(result)
    found = find(result, change[0])
    assert found is not None
    assert (found.status, found.reason, found.message, found.observed_generation) == (
        change[1], change[2].value, printable(change[3]), change[4],
    )  # fmt: skip


@given(CHANGES, CHANGES)
def test_the_transition_time_moves_with_the_status_only(first: Change, second: Change) -> None:
    second = (first[0], *second[1:])
    start = written([first])
    (result,) = after(start, second)
    moved = result.last_transition_time != start[0].last_transition_time
    if first[1] == second[1]:
        assert not moved
    else:
        assert result.last_transition_time == timestamp(second[5])


def test_long_messages_end_in_an_ellipsis() -> None:
    (condition,) = after([], ("Ready", "False", Reason.NOT_READY, "x" * (MESSAGE_LIMIT + 1), 1, 0.0))
    assert len(condition.message) == MESSAGE_LIMIT
    assert condition.message.endswith("x…")
    (condition,) = after([], ("Ready", "False", Reason.NOT_READY, "x" * MESSAGE_LIMIT, 1, 0.0))
    assert condition.message == "x" * MESSAGE_LIMIT


def test_only_a_condition_that_says_true_is_true() -> None:
    for status, expected in (("True", True), ("False", False), ("Unknown", False)):
        conditions = after([], ("Ready", status, Reason.PENDING, "", 1, 0.0))
        assert is_true(conditions, "Ready") is expected
        assert is_true(conditions, "Bound") is False


def test_each_outcome_has_its_status() -> None:
    assert {outcome: status_of(outcome) for outcome in Outcome} == {
        Outcome.HOLDS: "True",
        Outcome.REFUTED: "False",
        Outcome.CANNOT_TELL: "Unknown",
    }


def test_message_that_would_steer_a_terminal_is_told_harmlessly() -> None:
    said = "the host calls it \x1b[2J\nTrusted\u202e"
    (condition,) = set_condition([], "Attested", "False", Reason.EVIDENCE_REFUTED, said, generation=1, now=0)
    assert condition.message == "the host calls it ?[2J?Trusted?"
