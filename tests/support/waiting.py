"""Waiting for something to come true, with a deadline: `until` in coroutines, `eventually` elsewhere."""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

T = TypeVar("T")

DEADLINE_SECONDS = 30.0
PAUSE_SECONDS = 0.02


async def until(
    what: str, holds: Callable[[], T | Awaitable[T | None] | None], *, seconds: float = DEADLINE_SECONDS
) -> T:
    """The first true value of `holds`, which may be a coroutine function."""
    deadline = time.monotonic() + seconds
    while True:
        value = holds()
        if inspect.isawaitable(value):
            value = await value
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(_late(what, seconds))
        await asyncio.sleep(PAUSE_SECONDS)


def eventually(
    condition: Callable[[], T | None],
    what: str,
    seconds: float = DEADLINE_SECONDS,
    pause_seconds: float = PAUSE_SECONDS,
) -> T:
    """The first true value of `condition`."""
    deadline = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(_late(what, seconds))
        time.sleep(pause_seconds)


def _late(what: str, seconds: float) -> str:
    return f"not within {seconds:.0f} s: {what}"
