"""The process that alone talks to the PKCS#11 library: `python -m chatelaine.pkcs11.worker <fd>`.

Everything runs in one thread: the library is not safe in several, and a crash in it must end this process only. The
argument is the number of an inherited socket; what to do comes in the first frame. The process ends with its socket.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import resource
import signal
import socket
import sys
import time
from pathlib import Path
from typing import Final

import msgspec

from chatelaine.pkcs11 import frames
from chatelaine.pkcs11.errors import DeviceFailure, HsmError, HsmUnavailable, ModuleUnusable, ProtocolBroken
from chatelaine.pkcs11.pin import PinAttempts, read_pin
from chatelaine.pkcs11.service import Service
from chatelaine.pkcs11.session import Session
from chatelaine.pkcs11.uri import parse_token

_LOCK_WAIT_SECONDS: Final = 20.0
_LOCK_POLL_SECONDS: Final = 0.05
_PR_SET_PDEATHSIG: Final = 1
_PR_SET_DUMPABLE: Final = 4
_SLOW: Final = (frames.Ensure, frames.Destroy, frames.Inventory)


class Channel:
    """Frames over a blocking socket."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock

    def receive(self) -> bytes | None:
        """The next payload; None when the other end is gone.

        Raises:
            ProtocolBroken: the announced length is over the bound.
        """
        header = self._exactly(frames.HEADER_BYTES)
        return None if header is None else self._exactly(frames.payload_length(header))

    def send(self, payload: bytes) -> None:
        """Send one frame.

        Raises:
            OSError: the other end is gone.
        """
        self._socket.sendall(frames.frame(payload))

    def _exactly(self, length: int) -> bytes | None:
        parts = bytearray()
        while len(parts) < length:
            piece = self._socket.recv(length - len(parts))
            if not piece:
                return None
            parts += piece
        return bytes(parts)


def harden() -> None:
    """No core dump and no debugger, for a PIN is in here; and no life after the gateway, even in a hung call."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    libc = ctypes.CDLL(None)
    if libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0) != 0:
        raise ModuleUnusable("a process that cannot be dumped", "prctl(PR_SET_DUMPABLE) refused")
    if libc.prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0) != 0:
        raise ModuleUnusable("a process that ends with its parent", "prctl(PR_SET_PDEATHSIG) refused")


def lock_state(directory: Path) -> int:
    """Be the only worker of this state directory: a predecessor may still be inside a call. Returns the descriptor.

    Raises:
        HsmUnavailable: the predecessor did not end in time.
    """
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor = os.open(directory / "worker.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    deadline = time.monotonic() + _LOCK_WAIT_SECONDS
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= deadline:
                os.close(descriptor)
                raise HsmUnavailable(
                    "one worker a state directory", "an earlier one still running", "end the other gateway"
                ) from None
            time.sleep(_LOCK_POLL_SECONDS)
        else:
            return descriptor


def open_service(start: frames.Start) -> Service:
    """Lock, load, log in, test.

    Raises:
        HsmError: one of `pkcs11.errors`.
    """
    uri = parse_token(start.token_uri)
    state = Path(start.state_directory)
    try:
        lock_state(state)
        attempts = PinAttempts(state)
        session = Session(start.module, uri, start.serial, attempts)
        return Service.start(session, lambda: read_pin(Path(start.pin_file)))
    except OSError as error:
        raise DeviceFailure(
            "a state directory that can be written", os.strerror(error.errno or 0), "mend the state directory"
        ) from error


def serve(channel: Channel, service: Service) -> int:
    """Answer frames until the socket ends; the exit code."""
    decoder = msgspec.msgpack.Decoder(list[frames.Call])
    encoder = msgspec.msgpack.Encoder()
    while (payload := channel.receive()) is not None:
        answers: list[frames.Reply | frames.Failure] = []
        for call in decoder.decode(payload):
            slow = isinstance(call, _SLOW)
            if slow and answers:
                channel.send(encoder.encode(answers))
                answers = []
            answers.append(_answer(service, call))
            if service.must_restart:
                channel.send(encoder.encode(answers))
                return frames.EXIT_AGAIN
            if slow:
                channel.send(encoder.encode(answers))
                answers = []
        if answers:
            channel.send(encoder.encode(answers))
    return frames.EXIT_OK


def _answer(service: Service, call: frames.Call) -> frames.Reply | frames.Failure:
    try:
        return frames.Reply(call.call, service.execute(call))
    except HsmError as error:
        return frames.failure(call.call, error)


def run(channel: Channel) -> int:
    """The worker's life; the exit code."""
    payload = channel.receive()
    if payload is None:
        return frames.EXIT_OK
    start = msgspec.msgpack.decode(payload, type=frames.Start)
    try:
        harden()
        service = open_service(start)
    except HsmError as error:
        channel.send(msgspec.msgpack.encode(frames.start_failed(error)))
        return frames.EXIT_REFUSED
    channel.send(msgspec.msgpack.encode(frames.Started(service.token)))
    try:
        return serve(channel, service)
    finally:
        service.close()


def main() -> None:
    """Entry point."""
    channel = Channel(socket.socket(fileno=int(sys.argv[1])))
    code = frames.EXIT_OK
    with contextlib.suppress(BrokenPipeError, ConnectionResetError, ProtocolBroken, msgspec.MsgspecError):
        code = run(channel)
    sys.exit(code)


if __name__ == "__main__":
    main()
