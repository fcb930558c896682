"""The socket's place: taken without following links, without a moment in which others may open it, and from nobody.

A socket is bound under a name that nobody knows, with its final mode, and then put in its place in one step. A lock
beside it, held for the life of the process, tells a place that is served from what a killed process left behind.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import socket
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from chatelaine.proxy.errors import PlaceTaken
from chatelaine.proxy.settings import LoopbackPlace, UnixPlace

BACKLOG = 128
_PROBE_SECONDS = 1.0


@dataclass(slots=True)
class Taken:
    """A listening socket. `leave` gives its place back; the lock goes with the process, or with `leave`."""

    socket: socket.socket
    name: str = ""
    folder: int = -1
    lock: int = -1
    inode: tuple[int, int] = (0, 0)

    def leave(self) -> None:
        """Remove the socket, if it is still the one that was put there."""
        self.socket.close()
        if self.folder < 0:
            return
        with contextlib.suppress(FileNotFoundError):
            if _inode(self.name, self.folder) == self.inode:
                os.unlink(self.name, dir_fd=self.folder)
        os.close(self.lock)
        os.close(self.folder)
        self.folder = self.lock = -1


def take(place: UnixPlace | LoopbackPlace) -> Taken:
    """Listen there.

    Raises:
        PlaceTaken: somebody serves there, or what lies there is not ours to remove.
        OSError: the kernel refuses.
    """
    if isinstance(place, UnixPlace):
        return _take_unix(place)
    family = socket.AF_INET6 if ":" in place.host else socket.AF_INET
    try:
        return Taken(socket.create_server((place.host, place.port), family=family, backlog=BACKLOG))
    except OSError as error:
        raise PlaceTaken(f"--listen {place.host}:{place.port}: {error.strerror}; choose another port") from error


def _take_unix(place: UnixPlace) -> Taken:
    parent, name = place.path.parent, place.path.name
    try:
        folder = os.open(parent, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as error:
        raise PlaceTaken(
            f"{parent}: expected a folder (not a link to one) for the socket, but: {error.strerror}; mount an emptyDir "
            "there, in the application's container too"
        ) from error
    lock = -1
    try:
        lock = _locked(folder, name, place)
        listening, inode = _put(folder, name, place)
    except (OSError, PlaceTaken):
        for descriptor in (lock, folder):
            if descriptor >= 0:
                os.close(descriptor)
        raise
    return Taken(listening, name, folder, lock, inode)


def _locked(folder: int, name: str, place: UnixPlace) -> int:
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        lock = os.open(f".{name}.lock", flags, 0o600, dir_fd=folder)
    except OSError as error:
        raise PlaceTaken(
            f"{place.path.parent}/.{name}.lock cannot be opened ({error.strerror}); the folder must be writable for "
            "this user, and the lock its own"
        ) from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        raise PlaceTaken(f"another sidecar serves {place.path}; end it, or choose another --listen") from None
    return lock


def _put(folder: int, name: str, place: UnixPlace) -> tuple[socket.socket, tuple[int, int]]:
    hidden = f".{secrets.token_hex(8)}"
    listening = socket.socket(socket.AF_UNIX)
    try:
        with _umask(0o777 & ~place.mode):
            listening.bind(f"/proc/self/fd/{folder}/{hidden}")
        try:
            if place.group is not None:
                os.chown(hidden, -1, place.group, dir_fd=folder, follow_symlinks=False)
            listening.listen(BACKLOG)
            inode = _inode(hidden, folder)
            _into_place(hidden, name, folder, place)
        finally:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(hidden, dir_fd=folder)
    except (OSError, PlaceTaken):
        listening.close()
        raise
    return listening, inode


def _into_place(hidden: str, name: str, folder: int, place: UnixPlace) -> None:
    try:
        os.link(hidden, name, src_dir_fd=folder, dst_dir_fd=folder, follow_symlinks=False)
    except FileExistsError:
        lying = os.stat(name, dir_fd=folder, follow_symlinks=False)
        if not stat.S_ISSOCK(lying.st_mode):
            raise PlaceTaken(f"{place.path}: expected nothing or a socket that was left behind, found something else; "
                             "it is left alone: remove it, or choose another --listen") from None  # fmt: skip
        if _answers(folder, name):
            raise PlaceTaken(f"another program serves {place.path}; end it, or choose another --listen") from None
        # A name is replaced, never what a link in its place leads to.
        os.rename(hidden, name, src_dir_fd=folder, dst_dir_fd=folder)


def _answers(folder: int, name: str) -> bool:
    """Does anybody listen? What cannot be told counts as yes."""
    with socket.socket(socket.AF_UNIX) as asking:
        asking.settimeout(_PROBE_SECONDS)
        try:
            asking.connect(f"/proc/self/fd/{folder}/{name}")
        except ConnectionRefusedError:
            return False
        except OSError:
            return True
    return True


def _inode(name: str, folder: int) -> tuple[int, int]:
    found = os.stat(name, dir_fd=folder, follow_symlinks=False)
    return found.st_dev, found.st_ino


@contextmanager
def _umask(mask: int) -> Iterator[None]:
    before = os.umask(mask)
    try:
        yield
    finally:
        os.umask(before)
