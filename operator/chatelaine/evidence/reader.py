"""A bounded reader of big-endian TPM structures: never reads past the end, never trusts a length."""

from __future__ import annotations

import struct
from typing import Final

from chatelaine.evidence.errors import Oversized, TrailingBytes, Truncated

_U16: Final = struct.Struct(">H")
_U32: Final = struct.Struct(">I")


def bounded(data: bytes, limit_bytes: int, what: str) -> bytes:
    """`data` as bytes, once its length is known to be allowed.

    Raises:
        Oversized: longer than `limit_bytes`.
    """
    if len(data) > limit_bytes:
        raise Oversized(f"{what} is too long", expected=f"at most {limit_bytes} bytes", found=f"{len(data)} bytes")
    return bytes(data)


class Reader:
    """Walks over one buffer. `what` names the structure in errors."""

    __slots__ = ("_data", "_offset", "_what")

    def __init__(self, data: bytes, what: str) -> None:
        self._data = data
        self._offset = 0
        self._what = what

    def u8(self) -> int:
        """One byte."""
        return self.take(1)[0]

    def u16(self) -> int:
        """UINT16."""
        return int(_U16.unpack(self.take(2))[0])

    def u32(self) -> int:
        """UINT32."""
        return int(_U32.unpack(self.take(4))[0])

    def take(self, count: int) -> bytes:
        """Exactly `count` bytes.

        Raises:
            Truncated: fewer are left.
        """
        start = self._offset
        end = start + count
        if end > len(self._data):
            raise Truncated(
                f"{self._what} ends early at byte {start}",
                expected=f"{count} bytes",
                found=f"{len(self._data) - start} bytes",
            )
        self._offset = end
        return self._data[start:end]

    def sized(self, limit_bytes: int, field: str) -> bytes:
        """A TPM2B: UINT16 size, then that many bytes.

        Raises:
            Oversized: the size is above `limit_bytes`.
            Truncated: fewer bytes follow than the size says.
        """
        size = self.u16()
        if size > limit_bytes:
            raise Oversized(
                f"{self._what}: {field} is too long", expected=f"at most {limit_bytes} bytes", found=f"{size} bytes"
            )
        return self.take(size)

    def end(self) -> None:
        """Nothing may follow.

        Raises:
            TrailingBytes: something does.
        """
        left = len(self._data) - self._offset
        if left:
            raise TrailingBytes(f"{self._what} is followed by {left} more bytes", expected="0 bytes", found=left)
