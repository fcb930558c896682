"""Do events of our kinds still come? A version that is known to exist must come back as one.

Our own watches hear the server's bookmarks; kopf keeps those to itself, so its silence may mean that nothing happens.
What tells the two apart is what we know from elsewhere: what we wrote ourselves, and what a list named. A watch tells
changes in the order of their versions, so one number a kind is enough.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass


@dataclass(slots=True)
class _Kind:
    """Versions of one kind: the newest that was told, the one waited for (0: none) and since when, the newest known."""

    heard: int = 0
    owed: int = 0
    since: float = 0.0
    newest: int = 0


class Echoes:
    """What kopf owes us.

    Args:
        kinds: names of the kinds that it watches.
        clock: monotonic seconds.
    """

    def __init__(self, kinds: Iterable[str], clock: Callable[[], float]) -> None:
        self._kinds = {kind: _Kind() for kind in kinds}
        self._clock = clock

    def begin(self) -> None:
        """Watching starts anew, and tells everything that is there."""
        self._kinds = {kind: _Kind() for kind in self._kinds}

    def heard(self, kind: str, version: int) -> None:
        """An event came."""
        known = self._kinds[kind]
        known.heard = max(known.heard, version)
        if known.owed and known.heard >= known.owed:
            self._owe(known)

    def exists(self, kind: str, version: int) -> None:
        """We wrote an object and it has this version now. Writes that change nothing answer with an older one."""
        known = self._kinds[kind]
        known.newest = max(known.newest, version)
        if not known.owed:
            self._owe(known)

    def listed(self, kind: str, newest: int, at: int) -> None:
        """A whole list, taken at version `at`: `newest` is the newest of its objects.

        What is not in it any more was deleted, perhaps while nobody watched: its event need not come.
        """
        known = self._kinds[kind]
        if known.newest > at:
            return
        known.newest = newest
        if not known.owed or newest <= known.heard:
            self._owe(known)
        else:
            known.owed = min(known.owed, newest)

    def late_seconds(self, kind: str) -> float:
        """For how long an event that must come has not come; 0 where none is owed."""
        known = self._kinds[kind]
        return self._clock() - known.since if known.owed else 0.0

    def _owe(self, known: _Kind) -> None:
        known.owed = known.newest if known.newest > known.heard else 0
        known.since = self._clock()
