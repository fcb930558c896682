"""Which file an image was loaded from, as firmware logs it. No digest bears it out: a name for people, never a fact.

UEFI_IMAGE_LOAD_EVENT: TCG PC Client Platform Firmware Profile, §10.2.3; device paths: UEFI Specification, §10.3.
"""

from __future__ import annotations

import struct
from typing import Final

MAX_NODES: Final = 64

_LOAD_EVENT: Final = struct.Struct("<QQQQ")
_NODE: Final = struct.Struct("<BBH")
_MEDIA: Final = 0x04
_FILE_PATH: Final = 0x04
_END: Final = 0x7F


def loaded_from(data: bytes) -> str | None:
    """The file names of the image's device path, put together; None where there is none that can be read."""
    if len(data) < _LOAD_EVENT.size:
        return None
    *_, size = _LOAD_EVENT.unpack_from(data)
    path = data[_LOAD_EVENT.size : _LOAD_EVENT.size + size]
    at, found = 0, ""
    for _ in range(MAX_NODES):
        if at + _NODE.size > len(path):
            break
        kind, subtype, length = _NODE.unpack_from(path, at)
        if kind == _END or length < _NODE.size or at + length > len(path):
            break
        if (kind, subtype) == (_MEDIA, _FILE_PATH):
            found += path[at + _NODE.size : at + length].decode("utf-16-le", errors="replace").rstrip("\x00")
        at += length
    return found or None
