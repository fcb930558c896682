"""A group of commands whose 0, 1 and 2 are answers: usage errors end with 64, and what the system refuses with 74."""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path
from typing import Any, NoReturn

import typer
from typer.core import TyperGroup
from typer.exceptions import TyperException

from chatelaine.cli.exits import UNWRITABLE, VERIFY_USAGE


class UsageGroup(TyperGroup):
    """Usage errors end with 64, files that cannot be read or written with 74."""

    def make_context(self, *args: Any, **kwargs: Any) -> Any:
        """As usual, but for the exit status."""
        try:
            return super().make_context(*args, **kwargs)
        except TyperException as error:
            error.exit_code = VERIFY_USAGE
            raise

    def invoke(self, ctx: Any) -> Any:
        """As usual, but for the exit status; arguments of subcommands are parsed in here."""
        try:
            try:
                return super().invoke(ctx)
            finally:
                sys.stdout.flush()
        except TyperException as error:
            error.exit_code = VERIFY_USAGE
            raise
        except OSError as error:
            _unwritable(error)


def _unwritable(error: OSError) -> NoReturn:
    """A full disk and a reader that went are no verdict, whatever was to be printed."""
    if not isinstance(error, BrokenPipeError):
        where = f"{error.filename}: " if error.filename is not None else ""
        typer.echo(f"{where}{error.strerror or error}", err=True)
    # What is still in its buffer would be refused again when the interpreter ends.
    with Path(os.devnull).open("w") as nowhere, contextlib.suppress(AttributeError, OSError):
        os.dup2(nowhere.fileno(), sys.stdout.fileno())
    raise typer.Exit(UNWRITABLE) from error
