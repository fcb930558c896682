"""What applications talk to: is this request from here, is it one that is forwarded; its body; the gateway's answer.

Nothing of a request goes on but its method, its path (rebuilt) and its body, and nothing of an answer comes back but
status, media type and body: so no header of either side, hop-by-hop or not, reaches the other.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from aiohttp import web

from chatelaine.proxy import limits, problems
from chatelaine.proxy.errors import GatewayNotAuthenticated, GatewayUnreachable, Refused
from chatelaine.proxy.exchange import problem_of
from chatelaine.proxy.line import Reply
from chatelaine.proxy.metrics import CONTENT_TYPE, FORWARDED, Metrics
from chatelaine.proxy.routes import Asked, Own, parse
from chatelaine.proxy.session import Pass, Session

JSON: Final = "application/json"
_INVALID_TOKEN: Final = "ERROR_INVALID_TOKEN"  # noqa: S105 - an error code, not a secret
_FORBIDDEN: Final = 403
_CHUNK_BYTES: Final = 65536
_FROM_PAGES: Final = ("Origin", "Sec-Fetch-Site", "Sec-Fetch-Mode")
"""Browsers add these by themselves, and pages cannot take them off."""


class KeysApp:
    """Handler of the socket that applications use.

    Args:
        session: where the token is.
        metrics: where requests are counted.
        hosts: values of `Host` that are taken; None on a Unix socket, where no browser and no name leads.
    """

    def __init__(self, session: Session, metrics: Metrics, hosts: frozenset[str] | None) -> None:
        self._session = session
        self._metrics = metrics
        self._hosts = hosts
        self._in_flight = 0

    async def __call__(self, request: web.BaseRequest) -> web.StreamResponse:
        """One request."""
        operation = "None"
        try:
            self._require_from_here(request)
            asked = parse(request.method, request.raw_path)
            if isinstance(asked, Own):
                return own(asked, self._session)
            operation = asked.operation
            with self._room():
                body = await _body(request)
                reply = await self._forwarded(asked, body if asked.method == "POST" else b"")
        except Refused as refused:
            response = refusal(refused)
            self._metrics.request(operation, refused.problem_code, response.status)
            return response
        self._metrics.request(operation, FORWARDED, reply.status)
        kind = reply.content_type if reply.content_type in (JSON, problems.CONTENT_TYPE) else "application/octet-stream"
        return _answer(reply.status, reply.body, kind)

    def _require_from_here(self, request: web.BaseRequest) -> None:
        for name in _FROM_PAGES:
            if name in request.headers:
                raise Refused(
                    f"the header {name} says that a web page in a browser asks; only programs of this pod are served",
                    problems.NOT_FROM_HERE,
                )
        if self._hosts is None:
            return
        # A name that leads to loopback (DNS rebinding) makes a page and this socket one origin: then Host is that name.
        said = request.headers.getall("Host", [])
        if len(said) != 1 or said[0].lower() not in self._hosts:
            raise Refused(
                f"the header Host must be one of {', '.join(sorted(self._hosts))}: ask this address by no other name",
                problems.NOT_FROM_HERE,
            )

    @contextmanager
    def _room(self) -> Iterator[None]:
        if self._in_flight >= limits.MAX_IN_FLIGHT:
            raise Refused(f"{limits.MAX_IN_FLIGHT} requests are under way already; ask again", problems.BUSY)
        self._in_flight += 1
        try:
            yield
        finally:
            self._in_flight -= 1

    async def _forwarded(self, asked: Asked, body: bytes) -> Reply:
        """Sent once more where that is safe: no operation changes anything, and a refused one was not done."""
        used = await self._session.current()
        path = asked.path(self._session.claim)
        try:
            reply = await _sent(used, asked.method, path, body)
        except (GatewayUnreachable, GatewayNotAuthenticated):
            reply = None
        if reply is not None and not (reply.status == _FORBIDDEN and problem_of(reply).code == _INVALID_TOKEN):
            return reply
        self._metrics.repeated.inc()
        fresh = await self._session.another(used)
        return await _sent(fresh, asked.method, asked.path(self._session.claim), body)


async def _sent(used: Pass, method: str, path: str, body: bytes) -> Reply:
    headers = {"authorization": f"Bearer {used.bearer}", "accept": JSON}
    if method == "POST":
        headers["content-type"] = JSON
    return await used.line.call(method, path, body, headers)


class ProbesApp:
    """Handler of the listener for the kubelet and Prometheus. No key is reached through it."""

    def __init__(self, session: Session, metrics: Metrics) -> None:
        self._session = session
        self._metrics = metrics

    async def __call__(self, request: web.BaseRequest) -> web.StreamResponse:
        """One request."""
        if request.method != "GET":
            return refusal(Refused("use GET", problems.METHOD_NOT_ALLOWED))
        if request.raw_path == Own.METRICS:
            return web.Response(body=self._metrics.text(), headers={"content-type": CONTENT_TYPE})
        if request.raw_path not in (Own.HEALTH, Own.READY):
            return refusal(Refused("expected /healthz, /readyz or /metrics", problems.NOT_FOUND))
        return own(Own(request.raw_path), self._session)


def own(asked: Own, session: Session) -> web.Response:
    """Health and readiness. Ready: a request that comes now is forwarded."""
    missing = session.state() if asked is Own.READY else None
    if missing is not None:
        return refusal(missing)
    return _answer(200, json.dumps({"ready": session.state() is None, "claim": session.claim}).encode(), JSON)


def refusal(refused: Refused) -> web.Response:
    """A problem document (RFC 9457)."""
    kind = problems.KINDS[refused.problem_code]
    body = problems.document(refused.problem_code, refused.detail)
    response = _answer(kind.status, body, problems.CONTENT_TYPE)
    if kind.retry:
        response.headers["retry-after"] = str(limits.RETRY_AFTER_SECONDS)
    if refused.problem_code in (problems.BODY_TOO_LARGE, problems.REQUEST_TIMEOUT):
        response.force_close()
    return response


def _answer(status: int, body: bytes, content_type: str) -> web.Response:
    return web.Response(body=body, status=status, content_type=content_type, headers={"cache-control": "no-store"})


async def _body(request: web.BaseRequest) -> bytes:
    if request.headers.get("Content-Encoding", "identity") != "identity":
        raise Refused("bodies are not compressed: leave Content-Encoding out")
    too_large = Refused(
        f"at most {limits.MAX_BODY_BYTES} bytes; of a longer message send the SHA-256 as input, with prehashed: true",
        problems.BODY_TOO_LARGE,
    )
    if (request.content_length or 0) > limits.MAX_BODY_BYTES:
        raise too_large
    body = bytearray()
    try:
        async with asyncio.timeout(limits.BODY_SECONDS):
            async for chunk in request.content.iter_chunked(_CHUNK_BYTES):
                body += chunk
                if len(body) > limits.MAX_BODY_BYTES:
                    raise too_large
    except TimeoutError:
        raise Refused(f"the body was not whole within {limits.BODY_SECONDS:.0f} s", problems.REQUEST_TIMEOUT) from None
    return bytes(body)
