"""The boot event log of a host: parsed within bounds, and replayed to the PCR values it stands for.

TCG PC Client Platform Firmware Profile, §10 (event logging): a crypto-agile log starts with a `Spec ID Event03`, which
declares the algorithms and the lengths of their digests; a log without it has SHA-1 digests only (TCG_PCR_EVENT).

Nothing but the digests is protected by the TPM. An event's type, its place among events of *other* PCRs, and its data
are what the host says; the data is worth something only where it hashes to the event's digest (`uefi_checked`). Types
decide one thing here: events of type EV_NO_ACTION are not extended, and a log that lies about that does not replay.

Logs are bounded by `MAX_LOG_BYTES` before anything is read; every length is held against what is there. An algorithm
that is not known is skipped by its declared length, and its bank cannot be replayed.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any, Final, NamedTuple

from chatelaine.evidence import tpm_algorithms as alg
from chatelaine.evidence.errors import EventLogBankMissing, Malformed, Truncated
from chatelaine.evidence.reader import bounded
from chatelaine.evidence.tpm_types import MAX_BANKS, MAX_PCRS

MAX_LOG_BYTES: Final = 1024 * 1024
MAX_DIGEST_BYTES: Final = 64

NO_ACTION: Final = 0x00000003
SPEC_ID: Final = b"Spec ID Event03\x00"
SPEC_ID_FAMILY: Final = b"Spec ID Event"
STARTUP_LOCALITY: Final = b"StartupLocality\x00"
STARTUP_LOCALITIES: Final = frozenset((0, 3, 4))
"""Localities from which a TPM2_Startup may come (PFP §10.4.5.3); it stands in the last byte of PCR 0."""

DRTM_PCRS: Final = range(17, 23)
"""PCRs that start with all bits set (PC Client Platform TPM Profile, §4.6.2); all others start with zeros."""

_HEAD: Final = struct.Struct("<II20sI")
_COUNT: Final = struct.Struct("<III")
_ALGORITHM: Final = struct.Struct("<HH")
_SIZE: Final = struct.Struct("<I")
_ID: Final = struct.Struct("<H")
_SPEC_COUNT_AT: Final = 24
_IDS: Final = slice(3, -1, 2)
_VALUES: Final = slice(4, -1, 2)
"""Where algorithms and digests stand among the fields of an event's head."""

LOG_HASHES: Final[Mapping[int, Callable[..., Any]]] = {
    alg.SHA1: hashlib.sha1,
    **{tpm_id: found.new for tpm_id, found in alg.HASHES.items()},
}
"""Hashes by which a log can be replayed. SHA-1 is among them for people who look at an old log; it carries no trust."""

_SHA1_ONLY: Final = (alg.SHA1,)
_SIZES_BYTES: Final = {alg.SHA1: 20, **{tpm_id: found.size_bytes for tpm_id, found in alg.HASHES.items()}}
_STARTS: Final = {
    tpm_id: {index: (b"\xff" if index in DRTM_PCRS else b"\x00") * size for index in range(MAX_PCRS)}
    for tpm_id, size in _SIZES_BYTES.items()
}


class LogAlgorithm(NamedTuple):
    """A hash algorithm that a log declares, and the length of its digests."""

    tpm_id: int
    size_bytes: int


class Event(NamedTuple):
    """One event. A tuple, since a log has many.

    Attributes:
        number: place in the log, counted from 0; in a crypto-agile log number 0 is the Spec ID itself.
        pcr: index of the PCR that was extended (of an EV_NO_ACTION event: whatever was written).
        type: what the host calls it. Not hashed: no decision may rest on it.
        banks: TPM algorithms of its digests, in the order in which the log declares them; one tuple for all events.
        values: what was extended, a digest for each of `banks`.
        data: what the host says about it. Worth something only where it hashes to the digest.
    """

    number: int
    pcr: int
    type: int
    banks: tuple[int, ...]
    values: tuple[bytes, ...]
    data: bytes

    def digest(self, tpm_id: int) -> bytes:
        """What was extended in one bank. The bank is one of `banks`."""
        return self.values[self.banks.index(tpm_id)]

    @property
    def digests(self) -> dict[int, bytes]:
        """What was extended, by TPM algorithm."""
        return dict(zip(self.banks, self.values, strict=True))


_Fields = tuple[int, int, int, tuple[int, ...], tuple[bytes, ...], bytes]
_event: Final[Callable[[_Fields], Event]] = partial(tuple.__new__, Event)
"""`Event` of its fields, without the detour by keywords: a tenth of the time that parsing takes."""


@dataclass(frozen=True, slots=True)
class EventLog:
    """A log, parsed and not yet believed.

    Attributes:
        algorithms: those declared, in order.
        events: every event after the Spec ID.
        startup_locality: where TPM2_Startup came from; 0 if the log does not say.
        digest: SHA-256 of the log's bytes.
    """

    algorithms: tuple[LogAlgorithm, ...]
    events: tuple[Event, ...]
    startup_locality: int
    digest: bytes

    @property
    def banks(self) -> tuple[int, ...]:
        """TPM algorithms of the banks that can be replayed, SHA-1 among them."""
        return tuple(found.tpm_id for found in self.algorithms if found.tpm_id in LOG_HASHES)

    def touched(self) -> frozenset[int]:
        """PCRs that an event extended."""
        return frozenset(event.pcr for event in self.events if event.type != NO_ACTION)


def parse_event_log(data: bytes) -> EventLog:
    """The log of a host, as the kernel's `binary_bios_measurements` gives it.

    Raises:
        Oversized: more than 1 MiB.
        Truncated: a length runs over the end.
        Malformed: any other defect of form.
    """
    data = bounded(data, MAX_LOG_BYTES, "the event log")
    first = _first_event(data)
    if first is None:
        algorithms: tuple[LogAlgorithm, ...] = (LogAlgorithm(alg.SHA1, 20),)
        events = _sha1_events(data)
    else:
        algorithms = _declared(first)
        events = _agile_events(data, _HEAD.size + len(first), algorithms)
    return EventLog(algorithms, tuple(events), _locality(events), hashlib.sha256(data).digest())


def replay(log: EventLog, tpm_id: int) -> dict[int, bytes]:
    """The values of all 24 PCRs of one bank after this log; a PCR that it does not touch has its start value.

    Raises:
        EventLogBankMissing: the log has no digests of this bank, or it is of an algorithm that is not known.
    """
    copy = _hash(log, tpm_id)().copy
    place = [found.tpm_id for found in log.algorithms].index(tpm_id)
    values = _start_values(log, tpm_id)
    for _, pcr, kind, _, digests, _ in log.events:
        if kind != NO_ACTION:
            extended = copy()  # a copy of a fresh hash costs less than another fresh one
            extended.update(values[pcr] + digests[place])
            values[pcr] = extended.digest()
    return values


def replay_steps(log: EventLog, tpm_id: int, pcr: int) -> tuple[tuple[Event, bytes], ...]:
    """The events that extended one PCR, each with the PCR's value after it.

    Raises:
        EventLogBankMissing: as in `replay`.
    """
    new = _hash(log, tpm_id)
    value = _start_values(log, tpm_id)[pcr]
    steps = []
    for event in log.events:
        if event.pcr == pcr and event.type != NO_ACTION:
            value = new(value + event.digest(tpm_id)).digest()
            steps.append((event, value))
    return tuple(steps)


def _hash(log: EventLog, tpm_id: int) -> Callable[..., Any]:
    if tpm_id not in log.banks:
        shown = ", ".join(alg.name_of(found.tpm_id) for found in log.algorithms)
        raise EventLogBankMissing(
            "the event log has no digests of this bank", expected=alg.name_of(tpm_id), found=shown
        )
    return LOG_HASHES[tpm_id]


def _start_values(log: EventLog, tpm_id: int) -> dict[int, bytes]:
    values = dict(_STARTS[tpm_id])
    if log.startup_locality:
        values[0] = values[0][:-1] + bytes([log.startup_locality])
    return values


# --- form -----------------------------------------------------------------------------------------------------


def _first_event(data: bytes) -> bytes | None:
    """The data of a Spec ID event, if the log starts with one."""
    try:
        pcr, kind, _, size = _HEAD.unpack_from(data)
    except struct.error as error:
        raise Truncated("the event log ends within its first event", found=f"{len(data)} bytes") from error
    first = data[_HEAD.size : _HEAD.size + size]
    if len(first) != size:
        raise Truncated("the first event ends early", expected=f"{size} bytes", found=f"{len(first)} bytes")
    if pcr == 0 and kind == NO_ACTION and first.startswith(SPEC_ID):
        return first
    return None


def _declared(spec: bytes) -> tuple[LogAlgorithm, ...]:
    """TCG_EfiSpecIDEvent: the algorithms, each once, known ones with their true length (PFP §10.4.5.1)."""
    try:
        (count,) = _SIZE.unpack_from(spec, _SPEC_COUNT_AT)
        if not 1 <= count <= MAX_BANKS:
            raise Malformed(
                "the log declares no sensible number of algorithms", expected=f"1..{MAX_BANKS}", found=count
            )
        at = _SPEC_COUNT_AT + _SIZE.size
        found = tuple(LogAlgorithm(*_ALGORITHM.unpack_from(spec, at + 4 * number)) for number in range(count))
        end = at + 4 * count
        end += 1 + spec[end]
    except (struct.error, IndexError) as error:
        raise Truncated("the Spec ID event ends early", found=f"{len(spec)} bytes") from error
    if end != len(spec):
        raise Malformed("the Spec ID event has another length than it says", expected=end, found=len(spec))
    if len({tpm_id for tpm_id, _ in found}) != count:
        raise Malformed("the log declares an algorithm twice")
    for tpm_id, size in found:
        if size != _SIZES_BYTES.get(tpm_id, size) or not 1 <= size <= MAX_DIGEST_BYTES:
            raise Malformed(f"the log declares a wrong digest length for {alg.name_of(tpm_id)}", found=size)
    return found


@lru_cache(maxsize=64)
def _head_of(algorithms: tuple[LogAlgorithm, ...]) -> struct.Struct:
    """What stands before an event's data, if its digests come in the declared order."""
    return struct.Struct("<III" + "".join(f"H{size}s" for _, size in algorithms) + "I")


def _agile_events(data: bytes, at: int, algorithms: tuple[LogAlgorithm, ...]) -> list[Event]:
    """TCG_PCR_EVENT2 until the end. Digests usually come in the declared order; then one look reads a whole head."""
    head = _head_of(algorithms)
    head_bytes, unpack = head.size, head.unpack_from
    ids = tuple(tpm_id for tpm_id, _ in algorithms)
    banks = len(ids)
    events: list[Event] = []
    number, end = 1, len(data)
    while at < end:
        start = at + head_bytes
        if start > end:
            raise Truncated(f"event {number} ends early", found=f"{end - at} bytes")
        fields = unpack(data, at)
        pcr, kind, count, size = fields[0], fields[1], fields[2], fields[-1]
        if count != banks:
            raise Malformed(f"event {number} has not one digest of each bank", expected=banks, found=count)
        if fields[_IDS] == ids:
            values = fields[_VALUES]
        else:
            found = _digests(data, at + _COUNT.size, number, dict(algorithms))
            values = tuple(found[tpm_id] for tpm_id in ids)
        at = start + size
        event = _event((number, pcr, kind, ids, values, data[start:at]))
        if at > end or kind == NO_ACTION or pcr >= MAX_PCRS:
            _check(event, size)
        events.append(event)
        number += 1
    return events


def _digests(data: bytes, at: int, number: int, sizes_bytes: Mapping[int, int]) -> dict[int, bytes]:
    """Digests in another order than declared: each algorithm once all the same, so their total length is the same."""
    found: dict[int, bytes] = {}
    while len(found) < len(sizes_bytes):
        (tpm_id,) = _ID.unpack_from(data, at)
        size = sizes_bytes.get(tpm_id)
        if size is None or tpm_id in found:
            what = "an algorithm that the log does not declare" if size is None else "two digests of one bank"
            raise Malformed(f"event {number} has {what}", found=alg.name_of(tpm_id))
        found[tpm_id] = data[at + 2 : at + 2 + size]
        at += 2 + size
    return found


def _sha1_events(data: bytes) -> list[Event]:
    """TCG_PCR_EVENT until the end."""
    events: list[Event] = []
    at, end = 0, len(data)
    while at < end:
        number = len(events)
        if at + _HEAD.size > end:
            raise Truncated(f"event {number} ends early", found=f"{end - at} bytes")
        pcr, kind, digest, size = _HEAD.unpack_from(data, at)
        start = at + _HEAD.size
        at = start + size
        event = Event(number, pcr, kind, _SHA1_ONLY, (digest,), data[start:at])
        _check(event, size)
        events.append(event)
    return events


def _check(event: Event, size: int) -> None:
    """The event is as long as it says, and extends what exists."""
    if len(event.data) != size:
        raise Truncated(f"event {event.number} ends early", expected=f"{size} bytes", found=f"{len(event.data)} bytes")
    if event.type != NO_ACTION:
        if event.pcr >= MAX_PCRS:
            raise Malformed(f"event {event.number} extends a PCR that does not exist", found=event.pcr)
    elif event.data.startswith(SPEC_ID_FAMILY) and event.number:
        raise Malformed(f"event {event.number} is another Spec ID; a log has one, at its start")


def _locality(events: Sequence[Event]) -> int:
    """What the StartupLocality event says: at most one, before anything was measured into PCR 0."""
    found: int | None = None
    measured = False
    for number, pcr, kind, _, _, data in events:
        if kind != NO_ACTION:
            measured = measured or pcr == 0
        elif data.startswith(STARTUP_LOCALITY):
            if found is not None or measured or len(data) != len(STARTUP_LOCALITY) + 1:
                raise Malformed(f"event {number} tells the startup locality twice, too late, or unreadably")
            found = data[-1]
            if found not in STARTUP_LOCALITIES:
                raise Malformed("TPM2_Startup does not come from there", expected="0, 3 or 4", found=found)
    return found or 0
