"""A host whose files run without end is not asked without end, and the first file after a calm is looked at at once."""

from __future__ import annotations

from itertools import pairwise

from chatelaine.controller.pace import FIRST_GAP_SECONDS, MeasurementPace

LONGEST = 10.0


def test_a_file_that_runs_on_a_calm_host_is_looked_at_at_once() -> None:
    pace = MeasurementPace()
    assert pace.delay_seconds(100.0, LONGEST) == 0.0
    assert pace.delay_seconds(200.0, LONGEST) == 0.0


def test_a_busy_host_is_asked_ever_more_seldom_and_never_more_seldom_than_its_interval() -> None:
    pace, now, asked = MeasurementPace(), 0.0, []
    for _ in range(20):
        now += pace.delay_seconds(now, LONGEST) + 0.01
        asked.append(now)
    gaps = [after - before for before, after in pairwise(asked)]
    assert all(before <= after + 0.02 for before, after in pairwise(gaps))
    assert LONGEST <= gaps[-1] < LONGEST + 0.1
    assert len([at for at in asked if at < 8.0]) <= 6


def test_a_host_that_came_to_rest_is_looked_at_at_once_again() -> None:
    pace, now = MeasurementPace(), 0.0
    for _ in range(4):
        now += pace.delay_seconds(now, LONGEST) + 0.01
    busy = now
    assert pace.delay_seconds(busy + 2 * LONGEST, LONGEST) == 0.0
    assert pace.delay_seconds(busy + 2 * LONGEST + FIRST_GAP_SECONDS / 2, LONGEST) > 0.0
