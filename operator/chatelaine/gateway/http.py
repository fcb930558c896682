"""The little of ASGI that the gateway's three applications share: bounded bodies in, answers out."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Final, TypeVar, cast

from chatelaine.gateway import problems
from chatelaine.gateway.connections import Connection
from chatelaine.gateway.errors import PeerGone
from chatelaine.gateway.problems import Refusal
from chatelaine.gateway.protocol import EXTENSION, cycle_of, write_answer
from chatelaine.wire.errors import MessageMalformed, VersionNotSupported
from chatelaine.wire.messages import LINES_MEDIA_TYPE, Message, decode

Scope = MutableMapping[str, Any]
Event = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Event]]
Send = Callable[[Event], Awaitable[None]]
M = TypeVar("M", bound=Message)

JSON: Final = b"application/json"
LINES: Final = (b"content-type", LINES_MEDIA_TYPE.encode())
NO_STORE: Final = (b"cache-control", b"no-store")


def connection_of(scope: Scope) -> Connection:
    """The connection that a request came on."""
    return cast("Connection", scope["extensions"][EXTENSION])


def header(scope: Scope, name: bytes) -> bytes | None:
    """The one header of that name.

    Raises:
        Refusal: it occurs twice; of two, no reader can say which one another reader takes.
    """
    found: bytes | None = None
    for key, value in scope["headers"]:
        if key == name:
            if found is not None:
                raise Refusal(problems.BAD_REQUEST, f"the header {name.decode()} occurs twice")
            found = value
    return found


def require_method(scope: Scope, method: str) -> None:
    """Refuse any other method.

    Raises:
        Refusal: `ERROR_METHOD_NOT_ALLOWED`.
    """
    if scope["method"] != method:
        raise Refusal(problems.METHOD_NOT_ALLOWED, f"use {method}")


async def read_body(scope: Scope, receive: Receive, max_bytes: int) -> bytes:
    """The whole body, bounded while it is read.

    Raises:
        Refusal: `ERROR_BODY_TOO_LARGE`.
        PeerGone: it closed too early.
    """
    length = header(scope, b"content-length")
    if length is not None and (len(length) > 10 or not length.isdigit() or int(length) > max_bytes):
        raise Refusal(problems.BODY_TOO_LARGE, f"at most {max_bytes} bytes")
    event = await receive()
    if event["type"] == "http.request" and not event["more_body"]:
        body = cast("bytes", event["body"])
        if len(body) > max_bytes:
            raise Refusal(problems.BODY_TOO_LARGE, f"at most {max_bytes} bytes")
        return body
    parts: list[bytes] = []
    size = 0
    while True:
        if event["type"] == "http.disconnect":
            raise PeerGone
        size += len(event["body"])
        if size > max_bytes:
            raise Refusal(problems.BODY_TOO_LARGE, f"at most {max_bytes} bytes")
        parts.append(event["body"])
        if not event["more_body"]:
            return b"".join(parts)
        event = await receive()


def decode_message(body: bytes, kind: type[M]) -> M:
    """A message of ours in a version that is understood.

    Raises:
        Refusal: `VersionNotSupported`, `ERROR_BAD_REQUEST`.
    """
    try:
        return decode(body, kind)
    except VersionNotSupported as error:
        raise Refusal(problems.VERSION_NOT_SUPPORTED, str(error)) from error
    except MessageMalformed as error:
        raise Refusal(problems.BAD_REQUEST, str(error)) from error


async def answer(send: Send, status: int, body: bytes, content_type: bytes = JSON, *, closes: bool = False) -> None:
    """A whole answer; with `closes` the connection ends after it."""
    cycle = cycle_of(send)
    if cycle is not None:
        await write_answer(cycle, status, body, content_type, closes=closes)
        return
    headers = [(b"content-type", content_type), NO_STORE, (b"content-length", b"%d" % len(body))]
    if closes:
        headers.append((b"connection", b"close"))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def answer_refusal(send: Send, refusal: Refusal) -> None:
    """A problem document; some end the connection."""
    await answer(send, refusal.status, refusal.document(), problems.CONTENT_TYPE, closes=refusal.closes)
