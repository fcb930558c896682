"""Peers that do as a script says, for tests of our client: slow, huge, mute, strangers."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from chatelaine.model.identifiers import OPERATOR_SERVER_NAME, agent_server_name
from chatelaine.pki.leaf import ProcessLeaf
from chatelaine.wire.messages import Activated, Activation, Change
from chatelaine.wire.peer import (
    PeerClient,
    PeerError,
    Target,
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


def said(body: bytes, status: str = "200 OK", *headers: str, length: int | None = None) -> bytes:
    """An answer in HTTP; `length`: what it says of its own."""
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
    """The operator's client for such a peer."""
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
            await follow(asking, heard, silence_seconds)
        return heard, error.value


async def follow(asking: PeerClient, heard: list[Change], silence_seconds: float = LONG_SECONDS) -> None:
    """Hear a stream to its end."""
    async for change in asking.lines("/v1/changes", Change, silence_seconds=silence_seconds):
        heard.append(change)  # noqa: PERF401 - what came before an error counts too


def activation() -> Activation:
    """A request with a secret in it."""
    return Activation(credential_blob=b"blob", encrypted_secret=b"secret")


def listening(heard: list[bytes]) -> Script:
    """Notes whether anything was told."""

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heard.append(await reader.read(1))
        writer.write(said(GOOD))
        await writer.drain()

    return script


@asynccontextmanager
async def plain(script: Script) -> AsyncIterator[int]:
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
