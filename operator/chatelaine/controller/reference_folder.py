"""Files of signed reference values in the operator's folder: mounted by the platform team, changed under us."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Final

from chatelaine.evidence.dsse import MAX_ENVELOPE_BYTES

Mark = tuple[int, ...]
"""Tells one state of a file from another: device, inode, size, change."""
NO_FILE: Final[Mark] = ()


class ReferenceFolder:
    """`folder` None: the operator has none."""

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder

    def mark(self, name: str) -> Mark:
        """Of the file as it is now; `NO_FILE` where there is none. A mounted volume changes by a link that moves."""
        if self._folder is None:
            return NO_FILE
        try:
            return _mark((self._folder / name).stat())
        except OSError:
            return NO_FILE

    def read(self, name: str) -> tuple[Mark, bytes | str]:
        """The bytes and the mark of that very file; a sentence where there are none."""
        if self._folder is None:
            return NO_FILE, "cannot be read: the operator runs without --reference-values-dir"
        try:
            # A named pipe must not hold us up.
            descriptor = os.open(self._folder / name, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except OSError as error:
            return NO_FILE, _unread(error)
        try:
            return _read(descriptor)
        finally:
            os.close(descriptor)


def _read(descriptor: int) -> tuple[Mark, bytes | str]:
    found = os.fstat(descriptor)
    mark = _mark(found)
    if not stat.S_ISREG(found.st_mode):
        return mark, "is no file"
    try:
        with open(descriptor, "rb", closefd=False) as file:
            data = file.read(MAX_ENVELOPE_BYTES + 1)
    except OSError as error:
        return mark, _unread(error)
    return mark, data if len(data) <= MAX_ENVELOPE_BYTES else f"is over {MAX_ENVELOPE_BYTES} bytes"


def _unread(error: OSError) -> str:
    return f"cannot be read: {error.strerror or type(error).__name__}"


def _mark(found: os.stat_result) -> Mark:
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns
