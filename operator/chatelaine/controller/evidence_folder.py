"""A folder of objects named by what they hold, and of marks that say which of them are stored rounds.

    <folder>/lock                    held by the one process that writes
    <folder>/sha256/<2>/<62>         an object; its name is the SHA-256 of its bytes, in hexadecimal
    <folder>/rounds/<uid>/<mark>     empty; the mark names an object that is a round of the Hsm with that UID

An object is written beside its place, brought to disk, and only then moved to its name: there is never a part of one
under a name. Every path is walked from the folder down without following symbolic links, and what is read is believed
only if it hashes to its name; so whoever changes a file here makes it useless, and nothing else.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import re
import secrets
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

EVIDENCE: Final = "evidence"
"""Name of the folder within an operator's own."""
OBJECTS: Final = "sha256"
MARKS: Final = "rounds"
LOCK: Final = "lock"
UNFINISHED: Final = ".unfinished-"
MAX_OBJECT_BYTES: Final = 33 * 1024 * 1024
"""The longest thing that is stored is an IMA list."""
NOT_A_FILE: Final = frozenset((errno.ELOOP, errno.ENOTDIR, errno.EISDIR, errno.ENXIO))
"""How opening ends where a link, a folder or a pipe has taken a file's place."""
FILE_MODE: Final = 0o600
FOLDER_MODE: Final = 0o700

_PLACE: Final = re.compile(r"[0-9a-f]{2}", re.ASCII)
_REST: Final = re.compile(r"[0-9a-f]{62}", re.ASCII)
_UID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]{0,63}", re.ASCII)
_READ: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
_WALK: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_MAKE: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC

AfterStep = Callable[[str], None]
"""Told of every change of the folder, once it is made. Crash tests end the process here."""


class StoreError(Exception):
    """Evidence was not stored, or is not to be had."""


class StoreUnusable(StoreError):
    """The folder cannot be written or read, or another process writes it."""


class ObjectMissing(StoreError):
    """Nothing is stored under this digest."""


class ObjectDamaged(StoreError):
    """What lies under this digest is something else: truncated, changed, a link, no file."""


class EvidenceFolder:
    """The folder, without any idea of what is in it. Reading needs no lock."""

    def __init__(self, path: Path, after_step: AfterStep = lambda _: None) -> None:
        self.path = path
        self._after_step = after_step
        self._lock: int | None = None

    def take(self) -> None:
        """Make the folder if it is missing, and be the one process that writes it.

        Raises:
            StoreUnusable: it cannot be made, or another process has it.
        """
        if self._lock is not None:
            return
        try:
            self.path.mkdir(mode=FOLDER_MODE, parents=True, exist_ok=True)
            lock = os.open(self.path / LOCK, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, FILE_MODE)
        except OSError as error:
            raise StoreUnusable(f"{self.path}: {error.strerror}") from error
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(lock)
            raise StoreUnusable(f"{self.path}: another process stores evidence there") from error
        self._lock = lock

    def release(self) -> None:
        """Let another process write."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    # --- objects

    def read(self, digest: bytes, limit_bytes: int = MAX_OBJECT_BYTES) -> bytes:
        """The object of that SHA-256.

        Raises:
            ObjectMissing: there is none.
            ObjectDamaged: it is another.
            StoreUnusable: it cannot be read.
        """
        name = digest.hex()
        try:
            with self._walk(OBJECTS, name[:2]) as folder:
                data = _read_regular(name[2:], folder, limit_bytes)
        except FileNotFoundError as error:
            raise ObjectMissing(f"sha256:{name} is not stored") from error
        except (_NotAFile, OSError) as error:
            if isinstance(error, OSError) and error.errno not in NOT_A_FILE:
                raise StoreUnusable(f"{self.path}: sha256:{name}: {error.strerror}") from error
            raise ObjectDamaged(f"sha256:{name} is no file of ours any more") from error
        if len(data) > limit_bytes or hashlib.sha256(data).digest() != digest:
            raise ObjectDamaged(f"sha256:{name} holds something else than its name says")
        return data

    def write(self, data: bytes) -> bytes:
        """Store an object; what is under its name already, and is not it, is replaced. Returns its SHA-256.

        Raises:
            StoreUnusable: it cannot be written.
        """
        digest = hashlib.sha256(data).digest()
        name = digest.hex()
        with contextlib.suppress(StoreError):
            if self.read(digest) == data:
                return digest
        try:
            with self._walk(OBJECTS, name[:2], make=True) as folder:
                self._put(folder, name[2:], data)
        except OSError as error:
            raise StoreUnusable(f"{self.path}: {error.strerror}") from error
        return digest

    def remove(self, digest: bytes) -> None:
        """Forget an object; one that is gone is as good.

        Raises:
            StoreUnusable: it cannot be removed.
        """
        name = digest.hex()
        self._unlink(name[2:], OBJECTS, name[:2])

    def objects(self) -> Iterator[tuple[bytes, int]]:
        """Digest and size of everything that is named like an object.

        Raises:
            StoreUnusable: the folder cannot be read.
        """
        for place in self._names(OBJECTS):
            if _PLACE.fullmatch(place):
                for name, size_bytes in self._sizes(OBJECTS, place):
                    if _REST.fullmatch(name):
                        yield bytes.fromhex(place + name), size_bytes

    # --- marks

    def mark(self, uid: str, name: str) -> None:
        """Put a mark.

        Raises:
            StoreUnusable: it cannot be put.
        """
        if not _UID.fullmatch(uid):
            raise StoreUnusable(f"the UID {uid[:64]!r} cannot be the name of a folder")
        try:
            with self._walk(MARKS, uid, make=True) as folder:
                self._put(folder, name, b"")
        except OSError as error:
            raise StoreUnusable(f"{self.path}: {error.strerror}") from error

    def unmark(self, uid: str, name: str) -> None:
        """Take a mark away; one that is gone is as good.

        Raises:
            StoreUnusable: it cannot be taken.
        """
        self._unlink(name, MARKS, uid)
        with contextlib.suppress(OSError), self._walk(MARKS) as folder:
            # Goes only when it is empty.
            os.rmdir(uid, dir_fd=folder)

    def marks(self) -> Iterator[tuple[str, str]]:
        """UID and name of every mark.

        Raises:
            StoreUnusable: the folder cannot be read.
        """
        for uid in self._names(MARKS):
            if _UID.fullmatch(uid):
                for name, _ in self._sizes(MARKS, uid):
                    if not name.startswith(UNFINISHED):
                        yield uid, name

    def clear_unfinished(self) -> None:
        """Remove what a process that was killed had not finished.

        Raises:
            StoreUnusable: it cannot be removed.
        """
        for parent in (OBJECTS, MARKS):
            for place in self._names(parent):
                for name, _ in self._sizes(parent, place):
                    if name.startswith(UNFINISHED):
                        self._unlink(name, parent, place)

    # --- files

    def _put(self, folder: int, name: str, data: bytes) -> None:
        unfinished = f"{UNFINISHED}{secrets.token_hex(8)}"
        with os.fdopen(os.open(unfinished, _MAKE, FILE_MODE, dir_fd=folder), "wb") as file:
            self._after_step("created")
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        self._after_step("written")
        try:
            os.rename(unfinished, name, src_dir_fd=folder, dst_dir_fd=folder)
        except OSError:
            os.unlink(unfinished, dir_fd=folder)
            raise
        self._after_step("named")
        os.fsync(folder)

    def _unlink(self, name: str, *parents: str) -> None:
        try:
            with self._walk(*parents) as folder:
                os.unlink(name, dir_fd=folder)
                self._after_step("removed")
                os.fsync(folder)
        except FileNotFoundError:
            return
        except IsADirectoryError:
            # Not of our making. An empty one goes; whoever has put something into it may look after it.
            with contextlib.suppress(OSError), self._walk(*parents) as folder:
                os.rmdir(name, dir_fd=folder)
        except OSError as error:
            raise StoreUnusable(f"{self.path}: {error.strerror}") from error

    def _names(self, parent: str) -> list[str]:
        try:
            with self._walk(parent) as folder, os.scandir(folder) as found:
                return sorted(entry.name for entry in found)
        except FileNotFoundError:
            return []
        except OSError as error:
            raise StoreUnusable(f"{self.path}/{parent}: {error.strerror}") from error

    def _sizes(self, parent: str, place: str) -> list[tuple[str, int]]:
        """Names and sizes of what is there; what is no folder has none. Another process may remove some meanwhile."""
        sizes = []
        try:
            with self._walk(parent, place) as folder, os.scandir(folder) as found:
                for entry in found:
                    with contextlib.suppress(FileNotFoundError):
                        sizes.append((entry.name, entry.stat(follow_symlinks=False).st_size))
        except (FileNotFoundError, NotADirectoryError):
            return []
        except OSError as error:
            raise StoreUnusable(f"{self.path}/{parent}/{place}: {error.strerror}") from error
        return sorted(sizes)

    @contextlib.contextmanager
    def _walk(self, *names: str, make: bool = False) -> Iterator[int]:
        """Descriptor of a folder below ours."""
        at = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            for name in names:
                if make:
                    self._make_folder(name, at)
                below = os.open(name, _WALK, dir_fd=at)
                os.close(at)
                at = below
            yield at
        finally:
            os.close(at)

    def _make_folder(self, name: str, at: int) -> None:
        try:
            os.mkdir(name, FOLDER_MODE, dir_fd=at)
        except FileExistsError:
            return
        self._after_step("folder")
        os.fsync(at)


class _NotAFile(Exception):
    """A folder, a pipe, a device."""


def _read_regular(name: str, folder: int, limit_bytes: int) -> bytes:
    """At most one byte more than `limit_bytes`."""
    descriptor = os.open(name, _READ, dir_fd=folder)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise _NotAFile
        with os.fdopen(descriptor, "rb", closefd=False) as file:
            return file.read(limit_bytes + 1)
    finally:
        os.close(descriptor)
