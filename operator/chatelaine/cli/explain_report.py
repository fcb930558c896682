"""How a diagnosis is shown: one JSON object, or a list of checks that a person reads from the top."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from typing import Final, NoReturn

import typer

from chatelaine.cli.exits import STATES
from chatelaine.cli.report import Terminal, mark, plain
from chatelaine.diagnosis.check import Advice, Check, Diagnosis, State

_NOT_ASKED: Final = "[dim]·[/dim]"
_COLOURS: Final = {State.READY: "green", State.NOT_READY: "red", State.CANNOT_TELL: "yellow"}
_SAYS: Final = {
    State.READY: "is Ready.",
    State.NOT_READY: "is not Ready.",
    State.CANNOT_TELL: "may be Ready or not: it cannot be told.",
}


def finish(diagnosis: Diagnosis, *, json: bool, says: dict[State, str] | None = None) -> NoReturn:
    """Print it, and end with the status of its state."""
    if json:
        print_json(diagnosis.as_dict())
    else:
        print_diagnosis(diagnosis, says or _SAYS)
    raise typer.Exit(STATES[diagnosis.state])


def print_json(value: object) -> None:
    """One value on standard output."""
    sys.stdout.write(json.dumps(value, indent=2) + "\n")


def print_diagnosis(diagnosis: Diagnosis, says: dict[State, str]) -> None:
    """What is said first is what to do first."""
    console = Terminal()
    colour, deciding = _COLOURS[diagnosis.state], diagnosis.deciding
    console.print(f"{plain(diagnosis.subject)} [bold {colour}]{says[diagnosis.state]}[/bold {colour}]")
    if deciding is not None:
        console.print(f"What decides: [bold]{plain(deciding.name)}[/bold] ({plain(deciding.reason)}).")
    console.print()
    width = max((len(check.name) for check in diagnosis.checks), default=0)
    for check in diagnosis.checks:
        for line in lines_of(check, width):
            console.print(line)


def lines_of(check: Check, width: int, lead: str = "") -> Iterator[str]:
    """A line a check; of one that fails, everything that is known about it."""
    sign = mark(check.outcome) if check.outcome is not None else _NOT_ASKED
    head = f"{lead}{sign} {plain(check.name.ljust(width))}  [bold]{plain(check.reason)}[/bold]"
    deep = f"{lead}    "
    if not check.fails:
        yield f"{head}  {plain(check.found)}".rstrip()
    else:
        yield head
        for name, text in (("expected", check.expected), ("found", check.found)):
            if text:
                yield f"{deep}{name.ljust(8)}  {plain(text)}"
    for note in check.notes:
        yield f"{deep}[dim]{plain(note)}[/dim]"
    inner = max((len(part.name) for part in check.parts), default=0)
    for part in check.parts:
        yield from lines_of(part, inner, deep)
    for advice in check.advice:
        yield from _do(advice, deep)


def _do(advice: Advice, deep: str) -> Iterator[str]:
    yield f"{deep}do        {plain(advice.text)}"
    yield from (f"{deep}            [cyan]{plain(command)}[/cyan]" for command in advice.commands)
