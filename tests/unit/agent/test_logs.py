"""The kernel's logs are read within bounds, whatever lies under their names, and never twice at once."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from chatelaine.agent import logs
from chatelaine.agent.errors import EvidenceBusy, LogTooLong, LogUnreadable
from chatelaine.agent.logs import MAX_WAITING_READS, LogFiles
from chatelaine.evidence.event_log import MAX_LOG_BYTES
from chatelaine.evidence.ima import MAX_IMA_BYTES, MAX_IMA_CHUNK_BYTES


@pytest.fixture
def files(tmp_path: Path) -> LogFiles:
    (tmp_path / "log").write_bytes(b"log")
    (tmp_path / "list").write_bytes(b"0123456789")
    return LogFiles(tmp_path / "log", tmp_path / "list")


async def test_a_host_without_logs_has_none() -> None:
    assert await LogFiles().event_log() is None
    assert await LogFiles().ima(0) is None


async def test_both_logs_are_read_as_they_are(files: LogFiles) -> None:
    assert await files.event_log() == b"log"
    piece = await files.ima(0)
    assert piece is not None
    assert (piece.offset, piece.data, piece.more) == (0, b"0123456789", False)


@pytest.mark.parametrize(("offset", "data"), [(4, b"456789"), (10, b"")])
async def test_a_list_is_read_on_from_an_offset(files: LogFiles, offset: int, data: bytes) -> None:
    piece = await files.ima(offset)
    assert piece is not None
    assert (piece.offset, piece.data) == (offset, data)


async def test_a_list_that_is_shorter_than_the_offset_is_read_from_its_beginning(files: LogFiles) -> None:
    piece = await files.ima(11)
    assert piece is not None
    assert (piece.offset, piece.data) == (0, b"0123456789")


async def test_a_long_list_comes_in_pieces(tmp_path: Path) -> None:
    whole = bytes(range(256)) * (MAX_IMA_CHUNK_BYTES // 256) + b"rest"
    (tmp_path / "list").write_bytes(whole)
    files = LogFiles(None, tmp_path / "list")
    first = await files.ima(0)
    assert first is not None
    assert (len(first.data), first.more) == (MAX_IMA_CHUNK_BYTES, True)
    second = await files.ima(len(first.data))
    assert second is not None
    assert (second.data, second.more) == (b"rest", False)


@pytest.mark.parametrize("offset", [-1, MAX_IMA_BYTES + 1])
async def test_an_offset_outside_of_all_bounds_is_refused(files: LogFiles, offset: int) -> None:
    with pytest.raises(LogTooLong):
        await files.ima(offset)


async def test_an_event_log_over_its_bound_is_not_sent(tmp_path: Path) -> None:
    (tmp_path / "log").write_bytes(bytes(MAX_LOG_BYTES))
    files = LogFiles(tmp_path / "log")
    assert await files.event_log() == bytes(MAX_LOG_BYTES)
    (tmp_path / "log").write_bytes(bytes(MAX_LOG_BYTES + 1))
    with pytest.raises(LogTooLong):
        await files.event_log()


async def test_a_log_without_an_end_is_read_to_its_bound_and_no_further() -> None:
    with pytest.raises(LogTooLong):
        await LogFiles(Path("/dev/zero")).event_log()


async def test_a_configured_log_that_cannot_be_read_is_no_host_without_a_log(tmp_path: Path) -> None:
    for path in (tmp_path / "absent", tmp_path):
        with pytest.raises(LogUnreadable, match=path.name):
            await LogFiles(path, path).event_log()
        with pytest.raises(LogUnreadable):
            await LogFiles(path, path).ima(0)


async def test_reads_that_pile_up_are_refused(files: LogFiles, monkeypatch: pytest.MonkeyPatch) -> None:
    go = asyncio.Event()

    async def slow(*_: object) -> bytes:
        await go.wait()
        return b"slow"

    monkeypatch.setattr(logs.asyncio, "to_thread", slow)
    waiting = [asyncio.create_task(files.ima(0)) for _ in range(MAX_WAITING_READS)]
    await asyncio.sleep(0)
    with pytest.raises(EvidenceBusy):
        await files.ima(0)
    go.set()
    assert len(await asyncio.gather(*waiting)) == MAX_WAITING_READS
