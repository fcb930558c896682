"""What our client makes of streams that fall silent, lie, or end."""

from __future__ import annotations

import asyncio

import pytest

from chatelaine.wire.messages import Change, ChangeKind
from chatelaine.wire.peer import (
    PeerMalformed,
    PeerRefused,
    PeerUnreachable,
)
from support.scripted_peer import (
    LONG_SECONDS,
    SHORT_SECONDS,
    Pki,
    client,
    listen,
    once,
    peer,
    said,
)

HEAD = b"HTTP/1.1 200 OK\r\n\r\n"
LINE = b'{"kind":"Alive","counter":1}\n'


async def test_a_stream_that_falls_silent_is_unreachable(pki: Pki) -> None:
    heard, error = await listen(pki, once(HEAD + LINE), silence_seconds=SHORT_SECONDS)
    assert heard == [Change(kind=ChangeKind.ALIVE, counter=1)]
    assert isinstance(error, PeerUnreachable)
    assert str(error).endswith("no answer in time")


@pytest.mark.parametrize(
    "line",
    [b"garbage\n", b"{}\n", b"\xff\n", b'{"kind":"\xff","counter":1}\n', b'{"kind":"None","counter":1}\n',
     b"[" * 4000 + b"\n", b'{"unknown":' + b"[" * 4000 + b"\n"],
)  # fmt: skip
async def test_a_line_that_is_no_message_is_malformed(pki: Pki, line: bytes) -> None:
    heard, error = await listen(pki, once(HEAD + LINE + line))
    assert len(heard) == 1
    assert isinstance(error, PeerMalformed)
    assert "no Change" in str(error)


@pytest.mark.parametrize("size", [5000, 3_000_000], ids=["over our bound", "over the reader's"])
@pytest.mark.parametrize("end", [b"\n", b""], ids=["ended", "endless"])
async def test_an_oversized_line_is_malformed(pki: Pki, size: int, end: bytes) -> None:
    _, error = await listen(pki, once(HEAD + b" " * size + end))
    assert isinstance(error, PeerMalformed)
    assert str(error) == "/v1/changes: a line is over 4096 bytes"


async def test_a_stream_that_is_refused_says_why(pki: Pki) -> None:
    _, error = await listen(pki, once(said(b'{"code":"TooManyStreams"}', "429 Too Many Requests")))
    assert isinstance(error, PeerRefused)
    assert error.problem.code == "TooManyStreams"


async def test_a_stream_that_ends_just_ends(pki: Pki) -> None:
    async def ends(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(HEAD + LINE)
        writer.write_eof() if writer.can_write_eof() else writer.close()
        await writer.wait_closed()

    async with peer(ends, pki.agent.server_context()) as port, client(pki, port) as asking:
        lines = asking.lines("/v1/changes", Change, silence_seconds=LONG_SECONDS)
        assert [change.counter async for change in lines] == [1]
