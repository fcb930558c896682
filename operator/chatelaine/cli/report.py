"""How a verdict is shown: one JSON object, or a tree for people.

Texts come out of evidence: nothing of them may steer a terminal, so what cannot be printed is replaced for people, and
escaped in JSON.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from typing import Final, NoReturn

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.tree import Tree

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
_COLUMN_CHARACTERS: Final = 100


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


def print_report(report: Report) -> None:
    """Verdict, findings with their reasons, facts."""
    console = Console(highlight=False)
    colour = _COLOURS[report.verdict]
    console.print(f"[bold {colour}]{report.verdict.value}[/bold {colour}]")
    tree = Tree(_line(report.findings), guide_style="dim")
    for child in report.findings.children:
        _grow(tree, child)
    console.print(tree)
    if report.facts:
        console.print(_table(report.facts))


def _grow(tree: Tree, finding: Finding) -> None:
    branch = tree.add(_line(finding))
    for child in finding.children:
        _grow(branch, child)


def _line(finding: Finding) -> str:
    text = f"{_MARKS[finding.outcome]} {plain(finding.check)}: [bold]{plain(finding.reason)}[/bold]"
    if finding.detail:
        text += f": {plain(finding.detail)}"
    if finding.outcome is not Outcome.HOLDS and not finding.children:
        for name, value in (("expected", finding.expected), ("found", finding.found)):
            if value is not None:
                text += f"\n  {name} {plain(value)}"
    return text


def plain(text: str) -> str:
    """`text` as it stands, for a console: no marks of rich's, nothing that cannot be printed."""
    return escape(printable(text))


def _table(facts: Mapping[str, object]) -> Table:
    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold", max_width=_COLUMN_CHARACTERS)
    for name, value in _flat(facts):
        table.add_row(plain(name), plain(value))
    return table


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
