"""A manifest as YAML with comments, for a person to read and commit.

PyYAML drops comments, so the lines are put together here; every scalar is still PyYAML's, which writes whatever is
not plain ASCII as an escape. Comments come out of evidence in part, so they are cut to printable lines.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator, Mapping
from typing import Any, Final

import yaml

from chatelaine.model.printable import printable

Path = tuple[str | int, ...]
Comments = Mapping[Path, tuple[str, ...]]

WIDTH_CHARACTERS: Final = 110
SHORT_LIST_CHARACTERS: Final = 80
_WORD: Final = re.compile(r"[A-Za-z/][-A-Za-z0-9_./ ]{1,60}", re.ASCII)


def manifest_yaml(manifest: Mapping[str, Any], comments: Comments, head: tuple[str, ...] = ()) -> str:
    """`manifest` with `head` above it, and each of `comments` above its place (keys and indices from the root)."""
    lines = [*_comment(head, ""), *_mapping(manifest, comments, (), "")]
    return "\n".join(lines) + "\n"


def _mapping(value: Mapping[str, Any], comments: Comments, path: Path, indent: str) -> Iterator[str]:
    for key, item in value.items():
        here = (*path, key)
        yield from _comment(comments.get(here, ()), indent)
        name = f"{indent}{_scalar(key)}:"
        if isinstance(item, (dict, list)) and item and not _is_short(item):
            yield name
            yield from _block(item, comments, here, indent + "  ")
        else:
            yield f"{name} {_scalar(item)}"


def _block(value: dict[str, Any] | list[Any], comments: Comments, path: Path, indent: str) -> Iterator[str]:
    if isinstance(value, dict):
        yield from _mapping(value, comments, path, indent)
        return
    for number, item in enumerate(value):
        here = (*path, number)
        yield from _comment(comments.get(here, ()), indent)
        if isinstance(item, dict) and item and not _is_short(item):
            first, *rest = _mapping(item, comments, here, indent + "  ")
            yield f"{indent}- {first.strip()}"
            yield from rest
        else:
            yield f"{indent}- {_scalar(item)}"


def _is_short(value: object) -> bool:
    """Scalars, and small lists and maps of them, stand on one line."""
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    if any(isinstance(part, (dict, list)) for part in parts):
        return False
    return len(_scalar(value)) <= SHORT_LIST_CHARACTERS


def _scalar(value: object) -> str:
    """On one line."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_scalar(key)}: {_scalar(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_scalar, value)) + "]"
    # Other readers than PyYAML take more for a number (12e34): what is no plain word is quoted.
    plain = not isinstance(value, str) or _WORD.fullmatch(value) is not None
    # Inside brackets, whatever could be read as something else is quoted.
    text: str = yaml.safe_dump(
        [value], default_flow_style=True, default_style=None if plain else '"', width=float("inf")
    )
    return text.strip()[1:-1]


def _comment(lines: tuple[str, ...], indent: str) -> Iterator[str]:
    for line in lines:
        for number, part in enumerate(textwrap.wrap(printable(line), WIDTH_CHARACTERS - len(indent)) or [""]):
            yield f"{indent}#{'  ' if number else ' '}{part}".rstrip()
