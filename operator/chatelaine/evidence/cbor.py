"""Deterministic CBOR (RFC 8949 §4.2), and nothing else: one value, one encoding.

Only what our structures use: unsigned and negative integers, byte and text strings, arrays, maps with text keys,
booleans and null. Tags and floats are refused: they would bring a second way of saying the same, and code to run.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final, NoReturn

import cbor2

from chatelaine.evidence.errors import Malformed, NotCanonical, Oversized
from chatelaine.evidence.reader import bounded

MAX_DEPTH: Final = 8

BUILT_IN_TAGS: Final = (0, 1, 2, 3, 4, 5, 25, 28, 29, 30, 35, 36, 37, 100, 256, 258, 260, 261, 1004, 43000, 55799)


def encode(value: object) -> bytes:
    """`value` (dicts with text keys, lists, tuples, bytes, str, int, bool, None) as deterministic CBOR."""
    return cbor2.dumps(value, canonical=True)


def decode(data: bytes, *, limit_bytes: int, what: str, max_items: int | None = None) -> object:
    """The one value that `data` encodes.

    Args:
        data: the encoding.
        limit_bytes: bound that is checked first.
        what: name of the structure, for errors.
        max_items: bound on values of any kind, at all depths together, counted before one is made: a megabyte of empty
            maps costs seconds. None where `limit_bytes` is small enough by itself.

    Raises:
        Oversized: more than `limit_bytes`, or more than `max_items`.
        Malformed: not CBOR, or a type that our structures do not use.
        NotCanonical: another encoding of the value exists, or something follows it.
    """
    data = bounded(data, limit_bytes, what)
    if max_items is not None:
        check_count(data, max_items, what)
    try:
        value = cbor2.loads(
            data,
            max_depth=MAX_DEPTH,
            allow_indefinite=False,
            allow_duplicate_keys=False,
            strict_hashable_types=True,
            semantic_decoders=_NO_TAGS,
        )
    except (cbor2.CBORDecodeError, ValueError, OverflowError, MemoryError, RecursionError) as error:
        raise Malformed(f"{what} is not CBOR of the allowed kind") from error
    _check_types(value, what)
    if encode(value) != data:
        raise NotCanonical(f"{what} is not deterministic CBOR")
    return value


def fields(value: object, names: Iterable[str], what: str) -> Mapping[str, Any]:
    """`value` as a map with exactly these keys.

    Raises:
        Malformed: no map, or other keys.
    """
    wanted = frozenset(names)
    if not isinstance(value, dict) or frozenset(value) != wanted:
        raise Malformed(f"{what} has other fields", expected=sorted(wanted), found=_keys(value))
    return value


def _keys(value: object) -> str:
    return str(sorted(map(str, value))) if isinstance(value, dict) else type(value).__name__


def check_count(data: bytes, max_items: int, what: str) -> None:
    """Walk from head to head (RFC 8949 §3) and make nothing; what is not well formed is the decoder's to refuse.

    Raises:
        Oversized: more than `max_items` values of any kind, at all depths together.
    """
    at, items, end = 0, 0, len(data)
    while at < end:
        items += 1
        if items > max_items:
            raise Oversized(f"{what} holds too many values", expected=f"at most {max_items}")
        major, argument = data[at] >> 5, data[at] & 31
        at += 1
        if argument > 27:
            return
        if argument > 23:
            size_bytes = 1 << (argument - 24)
            argument = int.from_bytes(data[at : at + size_bytes])
            at += size_bytes
        if major in (2, 3):  # byte and text strings: the argument is their length
            at += argument


def _no_tag(*_: object) -> NoReturn:
    raise cbor2.CBORDecodeError("tags are not allowed")


_NO_TAGS: Final = dict.fromkeys(BUILT_IN_TAGS, _no_tag)


def _check_types(value: object, what: str) -> None:
    if isinstance(value, dict):
        for key, child in value.items():
            if type(key) is not str:
                raise Malformed(f"{what}: keys of maps must be text", found=type(key).__name__)
            _check_types(child, what)
    elif isinstance(value, (list, tuple)):
        for child in value:
            _check_types(child, what)
    elif value is not None and type(value) not in (int, bool, str, bytes):
        raise Malformed(f"{what} holds a value of a kind that is not used", found=type(value).__name__)
