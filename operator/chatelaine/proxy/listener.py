"""HTTP on a socket that is there already: bounded connections and heads, an end that loses no answer."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Awaitable, Callable

from aiohttp import web

from chatelaine.proxy.limits import (
    CLOSE_SECONDS,
    IDLE_SECONDS,
    MAX_CONNECTIONS,
    MAX_HEADERS,
    MAX_LINE_BYTES,
    STOP_SECONDS,
)

Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]


class Listener:
    """Serves one handler.

    Args:
        handler: answers each request.
    """

    def __init__(self, handler: Handler) -> None:
        self._handler = handler
        self._under_way = 0
        self._quiet = asyncio.Event()
        self._stopping = False
        self._web = web.Server(
            self._handle,
            access_log=None,
            keepalive_timeout=IDLE_SECONDS,
            max_line_size=MAX_LINE_BYTES,
            max_field_size=MAX_LINE_BYTES,
            max_headers=MAX_HEADERS,
            auto_decompress=False,
        )
        self._server: asyncio.Server | None = None

    def __len__(self) -> int:
        """Open connections."""
        return len(self._web.connections)

    async def start(self, listening: socket.socket) -> None:
        """Take connections."""
        loop = asyncio.get_running_loop()
        listening.setblocking(False)
        if listening.family is socket.AF_UNIX:
            self._server = await loop.create_unix_server(self._accept, sock=listening)
        else:
            self._server = await loop.create_server(self._accept, sock=listening)

    async def stop(self) -> None:
        """Take no more connections, let requests under way end in `STOP_SECONDS`, close."""
        if self._server is None:
            return
        # asyncio loses a connection that it has accepted in the very turn of the loop in which a server closes.
        for listening in self._server.sockets:
            asyncio.get_running_loop().remove_reader(listening)
        await asyncio.sleep(0)
        self._server.close()
        # aiohttp's own end would stop reading at once: a request whose body is on its way would be lost.
        self._stopping = True
        if self._under_way:
            self._quiet.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(STOP_SECONDS):
                    await self._quiet.wait()
        self._web.pre_shutdown()
        await self._web.shutdown(CLOSE_SECONDS)

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        self._under_way += 1
        try:
            response = await self._handler(request)
        finally:
            self._under_way -= 1
            if not self._under_way:
                self._quiet.set()
        if self._stopping:
            response.force_close()
        return response

    def _accept(self) -> asyncio.Protocol:
        return self._web() if len(self) < MAX_CONNECTIONS else _Full()


class _Full(asyncio.Protocol):
    """There is no room for this connection."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Close it."""
        if isinstance(transport, asyncio.Transport):
            transport.abort()
