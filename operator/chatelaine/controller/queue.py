"""The work queue: keyed, deduplicating, one worker a key, with a fast lane, back-off, and delayed adds.

A key is in at most one of three places: waiting (in a lane), active (a worker has it), or delayed. A key added while
it is active is dirty and runs again once its worker is done, so no change is lost and no key runs twice at a time.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
from collections import deque
from collections.abc import Awaitable, Callable, Hashable
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

from chatelaine.model.backoff import backoff_seconds

K = TypeVar("K", bound=Hashable)

FIRST_BACKOFF_SECONDS: Final = 0.05
LONGEST_BACKOFF_SECONDS: Final = 30.0


@dataclass(frozen=True, slots=True)
class Depth:
    """How much waits, and for how long."""

    fast: int
    normal: int
    delayed: int
    active: int
    oldest_seconds: float
    """Age of the oldest key that is ready to run and has no worker yet, or of the longest run."""


class WorkQueue(Generic[K]):
    """Runs `work(key)` for every key that was added.

    Args:
        work: examines one key; an exception brings the key back after a back-off.
        failed: told of every failed run: key, error, the pause until the next try.
        clock: monotonic seconds.
        jitter: random number in [0, 1).
        workers: most keys at a time.
    """

    def __init__(
        self,
        work: Callable[[K], Awaitable[None]],
        *,
        failed: Callable[[K, Exception, float], None],
        clock: Callable[[], float],
        jitter: Callable[[], float],
        workers: int = 128,
    ) -> None:
        self._work = work
        self._failed = failed
        self._clock = clock
        self._jitter = jitter
        self._workers = workers
        self._fast: deque[K] = deque()
        self._normal: deque[K] = deque()
        self._waiting: dict[K, float] = {}
        """Keys in a lane, and since when."""
        self._urgent: set[K] = set()
        self._active: dict[K, float] = {}
        self._dirty: set[K] = set()
        self._failures: dict[K, int] = {}
        self._delayed: list[tuple[float, int, K]] = []
        self._due: dict[K, float] = {}
        self._order = itertools.count()
        self._ready = asyncio.Semaphore(0)
        """Counts entries of the lanes."""
        self._timer: asyncio.TimerHandle | None = None
        self._idle = asyncio.Event()
        self._idle.set()

    def add(self, key: K, *, fast: bool = False) -> None:
        """Examine `key` soon; `fast` puts it before everything that is not."""
        self._due.pop(key, None)
        if key in self._active:
            self._dirty.add(key)
            if fast:
                self._urgent.add(key)
            return
        if key in self._waiting:
            if fast and key not in self._urgent:
                self._urgent.add(key)
                self._fast.append(key)
                self._ready.release()
            return
        self._enqueue(key, fast=fast)

    def add_after(self, key: K, seconds: float) -> None:
        """Examine `key` after a pause, unless it is examined before. The earliest wish counts."""
        if key in self._waiting or (key in self._active and key in self._dirty):
            return
        at = self._clock() + max(0.0, seconds)
        if key in self._due and self._due[key] <= at:
            return
        self._due[key] = at
        heapq.heappush(self._delayed, (at, next(self._order), key))
        self._arm()

    def forget(self, key: K) -> None:
        """Its object is gone: no more tries."""
        self._due.pop(key, None)
        self._failures.pop(key, None)
        self._dirty.discard(key)

    def clear(self) -> None:
        """Drop everything that waits; what is active ends by itself and does not run again."""
        for lane in (self._fast, self._normal):
            lane.clear()
        for bag in (self._waiting, self._due, self._failures):
            bag.clear()
        self._delayed.clear()
        self._dirty.clear()
        self._urgent.clear()
        self._settle()

    def depth(self) -> Depth:
        """For metrics and probes."""
        now = self._clock()
        starts = [*self._waiting.values(), *self._active.values()]
        urgent = sum(1 for key in self._waiting if key in self._urgent)
        return Depth(
            fast=urgent,
            normal=len(self._waiting) - urgent,
            delayed=len(self._due),
            active=len(self._active),
            oldest_seconds=now - min(starts) if starts else 0.0,
        )

    async def settled(self) -> None:
        """Wait until nothing waits and nothing is active (delayed keys do not count)."""
        await self._idle.wait()

    async def run(self) -> None:
        """Work until cancelled. Runs that are under way are cancelled too; their keys are examined after a restart."""
        async with asyncio.TaskGroup() as group:
            for _ in range(self._workers):
                group.create_task(self._worker())

    # --- inside

    def _enqueue(self, key: K, *, fast: bool) -> None:
        self._waiting[key] = self._clock()
        if fast:
            self._urgent.add(key)
            self._fast.append(key)
        else:
            self._normal.append(key)
        self._idle.clear()
        self._ready.release()

    def _take(self) -> K | None:
        for lane in (self._fast, self._normal):
            while lane:
                key = lane.popleft()
                # A key moved to the fast lane leaves a stale entry in the other one.
                if key in self._waiting:
                    del self._waiting[key]
                    self._urgent.discard(key)
                    return key
        return None

    async def _worker(self) -> None:
        while True:
            await self._ready.acquire()
            if (key := self._take()) is None:
                continue
            self._active[key] = self._clock()
            try:
                await self._work(key)
            except Exception as error:  # noqa: BLE001 - any fault of one key must not end the worker of all others
                self._back_off(key, error)
            else:
                self._failures.pop(key, None)
            finally:
                del self._active[key]
            if key in self._dirty:
                self._dirty.discard(key)
                urgent = key in self._urgent
                self._urgent.discard(key)
                self._enqueue(key, fast=urgent)
            self._settle()

    def _back_off(self, key: K, error: Exception) -> None:
        count = self._failures.get(key, 0) + 1
        self._failures[key] = count
        pause = backoff_seconds(
            count,
            first_seconds=FIRST_BACKOFF_SECONDS,
            longest_seconds=LONGEST_BACKOFF_SECONDS,
            jitter=self._jitter(),
        )
        pause = max(getattr(error, "retry_after_seconds", 0.0), pause)
        self._failed(key, error, pause)
        if key not in self._dirty:
            # Not add_after: the key is still active here, and its own retry must not be lost to that.
            at = self._clock() + pause
            self._due[key] = at
            heapq.heappush(self._delayed, (at, next(self._order), key))
            self._arm()

    def _settle(self) -> None:
        if not self._waiting and not self._active:
            self._idle.set()

    def _arm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._delayed:
            pause = max(0.0, self._delayed[0][0] - self._clock())
            self._timer = asyncio.get_running_loop().call_later(pause, self._fire)

    def _fire(self) -> None:
        self._timer = None
        now = self._clock()
        while self._delayed and self._delayed[0][0] <= now:
            at, _, key = heapq.heappop(self._delayed)
            if self._due.get(key) == at:
                self.add(key)
        self._arm()
