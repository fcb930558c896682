"""How often a host is asked because files ran on it. A file that is measured moves PCR 10: a busy host would cry on
without end.
"""

from __future__ import annotations

from typing import Final

FIRST_GAP_SECONDS: Final = 0.25


class MeasurementPace:
    """The first measurement after a calm is looked at at once; while they go on, at gaps that double up to the
    interval at which the host is asked anyway.
    """

    def __init__(self) -> None:
        self._at = float("-inf")
        self._gap_seconds = FIRST_GAP_SECONDS

    def delay_seconds(self, now: float, longest_seconds: float) -> float:
        """How long to wait with the round that a measurement asks for at `now` (monotonic)."""
        calm = now - self._at >= 2 * self._gap_seconds
        self._gap_seconds = FIRST_GAP_SECONDS if calm else min(2 * self._gap_seconds, longest_seconds)
        due = now if calm else max(now, self._at + self._gap_seconds)
        self._at = due
        return due - now
