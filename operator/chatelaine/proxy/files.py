"""Files that others write for us: bounded, never waited for, and read as one set where they are swapped as one."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

_SWAPPED: Final = "..data"
"""The kubelet swaps a projected volume's files all at once, by a link of this name."""


class NotAsExpected(Exception):
    """What lies there is no regular file, or over its bound; the message says which."""


@contextmanager
def one_state_of(folder: Path) -> Iterator[int]:
    """A descriptor of the folder whose files belong together, also while the kubelet swaps them.

    Raises:
        OSError: there is no such folder.
    """
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
    try:
        descriptor = os.open(folder / _SWAPPED, flags)
    except FileNotFoundError:
        descriptor = os.open(folder, flags)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def read_bounded(path: Path | str, max_bytes: int, *, folder: int | None = None) -> bytes:
    """The bytes of a regular file. Links are followed: a projected volume's files are links.

    Raises:
        NotAsExpected: a pipe or a device, which could be waited for without end; or over `max_bytes`.
        OSError: it cannot be read.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
    with os.fdopen(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise NotAsExpected("it is no regular file")
        data = file.read(max_bytes + 1)
    if len(data) > max_bytes:
        raise NotAsExpected(f"it is over {max_bytes} bytes")
    return data
