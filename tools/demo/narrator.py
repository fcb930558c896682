"""Tells the story: one line a step while it runs, a table at the end, and `build/demo/report.json`."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table


@dataclass(slots=True)
class Step:
    """One step of the story."""

    name: str
    ok: bool = False
    seconds: float = 0.0


class Narrator:
    """Prints and measures."""

    def __init__(self) -> None:
        self.console = Console(highlight=False, soft_wrap=True)
        self.steps: list[Step] = []
        self._start = time.monotonic()

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Runs one step; what it raises ends the story, and the report says where."""
        step = Step(name)
        self.steps.append(step)
        begin = time.monotonic()
        self.console.print(f"[bold]▸ {name}[/bold]")
        try:
            yield
            step.ok = True
        finally:
            step.seconds = time.monotonic() - begin
            mark = "[green]✓[/green]" if step.ok else "[red]✗[/red]"
            self.console.print(f"  {mark} [dim]{step.seconds:.2f} s[/dim]")

    def say(self, text: str) -> None:
        """A line below the step that runs."""
        self.console.print(f"  {text}", markup=False, style="dim")

    def result(self, text: str) -> None:
        """What a person should notice."""
        self.console.print(f"  {text}", markup=False, style="cyan")

    def finish(self, report: Path, *, complete: bool) -> bool:
        """Prints the table and writes the report; True if every step was right and none is missing."""
        seconds = time.monotonic() - self._start
        table = Table(title="What happened")
        table.add_column("step")
        table.add_column("ok", justify="center")
        table.add_column("seconds", justify="right")
        for step in self.steps:
            table.add_row(step.name, "[green]yes[/green]" if step.ok else "[red]NO[/red]", f"{step.seconds:.2f}")
        self.console.print(table)
        ok = complete and all(step.ok for step in self.steps)
        report.parent.mkdir(parents=True, exist_ok=True)
        content = {
            "ok": ok,
            "seconds": round(seconds, 2),
            "steps": [{"name": s.name, "ok": s.ok, "seconds": round(s.seconds, 3)} for s in self.steps],
        }
        report.write_text(json.dumps(content, indent=2) + "\n")
        self.console.print(f"{'Done' if ok else 'Failed'} in {seconds:.0f} s; report in {report}")
        return ok
