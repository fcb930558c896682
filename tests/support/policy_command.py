"""`chatelaine policy`, run in the tests' own process."""

from __future__ import annotations

from typer.testing import CliRunner, Result

from chatelaine.cli.policy import app


def run(*arguments: object, stdin: bytes | None = None) -> Result:
    """Exit status and what was printed."""
    return CliRunner().invoke(app, [*map(str, arguments)], input=stdin)
