"""The client of our processes against peers that are slow, huge, mute, strangers, or say no."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from chatelaine.model.identifiers import OPERATOR_SERVER_NAME, agent_server_name
from chatelaine.pki.leaf import ProcessLeaf
from chatelaine.wire.messages import Activated, Activation, Change, ChangeKind
from chatelaine.wire.peer import (
    PeerClient,
    PeerError,
    PeerMalformed,
    PeerNotAuthenticated,
    PeerRefused,
    PeerUnreachable,
    Target,
    _key_of,
)
from support.pki import new_authority, new_leaf

NAME = agent_server_name("hsm-a")
LONG_SECONDS = 20.0
SHORT_SECONDS = 0.3
BOUND_BYTES = 4096
GOOD = b'{"secret":"AAAA"}'

Script = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class Pki:
    """A CA, and the leaves that matter here."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.authority = new_authority()
        self.agent = new_leaf(self.authority, folder / "agent", NAME)
        self.operator = new_leaf(self.authority, folder / "operator", OPERATOR_SERVER_NAME)


@pytest.fixture
def pki(tmp_path: Path) -> Pki:
    return Pki(tmp_path)


def said(body: bytes, status: str = "200 OK", *headers: str, length: int | None = None) -> bytes:
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body) if length is None else length}", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


@asynccontextmanager
async def peer(script: Script, context: ssl.SSLContext | None) -> AsyncIterator[int]:
    """A listener that reads the head of a request and then does as the script says; gives its port."""
    running: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        running.add(task)
        try:
            await reader.readuntil(b"\r\n\r\n")
            await script(reader, writer)
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.transport.abort()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)


def client(
    pki: Pki,
    port: int,
    *,
    seconds: float = LONG_SECONDS,
    leaf: ProcessLeaf | None = None,
    admits: Callable[[bytes], bool] | None = None,
) -> PeerClient:
    return PeerClient(
        Target("127.0.0.1", port, NAME),
        (leaf or pki.operator).client_context(),
        timeout_seconds=seconds,
        max_answer_bytes=BOUND_BYTES,
        admits=admits,
    )


def once(*chunks: bytes) -> Script:
    """Say this, then wait to be closed."""

    async def script(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for chunk in chunks:
            writer.write(chunk)
            await writer.drain()
        await asyncio.Event().wait()

    return script


async def ask(pki: Pki, script: Script, *, seconds: float = LONG_SECONDS) -> PeerError:
    """How one call to such a peer ends."""
    async with peer(script, pki.agent.server_context()) as port, client(pki, port, seconds=seconds) as asking:
        with pytest.raises(PeerError) as error:
            await asking.call("GET", "/v1/identity", None, Activated)
        return error.value


async def listen(pki: Pki, script: Script, *, silence_seconds: float = LONG_SECONDS) -> tuple[list[Change], PeerError]:
    """What a stream from such a peer gave before it ended, and how it ended."""
    heard: list[Change] = []
    async with peer(script, pki.agent.server_context()) as port, client(pki, port) as asking:
        with pytest.raises(PeerError) as error:
            await _follow(asking, heard, silence_seconds)
        return heard, error.value


async def _follow(asking: PeerClient, heard: list[Change], silence_seconds: float = LONG_SECONDS) -> None:
    async for change in asking.lines("/v1/changes", Change, silence_seconds=silence_seconds):
        heard.append(change)  # noqa: PERF401 - what came before an error counts too


# --- answers


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
        with pytest.raises(PeerUnreachable):
            await asking.call("GET", "/v1/identity", None, Activated)


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
            await _follow(asking, heard)
        assert heard == []


async def test_a_redirect_is_not_followed(pki: Pki) -> None:
    error = await ask(pki, once(said(b"", "307 Temporary Redirect", "Location: http://127.0.0.1:1/")))
    assert isinstance(error, PeerRefused)
    assert error.problem.status == 307


# --- who the peer is


async def test_a_peer_of_another_ca_is_not_authenticated_and_told_nothing(pki: Pki, tmp_path: Path) -> None:
    heard: list[bytes] = []
    stranger = new_leaf(new_authority(), tmp_path / "stranger", NAME)
    async with peer(_listening(heard), stranger.server_context()) as port, client(pki, port) as asking:
        with pytest.raises(PeerNotAuthenticated):
            await asking.call("POST", "/v1/activate", _activation(), Activated)
    assert heard == []


async def test_a_peer_with_another_name_is_not_authenticated_and_told_nothing(pki: Pki) -> None:
    heard: list[bytes] = []
    other = new_leaf(pki.authority, pki.folder / "other", agent_server_name("hsm-b"))
    async with peer(_listening(heard), other.server_context()) as port, client(pki, port) as asking:
        with pytest.raises(PeerNotAuthenticated):
            await asking.call("POST", "/v1/activate", _activation(), Activated)
        with pytest.raises(PeerNotAuthenticated):
            await anext(asking.lines("/v1/changes", Change, silence_seconds=LONG_SECONDS))
    assert heard == []


async def test_a_key_that_is_not_admitted_is_told_nothing(pki: Pki) -> None:
    heard: list[bytes] = []
    asked: list[bytes] = []

    def admits(spki: bytes) -> bool:
        asked.append(spki)
        return False

    async with peer(_listening(heard), pki.agent.server_context()) as port, client(pki, port, admits=admits) as asking:
        with pytest.raises(PeerNotAuthenticated, match="not the key that was attested"):
            await asking.call("POST", "/v1/activate", _activation(), Activated)
    assert asked == [pki.agent.spki]
    assert heard == []


@pytest.mark.parametrize("der", [b"", b"junk", b"\x30\x03\x02\x01\x01"])
def test_a_certificate_that_cannot_be_read_authenticates_nobody(der: bytes) -> None:
    with pytest.raises(PeerNotAuthenticated):
        _key_of(der)


async def test_a_peer_without_tls_is_not_authenticated(pki: Pki) -> None:
    async def greets(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(said(GOOD))

    async with _plain(greets) as port, client(pki, port) as asking:
        with pytest.raises(PeerNotAuthenticated):
            await asking.call("GET", "/v1/identity", None, Activated)


async def test_a_peer_that_does_not_accept_our_certificate_gives_no_answer(pki: Pki, tmp_path: Path) -> None:
    """In TLS 1.3 it says so only after the handshake, by an alert or by hanging up."""
    stranger = new_leaf(new_authority(), tmp_path / "stranger", OPERATOR_SERVER_NAME)
    context = stranger.client_context()
    context.load_verify_locations(cadata=pki.authority.bundle_pem)
    async with peer(once(said(GOOD)), pki.agent.server_context()) as port:
        asking = PeerClient(
            Target("127.0.0.1", port, NAME), context, timeout_seconds=LONG_SECONDS, max_answer_bytes=BOUND_BYTES
        )
        async with asking:
            with pytest.raises((PeerNotAuthenticated, PeerUnreachable)):
                await asking.call("GET", "/v1/identity", None, Activated)


# --- streams


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


def _activation() -> Activation:
    return Activation(credential_blob=b"blob", encrypted_secret=b"secret")


def _listening(heard: list[bytes]) -> Script:
    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heard.append(await reader.read(1))
        writer.write(said(GOOD))
        await writer.drain()

    return script


@asynccontextmanager
async def _plain(script: Script) -> AsyncIterator[int]:
    """A listener that speaks at once, in clear."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await script(reader, writer)
            await writer.drain()
            await reader.read()
        except OSError:
            pass
        finally:
            writer.transport.abort()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
