"""Tokens that are kept: renewals, failures and bindings that change, with a gateway that answers as a test says."""

from __future__ import annotations

import asyncio
import datetime
import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from chatelaine.proxy import limits
from chatelaine.proxy import session as sessions
from chatelaine.proxy.binding import Binding
from chatelaine.proxy.caller import CallerKey
from chatelaine.proxy.errors import BindingUnusable, ExchangeRefused, GatewayUnreachable, Refused
from chatelaine.proxy.exchange import Issued
from chatelaine.proxy.metrics import Metrics
from chatelaine.proxy.session import Session
from support.waiting import until

BOUND = Binding("payments", "checkout", "gateway-a", 8443, (), frozenset({"sha256:a"}))


class FakeLine:
    """Connections that know only whether they were given up."""

    made: list[FakeLine] = []  # noqa: RUF012 - emptied by each test's world

    def __init__(self, binding: Binding, _: object) -> None:
        self.binding, self.given_up = binding, False
        FakeLine.made.append(self)

    async def retire(self) -> None:
        self.given_up = True

    close = retire


class World:
    """What the sidecar sees: a binding, a gateway. `answers` are used up in turn, the last one stays."""

    def __init__(self) -> None:
        self.binding: Binding | Refused = BOUND
        self.answers: list[Issued | Refused] = [Issued("t.o.k", 60, "chain")]
        self.exchanges: list[tuple[FakeLine, str]] = []
        self.gate: asyncio.Event | None = None

    def read(self, _: Path) -> Binding:
        if isinstance(self.binding, Refused):
            raise self.binding
        return self.binding

    async def exchange(self, line: Any, _: str, csr: str) -> Issued:
        self.exchanges.append((line, csr))
        if self.gate is not None:
            await self.gate.wait()
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Refused):
            raise answer
        return replace(answer, bearer=f"t.o.{len(self.exchanges)}")


class FakeCaller(CallerKey):
    def checked(self, chain_pem: str) -> Any:
        class Leaf:
            not_valid_after_utc = datetime.datetime.now(datetime.UTC) + datetime.timedelta(hours=1)

        return Leaf()

    def show(self, *_: Any) -> None:
        pass


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    made = World()
    FakeLine.made = []
    monkeypatch.setattr(sessions.bindings, "read", made.read)
    monkeypatch.setattr(sessions.account, "read", lambda *_: "proof")
    monkeypatch.setattr(sessions, "exchange", made.exchange)
    monkeypatch.setattr(sessions, "Line", FakeLine)
    monkeypatch.setattr(sessions, "context_for", lambda _: None)
    for name, seconds in (
        ("ATTEMPT_SPACING_SECONDS", 0.001),
        ("BINDING_POLL_SECONDS", 0.001),
        ("BACKOFF_FIRST_SECONDS", 0.001),
        ("BACKOFF_LONGEST_SECONDS", 0.01),
    ):
        monkeypatch.setattr(limits, name, seconds)
    return made


@asynccontextmanager
async def kept() -> AsyncIterator[Session]:
    session = Session(Path("binding"), Path("token"), FakeCaller(), Metrics(lambda: 0.0, lambda: 0))
    running = asyncio.create_task(session.run())
    try:
        yield session
    finally:
        running.cancel()
        with suppress(asyncio.CancelledError):
            await running
        await session.close()
        assert all(line.given_up for line in FakeLine.made), "connections were left open"


def open_lines() -> list[FakeLine]:
    return [line for line in FakeLine.made if not line.given_up]


async def test_requests_that_come_together_share_one_exchange(world: World) -> None:
    async with kept() as session:
        found = await asyncio.gather(*(session.current() for _ in range(20)))
        assert {one.bearer for one in found} == {"t.o.1"}
        assert session.state() is None
        assert session.claim == "payments/checkout"
    assert len(world.exchanges) == 1


async def test_renewals_use_the_connections_of_the_leaf_and_no_new_request(world: World) -> None:
    world.answers = [Issued("t.o.k", 60, "chain")]
    async with kept() as session:
        first = await session.current()
        session._wanted.set()
        await until("renewed", lambda: session.usable() is not first)
        second = await session.current()
        assert second.line is first.line
        assert open_lines() == [second.line]
    assert [bool(csr) for _, csr in world.exchanges] == [True, False]


async def test_a_renewal_that_fails_leaves_the_token_in_use_and_begins_anew_with_the_key(world: World) -> None:
    async with kept() as session:
        first = await session.current()
        world.answers = [GatewayUnreachable("away"), GatewayUnreachable("away"), Issued("t.o.k", 60, "chain")]
        session._wanted.set()
        await until("tried", lambda: len(world.exchanges) >= 3)
        assert session.state() is None
        await until("renewed", lambda: session.usable() not in (None, first))
        assert len(open_lines()) == 1
    assert [bool(csr) for _, csr in world.exchanges] == [True, False, True, True]


async def test_a_request_is_told_how_the_exchange_ended_that_it_waited_for(world: World) -> None:
    world.answers = [ExchangeRefused("not a client", "ERROR_NOT_A_CLIENT")]
    async with kept() as session:
        with pytest.raises(ExchangeRefused, match="not a client"):
            await session.current()
        world.answers = [Issued("t.o.k", 60, "chain")]
        assert (await session.current()).bearer


async def test_a_token_that_the_gateway_does_not_take_is_never_handed_out_again(world: World) -> None:
    async with kept() as session:
        used = await session.current()
        fresh = await asyncio.gather(*(session.another(used) for _ in range(5)))
        assert used.bearer not in {one.bearer for one in fresh}
    assert len(world.exchanges) == 2
    assert all(csr for _, csr in world.exchanges)


async def test_token_of_a_gateway_that_left_the_binding_is_dropped_at_once(world: World) -> None:
    async with kept() as session:
        first = await session.current()
        world.gate = asyncio.Event()
        world.binding = replace(BOUND, host="gateway-b", pins=frozenset({"sha256:b"}))
        await until("dropped", lambda: session.usable() is None)
        world.gate.set()
        second = await session.current()
        assert second.line.binding.host == "gateway-b"
        assert first.line not in open_lines()


async def test_token_that_comes_from_a_gateway_that_has_left_meanwhile_is_not_used(world: World) -> None:
    world.gate = asyncio.Event()
    async with kept() as session:
        await until("asked", lambda: world.exchanges)
        world.binding = replace(BOUND, host="gateway-b")
        await until("seen", lambda: session._binding == world.binding)
        world.gate.set()
        assert (await session.current()).line.binding.host == "gateway-b"
        assert [line.binding.host for line in open_lines()] == ["gateway-b"]


async def test_refusal_of_a_gateway_that_has_left_meanwhile_is_not_told(world: World) -> None:
    world.gate = asyncio.Event()
    world.answers = [ExchangeRefused("of the one before", "ERROR_NOT_ATTESTED"), Issued("t.o.k", 60, "chain")]
    async with kept() as session:
        await until("asked", lambda: world.exchanges)
        world.binding = replace(BOUND, host="gateway-b")
        await until("seen", lambda: session._binding == world.binding)
        waiting = asyncio.create_task(session.current())
        world.gate.set()
        assert (await waiting).line.binding.host == "gateway-b"


async def test_a_binding_that_goes_does_not_take_the_token_with_it(world: World) -> None:
    async with kept() as session:
        used = await session.current()
        world.binding = BindingUnusable("gone")
        session._wanted.set()
        await until("noticed", lambda: session._failures)
        assert session.usable() is used


async def test_a_token_is_not_used_up_to_its_very_end(world: World) -> None:
    world.answers = [Issued("t.o.k", 10, "chain")]
    async with kept() as session:
        found = await session.current()
        left = found.ends - asyncio.get_running_loop().time()
        assert left < 10 - limits.EARLY_SECONDS + 0.001
        assert found.renew_at < found.ends


async def test_exchanges_keep_their_distance_however_many_ask(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.answers = [GatewayUnreachable("away")]
    moments: list[float] = []
    monkeypatch.setattr(limits, "ATTEMPT_SPACING_SECONDS", 0.05)
    async with kept() as session:
        for _ in range(4):
            with pytest.raises(GatewayUnreachable):
                await session.current()
            moments.append(session._last_began)
    assert all(later - earlier >= 0.05 for earlier, later in itertools.pairwise(moments))
