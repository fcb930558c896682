"""The answering side of our messages on aiohttp: bounded typed bodies in, messages and problem documents out."""

from __future__ import annotations

import asyncio
import ssl
import weakref
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar, cast

from aiohttp import web

from chatelaine.wire.errors import MessageMalformed, VersionNotSupported
from chatelaine.wire.messages import Message, Problem, decode, encode

M = TypeVar("M", bound=Message)

BODY_SECONDS: Final = 10.0
HANDSHAKE_SECONDS: Final = 10.0
CLOSE_SECONDS: Final = 1.0
_CHUNK_BYTES: Final = 16384
_BACKLOG: Final = 128
_ARRIVAL_SECONDS: Final = 0.01


class Refused(Exception):
    """The request is answered with a problem document. `closes` ends the connection too."""

    def __init__(self, status: int, code: str, detail: str = "", *, closes: bool = False) -> None:
        super().__init__(f"{status} {code}: {detail}")
        self.problem = Problem(title=code, status=status, code=code, detail=detail)
        self.closes = closes


def answer(message: Message) -> web.Response:
    """200 with a message."""
    return web.Response(body=encode(message), content_type="application/json")


def refusal(refused: Refused) -> web.Response:
    """A problem document (RFC 9457)."""
    problem = refused.problem
    response = web.Response(body=encode(problem), status=problem.status, content_type="application/problem+json")
    if refused.closes:
        response.force_close()
    return response


async def read(request: web.Request, kind: type[M], *, max_bytes: int) -> M:
    """The request's body as a message; bounded before it is parsed.

    Raises:
        Refused: too large, too slow, compressed, no such message, or of a version that is not understood.
    """
    body = await _bounded_body(request, max_bytes)
    try:
        return decode(body, kind)
    except VersionNotSupported as error:
        raise Refused(400, "VersionNotSupported", str(error)) from error
    except MessageMalformed as error:
        raise Refused(400, "BadRequest", str(error)) from error


async def _bounded_body(request: web.Request, max_bytes: int) -> bytes:
    if request.headers.get("Content-Encoding", "identity") != "identity":
        raise Refused(415, "UnsupportedMediaType", "bodies are not compressed", closes=True)
    if (request.content_length or 0) > max_bytes:
        raise Refused(413, "BodyTooLarge", f"at most {max_bytes} bytes", closes=True)
    body = bytearray()
    try:
        async with asyncio.timeout(BODY_SECONDS):
            async for chunk in request.content.iter_chunked(_CHUNK_BYTES):
                body += chunk
                if len(body) > max_bytes:
                    raise Refused(413, "BodyTooLarge", f"at most {max_bytes} bytes", closes=True)
    except TimeoutError:
        raise Refused(408, "RequestTimeout", "the body came too slowly", closes=True) from None
    return bytes(body)


@web.middleware
async def problems(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    """Every refusal, ours and aiohttp's own, becomes a problem document."""
    try:
        return await handler(request)
    except Refused as refused:
        return refusal(refused)
    except web.HTTPNotFound:
        return refusal(Refused(404, "NotFound"))
    except web.HTTPMethodNotAllowed:
        return refusal(Refused(405, "MethodNotAllowed"))


def peer_certificate(request: web.Request) -> bytes:
    """The certificate (DER) that the caller proved on this connection; empty when there is none."""
    transport = request.transport
    tls = transport.get_extra_info("ssl_object") if transport is not None else None
    return (tls.getpeercert(binary_form=True) or b"") if tls is not None else b""


class Listener:
    """A TCP listener with TLS in front of an aiohttp application.

    Args:
        app: what to serve.
        context: server context; it may be reloaded while this listens.
    """

    def __init__(self, app: web.Application, context: ssl.SSLContext) -> None:
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=CLOSE_SECONDS, keepalive_timeout=75.0)
        self._context = context
        self._server: asyncio.Server | None = None
        self._arriving: weakref.WeakSet[_Arriving] = weakref.WeakSet()
        self._stopped = False

    async def start(self, host: str, port: int) -> int:
        """Listen; gives the port, also when 0 was asked for.

        Raises:
            OSError: the address cannot be had.
        """
        await self._runner.setup()
        self._server = await asyncio.get_running_loop().create_server(
            self._accept,
            host,
            port,
            ssl=self._context,
            backlog=_BACKLOG,
            ssl_handshake_timeout=HANDSHAKE_SECONDS,
            ssl_shutdown_timeout=CLOSE_SECONDS,
        )
        return int(self._server.sockets[0].getsockname()[1])

    async def stop(self) -> None:
        """Take no more connections, let open requests end, close; also what is in the middle of its handshake."""
        self._stopped = True
        if self._server is not None:
            # asyncio loses a connection that it has accepted in the very turn of the loop in which a server closes.
            for listening in self._server.sockets:
                asyncio.get_running_loop().remove_reader(listening)
            await asyncio.sleep(0)
            self._server.close()
        await self._runner.cleanup()
        # A handshake cannot be ended from here; whoever ends it in time finds the door shut, the others run out.
        deadline = asyncio.get_running_loop().time() + CLOSE_SECONDS
        while self._arriving and asyncio.get_running_loop().time() < deadline:  # noqa: ASYNC110 - a failed one tells nobody
            await asyncio.sleep(_ARRIVAL_SECONDS)

    def _accept(self) -> asyncio.Protocol:
        arriving = _Arriving(self._arrived)
        self._arriving.add(arriving)
        return arriving

    def _arrived(self, arriving: _Arriving, transport: asyncio.Transport) -> None:
        self._arriving.discard(arriving)
        if self._stopped or self._runner.server is None:
            transport.abort()
            return
        handler = self._runner.server()
        transport.set_protocol(handler)
        handler.connection_made(transport)


class _Arriving(asyncio.Protocol):
    """A connection until its handshake is done. Kept by its transport alone, so one that fails is gone by itself."""

    def __init__(self, arrived: Callable[[_Arriving, asyncio.Transport], None]) -> None:
        self._arrived = arrived

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._arrived(self, cast("asyncio.Transport", transport))
