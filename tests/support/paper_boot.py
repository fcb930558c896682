"""Boots on paper: logs with any event in any place, held against the values that they stand for."""

from __future__ import annotations

import uuid
from collections.abc import Iterable

from tools.lab import event_log_writer as tcg
from tools.lab.firmware import OWNER, Boot, authority, measured

from chatelaine.evidence.boot_facts import BootFacts
from chatelaine.evidence.boot_log import VerifiedBootLog, match_boot_log
from chatelaine.evidence.event_log import parse_event_log, replay
from chatelaine.evidence.tpm_algorithms import BANKS
from chatelaine.model.tpm_policy import Bank

ALL_PCRS = tuple(range(24))
SHIM_LOCK = uuid.UUID("605dab50-e046-4300-abb6-3dd810dd8b23")


def verified(data: bytes, quoted: Iterable[int] = ALL_PCRS, bank: Bank = Bank.SHA256) -> VerifiedBootLog:
    """The log against the values that it stands for, as a TPM that was extended by it would quote them."""
    values = replay(parse_event_log(data), BANKS[bank].tpm_id)
    return match_boot_log(data, bank, {index: values[index] for index in quoted})


def facts(data: bytes, quoted: Iterable[int] = ALL_PCRS) -> BootFacts:
    """What it shows."""
    return verified(data, quoted).facts


class PaperBoot(tcg.EventLogWriter):
    """A log that is written event by event. `separate` ends the firmware's part of a PCR."""

    def config(self, name: str, content: bytes, owner: uuid.UUID | None = None, *, said: bytes | None = None) -> None:
        """A variable in PCR 7; `said`: what the log tells instead of what was measured."""
        owner = owner or (tcg.IMAGE_SECURITY if name in ("db", "dbx") else tcg.GLOBAL_VARIABLE)
        true = tcg.variable(owner, name, content)
        self.measure(7, tcg.EV_EFI_VARIABLE_DRIVER_CONFIG, true if said is None else said, true)

    def separate(self, *pcrs: int, data: bytes = bytes(4)) -> None:
        """Separators."""
        for pcr in pcrs or (7,):
            self.measure(pcr, tcg.EV_SEPARATOR, data)

    def entry(self, content: bytes, name: str = "db", owner: uuid.UUID = tcg.IMAGE_SECURITY) -> None:
        """An entry that verified an image."""
        self.measure(7, tcg.EV_EFI_VARIABLE_AUTHORITY, tcg.variable(owner, name, content))

    def databases(self) -> None:
        """PK, KEK, db and dbx of the laboratory."""
        self.config("PK", tcg.signature_list(tcg.CERT_X509, OWNER, [authority("Laboratory PK")]))
        self.config("KEK", tcg.signature_list(tcg.CERT_X509, OWNER, [authority("Laboratory KEK")]))
        self.config("db", tcg.signature_list(tcg.CERT_X509, OWNER, [authority("Laboratory db")]))
        self.config("dbx", tcg.signature_list(tcg.CERT_SHA256, OWNER, [bytes([number]) * 32 for number in range(3)]))


def secure_boot(on: bool = True) -> PaperBoot:
    """PCR 7 up to its separator."""
    boot = PaperBoot()
    boot.config("SecureBoot", bytes([on]))
    boot.databases()
    boot.separate(7)
    return boot


def lab_log(**changes: object) -> bytes:
    """The log of the laboratory's boot, with some knobs turned."""
    return measured(Boot(**changes)).data  # type: ignore[arg-type] # knobs by name, as tests list them
