"""A boot log held against a quote: it must replay to what the TPM signed; then, and only then, its facts count.

`verify_boot_log` does, in this order:

1. the log is parsed, within bounds (`event_log`);
2. it has the bank that was quoted, and is replayed for it;
3. every quoted PCR equals the replayed one. PCR 10 is left out: IMA extends it while the host runs (`ima`);
4. facts are taken from events of the quoted PCRs (`boot_facts`).

The caller owes the quote: verified, fresh, of the enrolled key; and a selection that covers what its rules look at
(`appraisal.boot_rules.boot_pcrs`).

A host sends the same log until it boots again, so what was read is kept, by the log's bytes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from chatelaine.evidence.boot_facts import BootFacts, boot_facts
from chatelaine.evidence.errors import EventLogMismatch
from chatelaine.evidence.event_log import EventLog, parse_event_log, replay
from chatelaine.evidence.ima_entry import IMA_PCR
from chatelaine.evidence.tpm_algorithms import BANKS
from chatelaine.evidence.tpm_quote import VerifiedQuote
from chatelaine.model.tpm_policy import Bank

CACHED_LOGS: Final = 256
CACHED_LOG_BYTES: Final = 128 * 1024
MAX_KEPT_BYTES: Final = 512 * 1024
"""Logs that are kept: a fleet's hosts are asked in turn, and one is 20 to 60 KB long. Others are read each time. A host
that sends another log every time fills the cache alone, so what is held of one is bounded, too: of a hostile log it can
be twenty times the log's length."""

_EVENT_BYTES: Final = 400
_DIGEST_BYTES: Final = 96
_ENTRY_BYTES: Final = 240
_CHARACTER_BYTES: Final = 32
"""What an event, each of its digests, an entry of a database, and a character of a command line (all the arguments of
one letter) take in memory, as found with hostile logs."""


@dataclass(frozen=True, slots=True)
class VerifiedBootLog:
    """A log that replays to the quoted PCRs.

    Attributes:
        log: all events; only those of `facts.quoted` are borne out.
        bank: the bank that was quoted.
        facts: what it shows.
        digest: SHA-256 of the log's bytes.
    """

    log: EventLog
    bank: Bank
    facts: BootFacts
    digest: bytes


@dataclass(frozen=True, slots=True)
class _ReadLog:
    verified: VerifiedBootLog
    values: Mapping[int, bytes]


def verify_boot_log(data: bytes, quote: VerifiedQuote) -> VerifiedBootLog:
    """Hold a log against a verified quote.

    Raises:
        Malformed: its subclass tells what is wrong with the log's form.
        EventLogBankMissing: the log has no digests of the quoted bank.
        EventLogMismatch: it replays to other values. This is a fact about the host that was quoted.
    """
    return match_boot_log(data, quote.selection.bank, quote.pcrs)


def match_boot_log(data: bytes, bank: Bank, pcrs: Mapping[int, bytes]) -> VerifiedBootLog:
    """The same for PCR values that somebody vouches for in another way.

    Raises:
        EvidenceError: as in `verify_boot_log`.
    """
    indices = tuple(pcrs)
    try:
        read = _remembered(data, bank, indices) if len(data) <= CACHED_LOG_BYTES else _read(data, bank, indices)
    except _NotKeptError as large:
        read = large.read
    values = read.values
    for index, value in pcrs.items():
        if values[index] != value and index != IMA_PCR:
            raise _mismatch(values, pcrs)
    return read.verified


def _mismatch(values: Mapping[int, bytes], pcrs: Mapping[int, bytes]) -> EventLogMismatch:
    wrong = [index for index in sorted(pcrs) if values[index] != pcrs[index] and index != IMA_PCR]
    which = f"PCR {wrong[0]}" if len(wrong) == 1 else f"PCRs {', '.join(map(str, wrong))}"
    detail = f"the event log does not replay to the quoted {which}"
    return EventLogMismatch(detail, expected=pcrs[wrong[0]], found=values[wrong[0]])


def _read(data: bytes, bank: Bank, indices: tuple[int, ...]) -> _ReadLog:
    tpm_id = BANKS[bank].tpm_id
    log = parse_event_log(data)
    values = replay(log, tpm_id)
    facts = boot_facts(log, tpm_id, tuple(index for index in indices if index != IMA_PCR))
    return _ReadLog(VerifiedBootLog(log, bank, facts, log.digest), values)


class _NotKeptError(Exception):
    """Carries what was read past the cache, which keeps no exceptions."""

    def __init__(self, read: _ReadLog) -> None:
        super().__init__()
        self.read = read


@lru_cache(maxsize=CACHED_LOGS)
def _remembered(data: bytes, bank: Bank, indices: tuple[int, ...]) -> _ReadLog:
    read = _read(data, bank, indices)
    if 2 * len(data) + _held_bytes(read.verified) > MAX_KEPT_BYTES:
        raise _NotKeptError(read)
    return read


def _held_bytes(log: VerifiedBootLog) -> int:
    """About what the events and facts of a log take in memory, besides the bytes of the log."""
    boot = log.facts.secure_boot
    databases = (boot.platform_key, boot.key_exchange_keys, boot.allowed, boot.forbidden, boot.authorities)
    partitions = sum(len(table.partitions) for table in log.facts.partition_tables)
    entries = sum(len(database or ()) for database in databases) + partitions + len(log.facts.images)
    characters = sum(len(line.text) for line in log.facts.command_lines.lines)
    each = _EVENT_BYTES + _DIGEST_BYTES * len(log.log.algorithms)
    return len(log.log.events) * each + entries * _ENTRY_BYTES + characters * _CHARACTER_BYTES
