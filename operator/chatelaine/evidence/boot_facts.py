"""What a boot log shows, in typed facts: only from events of quoted PCRs, and only what hashes to their digests."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from chatelaine.evidence.errors import EvidenceError
from chatelaine.evidence.event_log import NO_ACTION, Event, EventLog
from chatelaine.evidence.uefi_checked import Separator, checked, separator
from chatelaine.evidence.uefi_command_line import CommandLines, command_lines
from chatelaine.evidence.uefi_gpt import PartitionTable, parse_partition_table
from chatelaine.evidence.uefi_secure_boot import SECURE_BOOT_PCR, SecureBootFacts, not_shown, secure_boot_facts

OPTION_ROM_PCR: Final = 2
IMAGE_PCR: Final = 4
PARTITION_PCR: Final = 5

KNOWN_ACTIONS: Final = frozenset(
    (
        b"Calling EFI Application from Boot Option",
        b"Returning from EFI Application from Boot Option",
        b"Entering ROM Based Setup",
    )
)
"""Texts that firmware measures beside images (PFP §10.4.4). Anything else in PCR 4 is taken for an image."""


@dataclass(frozen=True, slots=True)
class MeasuredImage:
    """Something that was started: a boot loader, a kernel, a driver. Its digest is that of the image, not of a file."""

    number: int
    pcr: int
    digest: bytes


@dataclass(frozen=True, slots=True)
class BootFacts:
    """What the log shows.

    Attributes:
        quoted: indices of the PCRs that these facts rest on.
        secure_boot: what PCR 7 shows.
        separators: PCRs whose firmware part was ended by a separator that tells of no error. Without one, that
            something was *not* measured says nothing.
        images: what PCR 2 and 4 name as started, besides separators and the texts that are known.
        option_roms: whatever was measured into PCR 2 besides separators; None if PCR 2 was not quoted, or is empty and
            has no separator.
        partition_tables: of the disks that were booted from.
        command_lines: what kernels were told.
    """

    quoted: tuple[int, ...]
    secure_boot: SecureBootFacts
    separators: frozenset[int]
    images: tuple[MeasuredImage, ...]
    option_roms: tuple[MeasuredImage, ...] | None
    partition_tables: tuple[PartitionTable, ...]
    command_lines: CommandLines


def boot_facts(log: EventLog, tpm_id: int, quoted: Sequence[int]) -> BootFacts:
    """The facts of a log that was replayed to the quoted PCRs of this bank.

    Args:
        log: the log.
        tpm_id: TPM algorithm of the bank; not SHA-1, by which nothing can be shown.
        quoted: indices of the PCRs that were quoted and replayed.
    """
    events = [event for event in log.events if event.type != NO_ACTION and event.pcr in quoted]
    roms = [_image(event, tpm_id) for event in events if event.pcr == OPTION_ROM_PCR]
    option_roms = tuple(image for image in roms if image is not None)
    started = [_image(event, tpm_id) for event in events if event.pcr == IMAGE_PCR and not _is_action(event, tpm_id)]
    separators = frozenset(event.pcr for event in events if separator(event, tpm_id) is Separator.NORMAL)
    return BootFacts(
        quoted=tuple(sorted(quoted)),
        secure_boot=_secure_boot(events, tpm_id, quoted),
        separators=separators,
        images=(*option_roms, *(image for image in started if image is not None)),
        option_roms=option_roms if option_roms or OPTION_ROM_PCR in separators else None,
        partition_tables=tuple(_partition_tables(events, tpm_id)),
        command_lines=command_lines(events, tpm_id, quoted),
    )


def _secure_boot(events: Sequence[Event], tpm_id: int, quoted: Sequence[int]) -> SecureBootFacts:
    if SECURE_BOOT_PCR not in quoted:
        return not_shown(f"PCR {SECURE_BOOT_PCR} was not quoted")
    return secure_boot_facts((event for event in events if event.pcr == SECURE_BOOT_PCR), tpm_id)


def _image(event: Event, tpm_id: int) -> MeasuredImage | None:
    if separator(event, tpm_id) is Separator.NORMAL:
        return None
    return MeasuredImage(event.number, event.pcr, event.digest(tpm_id))


def _is_action(event: Event, tpm_id: int) -> bool:
    return checked(event, tpm_id) in KNOWN_ACTIONS


def _partition_tables(events: Sequence[Event], tpm_id: int) -> list[PartitionTable]:
    found = []
    for event in events:
        data = checked(event, tpm_id) if event.pcr == PARTITION_PCR else None
        if data is not None:
            try:
                found.append(parse_partition_table(data))
            except EvidenceError:
                continue  # a text
    return found
