"""The partition table of the disk that was booted from, as firmware measures it.

UEFI_GPT_DATA: TCG PC Client Platform Firmware Profile, §10.2.5; header and entries: UEFI Specification, §5.3.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Final

from chatelaine.evidence.errors import Malformed, Truncated
from chatelaine.evidence.uefi import guid_text

MIN_ENTRY_BYTES: Final = 128
MAX_ENTRY_BYTES: Final = 4096

_HEADER: Final = struct.Struct("<8sIIIIQQQQ16sQIII")
_COUNT: Final = struct.Struct("<Q")
_ENTRY: Final = struct.Struct("<16s16sQQQ72s")
_SIGNATURE: Final = b"EFI PART"


@dataclass(frozen=True, slots=True)
class Partition:
    """One partition: GUID of its type, its own GUID, its label, first and last block."""

    type_guid: str
    guid: str
    label: str
    first_block: int
    last_block: int


@dataclass(frozen=True, slots=True)
class PartitionTable:
    """The disk's GUID and its partitions."""

    disk_guid: str
    partitions: tuple[Partition, ...]


def parse_partition_table(data: bytes) -> PartitionTable:
    """UEFI_GPT_DATA.

    Raises:
        Truncated: it ends early.
        Malformed: no partition table, or a length that cannot be.
    """
    try:
        header = _HEADER.unpack_from(data)
        (count,) = _COUNT.unpack_from(data, _HEADER.size)
    except struct.error as error:
        raise Truncated("a partition table ends early", found=f"{len(data)} bytes") from error
    signature, disk, each = header[0], header[9], header[12]
    if signature != _SIGNATURE or not MIN_ENTRY_BYTES <= each <= MAX_ENTRY_BYTES:
        raise Malformed("not a partition table")
    start = _HEADER.size + _COUNT.size
    if start + count * each != len(data):
        raise Malformed("a partition table has another length than it says", found=f"{len(data)} bytes")
    partitions = []
    for at in range(start, len(data), each):
        kind, own, first, last, _, label = _ENTRY.unpack_from(data, at)
        text = label.decode("utf-16-le", errors="replace").split("\x00", maxsplit=1)[0]
        partitions.append(Partition(guid_text(kind), guid_text(own), text, first, last))
    return PartitionTable(guid_text(disk), tuple(partitions))
