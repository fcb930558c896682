"""What ran on a host: IMA's list of runtime measurements, shown by the quoted PCR 10 (trust rules, §2.4).

The kernel appends to the list first and extends PCR 10 afterwards, and the list grows while it is read. So:

1. some prefix of the list must replay to the quoted PCR 10; what follows is ignored, whatever it is;
2. template hashes are computed here for the quoted bank. What the list says they are is not believed, so kernels
   before 5.8, which extend every bank with a SHA-1, cannot be followed;
3. a violation extended the PCR with ff…; its path and digest are shown by nothing;
4. an entry of another PCR is not shown by PCR 10: it is handed on as it is, and for the appraisal to refuse;
5. what was accepted once need not be sent again: `ImaProgress` holds where the replay stands, for one boot and one
   bank. Without it the whole list is needed.

Nothing of an entry is read before the quote has vouched for it (`match_prefix`).

The caller owes: the quote (`tpm_quote`), and a new start whenever it judges by other rules than before, since
entries before the progress are not handed out again.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final, Self

from chatelaine.evidence.errors import ImaNoPrefix, ImaProgressLost, Oversized, PcrMissing
from chatelaine.evidence.ima_ascii import ascii_records
from chatelaine.evidence.ima_binary import binary_records
from chatelaine.evidence.ima_entry import BOOT_AGGREGATE, IMA_PCR, ImaEntry, ImaRecord, entry_of
from chatelaine.evidence.tpm_algorithms import BANKS
from chatelaine.evidence.tpm_quote import VerifiedQuote
from chatelaine.model.tpm_policy import Bank

__all__ = [
    "BOOT_AGGREGATE",
    "IMA_PCR",
    "MAX_IMA_BYTES",
    "MAX_IMA_CHUNK_BYTES",
    "ImaEntry",
    "ImaProgress",
    "VerifiedIma",
    "extend",
    "match_ascii_prefix",
    "match_prefix",
    "verify_ima",
]

MAX_IMA_BYTES: Final = 32 * 1024 * 1024
MAX_IMA_CHUNK_BYTES: Final = 1024 * 1024


@dataclass(frozen=True, slots=True)
class ImaProgress:
    """Where a replay stands.

    Attributes:
        reset_count: boot that the list belongs to.
        restart_count: likewise.
        bank: bank that is replayed.
        offset_bytes: how much of the list was replayed; the next part begins there.
        entries: how many entries that is.
        pcr10: value of PCR 10 after them.
    """

    reset_count: int
    restart_count: int
    bank: Bank
    offset_bytes: int
    entries: int
    pcr10: bytes

    @classmethod
    def start(cls, *, reset_count: int, restart_count: int, bank: Bank) -> Self:
        """Before the first entry of a boot."""
        return cls(reset_count, restart_count, bank, 0, 0, bytes(BANKS[bank].size_bytes))

    @classmethod
    def at_start_of(cls, quote: VerifiedQuote) -> Self:
        """Before the first entry of the boot that was quoted."""
        return cls.start(reset_count=quote.reset_count, restart_count=quote.restart_count, bank=quote.selection.bank)

    def belongs_to(self, quote: VerifiedQuote) -> bool:
        """Is this of the boot and the bank that were quoted?"""
        epoch = (quote.reset_count, quote.restart_count)
        return (self.reset_count, self.restart_count) == epoch and self.bank is quote.selection.bank


@dataclass(frozen=True, slots=True)
class VerifiedIma:
    """A part of the list that the quoted PCR 10 vouches for.

    Attributes:
        entries: what is new since the progress that the replay began with.
        progress: where the replay stands now.
        from_entry: number of the first of `entries`; 0 when the list begins with them.
    """

    entries: tuple[ImaEntry, ...]
    progress: ImaProgress
    from_entry: int


def verify_ima(data: bytes, quote: VerifiedQuote, progress: ImaProgress | None = None) -> VerifiedIma:
    """The prefix of `data` that `quote` vouches for.

    Args:
        data: the binary list from `progress.offset_bytes` on; its end may be cut anywhere.
        quote: a verified quote that covers PCR 10.
        progress: where the replay stands; None: at the start of the quoted boot.

    Raises:
        PcrMissing: PCR 10 was not quoted.
        ImaProgressLost: `progress` is of another boot or bank.
        ImaNoPrefix: no prefix replays to the quoted value. Cannot tell: quote and ask again.
        Malformed: the list's form is broken before such a prefix was found.
    """
    pcr10 = quote.pcrs.get(IMA_PCR)
    if pcr10 is None:
        raise PcrMissing(f"PCR {IMA_PCR} was not quoted: nothing vouches for the list", found=quote.selection)
    begin = progress if progress is not None else ImaProgress.at_start_of(quote)
    if not begin.belongs_to(quote):
        raise ImaProgressLost(
            "the list was replayed for another boot or bank; the whole list is needed",
            expected=f"{quote.reset_count}.{quote.restart_count} {quote.selection.bank.value}",
            found=f"{begin.reset_count}.{begin.restart_count} {begin.bank.value}",
        )
    after, entries = match_prefix(begin, data, pcr10)
    return VerifiedIma(entries, after, begin.entries)


def extend(progress: ImaProgress, chunk: bytes) -> tuple[ImaProgress, tuple[ImaEntry, ...]]:
    """Replay all whole entries of `chunk`, which begins at `progress.offset_bytes`.

    For lists longer than one answer: no quote has vouched for these entries yet. If a later `match_prefix` finds
    nothing, all of them are as unfounded as what followed. An entry that is cut at the end is left for the next
    chunk; when a full chunk (`MAX_IMA_CHUNK_BYTES`) moves the progress nowhere, the list is broken.

    Raises:
        Oversized: the chunk, the whole list or a length field is too long.
        Malformed: its form is broken.
    """
    _bounded(progress, chunk, MAX_IMA_CHUNK_BYTES)
    steps = list(_replay(progress, binary_records(chunk)))
    if not steps:
        return progress, ()
    return _after(progress, steps), _entries(progress, steps)


def match_prefix(progress: ImaProgress, data: bytes, pcr10: bytes) -> tuple[ImaProgress, tuple[ImaEntry, ...]]:
    """The shortest prefix of `data` after which PCR 10 is `pcr10`, and what it says. It may be empty.

    Args:
        progress: where the replay stands.
        data: the binary list from `progress.offset_bytes` on.
        pcr10: the quoted value, of the bank of `progress`.

    Raises:
        ImaNoPrefix: there is none.
        Malformed: the list's form is broken before one was found.
    """
    _bounded(progress, data, MAX_IMA_BYTES)
    return _match(progress, binary_records(data), pcr10)


def match_ascii_prefix(progress: ImaProgress, data: bytes, pcr10: bytes) -> tuple[ImaProgress, tuple[ImaEntry, ...]]:
    """The same for an ASCII list; `offset_bytes` counts its bytes.

    Raises:
        ImaLineAmbiguous: a line cannot be read, before a prefix was found.
        ImaNoPrefix: there is none.
    """
    _bounded(progress, data, MAX_IMA_BYTES)
    return _match(progress, ascii_records(data), pcr10)


_Step = tuple[ImaRecord, bytes, bytes]
"""An entry, what the bank was extended with, and the value of PCR 10 afterwards."""


def _match(
    progress: ImaProgress, records: Iterable[ImaRecord], pcr10: bytes
) -> tuple[ImaProgress, tuple[ImaEntry, ...]]:
    if progress.pcr10 == pcr10:
        return progress, ()
    steps: list[_Step] = []
    for step in _replay(progress, records):
        steps.append(step)
        if step[2] == pcr10:
            return _after(progress, steps), _entries(progress, steps)
    raise ImaNoPrefix(
        f"no prefix of the list of measurements replays to the quoted PCR {IMA_PCR}"
        f" ({progress.entries + len(steps)} entries were replayed in bank {progress.bank.value})",
        expected=pcr10,
        found=steps[-1][2] if steps else progress.pcr10,
    )


def _replay(progress: ImaProgress, records: Iterable[ImaRecord]) -> Iterator[_Step]:
    hash_ = BANKS[progress.bank]
    new = hash_.new
    violation = b"\xff" * hash_.size_bytes
    value = progress.pcr10
    for record in records:
        digest = violation if record.violation else new(record.data).digest()
        if record.pcr == IMA_PCR:
            value = new(value + digest).digest()
        yield record, digest, value


def _after(progress: ImaProgress, steps: Sequence[_Step]) -> ImaProgress:
    record, _, value = steps[-1]
    return replace(
        progress,
        offset_bytes=progress.offset_bytes + record.end_bytes,
        entries=progress.entries + len(steps),
        pcr10=value,
    )


def _entries(progress: ImaProgress, steps: Sequence[_Step]) -> tuple[ImaEntry, ...]:
    return tuple(entry_of(record, number, digest) for number, (record, digest, _) in enumerate(steps, progress.entries))


def _bounded(progress: ImaProgress, data: bytes, limit_bytes: int) -> None:
    whole = progress.offset_bytes + len(data)
    if len(data) > limit_bytes or whole > MAX_IMA_BYTES:
        raise Oversized(
            "the list of measurements is too long",
            expected=f"at most {min(limit_bytes, MAX_IMA_BYTES)} bytes",
            found=f"{max(len(data), whole)} bytes",
        )
