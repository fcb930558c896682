"""The work queue: nothing is lost, nothing runs twice at a time, urgent keys overtake."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatelaine.controller.queue import LONGEST_BACKOFF_SECONDS, WorkQueue


def make(
    work: Callable[[str], Awaitable[None]], failures: list[tuple[str, float]] | None = None, workers: int = 4
) -> WorkQueue[str]:
    def failed(key: str, _error: Exception, pause: float) -> None:
        if failures is not None:
            failures.append((key, pause))

    loop = asyncio.get_running_loop()
    return WorkQueue(work, failed=failed, clock=loop.time, jitter=lambda: 0.0, workers=workers)


async def settle(queue: WorkQueue[str]) -> None:
    async with asyncio.timeout(10):
        await queue.settled()


async def test_a_key_added_many_times_runs_once() -> None:
    seen: list[str] = []

    async def work(key: str) -> None:
        seen.append(key)

    queue = make(work)
    for _ in range(50):
        queue.add("a")
    runner = asyncio.create_task(queue.run())
    await settle(queue)
    runner.cancel()
    assert seen == ["a"]


async def test_a_key_added_while_active_runs_again_and_never_twice_at_a_time() -> None:
    started, go = asyncio.Event(), asyncio.Event()
    active, most, runs = 0, 0, 0

    async def work(_key: str) -> None:
        nonlocal active, most, runs
        active += 1
        runs += 1
        most = max(most, active)
        started.set()
        await go.wait()
        active -= 1

    queue = make(work)
    queue.add("a")
    runner = asyncio.create_task(queue.run())
    await started.wait()
    for _ in range(3):
        queue.add("a")
    go.set()
    await settle(queue)
    runner.cancel()
    assert (runs, most) == (2, 1)


async def test_the_fast_lane_overtakes_what_waits() -> None:
    seen: list[str] = []

    async def work(key: str) -> None:
        seen.append(key)

    queue = make(work, workers=1)
    for key in ("a", "b", "c"):
        queue.add(key)
    queue.add("c", fast=True)
    queue.add("d", fast=True)
    runner = asyncio.create_task(queue.run())
    await settle(queue)
    runner.cancel()
    assert seen == ["c", "d", "a", "b"]


async def test_failures_come_back_with_growing_pauses_and_never_end_a_worker() -> None:
    failures: list[tuple[str, float]] = []
    done = asyncio.Event()

    async def work(_key: str) -> None:
        if len(failures) < 4:
            raise RuntimeError("not yet")
        done.set()

    queue = make(work, failures, workers=1)
    queue.add("a")
    runner = asyncio.create_task(queue.run())
    async with asyncio.timeout(10):
        await done.wait()
    runner.cancel()
    pauses = [pause for _, pause in failures]
    assert pauses == sorted(pauses)
    assert pauses[0] < pauses[-1] <= LONGEST_BACKOFF_SECONDS


async def test_a_server_that_asks_for_patience_gets_it() -> None:
    class Patience(Exception):
        retry_after_seconds = 0.3

    failures: list[tuple[str, float]] = []

    async def work(_key: str) -> None:
        raise Patience

    queue = make(work, failures)
    queue.add("a")
    runner = asyncio.create_task(queue.run())
    await settle(queue)
    runner.cancel()
    assert failures[0][1] == pytest.approx(0.3)


async def test_the_earliest_of_several_wishes_counts() -> None:
    seen = asyncio.Event()

    async def work(_key: str) -> None:
        seen.set()

    queue = make(work)
    runner = asyncio.create_task(queue.run())
    queue.add_after("a", 3600)
    queue.add_after("a", 0.01)
    async with asyncio.timeout(10):
        await seen.wait()
    await settle(queue)
    runner.cancel()
    assert queue.depth().delayed == 0


@given(st.lists(st.tuples(st.sampled_from("abcd"), st.booleans(), st.booleans()), max_size=60))
def test_every_add_is_followed_by_a_run_that_began_after_it(script: list[tuple[str, bool, bool]]) -> None:
    async def scenario() -> None:
        added: dict[str, int] = {}
        served: dict[str, int] = {}
        active: set[str] = set()
        clock = 0

        async def work(key: str) -> None:
            nonlocal clock
            assert key not in active
            active.add(key)
            clock += 1
            started = clock
            await asyncio.sleep(0)
            active.discard(key)
            served[key] = started

        queue = make(work, workers=3)
        runner = asyncio.create_task(queue.run())
        for key, fast, pause in script:
            clock += 1
            added[key] = clock
            queue.add(key, fast=fast)
            if pause:
                await asyncio.sleep(0)
        await settle(queue)
        runner.cancel()
        for key, at in added.items():
            assert served[key] > at

    asyncio.run(scenario())
