"""A group of commands whose usage errors end with 64: its 2 says *cannot tell*."""

from __future__ import annotations

from typing import Any

from typer.core import TyperGroup
from typer.exceptions import TyperException

from chatelaine.cli.exits import VERIFY_USAGE


class UsageGroup(TyperGroup):
    """Usage errors end with 64."""

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
            return super().invoke(ctx)
        except TyperException as error:
            error.exit_code = VERIFY_USAGE
            raise
