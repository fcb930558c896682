"""The audit log on disk: what is answered is recorded first, and what cannot be recorded is not done.

Lines are collected during one turn of the event loop and written in one go; `record` returns when they are written.
Handed to the kernel, not synced: a killed process loses nothing, a power cut may lose the last lines.
A torn last line (a full disk, a kill in the middle of a write) stays where it is; a `Resumed` line follows it.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import Final

import msgspec

from chatelaine.gateway.audit_chain import FIRST, KEY_BYTES, Link, open_line, seal
from chatelaine.gateway.errors import AuditUnavailable, ChainBroken
from chatelaine.gateway.limits import AUDIT_REOPEN_SECONDS, AUDIT_TAIL_BYTES
from chatelaine.pki.errors import KeyFileDamaged
from chatelaine.pki.files import read_private, write_once
from chatelaine.telemetry.log import logger

log = logger(__name__)

_KEY_FILE: Final = "audit.key"
_LOG_FILE: Final = "audit.jsonl"


class AuditRecord(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename="camel"):
    """One operation. Names only: no input, no output, no token. `at` is seconds since the epoch (UTC).

    `jti` is the first 16 bytes (hex) of the SHA-256 of the token's `jti`; `holder` is the thumbprint of the TLS key.
    """

    at: float
    operation: str
    result: str
    reason: str = ""
    claim: str = ""
    key: str = ""
    version: int = 0
    subject: str = ""
    jti: str = ""
    holder: str = ""
    source: str = ""


class _Resumed(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """The first line after a start or a mended failure. `intact` tells whether the line before it was whole."""

    at: float
    operation: str = "Resumed"
    intact: bool = True


def jti_hash(jti: str) -> str:
    """How a token is named in the log."""
    return hashlib.sha256(jti.encode()).hexdigest()[:32]


class AuditLog:
    """Appends to `audit.jsonl` in the state folder, with the key beside it. For one event loop.

    Raises:
        KeyFileRefused: the key file may be read by others, or holds no key.
        OSError: the key cannot be made or read.
    """

    def __init__(self, folder: Path, wall_clock: Callable[[], float]) -> None:
        self.path = folder / _LOG_FILE
        self._wall_clock = wall_clock
        write_once(folder / _KEY_FILE, secrets.token_bytes(KEY_BYTES))
        self._key = read_private(folder / _KEY_FILE, KEY_BYTES)
        if len(self._key) != KEY_BYTES:
            raise KeyFileDamaged(f"{folder / _KEY_FILE} is not an audit key of {KEY_BYTES} bytes")
        self._descriptor = -1
        self._last = FIRST
        self._waiting: list[tuple[bytes, asyncio.Future[None]]] = []
        self._next_try_seconds = 0.0
        self.failures = 0

    def require_open(self) -> None:
        """Before an operation touches the HSM: can it be recorded?

        Raises:
            AuditUnavailable: no. Opening is tried again at most once a second.
        """
        if self._descriptor >= 0:
            return
        now = asyncio.get_running_loop().time()
        if now < self._next_try_seconds:
            raise AuditUnavailable("the audit log cannot be written")
        self._next_try_seconds = now + AUDIT_REOPEN_SECONDS
        try:
            self._open()
        except OSError as error:
            self._fail(error)
            raise AuditUnavailable("the audit log cannot be written") from error

    def is_open(self) -> bool:
        """Can operations be recorded now? Tries to open the log if it is closed."""
        try:
            self.require_open()
        except AuditUnavailable:
            return False
        return True

    async def record(self, record: AuditRecord) -> None:
        """Return when the record is in the log.

        Raises:
            AuditUnavailable: it is not, so the operation must not be answered.
        """
        self.require_open()
        loop = asyncio.get_running_loop()
        if not self._waiting:
            loop.call_soon(self._flush)
        written = loop.create_future()
        self._waiting.append((msgspec.json.encode(record), written))
        await written

    def close(self) -> None:
        """Close the file. What was recorded is in it."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _flush(self) -> None:
        waiting, self._waiting = self._waiting, []
        try:
            self._append([facts for facts, _ in waiting])
        except OSError as error:
            self._fail(error)
            for _, written in waiting:
                if not written.done():
                    written.set_exception(AuditUnavailable("the audit log cannot be written"))
            return
        for _, written in waiting:
            if not written.done():
                written.set_result(None)

    def _append(self, records: list[bytes]) -> None:
        last = self._last
        lines: list[bytes] = []
        for facts in records:
            line, last = seal(self._key, last, facts)
            lines.append(line)
        data = b"".join(lines)
        if os.write(self._descriptor, data) != len(data):
            raise OSError("only a part was written; the disk is full")
        self._last = last

    def _open(self) -> None:
        descriptor = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        self._descriptor = descriptor
        size = os.fstat(descriptor).st_size
        tail = os.pread(descriptor, AUDIT_TAIL_BYTES, max(0, size - AUDIT_TAIL_BYTES))
        self._last, intact = _end_of(self._key, tail)
        if not tail:
            return
        if not tail.endswith(b"\n"):
            os.write(descriptor, b"\n")
        self._append([msgspec.json.encode(_Resumed(at=self._wall_clock(), intact=intact))])

    def _fail(self, error: OSError) -> None:
        self.failures += 1
        self.close()
        log.error("the audit log cannot be written; operations are refused", error=str(error), path=str(self.path))


def _end_of(key: bytes, tail: bytes) -> tuple[Link, bool]:
    """The last whole line's link, and whether nothing but whole, unchanged lines stands at the end."""
    lines = [line for line in tail.split(b"\n") if line]
    torn = bool(lines) and not tail.endswith(b"\n")
    for position, line in enumerate(reversed(lines)):
        try:
            return open_line(key, line)[1], position == 0 and not torn
        except (ChainBroken, json.JSONDecodeError, KeyError, ValueError):
            continue
    return FIRST, not lines
