"""docs/explanation/mutants.md, written from what is kept here: figures, and survivors with their reasons."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

from tools.mutants.explained import MEANING, Explanation, Kind, load
from tools.mutants.figures import COLUMNS
from tools.mutants.rooms import ROOMS, ROOT

PATH: Final = ROOT / "docs" / "explanation" / "mutants.md"
FIGURES: Final = Path(__file__).with_name("figures.json")

_HEAD: Final = """# Mutants: what the tests would notice

<!-- Written by `python -m tools.mutants --page` from tools/mutants; a test compares. -->

A mutant is the code with one small fault put in: `<` becomes `<=`, an argument becomes `None`, a branch is always
taken. The tests run against each; a mutant that no test notices is a survivor, and says that a test is missing, or
that the code does nothing. Coverage tells which lines ran. This tells which of them anybody looked at.

It is done for the four rooms in which a fault lets a stranger in: `tokens`, `release`, `appraisal` and `evidence`.

    make mutants                                   # all of them; hours
    make mutants ROOM=tokens                       # one
    make mutants ROOM=evidence MODULES="cbor reader"
    make mutants ROOM=tokens FRESH=1               # believe nothing of earlier runs

The first run puts [mutmut](https://github.com/boxed/mutmut) into a folder of the cache by `requirements-mutants.lock`;
neither the product nor `make test` needs it. The tree is copied to `build/mutants/stage`, faults are made there. A run
that was stopped goes on where it was. When tests have changed, only those mutants are asked again that nothing had
noticed. The report is `build/mutants/<room>.json`; the exit status is 1 as long as there is a survivor.

What a run may not believe: children inherit the caches of the process that ran the tests before, and the objects that
modules of tests made at import. Both are thrown away in each child (`tools/mutants/fresh.py`), else a mutant of a
constructor would be hidden behind an object that was made without it.

## What becomes of a mutant

| Class | |
|---|---|
| killed | a test failed, or ran out of time |
| wording | nothing noticed, and the only change is in a sentence for people: its words, or that it is there at all |
| explained | nothing noticed, and the list below says why no test should |
| survivor | nothing noticed: work to do |
| pending | not asked yet |

Sentences are left alone on purpose: a test that repeats them has to be changed with each better word. What machines
read (reasons, names of checks, expected and found values) is tested.

## Figures

Modules that are not named here have not been asked yet. Figures are those of the last run of each module, taken over
by `python -m tools.mutants tokens --page`; a survivor counts until it has been asked again.

"""

_KINDS: Final = """
## Survivors that stay

"""


def text() -> str:
    """The page."""
    kinds = "".join(f"- **{kind}**: {meaning}.\n" for kind, meaning in MEANING.items())
    return _HEAD + _figures(json.loads(FIGURES.read_text())) + _KINDS + kinds + _explanations(load().values())


def keep(report: Mapping[str, Any], room: str) -> None:
    """Take the figures of a room's report over into the tree."""
    kept = json.loads(FIGURES.read_text()) if FIGURES.exists() else {}
    kept[room] = {
        module: {column.value: said[column.value] for column in COLUMNS}
        for module, said in report.items()
        if any(said[column.value] for column in COLUMNS)
    }
    FIGURES.write_text(json.dumps({name: kept[name] for name in ROOMS if name in kept}, indent=1) + "\n")


def _figures(kept: Mapping[str, Mapping[str, Mapping[str, int]]]) -> str:
    names = [column.value for column in COLUMNS]
    lines = ["| Module | " + " | ".join(names) + " |", "|---|" + "---:|" * len(names)]
    for room, modules in kept.items():
        for module, said in modules.items():
            lines.append(f"| `{module}` | " + " | ".join(str(said[name]) for name in names) + " |")
        total = [sum(said[name] for said in modules.values()) for name in names]
        lines.append(f"| **{room}** | " + " | ".join(f"**{count}**" for count in total) + " |")
    return "\n".join(lines) + "\n"


def _explanations(explanations: Iterable[Explanation]) -> str:
    lines = [""]
    module = ""
    grouped: dict[tuple[str, str, str, Kind, str], list[str]] = {}
    for one in explanations:
        change = one.change
        grouped.setdefault((change.module, change.function, change.before, one.kind, one.reason), []).append(
            change.after
        )
    for (where, function, before, kind, reason), afters in grouped.items():
        if where != module:
            module = where
            lines.append(f"### `{module}`\n")
        lines.append(f"- `{function}`, {kind}: {reason}\n")
        lines.append(f"      - {before}")
        lines.extend(f"      + {after}" for after in afters)
        lines.append("")
    return "\n".join(lines).rstrip("\n") + "\n"
