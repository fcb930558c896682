"""A device that hangs holds up nobody for longer than the deadline, and not more callers than allowed."""

from __future__ import annotations

import asyncio
import threading

import pytest

from chatelaine.agent.errors import AttesterBusy, AttesterTimeout
from chatelaine.agent.thread import MAX_WAITING_CALLS, DeviceThread

PATIENCE_SECONDS = 30.0


async def test_a_result_and_an_error_come_back() -> None:
    device = DeviceThread("test")
    assert await device.run(lambda: 7, deadline_seconds=PATIENCE_SECONDS) == 7
    with pytest.raises(ZeroDivisionError):
        await device.run(lambda: 1 // 0, deadline_seconds=PATIENCE_SECONDS)
    assert await device.run(lambda: 8, deadline_seconds=PATIENCE_SECONDS) == 8
    device.close()


async def test_a_device_that_hangs_times_out_then_is_busy_then_serves_again() -> None:
    device, go, begun = DeviceThread("test"), threading.Event(), threading.Event()
    ran: list[int] = []

    def hang() -> None:
        begun.set()
        go.wait(PATIENCE_SECONDS)

    with pytest.raises(AttesterTimeout):
        await device.run(hang, deadline_seconds=0.01)
    assert begun.is_set()
    dropped = [
        asyncio.create_task(device.run(lambda: ran.append(1), deadline_seconds=0.05)) for _ in range(MAX_WAITING_CALLS)
    ]
    await asyncio.sleep(0)
    with pytest.raises(AttesterBusy):
        await device.run(lambda: ran.append(2), deadline_seconds=PATIENCE_SECONDS)
    assert all(isinstance(e, AttesterTimeout) for e in await asyncio.gather(*dropped, return_exceptions=True))
    go.set()
    for _ in range(1000):
        try:
            assert await device.run(lambda: 9, deadline_seconds=PATIENCE_SECONDS) == 9
        except AttesterBusy:
            await asyncio.sleep(0.001)
        else:
            break
    assert ran == []
    device.close()
