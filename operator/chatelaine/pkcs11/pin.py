"""The PIN file and the memory of refused PINs.

A token locks after a few wrong PINs, and a restarting gateway must not spend them. So before a PIN is tried, its keyed
digest is written down; success strikes it out; a refusal leaves it, and it is never tried again. A worker that dies
in between leaves it undecided, and an undecided PIN has a small budget. Only a changed PIN file clears the way.
"""

from __future__ import annotations

import enum
import hashlib
import hmac
import os
import secrets
import stat
from pathlib import Path
from typing import Final

import msgspec

from chatelaine.pkcs11.errors import PinBudgetSpent, PinFileRefused, PinRejected

MAX_PIN_BYTES: Final = 255
MAX_ATTEMPTS_FILE_BYTES: Final = 64 * 1024
MAX_REFUSED_PINS: Final = 64
MAX_UNDECIDED_TRIES: Final = 5
_KEY_BYTES: Final = 32
_KEY_FILE: Final = "pin-attempts.key"
_ATTEMPTS_FILE: Final = "pin-attempts.json"


def read_pin(path: Path) -> str:
    """The PIN: the file's text without the line end.

    Raises:
        PinFileRefused: absent, not a regular file, not ours, readable by others, empty, too long or not UTF-8.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise PinFileRefused("a PIN file", os.strerror(error.errno or 0)) from error
    with os.fdopen(descriptor, "rb") as file:
        _check_owner(os.fstat(file.fileno()))
        data = file.read(MAX_PIN_BYTES + 3)
    data = data.removesuffix(b"\n").removesuffix(b"\r")
    if not data or len(data) > MAX_PIN_BYTES:
        raise PinFileRefused(f"1 to {MAX_PIN_BYTES} bytes", "an empty file" if not data else "a longer one")
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        # `from None`: the decoder's error carries the bytes, and those are the PIN.
        raise PinFileRefused("UTF-8", f"another byte at position {error.start}") from None


def _check_owner(status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise PinFileRefused("a regular file", "something else")
    if status.st_uid != os.geteuid():
        raise PinFileRefused(f"a file of user {os.geteuid()}", f"a file of user {status.st_uid}")
    mode = stat.S_IMODE(status.st_mode)
    if mode not in {0o600, 0o400}:
        raise PinFileRefused("mode 0600 or 0400", f"mode {mode:04o}")


class _State(enum.StrEnum):
    UNDECIDED = "undecided"
    REFUSED = "refused"


class _Attempt(msgspec.Struct, frozen=True):
    """`since_login`: no PIN has been accepted by that token since."""

    state: _State
    tries: int
    serial: str
    since_login: bool = True


class PinAttempts:
    """What became of the PINs that were tried, in two 0600 files of `directory`."""

    def __init__(self, directory: Path) -> None:
        """Open or make the memory.

        Raises:
            OSError: the directory is not writable.
            PinBudgetSpent: the memory cannot be read, so nobody knows which PINs were refused.
        """
        self._directory = directory
        self._key = self._load_key()
        self._attempts = self._load_attempts()

    def check(self, serial: str, pin: str) -> None:
        """May this PIN be tried at all?

        Raises:
            PinRejected: the token refused this PIN before.
        """
        known = self._attempts.get(self._digest(serial, pin))
        if known is not None and known.state is _State.REFUSED:
            raise PinRejected("a PIN that the token accepts", "the PIN that it refused before; not tried again")

    def explain_low_count(self, serial: str) -> bool:
        """Did we give the token `serial` a wrong PIN since its last login? Then a new PIN is a person's answer."""
        return any(
            attempt.serial == serial and attempt.since_login and attempt.state is _State.REFUSED
            for attempt in self._attempts.values()
        )

    def begin(self, serial: str, pin: str) -> None:
        """Write down that this PIN is about to be tried on the token `serial`. Durable on return.

        Raises:
            PinRejected: the token refused this PIN before.
            PinBudgetSpent: tried too often without an answer, or too many different PINs were refused.
        """
        self.check(serial, pin)
        digest = self._digest(serial, pin)
        known = self._attempts.get(digest)
        tries = known.tries + 1 if known is not None else 1
        if tries > MAX_UNDECIDED_TRIES:
            raise PinBudgetSpent(
                "an answer to the login",
                f"{MAX_UNDECIDED_TRIES} logins that ended without one",
                f"find out why the module dies at login, then remove {_ATTEMPTS_FILE} from the state directory",
            )
        if len(self._attempts) >= MAX_REFUSED_PINS and known is None:
            raise PinBudgetSpent(
                "the right PIN",
                f"{MAX_REFUSED_PINS} different PINs refused",
                f"put the right PIN into the PIN file and remove {_ATTEMPTS_FILE} from the state directory",
            )
        self._attempts[digest] = _Attempt(_State.UNDECIDED, tries, serial)
        self._store()

    def accepted(self, serial: str, pin: str) -> None:
        """The token took the PIN: strike the attempt out."""
        self._attempts.pop(self._digest(serial, pin), None)
        for digest, attempt in self._attempts.items():
            if attempt.serial == serial:
                self._attempts[digest] = msgspec.structs.replace(attempt, since_login=False)
        self._store()

    def refused(self, serial: str, pin: str) -> None:
        """The token refused the PIN: remember it for good."""
        self._attempts[self._digest(serial, pin)] = _Attempt(_State.REFUSED, 1, serial)
        self._store()

    def _digest(self, serial: str, pin: str) -> str:
        message = b"chatelaine/pin-attempt/v1\0" + serial.encode() + b"\0" + pin.encode()
        return hmac.new(self._key, message, hashlib.sha256).hexdigest()

    def _load_key(self) -> bytes:
        path = self._directory / _KEY_FILE
        if not path.exists():
            _write_durably(path, secrets.token_bytes(_KEY_BYTES))
        key = path.read_bytes()
        if len(key) != _KEY_BYTES:
            raise PinBudgetSpent(
                f"a key of {_KEY_BYTES} bytes", f"{len(key)} bytes in {_KEY_FILE}", "remove both pin-attempts files"
            )
        return key

    def _load_attempts(self) -> dict[str, _Attempt]:
        path = self._directory / _ATTEMPTS_FILE
        if not path.exists():
            return {}
        with path.open("rb") as file:
            data = file.read(MAX_ATTEMPTS_FILE_BYTES)
        try:
            return msgspec.json.decode(data, type=dict[str, _Attempt])
        except msgspec.MsgspecError as error:
            raise PinBudgetSpent(
                f"the list of refused PINs in {_ATTEMPTS_FILE}",
                "a file that cannot be read",
                "log in once by hand, then remove it",
            ) from error

    def _store(self) -> None:
        _write_durably(self._directory / _ATTEMPTS_FILE, msgspec.json.encode(self._attempts))


def _write_durably(path: Path, data: bytes) -> None:
    """Write, sync, rename, sync the directory: after a crash the old or the new content stands, never a mixture."""
    temporary = path.with_suffix(".new")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        os.fchmod(descriptor, 0o600)
        file.write(data)
        file.flush()
        os.fsync(descriptor)
    temporary.replace(path)
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
