"""A real software TPM 2.0: one swtpm process, on Unix sockets of its own.

swtpm serves one client at a time; whoever keeps a connection open shuts all others out. Open the TCTI for one
operation (or one context manager) and close it again.
"""

from __future__ import annotations

import shutil
import signal
import socket
import subprocess
import tempfile
import time
import weakref
from pathlib import Path
from types import TracebackType
from typing import Final, Self

START_SECONDS: Final = 20.0
COMMAND_SECONDS: Final = 60.0
PAUSE_SECONDS: Final = 0.01


class SwtpmError(RuntimeError):
    """swtpm, or a tool that talked to it, failed; the message carries what it said."""


class Swtpm:
    """One TPM: made, started, extended, reset, stopped.

    Attributes:
        tcti: TCTI string for tpm2-tools (`-T`) and tpm2_pytss (`TCTILdr.parse`).
        state: folder of the TPM's persistent state; the same folder gives the same TPM again.
    """

    def __init__(self, state: Path | None = None) -> None:
        """Start a TPM on `state` (empty folder: a new TPM is made; absent: a folder that goes with this object)."""
        # Unix socket paths are short (108 bytes), pytest's temporary folders are not.
        self._home = Path(tempfile.mkdtemp(prefix="chat-tpm-"))
        self.state = state if state is not None else self._home / "state"
        self.state.mkdir(parents=True, exist_ok=True)
        self.tcti = f"swtpm:path={self._home / 'tpm'}"
        self._process: subprocess.Popen[bytes] | None = None
        self._finalizer = weakref.finalize(self, shutil.rmtree, self._home, ignore_errors=True)
        self.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Power on: a `TPM2_Startup(CLEAR)`, so PCRs are fresh and resetCount has grown by one."""
        server, control = self._home / "tpm", self._home / "tpm.ctrl"
        log = self._home / "log"
        process = subprocess.Popen(
            [
                "swtpm", "socket", "--tpm2",
                "--tpmstate", f"dir={self.state}",
                "--server", f"type=unixio,path={server}",
                "--ctrl", f"type=unixio,path={control}",
                "--flags", "not-need-init,startup-clear",
                "--log", f"file={log},level=1",
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )  # fmt: skip
        self._process = process
        self._killer = weakref.finalize(self, _end, process)
        deadline = time.monotonic() + START_SECONDS
        while not (_listens(server) and _listens(control)):
            if process.poll() is not None or time.monotonic() > deadline:
                said = log.read_text() if log.exists() else "nothing"
                self.power_off()
                raise SwtpmError(f"swtpm did not start: {said}")
            time.sleep(PAUSE_SECONDS)

    def power_off(self) -> None:
        """End the process as a power cut would; the state folder stays."""
        if self._process is not None:
            self._killer()
            self._process = None
        for name in ("tpm", "tpm.ctrl"):
            (self._home / name).unlink(missing_ok=True)

    def reset(self, *, orderly: bool = True) -> None:
        """Reboot the host: fresh PCRs, resetCount + 1. Not `orderly`: the clock's `safe` flag falls."""
        if orderly:
            self.tool("tpm2_shutdown", "--clear")
        self.power_off()
        self.start()

    def stop(self) -> None:
        """End the TPM and remove its sockets (and its state, if it was ours)."""
        self.power_off()
        self._finalizer()

    def extend(self, pcr: int, digest: bytes, bank: str = "sha256") -> None:
        """Extend `pcr` of `bank` with `digest`, as software on the host would."""
        self.tool("tpm2_pcrextend", f"{pcr}:{bank}={digest.hex()}")

    def tool(self, *command: str, cwd: Path | None = None) -> str:
        """Run one of tpm2-tools against this TPM; returns what it printed.

        Raises:
            SwtpmError: the tool ended with another status than 0.
        """
        name, *arguments = command
        done = subprocess.run(
            [name, "-T", self.tcti, *arguments],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=COMMAND_SECONDS,
            check=False,
            cwd=cwd,
        )
        if done.returncode != 0:
            raise SwtpmError(f"{name}: {done.stderr.strip()}")
        return done.stdout


def _listens(path: Path) -> bool:
    """The file alone is not enough: between bind and listen a connection is refused."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1)
        try:
            probe.connect(str(path))
        except OSError:
            return False
    return True


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(timeout=START_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(timeout=START_SECONDS)
