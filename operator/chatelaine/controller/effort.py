"""What one host's answers cost this process, and how it is kept from costing the others.

A host may answer as fast as it is asked, and it decides how long its logs are. So three things are bounded here:

1. long answers are looked at in a thread of their own: the event loop has half of the interpreter whatever comes;
2. the processor's time that a host has taken is counted, and it rests for `REST_FACTOR` times as long;
3. few long lists are read at a time, since each is held in memory until it has been judged. Waiting for a turn counts
   against nobody; holding one is rested for.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from typing import Final, ParamSpec, TypeVar
from weakref import WeakKeyDictionary

P = ParamSpec("P")
T = TypeVar("T")

SHORT_BYTES: Final = 16 * 1024
"""What is shorter is looked at at once: handing it to a thread would take longer."""
REST_FACTOR: Final = 4
"""A host gets a fifth of the processor at the most."""
LISTS_AT_ONCE: Final = 4
RECEIVED_SECONDS_PER_BYTE: Final = 5e-9
"""To decrypt and decode an answer: eight mebibytes take 40 ms."""

_thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="long-answers")
_turns: WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Semaphore] = WeakKeyDictionary()


class Effort:
    """Of one round.

    Args:
        clock: seconds of the processor that the calling thread has taken.

    Attributes:
        seconds: of the processor, so far.
        held_seconds: a turn for a long list was held for.
    """

    def __init__(self, clock: Callable[[], float] = time.thread_time) -> None:
        self._clock = clock
        self._turn_since: float | None = None
        self.seconds = 0.0
        self.held_seconds = 0.0

    @property
    def rest_seconds(self) -> float:
        """How long the host is to be left alone for it."""
        return max(REST_FACTOR * self.seconds, self.held_seconds)

    @contextmanager
    def counted(self) -> Iterator[None]:
        """Counts what is done inside, which must not wait for anything."""
        began = self._clock()
        try:
            yield
        finally:
            self.seconds += self._clock() - began

    def received(self, size_bytes: int) -> None:
        """An answer of that length came in."""
        self.seconds += size_bytes * RECEIVED_SECONDS_PER_BYTE

    async def look_at(self, size_bytes: int, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call `call`, which looks at so many bytes that were not looked at before; long ones in the thread."""
        counted = partial(self._counted, partial(call, *args, **kwargs))
        if size_bytes <= SHORT_BYTES:
            return counted()
        return await asyncio.get_running_loop().run_in_executor(_thread, counted)

    def _counted(self, call: Callable[[], T]) -> T:
        with self.counted():
            return call()

    async def take_turn(self) -> None:
        """Wait until a long list may be read. One turn a round, until `end`."""
        if self._turn_since is None:
            await _turns_of_this_loop().acquire()
            self._turn_since = asyncio.get_running_loop().time()

    def end(self) -> None:
        """Give the turn back, if there is one."""
        if self._turn_since is not None:
            self.held_seconds += asyncio.get_running_loop().time() - self._turn_since
            self._turn_since = None
            _turns_of_this_loop().release()


def _turns_of_this_loop() -> asyncio.Semaphore:
    return _turns.setdefault(asyncio.get_running_loop(), asyncio.Semaphore(LISTS_AT_ONCE))
