"""An HSM host: its own SoftHSM token, its own swtpm, its own agent and gateway, as separate processes."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tools.control_plane.processes import Child, StartError
from tools.lab.firmware import Boot, Firmware, pcr_values
from tools.lab.softhsm import SoftHsmToken
from tools.lab.swtpm import Swtpm

JUDGED_PCRS = (0, 4, 7)
"""Those that the laboratory's own policy names; a clean boot gives them the same values on every host."""

PCRS_ZERO = bytes(32)


def boot_values() -> dict[int, str]:
    """Values (SHA-256 bank, hexadecimal) of `JUDGED_PCRS` after a clean boot of a laboratory host."""
    values = pcr_values(Boot())
    return {index: values[index] for index in JUDGED_PCRS}


@dataclass(frozen=True, slots=True)
class Ports:
    """Where this host's processes listen."""

    agent_host: str
    agent: int
    gateway_host: str
    gateway: int


class HsmHost:
    """One host in a folder. Start order: `power_on`, `join`, `start`.

    A `simulated` host has a token and a TPM in the memory of its own gateway and agent processes; all else is real.
    """

    def __init__(self, name: str, directory: Path, ports: Ports, *, simulated: bool = False) -> None:
        self.name, self.directory, self.ports, self.simulated = name, directory, ports, simulated
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.token: SoftHsmToken | None = None
        self.tpm: Swtpm | None = None
        self.firmware = Firmware(directory / "event-log", Boot(serial=name))
        self.agent: Child | None = None
        self.gateway: Child | None = None

    def power_on(self) -> None:
        """Makes the token if there is none, starts the TPM; its firmware measures a boot (`firmware.next_boot`)."""
        if self.simulated:
            return
        self.token = SoftHsmToken.create(self.directory / "token", label=self.name)
        self.tpm = Swtpm(self.directory / "tpm")
        self.firmware.boot(self.tpm)

    def reboot(self) -> None:
        """TPM reset and a clean boot, as after repairing the host."""
        assert self.tpm is not None
        self.tpm.reset()
        self.firmware.boot(self.tpm)

    def restart(self) -> None:
        """A whole reboot: the processes end, the TPM is reset, a clean boot is measured, the processes start."""
        self._stop_processes()
        self.reboot()
        self.start()

    def replace_tpm(self) -> None:
        """Another TPM in the same host; the old one is kept aside."""
        self._swap_tpm(self.directory / "other-tpm")

    def restore_tpm(self) -> None:
        """The first TPM again."""
        self._swap_tpm(self.directory / "tpm")

    def tamper(self, pcr: int = 4, what: bytes = b"something nobody approved") -> None:
        """Extends a PCR behind everybody's back."""
        assert self.tpm is not None
        self.tpm.extend(pcr, hashlib.sha256(what).digest())

    def join(self, invitation: str) -> None:
        """`chatelaine host join`, the invitation on standard input.

        Raises:
            StartError: it was refused.
        """
        done = subprocess.run(
            [sys.executable, "-m", "chatelaine.cli.main", "host", "join", "--state-dir", str(self.directory)],
            input=invitation,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        if done.returncode:
            raise StartError(f"host join {self.name}: {done.stderr.strip() or done.stdout.strip()}")

    def start(self) -> None:
        """Starts gateway and agent; returns when both listen."""
        self.start_gateway()
        self.start_agent()

    def start_gateway(self) -> None:
        """Starts the gateway and waits until it listens."""
        listen = [
            "--listen",
            f"{self.ports.gateway_host}:{self.ports.gateway}",
            "--local-socket",
            str(self.local_socket),
        ]
        self.gateway = self._start("gateway", [*listen, *self._hsm_arguments()], self.token.env if self.token else {})

    def start_agent(self) -> None:
        """Starts the agent and waits until it listens."""
        source = ["--attester", "simulated"]
        if self.tpm is not None:
            source = ["--tcti", self.tpm.tcti, "--event-log", str(self.firmware.log_file)]
        listen = ["--listen", f"{self.ports.agent_host}:{self.ports.agent}", "--gateway-socket", str(self.local_socket)]
        self.agent = self._start("agent", [*listen, *source], {})

    def _hsm_arguments(self) -> list[str]:
        if self.token is None:
            return ["--hsm", "simulated"]
        return [
            "--module", str(self.token.module),
            "--token-uri", f"pkcs11:token={self.name}",
            "--pin-file", str(self.token.pin_file),
        ]  # fmt: skip

    @property
    def local_socket(self) -> Path:
        """Where agent and gateway of this host meet."""
        return self.directory / "gateway" / "local.sock"

    def stop(self) -> None:
        """Ends everything of this host; its token and TPM state stay on disk."""
        self._stop_processes()
        if self.tpm is not None:
            self.tpm.stop()
        self.tpm = None

    def _stop_processes(self) -> None:
        for child in (self.agent, self.gateway):
            if child is not None:
                child.stop()
        self.agent = self.gateway = None

    def _swap_tpm(self, state: Path) -> None:
        assert self.tpm is not None
        self._stop_processes()
        self.tpm.stop()
        self.tpm = Swtpm(state)
        self.firmware.boot(self.tpm)
        self.start()

    def _start(self, role: str, arguments: Sequence[str], environment: dict[str, str]) -> Child:
        state = self.directory / role
        ready = state / "ready"
        ready.unlink(missing_ok=True)
        command = [
            sys.executable, "-m", "chatelaine.cli.main", role,
            "--host-name", self.name,
            "--state-dir", str(state),
            "--tls-dir", str(state / "tls"),
            "--ready-file", str(ready),
            *arguments,
        ]  # fmt: skip
        child = Child(f"{role} of {self.name}", command, state / "log", environment={**os.environ, **environment})
        child.wait_ready(ready.exists, seconds=60)
        return child
