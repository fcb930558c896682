"""What the commands of `policy` share: how they end, and the options by which they reach live hosts."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final, Literal

import typer

from chatelaine.cli.exits import FAILED, VERDICTS
from chatelaine.model.verdict import Verdict

REFUSED: Final = FAILED
CANNOT_TELL: Final = VERDICTS[Verdict.UNKNOWN]

StateDir = Annotated[
    Path, typer.Option(metavar="DIR", help="The operator's --state-dir: hosts let in whoever holds its key.")
]
DEFAULT_STATE_DIR: Final = Path("/var/lib/chatelaine/operator")
Kubeconfig = Annotated[
    Path | None, typer.Option(metavar="F", help="Default: $KUBECONFIG, else the pod's service account.")
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]


def say(message: str) -> None:
    """One line on standard error; what cannot be printed is replaced."""
    typer.echo("".join(c if c.isprintable() else "?" for c in message), err=True)


def ended(message: str, status: Literal[1, 2]) -> typer.Exit:
    """Says why, and ends with `status`."""
    say(f"chatelaine policy: {message}")
    return typer.Exit(status)
