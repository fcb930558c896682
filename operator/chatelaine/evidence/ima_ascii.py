"""IMA's ASCII list (`ascii_runtime_measurements`), read back into what was hashed.

A line is: PCR, SHA-1 of the template data, template, then its fields, with blanks between. A path may hold blanks,
and a newline, and a signature may be absent, so a line can be read in several ways. The way whose template data has
the line's SHA-1 is taken; if none has it, the line is refused. The SHA-1 chooses between readings and vouches for
nothing: that is the replay's part.

Nothing tells how a violation was written, since its SHA-1 is zero; nor does anything rest on it.
"""

from __future__ import annotations

import binascii
import hashlib
import struct
from collections.abc import Iterator
from typing import Final

from chatelaine.evidence.errors import ImaLineAmbiguous
from chatelaine.evidence.ima_entry import (
    MAX_ENTRY_BYTES,
    OLD_DIGEST_BYTES,
    OLD_NAME_BYTES,
    OLD_TEMPLATE,
    TEMPLATES,
    ImaRecord,
)
from chatelaine.evidence.tpm_types import MAX_PCRS

_PLAIN: Final = frozenset((b"ima-ng", b"ima-ngv2"))
_SIZE: Final = struct.Struct("<I")
_PCRS: Final = {str(index).encode(): index for index in range(MAX_PCRS)}
_VIOLATION: Final = b"0" * 40
MAX_LINE_BYTES: Final = 2 * MAX_ENTRY_BYTES


def is_ascii_list(data: bytes) -> bool:
    """Does `data` begin as an ASCII list does? A binary one begins with a PCR's number, never with a digit's code."""
    return data[:1].isdigit()


def ascii_records(data: bytes) -> Iterator[ImaRecord]:
    """Every line of `data`, one after the other; a last line without a newline is left out.

    Raises:
        ImaLineAmbiguous: a line that cannot be read.
    """
    at = 0
    number = 0
    while (end := data.find(b"\n", at)) >= 0:
        number += 1
        if end - at > MAX_LINE_BYTES:
            raise ImaLineAmbiguous(f"line {number} is too long", expected=f"at most {MAX_LINE_BYTES} bytes")
        yield _record(data[at:end], number, end + 1)
        at = end + 1


def _record(line: bytes, number: int, end_bytes: int) -> ImaRecord:
    head = line.split(b" ", 4)
    if len(head) < 5 or head[0] not in _PCRS or head[2] not in TEMPLATES:
        raise _refusal(number, "it is no PCR, SHA-1, known template and its fields")
    pcr, listed, template, digest, rest = head
    violation = listed == _VIOLATION
    try:
        expected = binascii.unhexlify(listed)
        for candidate in _candidates(template, digest, rest):
            # Every candidate of a violation is as good as any other: nothing is shown by it.
            if violation or hashlib.sha1(candidate, usedforsecurity=False).digest() == expected:
                return ImaRecord(_PCRS[pcr], template, candidate, violation, end_bytes)
    except binascii.Error as error:
        raise _refusal(number, "a digest is not hexadecimal") from error
    raise _refusal(number, "no way to read its path and fields has the SHA-1 that it lists")


def _refusal(number: int, why: str) -> ImaLineAmbiguous:
    return ImaLineAmbiguous(f"line {number} of the ASCII list: {why}; use the binary list, which is exact")


def _candidates(template: bytes, digest: bytes, rest: bytes) -> Iterator[bytes]:
    """Template data that could have been written this way, the likeliest first.

    Raises:
        binascii.Error: the digest is not hexadecimal.
    """
    if template == OLD_TEMPLATE:
        if len(digest) == 2 * OLD_DIGEST_BYTES and len(rest) <= OLD_NAME_BYTES:
            yield binascii.unhexlify(digest) + rest.ljust(OLD_NAME_BYTES, b"\0")
        return
    name, colon, value = digest.rpartition(b":")
    first = _sized(name + colon + b"\0" + binascii.unhexlify(value))
    if template in _PLAIN:
        yield first + _sized(rest + b"\0")
        return
    path, blank, third = rest.rpartition(b" ")
    # An empty third field leaves the blank before it; some tools leave that out.
    if blank and _is_hexadecimal(third):
        yield first + _sized(path + b"\0") + _sized(binascii.unhexlify(third))
    yield first + _sized(rest + b"\0") + _sized(b"")


def _is_hexadecimal(text: bytes) -> bool:
    """Pairs of hexadecimal digits, or nothing."""
    return len(text) % 2 == 0 and not text.strip(b"0123456789abcdefABCDEF")


def _sized(field: bytes) -> bytes:
    return _SIZE.pack(len(field)) + field
