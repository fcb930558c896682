"""`chatelaine agent` as a process of its own, for tests."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
import time
from pathlib import Path

START_SECONDS = 60.0
PAUSE_SECONDS = 0.02


class AgentProcess:
    """`python -m chatelaine.cli.agent` on a folder of its own."""

    def __init__(self, folder: Path, host: str, gateway_socket: Path, *arguments: str) -> None:
        self.folder = folder
        self.host = host
        self.gateway_socket = gateway_socket
        self.arguments = arguments
        self.port = 0
        self.process: subprocess.Popen[bytes] | None = None

    def _spawn(self) -> subprocess.Popen[bytes]:
        with (self.folder / "log").open("ab") as errors:
            return subprocess.Popen(
                [
                    sys.executable, "-m", "chatelaine.cli.agent", "--host-name", self.host,
                    "--state-dir", str(self.folder / "agent"), "--gateway-socket", str(self.gateway_socket),
                    "--listen", "127.0.0.1:0", "--ready-file", str(self.folder / "ready"), *self.arguments,
                ],
                stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=errors,
            )  # fmt: skip

    async def start(self) -> None:
        ready = self.folder / "ready"
        ready.unlink(missing_ok=True)
        self.process = self._spawn()
        deadline = time.monotonic() + START_SECONDS
        while not ready.exists():
            assert self.process.poll() is None, self.log()
            assert time.monotonic() < deadline, self.log()
            await asyncio.sleep(PAUSE_SECONDS)
        told = json.loads(ready.read_text())
        assert told["pid"] == self.process.pid
        self.port = told["port"]

    async def end(self, number: signal.Signals) -> int:
        assert self.process is not None
        process, self.process = self.process, None
        process.send_signal(number)
        return await asyncio.to_thread(process.wait, START_SECONDS)

    def log(self) -> str:
        return (self.folder / "log").read_text()
