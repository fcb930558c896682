"""Globs over paths, matched in time that grows with the path and the glob, never exponentially.

`*` and `?` stay within a folder; `**` as a whole part of the path stands for any number of folders, also none at the
end: `/var/log/**` is everything below `/var/log`, `/var/log/*` only what lies directly in it. There is nothing else:
brackets and backslashes are letters like any other. A glob matches a whole path.

The first place where a piece between two stars fits is as good as any later one, so nothing is ever tried twice.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

_ANY_PARTS: Final = "**"

Fits = Callable[[str], object]
"""Says whether one part of a path fits: something true, or not."""


@dataclass(frozen=True, slots=True)
class PathGlob:
    """One glob, prepared."""

    text: str
    _runs: tuple[tuple[Fits, ...], ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Cut into runs of parts, between the `**`."""
        runs: list[list[Fits]] = [[]]
        for part in self.text.split("/"):
            if part == _ANY_PARTS:
                runs.append([])
            else:
                runs[-1].append(_part(part))
        object.__setattr__(self, "_runs", tuple(map(tuple, runs)))

    def matches(self, path: str) -> bool:
        """Does the whole `path` fit?"""
        return self.fits(path.split("/"))

    def fits(self, parts: Sequence[str]) -> bool:
        """The same for a path that was cut at its slashes: many globs look at one path."""
        first, *others = self._runs
        if not others:
            return len(first) == len(parts) and _fits_at(first, parts, 0)
        *middle, last = others
        end = len(parts) - len(last)
        if end < len(first) or not _fits_at(first, parts, 0) or not _fits_at(last, parts, end):
            return False
        at = len(first)
        for run in middle:
            at = next((start + len(run) for start in range(at, end - len(run) + 1) if _fits_at(run, parts, start)), -1)
            if at < 0:
                return False
        # `**` at the end wants something below it: a folder is not its own content.
        return bool(last) or at < end


def _fits_at(run: Sequence[Fits], parts: Sequence[str], start: int) -> bool:
    for number, fits in enumerate(run, start):  # noqa: SIM110 -- tried for every glob at every place: no generator
        if not fits(parts[number]):
            return False
    return True


def _part(glob: str) -> Fits:
    """A test of one part: every piece between two stars is looked for from where the last one ended."""
    pieces = glob.split("*")
    if len(pieces) == 1:
        return _compiled(glob).fullmatch
    first, *middle, last = (_compiled(piece) for piece in pieces)
    last_characters = len(pieces[-1])

    def fits(part: str) -> bool:
        begun = first.match(part)
        end = len(part) - last_characters
        if begun is None or begun.end() > end or last.fullmatch(part, end) is None:
            return False
        at = begun.end()
        for piece in middle:
            found = piece.search(part, at, end)
            if found is None:
                return False
            at = found.end()
        return True

    return fits


def _compiled(piece: str) -> re.Pattern[str]:
    """A piece without stars has one length, so the expression has nothing to go back to."""
    return re.compile("".join("." if character == "?" else re.escape(character) for character in piece), re.DOTALL)
