"""Globs over single arguments of a kernel command line: `*` for any text, `?` for one character, nothing else.

The kernel and systemd take `-` and `_` in the name of an argument for the same, so these globs do, too.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Final

_EITHER: Final = "\ue000"
"""Stands for `-` and `_` in the name of an argument. No argument holds it: their characters are bytes."""
_LIKE: Final = {"?": ".", "-": f"[{_EITHER}-]", "_": f"[{_EITHER}_]"}
"""A star of a glob may reach over the `=`, so what follows it may be name or value."""


@dataclass(frozen=True, slots=True)
class ArgumentPattern:
    """One glob, prepared. Each piece between two stars is looked for once, from where the last one ended."""

    text: str
    _pieces: tuple[re.Pattern[str], ...] = field(init=False, repr=False, compare=False)
    _last_characters: int = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Cut at the stars."""
        pieces = self.text.split("*")
        object.__setattr__(self, "_pieces", tuple(map(_compiled, pieces)))
        object.__setattr__(self, "_last_characters", len(pieces[-1]))

    def matches(self, argument: str) -> bool:
        """Does the whole argument fit?"""
        text = _normal(argument)
        first, *others = self._pieces
        if not others:
            return first.fullmatch(text) is not None
        *middle, last = others
        begun, end = first.match(text), len(text) - self._last_characters
        if begun is None or begun.end() > end or last.fullmatch(text, end) is None:
            return False
        at = begun.end()
        for piece in middle:
            found = piece.search(text, at, end)
            if found is None:
                return False
            at = found.end()
        return True


@lru_cache(maxsize=1024)
def argument_pattern(text: str) -> ArgumentPattern:
    """`ArgumentPattern`, remembered: policies change seldom, and are judged by in every round."""
    return ArgumentPattern(text)


def _normal(text: str) -> str:
    name, equals, value = text.partition("=")
    return name.replace("-", _EITHER).replace("_", _EITHER) + equals + value


def _compiled(piece: str) -> re.Pattern[str]:
    return re.compile("".join(_LIKE.get(character) or re.escape(character) for character in piece), re.DOTALL)
