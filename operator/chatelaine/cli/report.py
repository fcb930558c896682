"""How a verdict is shown: one JSON object, or a tree for people.

Texts come out of evidence: nothing of them may steer a terminal, so what cannot be printed is replaced for people, and
escaped in JSON.
"""

from __future__ import annotations

import errno
import json
import os
import sys
from collections.abc import Iterator, Mapping
from typing import Final, NoReturn

import typer
from rich.console import Console
from rich.markup import escape

from chatelaine.appraisal.offline import Report
from chatelaine.cli.exits import VERDICTS
from chatelaine.model.printable import printable
from chatelaine.model.verdict import Finding, Outcome, Verdict

_MARKS: Final = {
    Outcome.HOLDS: "[green]✓[/green]",
    Outcome.REFUTED: "[red]✗[/red]",
    Outcome.CANNOT_TELL: "[yellow]?[/yellow]",
}
_COLOURS: Final = {Verdict.TRUSTED: "green", Verdict.UNTRUSTED: "red", Verdict.UNKNOWN: "yellow"}


def finish(report: Report, *, json: bool, ear: Mapping[str, object] | None = None) -> NoReturn:
    """Print `report` and end with the status of its verdict."""
    if json:
        print_json(report, ear)
    else:
        print_report(report)
    raise typer.Exit(VERDICTS[report.verdict])


def print_json(report: Report, ear: Mapping[str, object] | None) -> None:
    """One object on standard output; `ear`: the claims of its attestation result, where there is one."""
    shown = report.as_dict() | ({"ear": dict(ear)} if ear is not None else {})
    sys.stdout.write(json.dumps(shown, indent=2) + "\n")


class Terminal(Console):
    """Where reports go. Long lines are the terminal's to break: digests are there to be copied."""

    def __init__(self) -> None:
        super().__init__(highlight=False, soft_wrap=True)

    def on_broken_pipe(self) -> NoReturn:
        """A reader that went is no verdict: rich would end with 1."""
        raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))


def print_report(report: Report) -> None:
    """Verdict, findings with their reasons, facts."""
    console = Terminal()
    colour = _COLOURS[report.verdict]
    console.print(f"[bold {colour}]{report.verdict.value}[/bold {colour}]")
    for line in _tree(report.findings):
        console.print(line)
    rows = [(name, value) for name, value in _flat(report.facts) if value]
    width = max((len(name) for name, _ in rows), default=0)
    for name, value in rows:
        console.print(f"[dim]{plain(name.ljust(width))}[/dim]  {plain(value)}")


def mark(outcome: Outcome) -> str:
    """A sign for an outcome, as markup."""
    return _MARKS[outcome]


def _tree(finding: Finding, lead: str = "", below: str = "") -> Iterator[str]:
    """A line a finding, and what it says, unless something under it says the same."""
    line = f"[dim]{lead}[/dim]{mark(finding.outcome)} {plain(finding.check)}: [bold]{plain(finding.reason)}[/bold]"
    repeated = bool(finding.children) and any(leaf.detail == finding.detail for leaf in finding.leaves())
    yield f"{line}: {plain(finding.detail)}" if finding.detail and not repeated else line
    if not repeated:
        yield from (f"[dim]{below}[/dim]    {text}" for text in _compared(finding))
    for number, child in enumerate(finding.children, 1):
        last = number == len(finding.children)
        yield from _tree(child, f"{below}{'└── ' if last else '├── '}", f"{below}{'    ' if last else '│   '}")


def _compared(finding: Finding) -> list[str]:
    """Expected and found of what does not hold, where the sentence does not say it already."""
    if finding.outcome is Outcome.HOLDS:
        return []
    pairs = (("expected", finding.expected), ("found", finding.found))
    return [f"{name} {plain(value)}" for name, value in pairs if value is not None and value not in finding.detail]


def plain(text: str) -> str:
    """`text` as it stands, for a console: no marks of rich's, nothing that cannot be printed."""
    return escape(printable(text))


def _flat(facts: Mapping[str, object], prefix: str = "") -> list[tuple[str, str]]:
    rows: list[tuple[str, str]] = []
    for name, value in facts.items():
        if isinstance(value, Mapping):
            rows.extend(_flat(value, f"{prefix}{name}."))
        elif isinstance(value, list):
            rows.append((prefix + name, ", ".join(map(str, value))))
        elif value is not None:
            rows.append((prefix + name, str(value)))
    return rows
