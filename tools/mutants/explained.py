"""Survivors that stay: each with the reason why no test should notice it, kept in `explained.toml`."""

from __future__ import annotations

import ast
import enum
import tomllib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tools.mutants.outcomes import Change, functions_of, lines_of
from tools.mutants.rooms import PACKAGE

FILE: Final = Path(__file__).with_name("explained.toml")


class Kind(enum.StrEnum):
    """Why a mutant may stay."""

    EQUIVALENT = "equivalent"
    SECOND_LOCK = "second-lock"
    ELSEWHERE = "elsewhere"
    DIAGNOSIS = "diagnosis"


MEANING: Final = {
    Kind.EQUIVALENT: "no input tells the two apart",
    Kind.SECOND_LOCK: "another check refuses the same inputs; both stay, so that one mistake does not open the door",
    Kind.ELSEWHERE: "tests of another rung notice it, on real parts or in another room",
    Kind.DIAGNOSIS: "only what people are told differs, though not by a literal sentence",
}


@dataclass(frozen=True)
class Explanation:
    """One kept survivor."""

    change: Change
    kind: Kind
    reason: str


def load(path: Path = FILE) -> dict[Change, Explanation]:
    """All of them, in the order of the file.

    Raises:
        ValueError: an entry without a reason, of no known kind, or twice.
    """
    kept: dict[Change, Explanation] = {}
    for entry in tomllib.loads(path.read_text())["mutant"]:
        afters = entry["after"] if isinstance(entry["after"], list) else [entry["after"]]
        for after in afters:
            change = Change(entry["module"], entry["function"], entry["before"], after)
            if change in kept:
                raise ValueError(f"explained twice: {change}")
            if not entry["reason"].strip():
                raise ValueError(f"explained by nothing: {change}")
            kept[change] = Explanation(change, Kind(entry["kind"]), entry["reason"])
    return kept


def stale(changes: Iterable[Change]) -> Iterator[Change]:
    """Those whose line is no longer in the code: what they explained is gone."""
    for change in changes:
        path = PACKAGE / change.module
        scope: ast.AST = ast.parse(path.read_text()) if path.exists() else ast.Module([], [])
        owner, _, name = change.function.rpartition(".")
        if owner:
            scope = next(
                (node for node in ast.walk(scope) if isinstance(node, ast.ClassDef) and node.name == owner), scope
            )
        function = functions_of(ast.unparse(scope)).get(name)
        lines = " ".join(line.strip() for line in lines_of(function)) if function is not None else ""
        if change.before.strip("…") not in lines:
            yield change
