"""What PCR 7 says about UEFI Secure Boot (TCG PC Client Platform Firmware Profile, §3.3.4.8).

Before its separator, firmware measures the variable `SecureBoot` and the databases PK, KEK, db and dbx, each once;
after it, whatever entry of a database verified an image that was started. Only the digests of these events and their
order *within PCR 7* are protected. So:

1. an event says only what hashes to its digest (`uefi_checked`); its type is never looked at;
2. the separator is known by its digest; without one, or with one that tells of an error, nothing is said;
3. variables count before the separator only: software that runs after it can append to PCR 7, but not insert;
4. before the separator every event must be borne out by its data and be understood, or the one that is not could be a
   `SecureBoot` that the host would rather not show; and no variable may come twice, there or later;
5. after the separator such an event leaves open who else verified an image.

What software appends after the boot can only add authorities. That no *other* authority verified anything therefore
holds; that one of them verified *this* boot holds only together with that.
"""

from __future__ import annotations

import contextlib
import enum
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from chatelaine.evidence import uefi
from chatelaine.evidence.errors import Malformed
from chatelaine.evidence.event_log import Event
from chatelaine.evidence.uefi_checked import Separator, checked, separator
from chatelaine.evidence.uefi_signatures import Signature, parse_authority, parse_signature_lists

SECURE_BOOT_PCR: Final = 7
DEBUG_MODE: Final = b"UEFI Debug Mode"
SHIM_LOCK: Final = uefi.guid("605dab50-e046-4300-abb6-3dd810dd8b23")
SHIM_VALIDATION: Final = (SHIM_LOCK, "MokSBState")
"""Anything but zero: shim was told to start what nobody signed; the firmware's `SecureBoot` is 1 all the same."""

_SHIM_SETTINGS: Final = frozenset(
    (SHIM_LOCK, name) for name in ("SbatLevel", "MokListTrusted", "MokSBState", "MokDBState", "MokPolicy")
)
_PRINTABLE: Final = frozenset(range(0x20, 0x7F))
_CONFIGURATION: Final = frozenset(
    (
        uefi.SECURE_BOOT,
        uefi.PLATFORM_KEY,
        uefi.KEY_EXCHANGE_KEYS,
        uefi.ALLOWED_SIGNATURES,
        uefi.FORBIDDEN_SIGNATURES,
    )
)


class SecureBootState(enum.StrEnum):
    """Was Secure Boot on when the host booted?"""

    ENABLED = "Enabled"
    DISABLED = "Disabled"
    NOT_SHOWN = "NotShown"


@dataclass(frozen=True, slots=True)
class Authority:
    """An entry of a database that verified an image.

    Attributes:
        number: of the event.
        variable: where the entry comes from, as the event's checked data says: `db`, `MokList`, `Shim` …
        signature: the entry: a certificate, or the digest of an image.
    """

    number: int
    variable: str
    signature: Signature


@dataclass(frozen=True, slots=True)
class SecureBootFacts:
    """What PCR 7 shows. Where `state` is NOT_SHOWN, nothing else is there.

    Attributes:
        state: on, off, or not shown.
        gap: why it is not shown; empty if it is.
        debug_mode: did the firmware say that it runs in its debug mode?
        validation_off: did shim say that it verifies nothing?
        platform_key, key_exchange_keys, allowed, forbidden: PK, KEK, db, dbx; None if not measured, or unreadable.
        forbidden_digests: what a policy names the entries of dbx by; there are hundreds.
        authorities: who verified images, in order.
        authorities_gap: why others may have, too; empty if nobody else has.
    """

    state: SecureBootState
    gap: str = ""
    debug_mode: bool = False
    validation_off: bool = False
    platform_key: tuple[Signature, ...] | None = None
    key_exchange_keys: tuple[Signature, ...] | None = None
    allowed: tuple[Signature, ...] | None = None
    forbidden: tuple[Signature, ...] | None = None
    forbidden_digests: frozenset[bytes] = frozenset()
    authorities: tuple[Authority, ...] = ()
    authorities_gap: str = ""


def not_shown(why: str) -> SecureBootFacts:
    """Nothing can be said."""
    return SecureBootFacts(SecureBootState.NOT_SHOWN, why, authorities_gap=why)


def secure_boot_facts(events: Iterable[Event], tpm_id: int) -> SecureBootFacts:
    """What the events that extended PCR 7 say, in the bank that was quoted; the rules stand above."""
    reading = _Reading(tpm_id)
    try:
        for event in events:
            reading.take(event)
        return reading.facts()
    except _NotShownError as why:
        return not_shown(str(why))


class _NotShownError(Exception):
    """PCR 7 leaves open what it should show."""


@dataclass(slots=True)
class _Reading:
    """State of the walk over PCR 7."""

    tpm_id: int
    closed: bool = False
    state: SecureBootState | None = None
    debug_mode: bool = False
    validation_off: bool = False
    seen: set[tuple[bytes, str]] = field(default_factory=set)
    databases: dict[tuple[bytes, str], tuple[Signature, ...]] = field(default_factory=dict)
    authorities: list[Authority] = field(default_factory=list)
    authorities_gap: str = ""

    def take(self, event: Event) -> None:
        """The next event."""
        meaning = separator(event, self.tpm_id)
        if meaning is not None:
            self._close(event, meaning)
            return
        data = checked(event, self.tpm_id)
        if data is None:
            self._open(event, "is not what its data says")
        elif _PRINTABLE.issuperset(data):
            self.debug_mode = self.debug_mode or data == DEBUG_MODE
        else:
            try:
                self._variable(event, uefi.parse_variable(data))
            except Malformed:
                self._open(event, "is neither a variable nor a text")

    def facts(self) -> SecureBootFacts:
        """After the last event."""
        if not self.closed:
            raise _NotShownError("PCR 7 has no separator: the firmware's part of it did not end")
        if self.state is None:
            raise _NotShownError("PCR 7 has no variable SecureBoot before its separator")
        forbidden = self.databases.get(uefi.FORBIDDEN_SIGNATURES)
        return SecureBootFacts(
            self.state,
            debug_mode=self.debug_mode,
            validation_off=self.validation_off,
            platform_key=self.databases.get(uefi.PLATFORM_KEY),
            key_exchange_keys=self.databases.get(uefi.KEY_EXCHANGE_KEYS),
            allowed=self.databases.get(uefi.ALLOWED_SIGNATURES),
            forbidden=forbidden,
            forbidden_digests=frozenset(signature.digest for signature in forbidden or ()),
            authorities=tuple(self.authorities),
            authorities_gap=self.authorities_gap,
        )

    def _close(self, event: Event, meaning: Separator) -> None:
        if meaning is Separator.ERROR:
            raise _NotShownError(f"event {event.number}: the firmware ended PCR 7 with an error")
        if self.closed:
            raise _NotShownError(f"event {event.number}: PCR 7 has two separators")
        self.closed = True

    def _open(self, event: Event, why: str) -> None:
        """An event that could be anything."""
        if not self.closed:
            raise _NotShownError(f"event {event.number} before the separator of PCR 7 {why}")
        self.authorities_gap = self.authorities_gap or f"event {event.number} of PCR 7 {why}"

    def _variable(self, event: Event, found: uefi.Variable) -> None:
        name = (found.owner, found.name)
        if name in _CONFIGURATION and not self._is_entry(name, found.content):
            if name in self.seen:
                raise _NotShownError(f"event {event.number}: the variable {found.name} was measured twice")
            if self.closed:
                raise _NotShownError(f"event {event.number}: {found.name} was measured after the separator of PCR 7")
            self.seen.add(name)
            self._configuration(event, name, found.content)
        elif name in _SHIM_SETTINGS:
            off = name == SHIM_VALIDATION and bool(found.content.strip(b"\x00"))
            self.validation_off = self.validation_off or off
        elif self.closed or name == uefi.ALLOWED_SIGNATURES:
            self._authority(event, found)

    def _is_entry(self, name: tuple[bytes, str], content: bytes) -> bool:
        """`db` is the name of a database and of an entry that verified an image. The database comes first."""
        if name != uefi.ALLOWED_SIGNATURES or not (self.closed or name in self.seen):
            return False
        try:
            parse_signature_lists(content)
        except Malformed:
            return True
        return False

    def _configuration(self, event: Event, name: tuple[bytes, str], content: bytes) -> None:
        if name != uefi.SECURE_BOOT:
            # One that cannot be read stays out: it is not shown, which is for the rule to judge that needs it.
            with contextlib.suppress(Malformed):
                self.databases[name] = parse_signature_lists(content)
        elif content in (b"", b"\x00", b"\x01"):  # firmware without this variable measures its name alone
            self.state = SecureBootState.ENABLED if content == b"\x01" else SecureBootState.DISABLED
        else:
            raise _NotShownError(f"event {event.number}: SecureBoot is neither 0 nor 1")

    def _authority(self, event: Event, found: uefi.Variable) -> None:
        try:
            signature = parse_authority(found.content)
        except Malformed:
            self._open(event, "is no entry of a signature database")
        else:
            self.authorities.append(Authority(event.number, found.name, signature))
