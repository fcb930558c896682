"""The report of a room: one JSON file in build/mutants, and a short table."""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from tools.mutants.outcomes import Mutant, Outcome
from tools.mutants.rooms import Room
from tools.mutants.stage import BUILD

COLUMNS: Final = (Outcome.KILLED, Outcome.WORDING, Outcome.EXPLAINED, Outcome.SURVIVOR, Outcome.PENDING)


def path_of(room: Room) -> Path:
    """Where its report lies."""
    return BUILD / f"{room.name}.json"


def load(room: Room) -> dict[str, Any]:
    """The report: by module, the figures and the survivors. Empty before the first run."""
    path = path_of(room)
    modules: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    return modules


def keep(room: Room, outcomes: Mapping[str, Sequence[Mutant]]) -> None:
    """Put what was found in the place of what was found before in the same modules."""
    report = {module: said for module, said in load(room).items() if module in room.modules()}
    report.update({module: _said(mutants) for module, mutants in outcomes.items()})
    path_of(room).parent.mkdir(parents=True, exist_ok=True)
    path_of(room).write_text(json.dumps(dict(sorted(report.items())), indent=1, ensure_ascii=False) + "\n")


def table(report: Mapping[str, Any]) -> str:
    """A line for each module that has mutants, and their sum."""
    rows = [(module, [said[column.value] for column in COLUMNS]) for module, said in report.items()]
    rows = [(module, counts) for module, counts in rows if any(counts)]
    total = [sum(counts) for counts in zip(*(counts for _, counts in rows), strict=True)] or [0] * len(COLUMNS)
    lines = [f"{'':34}" + "".join(f"{column.value:>10}" for column in COLUMNS)]
    for module, counts in [*rows, ("together", total)]:
        lines.append(f"{module:34}" + "".join(f"{count:>10}" for count in counts))
    return "\n".join(lines)


def _said(mutants: Sequence[Mutant]) -> dict[str, Any]:
    counts = Counter(mutant.outcome for mutant in mutants)
    return {column.value: counts[column] for column in COLUMNS} | {
        "survivors": [
            {**dataclasses.asdict(mutant.change), "tested": mutant.tested}
            for mutant in mutants
            if mutant.outcome is Outcome.SURVIVOR and mutant.change is not None
        ]
    }
