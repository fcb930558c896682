"""Small private files that are there whole or not at all, whatever moment the machine stops."""

from __future__ import annotations

import json
import os
import secrets
from pathlib import Path
from typing import Final

from chatelaine.pki.errors import KeyFileDamaged, KeyFileExposed

PRIVATE_FILE_MODE: Final = 0o600
PUBLIC_FILE_MODE: Final = 0o644
PRIVATE_FOLDER_MODE: Final = 0o700


def make_private_folder(folder: Path) -> None:
    """Make `folder`, and what is missing above it, for this user alone; one that exists is left as it is.

    Raises:
        OSError: it cannot be made.
    """
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    for path in reversed(missing):
        path.mkdir(mode=PRIVATE_FOLDER_MODE, exist_ok=True)


def write_whole(path: Path, data: bytes, mode: int = PRIVATE_FILE_MODE) -> None:
    """Replace `path` by `data`: readers see the old bytes or the new ones, and what is returned from is on disk.

    Raises:
        OSError: it cannot be written.
    """
    temporary = _written_beside(path, data, mode)
    try:
        temporary.replace(path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
    _sync_folder(path.parent)


def write_once(path: Path, data: bytes, mode: int = PRIVATE_FILE_MODE) -> bool:
    """Write `path` unless it exists; of several writers at once one wins. Tells whether this one did.

    Raises:
        OSError: it cannot be written.
    """
    temporary = _written_beside(path, data, mode)
    try:
        path.hardlink_to(temporary)
    except FileExistsError:
        return False
    finally:
        temporary.unlink(missing_ok=True)
    _sync_folder(path.parent)
    return True


def tell_ready(path: Path | None, **facts: str | int) -> None:
    """Write what a process has to say once it listens: JSON with its `pid`, for its own user. Nothing without a path.

    Raises:
        OSError: it cannot be written.
    """
    if path is not None:
        write_whole(path, json.dumps({**facts, "pid": os.getpid()}).encode())


def read_private(path: Path, max_bytes: int) -> bytes:
    """The bytes of a file that only its owner may read.

    Raises:
        KeyFileExposed: others may read it, or it is not ours.
        KeyFileDamaged: it is over `max_bytes`.
        OSError: it cannot be read, or is behind a symbolic link.
    """
    with os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC), "rb") as file:
        status = os.fstat(file.fileno())
        if status.st_mode & 0o077:
            raise KeyFileExposed(f"{path} may be read by other users; run: chmod 600 {path}")
        if status.st_uid not in (os.geteuid(), 0):
            raise KeyFileExposed(f"{path} belongs to another user")
        data = file.read(max_bytes + 1)
    if len(data) > max_bytes:
        raise KeyFileDamaged(f"{path} is over {max_bytes} bytes: no file of ours")
    return data


def _written_beside(path: Path, data: bytes, mode: int) -> Path:
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, mode)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    return temporary


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
