"""Pauses grow, are bounded, and differ."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatelaine.model.backoff import backoff_seconds

jitters = st.floats(min_value=0, max_value=1, exclude_max=True)


@pytest.mark.parametrize(
    ("failures", "pause"), [(1, 0.25), (2, 0.5), (3, 1.0), (6, 8.0), (7, 10.0), (8, 10.0), (10_000, 10.0)]
)
def test_the_pause_doubles_up_to_its_bound(failures: int, pause: float) -> None:
    longest = backoff_seconds(failures, first_seconds=0.25, longest_seconds=10.0, jitter=1.0)
    shortest = backoff_seconds(failures, first_seconds=0.25, longest_seconds=10.0, jitter=0.0)
    assert (longest, shortest) == (pause, pause / 2)


@given(
    st.integers(min_value=1), jitters, st.floats(min_value=0.001, max_value=10), st.floats(min_value=10, max_value=1e6)
)
def test_no_pause_is_zero_or_over_its_bound(failures: int, jitter: float, first: float, longest: float) -> None:
    pause = backoff_seconds(failures, first_seconds=first, longest_seconds=longest, jitter=jitter)
    assert first / 2 <= pause <= longest
