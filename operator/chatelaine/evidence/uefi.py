"""UEFI variables as firmware measures them, and the names of those that carry Secure Boot.

UEFI_VARIABLE_DATA: TCG PC Client Platform Firmware Profile, §10.2.6. Little-endian, like everything in UEFI.
"""

from __future__ import annotations

import struct
import uuid
from typing import Final, NamedTuple

from chatelaine.evidence.errors import Malformed, Truncated

GUID_BYTES: Final = 16
MAX_NAME_CHARACTERS: Final = 512

_VARIABLE: Final = struct.Struct("<16sQQ")


def guid(text: str) -> bytes:
    """A GUID as it lies in memory."""
    return uuid.UUID(text).bytes_le


def guid_text(value: bytes) -> str:
    """A GUID as people write it."""
    return str(uuid.UUID(bytes_le=value))


GLOBAL_VARIABLE: Final = guid("8be4df61-93ca-11d2-aa0d-00e098032b8c")
IMAGE_SECURITY_DATABASE: Final = guid("d719b2cb-3d3a-4596-a3bc-dad00e67656f")

SECURE_BOOT: Final = (GLOBAL_VARIABLE, "SecureBoot")
PLATFORM_KEY: Final = (GLOBAL_VARIABLE, "PK")
KEY_EXCHANGE_KEYS: Final = (GLOBAL_VARIABLE, "KEK")
ALLOWED_SIGNATURES: Final = (IMAGE_SECURITY_DATABASE, "db")
FORBIDDEN_SIGNATURES: Final = (IMAGE_SECURITY_DATABASE, "dbx")


class Variable(NamedTuple):
    """A variable that was measured.

    Attributes:
        owner: GUID of its namespace.
        name: its name.
        content: its value.
    """

    owner: bytes
    name: str
    content: bytes


def parse_variable(data: bytes) -> Variable:
    """UEFI_VARIABLE_DATA. Zeros may follow it: old boot loaders pad it.

    Raises:
        Truncated: a length runs over the end.
        Malformed: the name is no UTF-16 or too long, or something else follows.
    """
    try:
        owner, characters, size = _VARIABLE.unpack_from(data)
    except struct.error as error:
        raise Truncated("a UEFI variable ends early", found=f"{len(data)} bytes") from error
    if characters > MAX_NAME_CHARACTERS:
        raise Malformed("the name of a UEFI variable is too long", found=characters)
    start = _VARIABLE.size + 2 * characters
    if start + size > len(data):
        raise Truncated("a UEFI variable ends early", expected=f"{start + size} bytes", found=f"{len(data)} bytes")
    try:
        name = data[_VARIABLE.size : start].decode("utf-16-le")
    except UnicodeDecodeError as error:
        raise Malformed("the name of a UEFI variable is no UTF-16") from error
    if data[start + size :].strip(b"\x00"):
        raise Malformed("a UEFI variable is followed by something else")
    return Variable(owner, name, data[start : start + size])
