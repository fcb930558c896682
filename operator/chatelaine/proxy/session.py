"""A trust token that is always there: exchanged, renewed before it ends, dropped when the binding becomes another.

One loop exchanges, whoever asks for it: exchanges never overlap and never come closer than `ATTEMPT_SPACING_SECONDS`.
A request that finds no token waits for the end of one exchange, and is told how that ended.

    no token ──exchange with a CSR──► leaf and token ──renewed on connections with that leaf──► token
       ▲                                   │
       └── the binding changed, the gateway refused, the leaf is old: the next exchange carries a CSR again
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import random
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from chatelaine.model.backoff import backoff_seconds
from chatelaine.proxy import account, limits
from chatelaine.proxy import binding as bindings
from chatelaine.proxy.binding import Binding
from chatelaine.proxy.caller import CallerKey
from chatelaine.proxy.errors import BindingUnusable, GatewayUnreachable, Refused
from chatelaine.proxy.exchange import Issued, exchange
from chatelaine.proxy.line import Line, context_for
from chatelaine.proxy.metrics import ISSUED, Metrics
from chatelaine.telemetry.log import logger

log = logger(__name__)

_LEAF_SHARE: Final = 2 / 3
"""A leaf is replaced after this share of its life."""


@dataclass(frozen=True, slots=True)
class Pass:
    """What a request is forwarded with. `ends` and `renew_at` are monotonic seconds."""

    line: Line
    bearer: str
    ends: float
    renew_at: float


@dataclass(frozen=True, slots=True)
class _Leafed:
    """Connections that show our leaf. `renew_at`: seconds since the epoch."""

    line: Line
    renew_at: float


class Session:
    """The sidecar's standing with the gateway of its binding.

    Args:
        folder: the binding's.
        token_file: the projected service-account token's.
        caller: the caller's key.
        metrics: where exchanges are counted.
    """

    def __init__(self, folder: Path, token_file: Path, caller: CallerKey, metrics: Metrics) -> None:
        self._folder = folder
        self._token_file = token_file
        self._caller = caller
        self._metrics = metrics
        self._binding: Binding | None = None
        self._pass: Pass | None = None
        self._leafed: _Leafed | None = None
        self._failure: Refused | None = None
        self._failures = 0
        self._wanted = asyncio.Event()
        self._attempted = asyncio.Event()
        self._last_began = -math.inf

    # --- for requests

    @property
    def claim(self) -> str:
        """The claim of the binding that is followed now, as people write it; empty before the first."""
        return self._binding.name if self._binding is not None else ""

    def seconds_left(self) -> float:
        """Until the token ends; 0 without one."""
        return max(0.0, self._pass.ends - time.monotonic()) if self._pass is not None else 0.0

    def usable(self) -> Pass | None:
        """What there is, if it can be used now."""
        found = self._pass
        return found if found is not None and time.monotonic() < found.ends else None

    def state(self) -> Refused | None:
        """None when requests can be forwarded; else why not."""
        if self.usable() is not None:
            return None
        return self._failure or GatewayUnreachable("the token exchange with the gateway has not ended yet; ask again")

    async def current(self) -> Pass:
        """A usable token, waiting for one exchange if there is none.

        Raises:
            Refused: why there is none.
        """
        found = self.usable()
        if found is not None:
            return found
        self._wanted.set()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(limits.WAIT_SECONDS):
                await self._attempted.wait()
        found = self.usable()
        if found is not None:
            return found
        raise self.state() or GatewayUnreachable("the trust token has just ended; ask again")

    async def another(self, used: Pass) -> Pass:
        """A token that is newer than `used`, which the gateway does not take, or whose connections broke.

        Raises:
            Refused: why there is none.
        """
        if self._pass is used:
            await self._hold(None, None)
        return await self.current()

    # --- the loop

    async def run(self) -> None:
        """Keep a token, and follow the binding, until cancelled."""
        async with asyncio.TaskGroup() as together:
            together.create_task(self._watch())
            while True:
                await self._spaced()
                if not await self._attempt():
                    continue
                self._wanted.clear()
                self._attempted.set()
                self._attempted = asyncio.Event()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(self._pause()):
                        await self._wanted.wait()

    async def close(self) -> None:
        """Close what is open to the gateway. To be called after `run` has ended."""
        await self._hold(None, None)

    async def _spaced(self) -> None:
        wait = self._last_began + limits.ATTEMPT_SPACING_SECONDS - time.monotonic()
        if wait > 0:
            await asyncio.sleep(wait)
        self._last_began = time.monotonic()

    def _pause(self) -> float:
        if self._failures:
            return backoff_seconds(
                self._failures,
                first_seconds=limits.BACKOFF_FIRST_SECONDS,
                longest_seconds=limits.BACKOFF_LONGEST_SECONDS,
                jitter=_jitter(),
            )
        return max(0.0, self._pass.renew_at - time.monotonic()) if self._pass is not None else 0.0

    async def _attempt(self) -> bool:
        """One exchange. False if the binding changed meanwhile: then it says nothing about the gateway of now."""
        began = time.monotonic()
        followed = self._binding
        try:
            found = bindings.read(self._folder)
            await self._follow(found)
            followed = found
            issued, leafed = await self._exchanged(found)
        except Refused as refused:
            if followed != self._binding:
                return False
            await self._failed(refused)
            return True
        if followed != self._binding:
            await leafed.line.close()
            return False
        renew_at = began + issued.seconds * (limits.RENEW_FROM + limits.RENEW_SPREAD * _jitter())
        ends = began + max(issued.seconds - limits.EARLY_SECONDS, 1.0)
        await self._hold(Pass(leafed.line, issued.bearer, ends, renew_at), leafed)
        if self._failure is not None:
            log.info("requests are forwarded again", claim=found.name)
        self._failure, self._failures = None, 0
        self._metrics.exchanges.labels(ISSUED).inc()
        return True

    async def _exchanged(self, found: Binding) -> tuple[Issued, _Leafed]:
        now = time.time()
        proof = account.read(self._token_file, int(now))
        if self._leafed is not None and now < self._leafed.renew_at:
            return await exchange(self._leafed.line, proof, ""), self._leafed
        nameless = Line(found, context_for(found))
        try:
            issued = await exchange(nameless, proof, self._caller.request())
        finally:
            await nameless.close()
        leaf = self._caller.checked(issued.chain_pem)
        context = context_for(found)
        self._caller.show(context, issued.chain_pem)
        seconds = leaf.not_valid_after_utc.timestamp() - now
        return issued, _Leafed(Line(found, context), now + seconds * _LEAF_SHARE)

    async def _failed(self, refused: Refused) -> None:
        self._failures += 1
        before = self._failure
        if before is None or (before.problem_code, before.detail) != (refused.problem_code, refused.detail):
            log.warning("no trust token", code=refused.problem_code, detail=refused.detail)
        self._failure = refused
        self._metrics.exchanges.labels(refused.problem_code).inc()
        # Whatever was wrong, the next exchange begins from nothing but the caller's key. A token at hand is used until
        # it ends: whether it is still worth something is the gateway's to judge.
        await self._hold(self._pass, None)

    async def _hold(self, held: Pass | None, leafed: _Leafed | None) -> None:
        """From now on this; connections that belong to neither are closed after the calls that are under way."""
        before = self._lines()
        self._pass, self._leafed = held, leafed
        for line in before - self._lines():
            await line.retire()

    def _lines(self) -> set[Line]:
        return {held.line for held in (self._pass, self._leafed) if held is not None}

    # --- the binding

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(limits.BINDING_POLL_SECONDS)
            # What is wrong with it is told by the next exchange; what is held is the gateway's to judge.
            with contextlib.suppress(BindingUnusable):
                found = bindings.read(self._folder)
                if found != self._binding:
                    await self._follow(found)
                    self._wanted.set()

    async def _follow(self, found: Binding) -> None:
        """What was held belongs to the binding before: neither its keys nor its CAs are believed any more."""
        if found == self._binding:
            return
        log.info("a binding is followed", claim=found.name, host=found.host, port=found.port)
        self._metrics.bindings.inc()
        self._binding, self._failures = found, 0
        await self._hold(None, None)


def _jitter() -> float:
    return random.random()  # noqa: S311 - spreads load, guards nothing
