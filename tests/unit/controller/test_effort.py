"""A host that makes its answers as costly as it can takes little from the others."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from chatelaine.appraisal.stored import verify_answer
from chatelaine.controller import interrogation
from chatelaine.controller.effort import LISTS_AT_ONCE, REST_FACTOR, SHORT_BYTES, Effort
from chatelaine.controller.ima_reading import LIST_SECONDS, ImaQuestion
from chatelaine.controller.interrogation import USUAL_BYTES, Question, Told, interrogate
from chatelaine.evidence.event_log import MAX_LOG_BYTES
from chatelaine.model.verdict import Outcome
from chatelaine.wire.messages import ImaResponse
from chatelaine.wire.peer import Answer, PeerUnreachable
from support.paper_agent import GOOD, HOST, POLICY, SELECTION, PaperAgent, finding, rule
from support.paper_host import AGENT_SPKI, GATEWAY_SPKI, SUBJECT, response_of
from support.paper_ima import PaperIma

PIECE_BYTES = 2000


class Loop(asyncio.SelectorEventLoop):
    """Its time passes when a test says so."""

    passed = 0.0

    def time(self) -> float:
        return self.passed


def in_own_time(test: Callable[[Loop], Any]) -> Any:
    loop = Loop()
    try:
        return loop.run_until_complete(asyncio.wait_for(test(loop), 10_000))
    finally:
        loop.close()


def long_list() -> PaperIma:
    ima = PaperIma.booted()
    for _ in range(100):
        ima.ran(*GOOD)
    return ima


def question(effort: Effort | None = None) -> Question:
    return Question(
        SUBJECT, GATEWAY_SPKI, SELECTION, ima=ImaQuestion({POLICY: rule()}), effort=effort or Effort(lambda: 0.0)
    )


def reading(agent: PaperAgent, effort: Effort | None = None) -> Any:
    return interrogate(agent, question(effort), HOST.identity, now=0.0)


class BusyEffort(Effort):
    """Everything waits for what other hosts have sent."""

    def __init__(self, loop: Loop) -> None:
        super().__init__(lambda: 0.0)
        self._loop = loop

    async def look_at(self, size_bytes: int, call: Any, *args: Any, **kwargs: Any) -> Any:
        self._loop.passed += LIST_SECONDS
        await asyncio.sleep(0)
        return await super().look_at(size_bytes, call, *args, **kwargs)


def test_a_list_is_read_to_its_end_however_long_it_waits_for_the_lists_of_others() -> None:
    """Else, after a restart, hundreds of honest hosts time each other out again and again, until all are cut."""

    class Distant(PaperAgent):
        async def call(self, *asked: Any) -> Answer[Any]:
            for _ in range(3):
                await asyncio.sleep(0)
            return await super().call(*asked)

    async def test(loop: Loop) -> Told:
        told: Told = await reading(Distant(long_list(), limit_bytes=PIECE_BYTES), BusyEffort(loop))
        return told

    assert finding(in_own_time(test)).outcome is Outcome.HOLDS


def test_a_host_that_drips_its_list_is_given_up_and_rested_for_as_long() -> None:
    async def test(loop: Loop) -> Effort:
        async def drip(agent: PaperAgent) -> None:
            loop.passed += LIST_SECONDS / 3
            for _ in range(3):
                await asyncio.sleep(0)

        class Dripping(PaperAgent):
            async def call(self, method: str, path: str, request: Any, answer: type[Any]) -> Answer[Any]:
                if answer is ImaResponse:
                    await drip(self)
                return await super().call(method, path, request, answer)

        effort = Effort(lambda: 0.0)
        with pytest.raises(PeerUnreachable, match="within 60 s"):
            await reading(Dripping(long_list(), limit_bytes=PIECE_BYTES), effort)
        return effort

    assert in_own_time(test).rest_seconds >= LIST_SECONDS


async def test_few_long_lists_are_in_memory_at_a_time_and_all_are_read() -> None:
    gate, inside = asyncio.Event(), set()

    class Waiting(PaperAgent):
        async def call(self, method: str, path: str, request: Any, answer: type[Any]) -> Answer[Any]:
            if answer is ImaResponse:
                inside.add(self)
                await gate.wait()
            return await super().call(method, path, request, answer)

    agents = [Waiting(long_list(), limit_bytes=PIECE_BYTES) for _ in range(3 * LISTS_AT_ONCE)]
    rounds = [asyncio.create_task(reading(agent)) for agent in agents]
    for _ in range(100):
        await asyncio.sleep(0)
    assert len(inside) == LISTS_AT_ONCE
    gate.set()
    async with asyncio.timeout(60):
        assert {finding(told).outcome for told in await asyncio.gather(*rounds)} == {Outcome.HOLDS}
    assert len(inside) == len(agents)


async def test_a_turn_is_given_back_by_whoever_breaks_off() -> None:
    class Failing(PaperAgent):
        async def call(self, method: str, path: str, request: Any, answer: type[Any]) -> Answer[Any]:
            if answer is ImaResponse:
                raise PeerUnreachable("away")
            return await super().call(method, path, request, answer)

    for _ in range(2 * LISTS_AT_ONCE):
        with pytest.raises(PeerUnreachable):
            await reading(Failing(long_list(), limit_bytes=PIECE_BYTES))
    async with asyncio.timeout(60):
        assert finding(await reading(PaperAgent(long_list(), limit_bytes=PIECE_BYTES))).outcome is Outcome.HOLDS


class Ticks:
    """A processor's clock on which everything takes a second."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        self.now += 1.0
        return self.now


async def test_a_list_of_one_piece_sent_again_and_again_is_rested_for() -> None:
    effort = Effort(Ticks())
    await reading(PaperAgent(long_list()), effort)
    # Verified, replayed, judged, and its digest made.
    assert 4 * REST_FACTOR <= effort.rest_seconds <= 4 * REST_FACTOR + 0.1


async def test_what_a_round_has_cost_is_rested_for_also_if_it_broke_off() -> None:
    class Stopping(PaperAgent):
        async def call(self, method: str, path: str, request: Any, answer: type[Any]) -> Answer[Any]:
            if answer is ImaResponse and request.offset:
                raise PeerUnreachable("away")
            return await super().call(method, path, request, answer)

    effort = Effort(Ticks())
    with pytest.raises(PeerUnreachable):
        await reading(Stopping(long_list(), limit_bytes=PIECE_BYTES), effort)
    assert effort.rest_seconds >= 3 * REST_FACTOR


@pytest.mark.parametrize(("log_bytes", "in_thread"), [(USUAL_BYTES, False), (MAX_LOG_BYTES, True)])
async def test_a_boot_log_as_long_as_can_be_does_not_hold_up_the_other_hosts(
    monkeypatch: pytest.MonkeyPatch, log_bytes: int, in_thread: bool
) -> None:
    """Twenty thousand events of no content are half a second of work, in every round if the host likes."""
    threads: list[threading.Thread] = []

    def verified(*args: Any) -> Any:
        threads.append(threading.current_thread())
        return verify_answer(*args)

    class Agent:
        async def call(self, *asked: Any) -> Answer[Any]:
            evidence = HOST.answer(asked[2].nonce, event_log=bytes(log_bytes))
            return Answer(response_of(evidence), AGENT_SPKI, 0)

    monkeypatch.setattr(interrogation, "verify_answer", verified)
    asked = Question(SUBJECT, GATEWAY_SPKI, replace(SELECTION, indices=(0, 7)), wants_log=True)
    await interrogate(Agent(), asked, HOST.identity, now=0.0)  # type: ignore[arg-type]  # its one method
    assert (threads[0] is not threading.main_thread()) == in_thread
    assert asked.effort.rest_seconds > 0


async def test_what_is_short_is_looked_at_at_once_and_what_is_long_in_one_thread() -> None:
    effort = Effort(lambda: 0.0)
    short = await effort.look_at(SHORT_BYTES, threading.current_thread)
    long = await asyncio.gather(*(effort.look_at(SHORT_BYTES + 1, threading.current_thread) for _ in range(8)))
    assert short is threading.current_thread()
    assert len(set(long)) == 1
    assert long[0] is not short
