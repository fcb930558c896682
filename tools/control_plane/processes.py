"""Child processes that are started, watched and stopped together, and the loopback ports they listen on."""

from __future__ import annotations

import ctypes
import random
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

PORTS = range(20000, 30000)
"""Below Linux' range for outgoing connections, so a port stays free while its server is being restarted."""

_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None, use_errno=True)


class StartError(RuntimeError):
    """A process ended, or was not ready in time; the message holds the end of its log."""


def free_port(host: str = "127.0.0.1") -> int:
    """A port that nobody listens on right now.

    Raises:
        StartError: none was found.
    """
    chooser = random.SystemRandom()
    for _ in range(200):
        port = chooser.choice(PORTS)
        with socket.socket() as probe:
            try:
                probe.bind((host, port))
            except OSError:
                continue
            return port
    raise StartError(f"no free port between {PORTS.start} and {PORTS.stop} on {host}")


def wait_until(holds: Callable[[], bool], what: str, *, seconds: float, poll_seconds: float = 0.05) -> None:
    """Returns as soon as `holds()`.

    Raises:
        StartError: it did not hold in time.
    """
    deadline = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > deadline:
            raise StartError(f"{what}: not within {seconds:.0f} s")
        time.sleep(poll_seconds)


class Child:
    """One process with its log file. It dies with the thread that started it, if that is the main thread."""

    def __init__(
        self, name: str, command: Sequence[str | Path], log: Path, *, environment: Mapping[str, str] | None = None
    ) -> None:
        self.name = name
        self.log = log
        # Asked for in the main thread only: the kernel sends the signal when the starting *thread* ends.
        bound = threading.current_thread() is threading.main_thread()
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                [str(part) for part in command],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=environment,
                preexec_fn=_die_with_parent if bound else None,
            )

    @property
    def pid(self) -> int:
        """Process id."""
        return self._process.pid

    def check(self) -> None:
        """Raises StartError if the process has ended."""
        if (status := self._process.poll()) is not None:
            raise StartError(f"{self.name} ended with status {status}; the end of {self.log}:\n{self.tail()}")

    def wait_ready(self, ready: Callable[[], bool], *, seconds: float) -> None:
        """Returns as soon as `ready()`.

        Raises:
            StartError: the process ended first, or was not ready in time.
        """

        def holds() -> bool:
            self.check()
            return ready()

        try:
            wait_until(holds, f"{self.name} ready", seconds=seconds)
        except StartError as error:
            raise StartError(f"{error}; the end of {self.log}:\n{self.tail()}") from None

    def tail(self, size_bytes: int = 3000) -> str:
        """The end of the log."""
        return self.log.read_bytes()[-size_bytes:].decode(errors="replace")

    def stop(self, *, seconds: float = 10, hard: bool = False) -> None:
        """Ends the process and waits for it: SIGTERM, then SIGKILL after `seconds`; SIGKILL at once if `hard`."""
        if self._process.poll() is not None:
            return
        self._process.send_signal(signal.SIGKILL if hard else signal.SIGTERM)
        try:
            self._process.wait(timeout=seconds)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def _die_with_parent() -> None:
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
