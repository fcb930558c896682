"""One thread for a device that takes one call at a time, with a bound on how long callers wait and how many.

A call that hangs in the device cannot be interrupted; its caller goes on after the deadline, and later callers see
`AttesterTimeout` or `AttesterBusy` until the device answers. The thread is a daemon: a hung device never keeps the
process from ending.
"""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, Final, TypeVar

from chatelaine.agent.errors import AttesterBusy, AttesterTimeout

T = TypeVar("T")

MAX_WAITING_CALLS: Final = 16


class DeviceThread:
    """Runs calls one after another."""

    def __init__(self, name: str) -> None:
        self._calls: queue.Queue[tuple[Callable[[], Any], Future[Any]] | None] = queue.Queue(MAX_WAITING_CALLS)
        threading.Thread(target=self._serve, name=name, daemon=True).start()

    async def run(self, call: Callable[[], T], *, deadline_seconds: float) -> T:
        """The result of `call`, or what it raises.

        Raises:
            AttesterTimeout: not done within `deadline_seconds`; a call that has not begun is dropped.
            AttesterBusy: too many wait already.
        """
        future: Future[T] = Future()
        try:
            self._calls.put_nowait((call, future))
        except queue.Full:
            raise AttesterBusy("too many calls wait for the TPM") from None
        try:
            async with asyncio.timeout(deadline_seconds):
                return await asyncio.wrap_future(future)
        except TimeoutError:
            raise AttesterTimeout(f"the TPM did not answer within {deadline_seconds:g} s") from None

    def close(self) -> None:
        """End after the calls that wait now; does not wait for them."""
        threading.Thread(target=self._calls.put, args=(None,), daemon=True).start()

    def _serve(self) -> None:
        while (item := self._calls.get()) is not None:
            call, future = item
            if not future.set_running_or_notify_cancel():
                continue
            try:
                result = call()
            except BaseException as error:  # noqa: BLE001 - whatever it is belongs to the caller who waits for it
                future.set_exception(error)
            else:
                future.set_result(result)
