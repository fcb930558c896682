"""What became of each mutant: read from mutmut's files, and sorted into classes.

Classes:
    killed     a test failed, or ran out of time
    wording    not noticed, but only a sentence for people is another one
    explained  not noticed, and `explained.toml` says why no test should
    survivor   not noticed: a test is missing, or code that does nothing
"""

from __future__ import annotations

import ast
import copy
import difflib
import enum
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tools.mutants.stage import UNSEEN

_MANGLED: Final = re.compile(r"(?:xǁ(?P<owner>\w+?)ǁ|x_)(?P<name>\w+)")
_AROUND: Final = 60
"""Characters that are kept on each side of what a mutant changes."""

Function = ast.FunctionDef | ast.AsyncFunctionDef


class Outcome(enum.StrEnum):
    """The classes."""

    KILLED = "killed"
    WORDING = "wording"
    EXPLAINED = "explained"
    SURVIVOR = "survivor"
    PENDING = "pending"


@dataclass(frozen=True, order=True)
class Change:
    """A mutant, named by what it is and not by its number. `before` and `after` are the
    lines that differ as `ast.unparse` writes them; of long ones the part that differs, with some of what is around it.
    """

    module: str
    function: str
    before: str
    after: str


@dataclass(frozen=True)
class Mutant:
    """What became of one. `change` is only worked out for those that nothing noticed."""

    outcome: Outcome
    change: Change | None = None
    tested: bool = True


def read(stage: Path, modules: tuple[str, ...], explained: Mapping[Change, Any]) -> dict[str, list[Mutant]]:
    """The outcomes by module; a module without mutants has none."""
    return {module: list(_module(stage / "mutants" / "src" / "chatelaine", module, explained)) for module in modules}


def _module(base: Path, module: str, explained: Mapping[Change, Any]) -> Iterator[Mutant]:
    meta = base / f"{module}.meta"
    if not meta.exists():
        return
    codes: dict[str, int | None] = json.loads(meta.read_text())["exit_code_by_key"]
    functions = functions_of((base / module).read_text())
    for key, code in codes.items():
        if code is None:
            yield Mutant(Outcome.PENDING)
        elif code not in UNSEEN:
            yield Mutant(Outcome.KILLED)
        else:
            name = key.rpartition(".")[2]
            base_name = name.partition("__mutmut_")[0]
            original, changed = functions[f"{base_name}__mutmut_orig"], functions[name]
            change = _change(module, _plain(base_name), original, changed)
            yield Mutant(_class(original, changed, change in explained), change, tested=code == 0)


def functions_of(source: str) -> dict[str, Function]:
    """Every function of a module by its name; in mutmut's output no two share one."""
    return {node.name: node for node in ast.walk(ast.parse(source)) if isinstance(node, Function)}


def lines_of(function: Function) -> list[str]:
    """A function's lines as they are compared: without layout, comments and its own name."""
    return ast.unparse(_nameless(function)).splitlines()


def _nameless(function: Function) -> Function:
    named = copy.copy(function)
    named.name = "f"
    return named


def _class(original: Function, changed: Function, explained: bool) -> Outcome:
    if _only_sentences_differ(_nameless(original), _nameless(changed)):
        return Outcome.WORDING
    return Outcome.EXPLAINED if explained else Outcome.SURVIVOR


def _change(
    module: str,
    function: str,
    original: Function,
    changed: Function,
) -> Change:
    before, after = [], []
    for line in difflib.ndiff(lines_of(original), lines_of(changed)):
        if line.startswith("- "):
            before.append(line[2:].strip())
        elif line.startswith("+ "):
            after.append(line[2:].strip())
    return Change(module, function, *_trimmed(" ".join(before), " ".join(after)))


def _trimmed(before: str, after: str) -> tuple[str, str]:
    """Both without most of what they share, so that a key stays when the rest of a long line changes."""
    same = _shared(before, after)
    begin = max(0, same - _AROUND)
    tail = _shared(before[same:][::-1], after[same:][::-1])
    cut = max(0, tail - _AROUND)

    def kept(text: str) -> str:
        return ("…" if begin else "") + text[begin : len(text) - cut] + ("…" if cut else "")

    return kept(before), kept(after)


def _shared(one: str, other: str) -> int:
    """Characters at the beginning that are the same."""
    return next((at for at, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))


def _plain(mangled: str) -> str:
    match = _MANGLED.fullmatch(mangled)
    if match is None:
        return mangled
    owner = match["owner"]
    return f"{owner}.{match['name']}" if owner else match["name"]


def _only_sentences_differ(before: object, after: object, *, raised: bool = False) -> bool:
    """True where every difference of the two trees is in text that only people read, or its absence."""
    if _sentence(before, raised=raised) and _text(after):
        return True
    if isinstance(before, list) and isinstance(after, list):
        return _lists_only_differ_in_sentences(before, after, raised=raised)
    if not isinstance(before, ast.AST) or type(before) is not type(after):
        return before == after
    inside = raised or isinstance(before, ast.Raise)
    return all(
        _only_sentences_differ(getattr(before, field), getattr(after, field), raised=inside) for field in before._fields
    )


def _lists_only_differ_in_sentences(before: list[Any], after: list[Any], *, raised: bool) -> bool:
    if len(after) == len(before) - 1:
        return any(
            _sentence(left_out, raised=raised)
            and _lists_only_differ_in_sentences(before[:place] + before[place + 1 :], after, raised=raised)
            for place, left_out in enumerate(before)
        )
    return len(before) == len(after) and all(
        _only_sentences_differ(one, other, raised=raised) for one, other in zip(before, after, strict=True)
    )


def _sentence(node: object, *, raised: bool) -> bool:
    """A text with a space in it; of what is raised every text, as errors are told apart by their types."""
    match node:
        case ast.Constant(value=str() as text):
            return raised or " " in text
        case ast.JoinedStr(values=parts):
            return raised or any(isinstance(part, ast.Constant) and " " in str(part.value) for part in parts)
        case ast.BinOp(left=left, op=ast.Add(), right=right):
            return _sentence(left, raised=raised) or _sentence(right, raised=raised)
    return False


def _text(node: object) -> bool:
    match node:
        case ast.Constant(value=value):
            return value is None or isinstance(value, str)
        case ast.JoinedStr() | ast.BinOp(op=ast.Add() | ast.Sub()):
            return True
    return False
