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
    _pattern: re.Pattern[str] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """One expression: a star takes as little as it can, and gives nothing back."""
        first, *others = map(_expression, self.text.split("*"))
        middle = "".join(f"(?>.*?{piece})" for piece in others[:-1])
        last = f".*{others[-1]}" if others else ""
        object.__setattr__(self, "_pattern", re.compile(f"{first}{middle}{last}", re.DOTALL))

    def matches(self, argument: str) -> bool:
        """Does the whole argument fit?"""
        return self._pattern.fullmatch(_normal(argument)) is not None


@lru_cache(maxsize=1024)
def argument_pattern(text: str) -> ArgumentPattern:
    """`ArgumentPattern`, remembered: policies change seldom, and are judged by in every round."""
    return ArgumentPattern(text)


def _normal(text: str) -> str:
    name, equals, value = text.partition("=")
    return name.replace("-", _EITHER).replace("_", _EITHER) + equals + value


def _expression(piece: str) -> str:
    return "".join(_LIKE.get(character) or re.escape(character) for character in piece)
