"""A token behind a worker process that may die at any moment: `HsmPort` for real tokens.

What holds whatever happens: a call ends by its deadline; at most `max_pending_calls` wait; a dead worker costs the
calls that it was working on (`WorkerDown`) and nothing else; a refused login is retried only when
that can spend no PIN.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections import deque
from dataclasses import dataclass
from typing import Final, Self

import msgspec

from chatelaine.evidence.inventory import InventoryKey
from chatelaine.model.keys import KeyType
from chatelaine.model.verdict import Outcome
from chatelaine.pkcs11 import frames
from chatelaine.pkcs11.errors import DeadlineExceeded, HsmError, QueueFull, WorkerDown
from chatelaine.pkcs11.link import Answers, WorkerLink
from chatelaine.pkcs11.port import DestroyOutcome, PublicKey, SignMechanism, TokenInfo
from chatelaine.pkcs11.settings import EventKind, HsmEvent, OnEvent, Pkcs11Settings
from chatelaine.pkcs11.uri import parse_token

_MAX_SWEEP_SECONDS: Final = 0.25
_inventory: Final = msgspec.msgpack.Decoder(tuple[InventoryKey, ...])
_public_key: Final = msgspec.msgpack.Decoder(PublicKey)
_token_info: Final = msgspec.msgpack.Decoder(TokenInfo)


@dataclass(slots=True)
class _Pending:
    future: asyncio.Future[bytes]
    deadline: float


class Pkcs11Supervisor:
    """`HsmPort` over a supervised worker process. Use as an async context manager, or `start` and `close`."""

    def __init__(self, settings: Pkcs11Settings, on_event: OnEvent = lambda _event: None) -> None:
        """`on_event` is called in the event loop and must not block.

        Raises:
            UriRefused: the token's URI is not one we follow.
        """
        parse_token(settings.token_uri)
        self._settings = settings
        self._on_event = on_event
        self._serial = settings.serial
        self._ids = itertools.count(1)
        self._queue: deque[frames.Call] = deque()
        self._pending: dict[int, _Pending] = {}
        self._in_flight: set[int] = set()
        self._sent_at = 0.0
        self._link: WorkerLink | None = None
        self._refusal: HsmError | None = None
        self._first_outcome = asyncio.Event()
        self._flush_due = False
        self._sweeper: asyncio.TimerHandle | None = None
        self._keeper: asyncio.Task[None] | None = None
        self._closed = False

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_exc: object) -> None:
        await self.close()

    @property
    def ready(self) -> bool:
        """A worker is logged in."""
        return self._link is not None

    @property
    def refusal(self) -> HsmError | None:
        """Why the last start failed, while no later one has succeeded."""
        return self._refusal

    @property
    def worker_pid(self) -> int | None:
        """The process id of the worker that serves now."""
        return None if self._link is None else self._link.pid

    async def start(self) -> None:
        """Start the first worker and wait for its outcome.

        Raises:
            HsmError: it could not log in. The supervisor stays and goes on trying by its rules until `close`.
        """
        if self._keeper is None:
            self._keeper = asyncio.create_task(self._keep(), name="pkcs11-supervisor")
        await self._first_outcome.wait()
        if self._refusal is not None:
            raise _anew(self._refusal)

    async def token_info(self) -> TokenInfo:
        """See `HsmPort`."""
        return _token_info.decode(await self._call(frames.Describe(next(self._ids))))

    async def ensure_key_pair(self, label: str, key_type: KeyType, *, may_generate: bool) -> PublicKey:
        """See `HsmPort`."""
        call = frames.Ensure(next(self._ids), label, key_type, may_generate)
        return _public_key.decode(await self._call(call, slow=True))

    async def destroy_key(self, label: str) -> DestroyOutcome:
        """See `HsmPort`."""
        answer = await self._call(frames.Destroy(next(self._ids), label), slow=True)
        return DestroyOutcome(answer.decode())

    async def inventory(self) -> tuple[InventoryKey, ...]:
        """See `HsmPort`."""
        return _inventory.decode(await self._call(frames.Inventory(next(self._ids)), slow=True))

    async def sign(self, label: str, mechanism: SignMechanism, digest: bytes) -> bytes:
        """See `HsmPort`."""
        return await self._call(frames.Sign(next(self._ids), label, mechanism, digest))

    async def verify(self, label: str, mechanism: SignMechanism, digest: bytes, signature: bytes) -> Outcome:
        """See `HsmPort`."""
        answer = await self._call(frames.Verify(next(self._ids), label, mechanism, digest, signature))
        return Outcome(answer.decode())

    async def public_key(self, label: str) -> PublicKey:
        """See `HsmPort`."""
        return _public_key.decode(await self._call(frames.Public(next(self._ids), label)))

    async def random(self, length_bytes: int) -> bytes:
        """See `HsmPort`."""
        return await self._call(frames.Random(next(self._ids), length_bytes))

    async def close(self) -> None:
        """See `HsmPort`."""
        self._closed = True
        if self._keeper is not None:
            self._keeper.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._keeper
        self._fail(self._pending, WorkerDown("a running supervisor", "one that was closed"))
        if self._sweeper is not None:
            self._sweeper.cancel()

    # --- calls

    async def _call(self, call: frames.Call, *, slow: bool = False) -> bytes:
        if self._closed:
            raise WorkerDown("a running supervisor", "one that was closed")
        if self._refusal is not None:
            # One turn for the others first: a caller that asks again at once must not starve the supervisor.
            await asyncio.sleep(0)
            raise _anew(self._refusal or WorkerDown("a worker", "one that has just started"))
        settings = self._settings
        if len(self._pending) >= settings.max_pending_calls:
            raise QueueFull(f"at most {settings.max_pending_calls} calls waiting", "more")
        loop = asyncio.get_running_loop()
        timeout_seconds = settings.slow_call_timeout_seconds if slow else settings.call_timeout_seconds
        pending = _Pending(loop.create_future(), loop.time() + timeout_seconds)
        self._pending[call.call] = pending
        self._queue.append(call)
        if not self._flush_due:
            # At the end of this turn of the loop, so that everything asked in it goes in one frame.
            self._flush_due = True
            loop.call_soon(self._flush)
        if self._sweeper is None:
            self._sweeper = loop.call_later(self._sweep_seconds(), self._sweep)
        try:
            return await pending.future
        finally:
            self._pending.pop(call.call, None)

    def _flush(self) -> None:
        self._flush_due = False
        if self._link is None or self._in_flight:
            return
        batch: list[frames.Call] = []
        while self._queue and len(batch) < frames.MAX_CALLS_PER_FRAME:
            call = self._queue.popleft()
            if call.call in self._pending:  # else its caller has given up
                batch.append(call)
        if batch:
            self._in_flight = {call.call for call in batch}
            self._sent_at = asyncio.get_running_loop().time()
            self._link.send(batch)

    def _answered(self, answers: Answers) -> None:
        for answer in answers:
            self._in_flight.discard(answer.call)
            pending = self._pending.get(answer.call)
            if pending is None or pending.future.done():
                continue
            if isinstance(answer, frames.Reply):
                pending.future.set_result(answer.value)
            else:
                pending.future.set_exception(frames.as_error(answer))
        if self._in_flight:
            self._sent_at = asyncio.get_running_loop().time()
        else:
            self._flush()

    def _fail(self, ids: set[int] | dict[int, _Pending], error: HsmError) -> None:
        for call in tuple(ids):
            pending = self._pending.get(call)
            if pending is not None and not pending.future.done():
                pending.future.set_exception(_anew(error))

    # --- deadlines

    def _sweep_seconds(self) -> float:
        shortest = min(self._settings.call_timeout_seconds, self._settings.slow_call_timeout_seconds)
        return min(_MAX_SWEEP_SECONDS, shortest / 4, self._settings.stall_seconds / 4)

    def _sweep(self) -> None:
        """One timer for all deadlines: a timer a call would cost a tenth of a signature."""
        self._sweeper = None
        loop = asyncio.get_running_loop()
        now = loop.time()
        for pending in self._pending.values():
            if pending.deadline <= now and not pending.future.done():
                pending.future.set_exception(DeadlineExceeded("an answer from the token in time", "none"))
        if self._in_flight and self._link is not None and now - self._sent_at > self._settings.stall_seconds:
            self._tell(EventKind.STALLED, "killed: it owed an answer for too long", pid=self._link.pid)
            self._link.kill()
        elif not self._pending and not self._in_flight:
            return
        self._sweeper = loop.call_later(self._sweep_seconds(), self._sweep)

    # --- the worker's life

    async def _keep(self) -> None:
        first, longest = self._settings.restart_first_seconds, self._settings.restart_max_seconds
        loop = asyncio.get_running_loop()
        delay_seconds = first
        while True:
            began = loop.time()
            if await self._live_once():
                delay_seconds = first
                continue
            if loop.time() - began > longest:
                delay_seconds = first  # it served for a good while; this death is not one of a series
            changed = await self._pause(delay_seconds)
            delay_seconds = first if changed else min(2 * delay_seconds, longest)

    async def _live_once(self) -> bool:
        """One worker from start to end. True: it asked to be replaced, which is no fault of the worker."""
        link: WorkerLink | None = None
        try:
            link, token = await WorkerLink.spawn(self._settings, self._serial, self._answered)
            return await self._serve(link, token)
        except HsmError as error:
            self._refuse(error)
            return False
        finally:
            self._link = None
            if link is not None:
                await link.end()

    async def _serve(self, link: WorkerLink, token: TokenInfo) -> bool:
        self._serial = token.serial
        self._refusal = None
        self._link = link
        self._first_outcome.set()
        self._tell(EventKind.STARTED, f"logged in to {token.label} (serial {token.serial})", pid=link.pid)
        self._flush()
        await link.lost
        self._link = None
        exit_code = await link.end()
        lost, self._in_flight = self._in_flight, set()
        again = exit_code == frames.EXIT_AGAIN
        self._tell(EventKind.REPLACED if again else EventKind.DIED, f"exit code {exit_code}", pid=link.pid)
        self._fail(lost, WorkerDown("an answer from the worker", f"that it ended with code {exit_code}"))
        return again

    def _refuse(self, error: HsmError) -> None:
        self._refusal = error
        self._first_outcome.set()
        self._tell(EventKind.REFUSED, str(error), code=error.code)
        self._queue.clear()
        self._fail(self._pending, error)

    async def _pause(self, seconds: float) -> bool:
        """Wait; True at once when the PIN file changes, for then the refused login may be a different one."""
        before = self._pin_file_stamp()
        loop = asyncio.get_running_loop()
        until = loop.time() + seconds
        while (left := until - loop.time()) > 0:
            await asyncio.sleep(min(left, self._settings.pin_file_poll_seconds))
            if self._pin_file_stamp() != before:
                return True
        return False

    def _pin_file_stamp(self) -> tuple[int, ...]:
        try:
            status = self._settings.pin_file.stat()
        except OSError:
            return ()
        return (status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)

    def _tell(self, kind: EventKind, detail: str, *, code: str = "", pid: int = 0) -> None:
        self._on_event(HsmEvent(kind, detail, code, pid))


def _anew(error: HsmError) -> HsmError:
    """A fresh instance: one exception object raised in many tasks would collect all their tracebacks."""
    return type(error)(error.expected, error.found, error.remedy)
