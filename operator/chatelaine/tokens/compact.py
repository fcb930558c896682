"""Strict reading of a compact JWS (RFC 7515 section 7.1) before any signature is looked at.

Stricter than the RFC: one spelling per value (canonical base64url), no duplicate member at any depth, no floats,
no `NaN`. So two parsers can never read two meanings out of one token.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from dataclasses import dataclass
from typing import Any, Final, NoReturn

from chatelaine.tokens.errors import HeaderRefused, TokenMalformed, TokenTooLarge

_HEADER_MEMBERS: Final = frozenset({"alg", "kid", "typ"})
_COMPACT: Final = re.compile(rb"([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]+)", re.ASCII)
_UNSIGNED: Final = re.compile(rb"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.", re.ASCII)


@dataclass(frozen=True, slots=True)
class CompactJws:
    """The three parts, decoded. `header` and `payload` are JSON objects."""

    header: dict[str, Any]
    payload: dict[str, Any]
    signature: bytes


def parse(token: bytes, *, max_bytes: int) -> CompactJws:
    """Read a compact JWS; verifies nothing.

    Raises:
        TokenTooLarge: `token` is over `max_bytes`.
        TokenMalformed: anything else that is not as the module says. A token with an empty signature (`alg: none`)
            is malformed too, so it never reaches an algorithm.
    """
    if len(token) > max_bytes:
        raise TokenTooLarge(f"the token has {len(token)} bytes, at most {max_bytes} are read")
    match = _COMPACT.fullmatch(token)
    if match is None:
        what = "has no signature" if _UNSIGNED.fullmatch(token) else "is not three base64url parts"
        raise TokenMalformed(f"the token {what}")
    header, payload, signature = match.groups()
    return CompactJws(_json_object(_decoded(header)), _json_object(_decoded(payload)), _decoded(signature))


def check_members(header: dict[str, Any]) -> None:
    """No member but those that we read: `crit`, `jwk`, `jku`, `x5c` change how a token is read, or bring a key along.

    Raises:
        HeaderRefused: there is another one.
    """
    others = header.keys() - _HEADER_MEMBERS
    if others:
        raise HeaderRefused("a header member that is not taken: " + ", ".join(sorted(others)))


def encode(data: bytes) -> bytes:
    """Base64url without padding."""
    return base64.urlsafe_b64encode(data).rstrip(b"=")


def _decoded(part: bytes) -> bytes:
    try:
        data = base64.urlsafe_b64decode(part + b"=" * (-len(part) % 4))
    except binascii.Error as error:
        raise TokenMalformed("a part is not base64url") from error
    if encode(data) != part:
        raise TokenMalformed("a part is not in its one canonical base64url spelling")
    return data


def _json_object(data: bytes) -> dict[str, Any]:
    try:
        value = json.loads(
            data.decode("utf-8"), object_pairs_hook=_no_duplicates, parse_constant=_refuse, parse_float=_refuse
        )
    except (ValueError, RecursionError) as error:
        raise TokenMalformed("a part is not JSON as we read it") from error
    if not isinstance(value, dict):
        raise TokenMalformed("a part is JSON, but no object")
    return value


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise TokenMalformed("a member occurs twice")
    return members


def _refuse(_: str) -> NoReturn:
    raise TokenMalformed("a number is not an integer")
