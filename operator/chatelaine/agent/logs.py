"""The two logs that a kernel keeps: the firmware's boot event log, and IMA's list of measured files.

Both are read anew for every round, bounded, in a thread of their own. What is in them is for the verifier to judge;
here they are bytes.
"""

from __future__ import annotations

import asyncio
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from chatelaine.agent.errors import EvidenceBusy, LogTooLong, LogUnreadable
from chatelaine.evidence.event_log import MAX_LOG_BYTES
from chatelaine.evidence.ima import MAX_IMA_BYTES, MAX_IMA_CHUNK_BYTES

KERNEL_EVENT_LOG: Final = Path("/sys/kernel/security/tpm0/binary_bios_measurements")
KERNEL_IMA_LIST: Final = Path("/sys/kernel/security/ima/binary_runtime_measurements")
MAX_WAITING_READS: Final = 8
_READ_BYTES: Final = 64 * 1024


@dataclass(frozen=True, slots=True)
class ImaPiece:
    """Bytes of the IMA list from `offset` on. `more`: the list goes on behind them."""

    offset: int
    data: bytes
    more: bool


class LogFiles:
    """Reads both files; None where the host has no such log.

    Args:
        event_log: boot event log (TCG PC Client Platform Firmware Profile), as the kernel shows it.
        ima_list: IMA's binary list.
    """

    def __init__(self, event_log: Path | None = None, ima_list: Path | None = None) -> None:
        self._event_log = event_log
        self._ima_list = ima_list
        self._turn = asyncio.Lock()
        self._waiting = 0

    async def event_log(self) -> bytes | None:
        """The whole log.

        Raises:
            LogUnreadable: the file cannot be read.
            LogTooLong: over the bound of a log.
            EvidenceBusy: too many reads wait.
        """
        if self._event_log is None:
            return None
        data = await self._read(self._event_log, 0, MAX_LOG_BYTES + 1)
        if len(data) > MAX_LOG_BYTES:
            raise LogTooLong(f"the event log is over {MAX_LOG_BYTES} bytes")
        return data

    async def ima(self, offset: int) -> ImaPiece | None:
        """A piece of the list from `offset` on, or from its beginning where the list is shorter than that.

        Raises:
            LogUnreadable: the file cannot be read.
            LogTooLong: the offset is outside of what a verifier takes.
            EvidenceBusy: too many reads wait.
        """
        if self._ima_list is None:
            return None
        if not 0 <= offset <= MAX_IMA_BYTES:
            raise LogTooLong(f"an IMA list is read up to {MAX_IMA_BYTES} bytes")
        # One byte more on either side: the one before tells an end from a list that begins anew.
        before = 1 if offset else 0
        data = await self._read(self._ima_list, offset - before, before + MAX_IMA_CHUNK_BYTES + 1)
        if before and not data:
            return await self.ima(0)
        data = data[before:]
        return ImaPiece(offset, data[:MAX_IMA_CHUNK_BYTES], more=len(data) > MAX_IMA_CHUNK_BYTES)

    async def _read(self, path: Path, offset: int, limit_bytes: int) -> bytes:
        if self._waiting >= MAX_WAITING_READS:
            raise EvidenceBusy("too many reads of logs wait on this host")
        self._waiting += 1
        try:
            async with self._turn:
                return await asyncio.to_thread(_read, path, offset, limit_bytes)
        except OSError as error:
            raise LogUnreadable(f"{path} cannot be read: {error.strerror or type(error).__name__}") from error
        finally:
            self._waiting -= 1


def kernel_file(path: Path) -> Path | None:
    """The kernel's file, if this kernel shows one."""
    return path if path.exists() else None


def _read(path: Path, offset: int, limit_bytes: int) -> bytes:
    """Files of securityfs tell no size and give a page at a time."""
    parts: list[bytes] = []
    size = 0
    with path.open("rb", buffering=0) as file:
        while size < limit_bytes:
            part = os.pread(file.fileno(), min(_READ_BYTES, limit_bytes - size), offset + size)
            if not part:
                break
            parts.append(part)
            size += len(part)
    return b"".join(parts)
