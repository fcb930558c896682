"""`chatelaine completion bash|zsh|fish`: prints the script by which a shell completes our commands."""

from __future__ import annotations

import enum
from typing import Annotated

import typer
import typer.main
from typer.completion import shell_complete

app = typer.Typer(add_completion=True, help="Print the script by which a shell completes our commands.")

VARIABLE = "_CHATELAINE_COMPLETE"
"""How a shell asks for completions."""


class Shell(enum.StrEnum):
    """Shells that are known."""

    BASH = "bash"
    ZSH = "zsh"
    FISH = "fish"


@app.command()
def completion(shell: Annotated[Shell, typer.Argument(metavar="SHELL", help="bash, zsh or fish.")]) -> None:
    """Print the script for SHELL; source it, or put it where the shell looks for such scripts."""
    raise typer.Exit(shell_complete(typer.main.get_command(app), {}, "chatelaine", VARIABLE, f"source_{shell.value}"))


if __name__ == "__main__":
    app()
