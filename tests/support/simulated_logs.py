"""The kernel's two logs of a host with a simulated TPM: what is measured is extended and written down."""

from __future__ import annotations

import hashlib
from pathlib import Path

from tools.lab import ima as lab
from tools.lab.firmware import Boot, measured

from chatelaine.agent.logs import LogFiles
from chatelaine.agent.simulated import SimulatedTpm
from chatelaine.evidence import tpm_algorithms as alg
from chatelaine.model.tpm_policy import Bank

BANKS = {alg.BANKS[bank].tpm_id: bank for bank in Bank}
AGENT = ("/usr/bin/agent", b"agent 1.0")
SHELL = ("/usr/bin/sh", b"shell 1.0")
ALLOWED = (AGENT, SHELL)
"""What runs on every host of these tests: path and content."""


def digest(content: bytes) -> str:
    """As a policy lists it."""
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def allow_list(*more: tuple[str, bytes]) -> list[dict[str, object]]:
    """`tpm.ima.allow` of what runs, and of `more`."""
    files: dict[str, list[str]] = {}
    for path, content in (*ALLOWED, *more):
        files.setdefault(path, []).append(digest(content))
    return [{"path": path, "digests": digests} for path, digests in files.items()]


class HostLogs:
    """Log files of one host, and the TPM behind them."""

    def __init__(self, folder: Path, tpm: SimulatedTpm) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.tpm = tpm
        self.event_log = folder / "binary_bios_measurements"
        self.ima_list = folder / "binary_runtime_measurements"

    @property
    def files(self) -> LogFiles:
        """As the agent reads them."""
        return LogFiles(self.event_log, self.ima_list)

    def boot(self, boot: Boot | None = None, *, measures: bool = True) -> None:
        """Power on: firmware, boot loader and kernel are measured; then what always runs, if IMA is at work."""
        self.tpm.reset()
        log = measured(boot or Boot())
        for pcr, digests in log.extends:
            for tpm_id, value in digests.items():
                self.tpm.extend(pcr, value, BANKS[tpm_id])
        self.event_log.write_bytes(log.data)
        self.ima_list.write_bytes(b"")
        if not measures:
            return
        values = self.tpm.pcrs[Bank.SHA256][:10]
        aggregate = hashlib.sha256(b"".join(values)).digest()
        self.append("ima-ng", lab.digest_field("sha256", aggregate) + lab.path_field("boot_aggregate"))
        for path, content in ALLOWED:
            self.ran(path, content)

    def ran(self, path: str, content: bytes) -> None:
        """A file was measured."""
        found = hashlib.sha256(content).digest()
        self.append("ima-ng", lab.digest_field("sha256", found) + lab.path_field(path))

    def violated(self, path: str) -> None:
        """A file was open for writing while it was to be measured."""
        self.append("ima-ng", lab.digest_field("sha256", bytes(32)) + lab.path_field(path), violation=True)

    def append(self, template: str, data: bytes, *, violation: bool = False) -> None:
        """One entry: the list first, the PCR afterwards."""
        with self.ima_list.open("ab") as file:
            file.write(lab.record(template, data, listed=lab.VIOLATION if violation else None))
        for bank in Bank:
            self.tpm.extend(10, lab.extension(data, bank.value.lower(), violation=violation), bank)
