"""Calls timed in turn, so that what else the machine does meets all of them alike."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable


def seconds_a_call(call: Callable[[], object], times: int) -> float:
    """Of this process, a call; the mean of so many."""
    begin = time.process_time()
    for _ in range(times):
        call()
    return (time.process_time() - begin) / times


def in_turn(*calls: Callable[[], object], blocks: int, times: int) -> tuple[float, ...]:
    """CPU seconds of one call of each: the median of `blocks` means over `times` calls."""
    rows = [[seconds_a_call(call, times) for call in calls] for _ in range(blocks)]
    return tuple(statistics.median(column) for column in zip(*rows, strict=True))
