"""HTTP/1.1 on uvicorn's httptools protocol, plus what ASGI does not hand on: the peer, and bounds on the head."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Final

from uvicorn import Config
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from chatelaine.gateway import problems
from chatelaine.gateway.connections import Connection, Connections
from chatelaine.gateway.errors import PeerUnknown
from chatelaine.gateway.limits import IDLE_SECONDS, MAX_HEADERS, MAX_HEADERS_BYTES, MAX_URL_BYTES
from chatelaine.gateway.peer import Peer

EXTENSION: Final = "chatelaine.connection"

Identify = Callable[[asyncio.BaseTransport], Peer]
"""Tells the peer of a transport; raises `PeerUnknown`."""


class _HeadTooLarge(Exception):
    """Raised inside the parser's callbacks; httptools turns it into a parse error."""


_HEADS: Final = {status: line + b"cache-control: no-store\r\ncontent-type: " for status, line in STATUS_LINE.items()}


def cycle_of(send: object) -> RequestResponseCycle | None:
    """The request that an ASGI `send` belongs to: uvicorn hands out a method of it. None for any other server."""
    cycle = getattr(send, "__self__", None)
    return cycle if isinstance(cycle, RequestResponseCycle) else None


async def write_answer(
    cycle: RequestResponseCycle, status: int, body: bytes, content_type: bytes, *, closes: bool
) -> None:
    """Head and body in one write, hence one TLS record: what ASGI's two messages cost is a tenth of a signature."""
    if cycle.flow.write_paused and not cycle.disconnected:
        await cycle.flow.drain()
    if cycle.disconnected:
        return
    cycle.keep_alive = cycle.keep_alive and not closes
    cycle.response_started = cycle.response_complete = True
    cycle.waiting_for_100_continue = False
    ending = b"\r\n\r\n" if cycle.keep_alive else b"\r\nconnection: close\r\n\r\n"
    head = b"%s%s\r\ncontent-length: %d%s" % (_HEADS[status], content_type, len(body), ending)
    cycle.transport.write(head if cycle.scope["method"] == "HEAD" else head + body)
    cycle.message_event.set()
    if not cycle.keep_alive:
        cycle.transport.close()
    cycle.on_response()


def uvicorn_config(app: Any) -> Config:
    """Only what the protocol class reads; uvicorn's server, its logging and its proxy headers are not used."""
    config = Config(
        app=app,
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        date_header=False,
        ws="none",
        lifespan="off",
        interface="asgi3",
        timeout_keep_alive=int(IDLE_SECONDS),
    )
    config.load()
    return config


class GatewayProtocol(HttpToolsProtocol):
    """One connection. Puts its `Connection` into `scope["extensions"][EXTENSION]`."""

    def __init__(
        self,
        config: Config,
        state: ServerState,
        loop: asyncio.AbstractEventLoop,
        connections: Connections,
        identify: Identify,
    ) -> None:
        super().__init__(config, state, {}, loop)
        self._connections = connections
        self._identify = identify
        self._connection: Connection | None = None
        self._extensions: dict[str, Connection] = {}
        self._head_bytes = 0
        self._headers = 0
        self._head_too_large = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Read the peer's certificate once, and take the connection only if there is room."""
        super().connection_made(transport)  # type: ignore[arg-type]  # uvicorn narrows asyncio's signature
        try:
            connection = Connection(self, self._identify(transport), self.loop.time())
        except PeerUnknown:
            self.transport.abort()
            return
        if not self._connections.admit(connection):
            self.transport.abort()
            return
        self._connection = connection
        self._extensions = {EXTENSION: connection}

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        super().connection_lost(exc)
        if self._connection is not None:
            self._connections.forget(self._connection)

    def data_received(self, data: bytes) -> None:
        """Bytes of a connection that was not taken are dropped."""
        if self._connection is not None:
            super().data_received(data)

    def on_message_begin(self) -> None:
        """The first byte of a request: its time runs."""
        super().on_message_begin()
        self.scope["extensions"] = self._extensions  # type: ignore[typeddict-item]  # ASGI lets servers add some
        self._head_bytes = 0
        self._headers = 0
        if self._connection is not None and not self._connection.request_since:
            self._connection.request_since = self.loop.time()

    def on_url(self, url: bytes) -> None:
        """Bounded before it is kept."""
        if len(self.url) + len(url) > MAX_URL_BYTES:
            self._head_too_large = True
            raise _HeadTooLarge
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Bounded before it is kept."""
        self._head_bytes += len(name) + len(value)
        self._headers += 1
        if self._head_bytes > MAX_HEADERS_BYTES or self._headers > MAX_HEADERS:
            self._head_too_large = True
            raise _HeadTooLarge
        super().on_header(name, value)

    def on_response_complete(self) -> None:
        """The answer is out: idle, or already the next request's turn."""
        connection = self._connection
        if connection is not None:
            now = self.loop.time()
            connection.request_since = now if self.pipeline else 0.0
            connection.idle_since = now
        super().on_response_complete()

    def send_400_response(self, msg: str) -> None:
        """A problem document instead of uvicorn's text."""
        code = problems.HEADERS_TOO_LARGE if self._head_too_large else problems.BAD_REQUEST
        refusal = problems.Refusal(code, msg)
        body = refusal.document()
        head = b"content-type: application/problem+json\r\nconnection: close\r\ncontent-length: %d\r\n\r\n" % len(body)
        self.transport.write(STATUS_LINE[refusal.status] + head + body)
        self.transport.close()

    def close_when_idle(self) -> None:
        """See `Line`."""
        connection = self._connection
        if connection is not None and connection.request_since and (self.cycle is None or self.cycle.response_complete):
            return  # a request is on its way in; it gets its answer, which ends the connection
        self.shutdown()

    def cut(self) -> None:
        """See `Line`."""
        self.transport.abort()
