"""Python packages that the product runs with: those of the lock file that a user needs, without what only we need.

The lock file says of each package who asks for it (`# via`), which is all that is needed to tell them apart.
"""

from __future__ import annotations

import dataclasses
import re
import tomllib
from collections.abc import Iterable
from pathlib import Path

_PINNED = re.compile(r"^(?P<name>[a-z0-9][a-z0-9._-]*)(?:\[[^\]]*\])?==\S+")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


@dataclasses.dataclass(frozen=True)
class Pinned:
    """One package of a lock file."""

    name: str
    lines: str
    """Version and hashes as they stand in the file."""
    asked_by: frozenset[str]


def runtime_requirements(project: Path, lock: Path) -> str:
    """The part of the lock file that the product and its agent need, in the lock file's own form.

    Raises:
        ValueError: a requirement of the project does not stand in the lock file.
    """
    described = tomllib.loads(project.read_text())["project"]
    wanted = {_name(text) for text in (*described["dependencies"], *described["optional-dependencies"]["agent"])}
    pinned = {one.name: one for one in read(lock)}
    if missing := sorted(wanted - pinned.keys()):
        raise ValueError(f"not in {lock.name}: {', '.join(missing)}")
    chosen = wanted
    while more := {one.name for one in pinned.values() if one.asked_by & chosen} - chosen:
        chosen = chosen | more
    return "".join(pinned[name].lines for name in sorted(chosen))


def read(lock: Path) -> Iterable[Pinned]:
    """The packages of a lock file."""
    blocks: list[list[str]] = []
    for line in lock.read_text().splitlines(keepends=True):
        if _PINNED.match(line):
            blocks.append([])
        if blocks:
            blocks[-1].append(line)
    return [_pinned(block) for block in blocks]


def _pinned(block: list[str]) -> Pinned:
    found = _PINNED.match(block[0])
    assert found is not None  # blocks begin at such lines
    lines = "".join(line for line in block if not line.lstrip().startswith("#"))
    comments = " ".join(line.strip(" #\n").removeprefix("via") for line in block if line.lstrip().startswith("#"))
    return Pinned(_normal(found["name"]), lines, frozenset(map(_normal, _NAME.findall(comments))))


def _name(requirement: str) -> str:
    found = _NAME.match(requirement)
    if found is None:
        raise ValueError(f"no requirement: {requirement!r}")
    return _normal(found[0])


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
