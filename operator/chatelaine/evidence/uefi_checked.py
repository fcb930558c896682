"""What an event says, as far as its digest bears it out. Everything that is concluded from a log starts here.

Neither an event's type nor any label in front of its data is hashed; a host may write there what it likes. So the data,
or the part of it that by some custom is hashed, is hashed again and compared with the digest that was extended. What
does not hash to the digest says nothing.
"""

from __future__ import annotations

import enum
from typing import Final

from chatelaine.evidence.event_log import LOG_HASHES, Event


class Separator(enum.StrEnum):
    """What the event that ends the firmware's part of a PCR says (PFP §10.4.1)."""

    NORMAL = "Normal"
    ERROR = "Error"


_SEPARATORS: Final = {
    bytes(4): Separator.NORMAL,
    b"\xff\xff\xff\xff": Separator.NORMAL,
    b"\x01\x00\x00\x00": Separator.ERROR,
}


_SEPARATOR_DIGESTS: Final = {
    tpm_id: {new(data).digest(): meaning for data, meaning in _SEPARATORS.items()} for tpm_id, new in LOG_HASHES.items()
}


def separator(event: Event, tpm_id: int) -> Separator | None:
    """Is this a separator? Its digest tells, whatever the event is called."""
    return _SEPARATOR_DIGESTS[tpm_id].get(event.digest(tpm_id))


def checked(event: Event, tpm_id: int) -> bytes | None:
    """The event's data if it hashes to the digest of this bank; None if it does not.

    Old versions of shim log one byte more than they hash.
    """
    new, expected, data = LOG_HASHES[tpm_id], event.digest(tpm_id), event.data
    if new(data).digest() == expected:
        return data
    if data and new(data[:-1]).digest() == expected:
        return data[:-1]
    return None


def checked_text(event: Event, tpm_id: int) -> bytes | None:
    """The same for boot loaders, which hash a text and log it behind a label and before a NUL, or without these.

    Older versions of systemd's boot loader hash the second byte of a wide NUL, and do not log it. The label
    (`grub_cmd: `, `kernel_cmdline: ` …) is not hashed and so is not part of the answer.
    """
    new, expected, data = LOG_HASHES[tpm_id], event.digest(tpm_id), event.data
    bare = data.removesuffix(b"\x00")
    for found in (data, bare, bare.partition(b" ")[2], data.partition(b" ")[2], data + b"\x00"):
        if new(found).digest() == expected:
            return found
    return None
