"""Puts mutants into rooms, runs their tests, says what became of them.

python -m tools.mutants                          every room
python -m tools.mutants tokens --module=cache    one module of one room
python -m tools.mutants --fresh                  nothing of an earlier run is believed
python -m tools.mutants tokens --page            runs nothing; keeps the last figures in the tree, writes the page

Ends 1 when a mutant was neither noticed nor explained, 2 when mutmut could not do its work.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from tools.mutants import figures, page
from tools.mutants.explained import Explanation, load
from tools.mutants.outcomes import Change, Mutant, Outcome, read
from tools.mutants.rooms import ROOMS, Room
from tools.mutants.stage import prepare, run, stages


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m tools.mutants", description="Mutation testing of the pure rooms.")
    parser.add_argument("room", nargs="*", help=f"of {', '.join(ROOMS)}; all of them without one")
    parser.add_argument("--module", action="append", default=[], help="only this module of the one room named")
    parser.add_argument("--fresh", action="store_true", help="forget what earlier runs have found")
    parser.add_argument("--children", type=int, default=1, help="mutants judged at once")
    parser.add_argument("--page", action="store_true", help="run nothing: keep the last figures, write the page")
    options = parser.parse_args()
    if set(options.room) - set(ROOMS):
        parser.error(f"there are the rooms {', '.join(ROOMS)}")
    if options.page:
        for name in options.room:
            page.keep(_last(ROOMS[name]), name)
        page.PATH.write_text(page.text())
        return 0
    if options.module and len(options.room) != 1:
        parser.error("--module needs exactly one room")
    rooms = [ROOMS[name] for name in options.room or ROOMS]
    try:
        asked = [(room, room.modules(options.module)) for room in rooms]
    except ValueError as error:
        parser.error(str(error))
    explained = load()
    return max(_one(*one, explained, fresh=options.fresh, children=options.children) for one in asked)


def _one(
    room: Room, modules: tuple[str, ...], explained: Mapping[Change, Explanation], *, fresh: bool, children: int
) -> int:
    print(f"[mutants] {room.name}: {len(modules)} modules, tests in {' '.join(room.tests)}", flush=True)
    stage = prepare(room, modules, fresh=fresh)
    status = run(stage, children=children)
    outcomes = read(stage, modules, explained)
    figures.keep(room, outcomes)
    print(figures.table(figures.load(room)))
    _show(outcomes)
    if status != 0:
        return 2
    return 1 if any(mutant.outcome is Outcome.SURVIVOR for mutants in outcomes.values() for mutant in mutants) else 0


def _last(room: Room) -> Mapping[str, Any]:
    """What the last runs found, as it is explained by now."""
    explained = load()
    for modules, stage in stages(room):
        figures.keep(room, read(stage, modules, explained))
    return figures.load(room)


def _show(outcomes: Mapping[str, Sequence[Mutant]]) -> None:
    for mutants in outcomes.values():
        for mutant in mutants:
            change = mutant.change
            if mutant.outcome is Outcome.SURVIVOR and change is not None:
                print(f"\n{change.module} {change.function}{'' if mutant.tested else '  (no test comes by)'}")
                print("".join(f"  - {line}\n" for line in change.before.splitlines()), end="")
                print("".join(f"  + {line}\n" for line in change.after.splitlines()), end="")


if __name__ == "__main__":
    sys.exit(main())
