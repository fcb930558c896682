"""Which contents of which files are good: as rows of a bundle, and as a compact list to look them up in.

A row is `[prefix, [[name, [digests…], until?], …]]`: the path is prefix and name together, so that a hundred thousand
paths do not repeat their folders. `until` (seconds since the epoch) makes it a grace: what it lists is good before
that second, and not from it on.
"""

from __future__ import annotations

import hashlib
import re
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterable
from itertools import groupby
from typing import Any, Final, NamedTuple

from chatelaine.evidence import strict_json
from chatelaine.evidence.errors import ReferencePayloadRefused

MAX_PATH_BYTES: Final = 4096
MAX_PREFIX_CHARACTERS: Final = 64 * 1024 * 1024
"""Of all prefixes, each as often as it has rows; a Debian system has 5 million."""
MAX_DIGESTS_OF_A_ROW: Final = 64
_is_digest: Final = re.compile(r"sha256:[0-9a-f]{64}|sha384:[0-9a-f]{96}|sha512:[0-9a-f]{128}", re.ASCII).fullmatch

FOREVER: Final = 2**64 - 1
_KEY_BYTES: Final = 32
_END_BYTES: Final = 8
_RECORD_BYTES: Final = _KEY_BYTES + _END_BYTES
_FOREVER_BYTES: Final = FOREVER.to_bytes(_END_BYTES, "big")
_MAX_TABLE_BITS: Final = 16


class GoodFile(NamedTuple):
    """A file and contents that are good; `until`: before that second only (None: always)."""

    path: str
    digests: tuple[str, ...]
    until: int | None = None


class CompactAllowList:
    """A `FileAllowList` (model/material.py) that costs 40 bytes a pair of path and digest, and 2 to 8 for finding it.

    Each pair is the SHA-256 over its digest and path, followed by the second at which it ends. These records lie sorted
    in one bytes object; a table over the first bits of the hash says where to begin, and since hashes spread evenly, a
    look-up compares one or two records. No path is kept: what is allowed cannot be listed from here.
    """

    __slots__ = ("_ends", "_records", "_shift", "_starts")

    def __init__(self, files: Iterable[GoodFile]) -> None:
        """Index `files`.

        Raises:
            ReferencePayloadRefused: one content of one file is listed twice, so that two ends could be read.
        """
        files = tuple(files)
        self._ends = array("Q", sorted({file.until for file in files if file.until is not None}))
        records = sorted(
            _key(path, digest) + (_FOREVER_BYTES if until is None else until.to_bytes(_END_BYTES, "big"))
            for path, digests, until in files
            for digest in digests
        )
        if len({record[:_KEY_BYTES] for record in records}) != len(records):
            raise ReferencePayloadRefused("one content of one file is listed twice")
        bits = min(_MAX_TABLE_BITS, len(records).bit_length())
        self._shift = _MAX_TABLE_BITS - bits
        firsts = range(0, 1 << _MAX_TABLE_BITS, 1 << self._shift)
        starts = (bisect_left(records, first.to_bytes(2, "big")) for first in firsts)
        self._starts = array("I", (*starts, len(records)))
        self._records = b"".join(records)

    def allows(self, path: str, digest: str, *, at: int) -> bool:
        """Is `digest` (`sha256:…`) good for `path` at `at` (seconds since the epoch)?"""
        key = _key(path, digest)
        bucket = self._bucket(key)
        for number in range(self._starts[bucket], self._starts[bucket + 1]):
            begin = number * _RECORD_BYTES
            if self._records.startswith(key, begin):
                return at < int.from_bytes(self._records[begin + _KEY_BYTES : begin + _RECORD_BYTES], "big")
        return False

    def ended(self, *, after: int, until: int) -> bool:
        """Has a grace ended in between: is something good at `after` that is not any more at `until`?"""
        return bisect_right(self._ends, after) < bisect_right(self._ends, until)

    def _bucket(self, key: bytes) -> int:
        return (key[0] << 8 | key[1]) >> self._shift

    def __len__(self) -> int:
        """How many pairs of path and digest are listed, ended graces included."""
        return len(self._records) // _RECORD_BYTES

    @property
    def size_bytes(self) -> int:
        """What it keeps in memory."""
        return len(self._records) + sum(len(part) * part.itemsize for part in (self._starts, self._ends))


def _key(path: str, digest: str) -> bytes:
    """The digest's length comes first, so no two pairs run together to the same text."""
    return hashlib.sha256(f"{len(digest)} {digest}{path}".encode("utf-8", "surrogatepass")).digest()


# --- rows ------------------------------------------------------------------------------------------------------


def read_files(value: object) -> tuple[GoodFile, ...]:
    """The rows of a bundle.

    Raises:
        ReferencePayloadRefused: not as the module says.
    """
    found: list[GoodFile] = []
    characters = 0
    for group in _list(value, "files"):
        prefix, rows = _pair(group)
        # Before they are put together: a long prefix stands once, and its paths as often as it has rows.
        characters += len(prefix) * len(_list(rows, "the files of a prefix"))
        if characters > MAX_PREFIX_CHARACTERS:
            raise ReferencePayloadRefused("prefixes of files come to too much", expected=f"{MAX_PREFIX_CHARACTERS}")
        found += [_file(prefix, row) for row in rows]
    return tuple(found)


def write_files(files: Iterable[GoodFile]) -> list[object]:
    """Rows for a bundle, sorted, a prefix a folder."""
    rows = sorted(((*_split(file.path), sorted(file.digests), file.until) for file in files), key=_order)
    return [
        [prefix, [[name, digests] if until is None else [name, digests, until] for _, name, digests, until in group]]
        for prefix, group in groupby(rows, key=lambda row: row[0])
    ]


def check_file(file: GoodFile) -> GoodFile:
    """`file`, if a bundle may list it.

    Raises:
        ReferencePayloadRefused: no path, no digest, or no time that a bundle may hold.
    """
    path, digests, until = file
    if not strict_json.is_text(path) or "\0" in path:
        raise ReferencePayloadRefused("a path is not text", found=path)
    if not 0 < len(path) <= MAX_PATH_BYTES or (not path.isascii() and len(path.encode()) > MAX_PATH_BYTES):
        raise ReferencePayloadRefused("a path is empty or too long", expected=f"1 to {MAX_PATH_BYTES} bytes")
    if not 0 < len(digests) <= MAX_DIGESTS_OF_A_ROW:
        raise ReferencePayloadRefused(
            "a file has no digest, or too many in one row", expected=f"1 to {MAX_DIGESTS_OF_A_ROW}", found=path
        )
    for digest in digests:
        if not isinstance(digest, str) or not _is_digest(digest):
            raise ReferencePayloadRefused(
                "a digest of a file is none that is taken",
                expected="sha256:, sha384: or sha512: and lower-case hexadecimal",
                found=f"{digest} for {path}",
            )
    if until is not None and (type(until) is not int or not 0 < until <= strict_json.MAX_INTEGER):
        raise ReferencePayloadRefused("the end of a grace is no time", expected="seconds", found=until)
    return file


def _file(prefix: str, row: object) -> GoodFile:
    if not isinstance(row, list) or len(row) not in (2, 3) or not isinstance(row[0], str):
        raise ReferencePayloadRefused("a row of files is not [name, [digests], until?]", found=row)
    if not isinstance(row[1], list):
        raise ReferencePayloadRefused("the digests of a file are not a list", found=row[1])
    if len(row) == 2:
        return check_file(GoodFile(prefix + row[0], tuple(row[1])))
    if row[2] is None:
        raise ReferencePayloadRefused("a grace has no end", expected="seconds", found=row[0])
    return check_file(GoodFile(prefix + row[0], tuple(row[1]), row[2]))


def _pair(group: object) -> tuple[str, Any]:
    if not isinstance(group, list) or len(group) != 2 or not isinstance(group[0], str):
        raise ReferencePayloadRefused("a group of files is not [prefix, [rows]]", found=group)
    return group[0], group[1]


def _list(value: object, what: str) -> list[Any]:
    if not isinstance(value, list):
        raise ReferencePayloadRefused(f"{what} is not a list", found=type(value).__name__)
    return value


def _split(path: str) -> tuple[str, str]:
    cut = path.rfind("/") + 1
    return path[:cut], path[cut:]


def _order(row: tuple[str, str, list[str], int | None]) -> tuple[str, str, int, list[str]]:
    prefix, name, digests, until = row
    return prefix, name, FOREVER if until is None else until, digests


# --- putting lists together ------------------------------------------------------------------------------------


def combined(files: Iterable[GoodFile]) -> tuple[GoodFile, ...]:
    """One list out of several: what one of them allows for longer is allowed for longer. Ordered by path."""
    ends: dict[tuple[str, str], int] = {}
    for file in files:
        end = FOREVER if file.until is None else file.until
        for digest in file.digests:
            pair = file.path, digest
            ends[pair] = max(end, ends.get(pair, end))
    by_row: dict[tuple[str, int], list[str]] = {}
    for (path, digest), end in ends.items():
        by_row.setdefault((path, end), []).append(digest)
    return tuple(
        GoodFile(path, tuple(some), None if end == FOREVER else end)
        for (path, end), digests in sorted(by_row.items())
        for some in _pieces(sorted(digests))
    )


def with_grace(
    files: Iterable[GoodFile], previous: Iterable[GoodFile], *, now: int, until: int
) -> tuple[GoodFile, ...]:
    """`files`, and what `previous` still allows, until `until` at the latest: so an update of packages cuts nobody."""
    kept = (
        GoodFile(file.path, file.digests, min(until, FOREVER if file.until is None else file.until))
        for file in previous
        if file.until is None or now < file.until
    )
    return combined((*files, *kept))


def _pieces(digests: list[str]) -> Iterable[list[str]]:
    return (digests[at : at + MAX_DIGESTS_OF_A_ROW] for at in range(0, len(digests), MAX_DIGESTS_OF_A_ROW))
