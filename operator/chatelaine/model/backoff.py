"""How long to wait before trying again. One formula for everybody who retries."""

from __future__ import annotations

from typing import Final

_MAX_DOUBLINGS: Final = 62


def backoff_seconds(failures: int, *, first_seconds: float, longest_seconds: float, jitter: float) -> float:
    """Pause after so many failures in a row: doubled each time up to a bound, of which jitter takes up to a half.

    Args:
        failures: how often it has failed by now, at least 1.
        first_seconds: the longest pause after the first failure.
        longest_seconds: the bound that doubling ends at.
        jitter: a random number in [0, 1), so that many who failed together do not come back together.
    """
    ceiling = min(longest_seconds, first_seconds * 2.0 ** min(failures - 1, _MAX_DOUBLINGS))
    return ceiling * (0.5 + jitter / 2)
