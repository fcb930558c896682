"""What our client makes of the answers of peers that are slow, huge, mute, or say no."""

from __future__ import annotations

import asyncio
import contextlib
import gzip

import pytest

from chatelaine.wire.messages import Activated, Change
from chatelaine.wire.peer import (
    PeerMalformed,
    PeerRefused,
    PeerUnreachable,
)
from support.scripted_peer import (
    BOUND_BYTES,
    GOOD,
    NAME,
    SHORT_SECONDS,
    Pki,
    Script,
    ask,
    client,
    follow,
    once,
    peer,
    said,
)


async def test_an_answer_carries_the_key_that_the_peer_proved(pki: Pki) -> None:
    async with peer(once(said(GOOD)), pki.agent.server_context()) as port, client(pki, port) as asking:
        answer = await asking.call("GET", "/v1/identity", None, Activated)
    assert (answer.message.secret, answer.peer_spki) == (bytes(3), pki.agent.spki)
    assert answer.peer_not_after == pki.agent.not_after


@pytest.mark.parametrize(
    "script",
    [once(), once(b"HTTP/1.1 200 OK\r\n"), once(said(GOOD[:5], length=len(GOOD)))],
    ids=["nothing", "half a head", "half a body"],
)
async def test_a_peer_that_never_comes_to_an_end_is_unreachable(pki: Pki, script: Script) -> None:
    error = await ask(pki, script, seconds=SHORT_SECONDS)
    assert isinstance(error, PeerUnreachable)
    assert str(error).startswith(f"{NAME} at 127.0.0.1:")
    assert str(error).rsplit(": ", 1)[1]


async def test_a_peer_that_drips_without_end_is_unreachable(pki: Pki) -> None:
    """Each byte is in time, the whole answer is not."""

    async def drips(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(said(b"", length=BOUND_BYTES))
        while True:
            writer.write(b" ")
            await writer.drain()
            await asyncio.sleep(SHORT_SECONDS / 20)

    assert isinstance(await ask(pki, drips, seconds=SHORT_SECONDS), PeerUnreachable)


async def test_a_port_where_nobody_listens_is_unreachable(pki: Pki) -> None:
    async with peer(once(), None) as port:
        pass
    async with client(pki, port) as asking:
        with pytest.raises(PeerUnreachable) as caught:
            await asking.call("GET", "/v1/identity", None, Activated)
    # It stands in conditions: the same fault is told in the same words by every process.
    assert "object at" not in str(caught.value)
    assert "ssl" not in str(caught.value)


async def test_a_peer_that_hangs_up_is_unreachable(pki: Pki) -> None:
    async def hangs_up(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(said(GOOD[:5], length=len(GOOD)))
        await writer.drain()

    assert isinstance(await ask(pki, hangs_up), PeerUnreachable)


@pytest.mark.parametrize(
    "chunks",
    [
        (said(b" " * (BOUND_BYTES + 1)),),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", *[b"400\r\n" + b" " * 1024 + b"\r\n"] * 8),
        (b"HTTP/1.1 200 OK\r\n\r\n" + b" " * (BOUND_BYTES + 1),),
        (said(b" " * (BOUND_BYTES + 1), "500 Internal Server Error"),),
    ],
    ids=["announced", "in chunks", "until closed", "as a problem"],
)
async def test_an_oversized_answer_is_malformed_before_it_is_parsed(pki: Pki, chunks: tuple[bytes, ...]) -> None:
    error = await ask(pki, once(*chunks))
    assert isinstance(error, PeerMalformed)
    assert str(error) == f"/v1/identity: the answer is over {BOUND_BYTES} bytes"


@pytest.mark.parametrize(
    "body",
    [b"", b"garbage", b"{}", b"[]", b'{"secret":1}', b'{"secret":"\xff"}', b'{"unknown":' + b"[" * 4000, GOOD + b"{"],
)
async def test_an_answer_that_is_no_message_is_malformed(pki: Pki, body: bytes) -> None:
    error = await ask(pki, once(said(body)))
    assert isinstance(error, PeerMalformed)
    assert "no Activated" in str(error)


async def test_a_compressed_answer_is_not_unpacked(pki: Pki) -> None:
    body = gzip.compress(GOOD)
    assert isinstance(await ask(pki, once(said(body, "200 OK", "Content-Encoding: gzip"))), PeerMalformed)


async def test_a_refusal_carries_its_problem(pki: Pki) -> None:
    body = b'{"code":"EvidenceBusy","detail":"too many","status":200}'
    error = await ask(pki, once(said(body, "429 Too Many Requests")))
    assert isinstance(error, PeerRefused)
    assert (error.problem.status, error.problem.code) == (429, "EvidenceBusy")
    assert str(error) == "429 EvidenceBusy: too many"


@pytest.mark.parametrize("body", [b"", b"<html>", b"\xff\xfe", b'{"detail":"\xff"}', b'{"unknown":' + b"[" * 4000])
async def test_a_refusal_without_a_problem_document_is_still_a_refusal(pki: Pki, body: bytes) -> None:
    error = await ask(pki, once(said(body, "503 Service Unavailable")))
    assert isinstance(error, PeerRefused)
    assert (error.problem.status, error.problem.code) == (503, "NotAProblemDocument")


async def test_a_refusal_floods_no_log_and_moves_no_cursor(pki: Pki) -> None:
    body = b'{"code":"\\u001b[2J","detail":"' + b"x" * 3000 + b'"}'
    error = await ask(pki, once(said(body, "500 Oops")))
    assert str(error).isprintable()
    assert len(str(error)) < 1024


@pytest.mark.parametrize(
    "raw",
    [
        b"\x00" * 100,
        b"HTTP/9.9 200 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: many\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabcdefgh\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 100_000,
        b"HTTP/1.1 200 OK\r\nX: " + b"y" * 100_000,
        b"HTTP/1.1 200 OK\r\nSet-Cookie: \xff=\xff; expires=never\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Type: \xff/\xff; charset=\xff\r\nLocation: http://[\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n\xff\xff",
        b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    ],
    ids=range(11),
)
async def test_an_answer_that_is_no_http_is_one_of_our_errors(pki: Pki, raw: bytes) -> None:
    async def says(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(raw)
        await writer.drain()
        writer.close()
        await writer.wait_closed()

    assert type(await ask(pki, says)) in (PeerUnreachable, PeerMalformed)
    async with peer(says, pki.agent.server_context()) as port, client(pki, port) as asking:
        heard: list[Change] = []
        with contextlib.suppress(PeerUnreachable, PeerMalformed):
            await follow(asking, heard)
        assert heard == []


async def test_a_redirect_is_not_followed(pki: Pki) -> None:
    error = await ask(pki, once(said(b"", "307 Temporary Redirect", "Location: http://127.0.0.1:1/")))
    assert isinstance(error, PeerRefused)
    assert error.problem.status == 307
