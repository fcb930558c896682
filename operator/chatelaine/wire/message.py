"""What all messages have in common: their base, their version, and how they become bytes."""

from __future__ import annotations

from typing import Final, TypeVar

import msgspec

from chatelaine.wire.errors import MessageMalformed, VersionNotSupported

VERSION: Final = 1
SUPPORTED_VERSIONS: Final = (1,)


class Message(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """Base of all messages: immutable, camelCase on the wire."""


class Problem(Message, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """RFC 9457 problem document. `code` is stable."""

    type: str = "about:blank"
    title: str = ""
    status: int = 500
    code: str = "Internal"
    detail: str = ""


def encode(message: Message) -> bytes:
    """JSON bytes of a message."""
    return msgspec.json.encode(message)


M = TypeVar("M", bound=Message)


def decode(body: bytes, kind: type[M]) -> M:
    """A message of that kind. Its size was bounded by whoever read it.

    Raises:
        VersionNotSupported: of kinds that carry `v`, another version; nothing else of it was looked at.
        MessageMalformed: anything else that keeps it from being one.
    """
    try:
        if "v" in kind.__struct_fields__:
            version = msgspec.json.decode(body, type=_Versioned).v
            if version not in SUPPORTED_VERSIONS:
                raise VersionNotSupported(f"understood: {', '.join(map(str, SUPPORTED_VERSIONS))}")
        return msgspec.json.decode(body, type=kind)
    # Deep nesting and text that is no UTF-8 get their own errors from msgspec, which are no DecodeErrors.
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise MessageMalformed(f"no {kind.__name__}: {error}") from error


class _Versioned(msgspec.Struct, frozen=True):
    v: int = VERSION
