"""One worker process and the socket to it, from the supervisor's side."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import sys
from collections.abc import Callable
from typing import Final, cast

import msgspec

from chatelaine.pkcs11 import frames
from chatelaine.pkcs11.errors import HsmError, ProtocolBroken, WorkerDown
from chatelaine.pkcs11.port import TokenInfo
from chatelaine.pkcs11.settings import Pkcs11Settings

Answers = list[frames.Reply | frames.Failure]
_END_SECONDS: Final = 5.0
_answers: Final = msgspec.msgpack.Decoder(Answers)
_first: Final = msgspec.msgpack.Decoder(frames.Started | frames.StartFailed)


class _Frames(asyncio.Protocol):
    """Cuts the stream into payloads."""

    def __init__(self, on_payload: Callable[[bytes], None], on_lost: Callable[[], None]) -> None:
        self._on_payload = on_payload
        self._on_lost = on_lost
        self._buffer = bytearray()
        self.transport: asyncio.WriteTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # No isinstance: uvloop's transports are none of asyncio's classes.
        self.transport = cast("asyncio.WriteTransport", transport)

    def data_received(self, data: bytes) -> None:
        buffer = self._buffer
        buffer += data
        while len(buffer) >= frames.HEADER_BYTES:
            try:
                end = frames.HEADER_BYTES + frames.payload_length(bytes(buffer[: frames.HEADER_BYTES]))
            except ProtocolBroken:
                self.abort()
                return
            if len(buffer) < end:
                return
            payload = bytes(buffer[frames.HEADER_BYTES : end])
            del buffer[:end]
            self._on_payload(payload)

    def connection_lost(self, exc: Exception | None) -> None:
        self._on_lost()

    def abort(self) -> None:
        if self.transport is not None:
            self.transport.abort()


class WorkerLink:
    """A started worker. `lost` is done when its socket has closed."""

    def __init__(self, process: asyncio.subprocess.Process, on_answers: Callable[[Answers], None]) -> None:
        loop = asyncio.get_running_loop()
        self.process = process
        self.lost: asyncio.Future[None] = loop.create_future()
        self._started: asyncio.Future[TokenInfo] = loop.create_future()
        self._on_answers = on_answers
        self._frames = _Frames(self._received, self._closed)

    @classmethod
    async def spawn(
        cls, settings: Pkcs11Settings, serial: str, on_answers: Callable[[Answers], None]
    ) -> tuple[WorkerLink, TokenInfo]:
        """Start a worker and wait until it has logged in.

        Raises:
            HsmError: what the worker says, or `WorkerDown` if it dies or takes too long.
        """
        ours, theirs = socket.socketpair()
        with theirs:
            ours.setblocking(False)
            try:
                process = await asyncio.create_subprocess_exec(
                    sys.executable,
                    "-m",
                    "chatelaine.pkcs11.worker",
                    str(theirs.fileno()),
                    pass_fds=(theirs.fileno(),),
                    env=dict(settings.environment),
                    stdin=asyncio.subprocess.DEVNULL,
                    stdout=asyncio.subprocess.DEVNULL,
                    start_new_session=True,
                )
            except OSError as error:
                ours.close()
                raise WorkerDown("a worker process", f"{type(error).__name__} at its start") from error
        link = cls(process, on_answers)
        try:
            await asyncio.get_running_loop().create_connection(lambda: link._frames, sock=ours)
            async with asyncio.timeout(settings.start_timeout_seconds):
                link.send(_start(settings, serial))
                return link, await link._started
        except TimeoutError as error:
            await link.end()
            raise WorkerDown("a login in time", f"none in {settings.start_timeout_seconds} seconds") from error
        except (HsmError, OSError, asyncio.CancelledError):
            await link.end()
            raise

    @property
    def pid(self) -> int:
        """The worker's process id."""
        return self.process.pid

    def send(self, message: frames.Start | list[frames.Call]) -> None:
        """Send one frame; silently nothing if the worker is gone, for `lost` tells."""
        transport = self._frames.transport
        if transport is not None and not transport.is_closing():
            transport.write(frames.frame(msgspec.msgpack.encode(message)))

    def kill(self) -> None:
        """End the worker at once: it hangs inside its library."""
        with contextlib.suppress(ProcessLookupError):
            self.process.kill()

    async def end(self) -> int:
        """Close the socket, which ends an honest worker; kill one that does not listen. The exit code."""
        if self._frames.transport is not None:
            self._frames.transport.close()
        try:
            async with asyncio.timeout(_END_SECONDS):
                return await self.process.wait()
        except TimeoutError:
            self.kill()
            return await self.process.wait()

    def _received(self, payload: bytes) -> None:
        try:
            if self._started.done():
                self._on_answers(_answers.decode(payload))
                return
            message = _first.decode(payload)
        except msgspec.MsgspecError:
            self._frames.abort()
            return
        if isinstance(message, frames.Started):
            self._started.set_result(message.token)
        else:
            self._started.set_exception(frames.as_error(message))

    def _closed(self) -> None:
        if not self._started.done():
            self._started.set_exception(WorkerDown("a worker that logs in", "one that died before it did"))
        if not self.lost.done():
            self.lost.set_result(None)


def _start(settings: Pkcs11Settings, serial: str) -> frames.Start:
    return frames.Start(
        module=str(settings.module),
        token_uri=settings.token_uri,
        serial=serial,
        pin_file=str(settings.pin_file),
        state_directory=str(settings.state_directory),
    )
