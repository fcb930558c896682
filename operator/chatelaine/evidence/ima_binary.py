"""IMA's binary list (`binary_runtime_measurements`), cut into entries.

Numbers are little endian, as on every machine that we run on and as `ima_canonical_fmt` has it. An entry is:
PCR (4), SHA-1 of the template data (20), length (4) and name of the template, length (4) and data. The first
template, `ima`, has no length of its data: a digest (20), then length (4) and name of the file.

The SHA-1 is never believed: it only tells violations (all zero) from measurements. A host that lies there gives a
value that PCR 10 does not have.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Final

from chatelaine.evidence.errors import Malformed, Oversized
from chatelaine.evidence.ima_entry import (
    MAX_ENTRY_BYTES,
    MAX_TEMPLATE_NAME_BYTES,
    OLD_DIGEST_BYTES,
    OLD_NAME_BYTES,
    OLD_TEMPLATE,
    ImaRecord,
)
from chatelaine.evidence.tpm_types import MAX_PCRS

_HEAD: Final = struct.Struct("<I20sI")
_SIZE: Final = struct.Struct("<I")
_VIOLATION: Final = bytes(20)


def binary_records(data: bytes) -> Iterator[ImaRecord]:
    """Every whole entry of `data`, one after the other; a tail that is not whole is left out.

    Entries are cut off only as they are asked for: what stands behind the last one asked for is never looked at.

    Raises:
        Oversized: a length field above its bound.
        Malformed: a PCR that does not exist.
    """
    at, size = 0, len(data)
    while at + _HEAD.size <= size:
        pcr, listed, name_bytes = _HEAD.unpack_from(data, at)
        if pcr >= MAX_PCRS:
            raise Malformed(f"an IMA entry at byte {at} is of a PCR that does not exist", found=pcr)
        _check(name_bytes, MAX_TEMPLATE_NAME_BYTES, "template name", at)
        name_end = at + _HEAD.size + name_bytes
        template = data[at + _HEAD.size : name_end]
        old = template == OLD_TEMPLATE
        size_at = name_end + (OLD_DIGEST_BYTES if old else 0)
        start = size_at + _SIZE.size
        if start > size:
            return
        (length,) = _SIZE.unpack_from(data, size_at)
        _check(length, OLD_NAME_BYTES if old else MAX_ENTRY_BYTES, "data", at)
        end = start + length
        if end > size:
            return
        hashed = data[start:end]
        if old:
            hashed = data[name_end:size_at] + hashed.ljust(OLD_NAME_BYTES, b"\0")
        yield ImaRecord(pcr, template, hashed, listed == _VIOLATION, end)
        at = end


def _check(length: int, limit: int, what: str, at: int) -> None:
    if length > limit:
        raise Oversized(
            f"the {what} of an IMA entry at byte {at} is too long", expected=f"at most {limit} bytes", found=length
        )
