"""`chatelaine policy`: write, sign and try policies and reference values. Each command is a module of its own.

Exit status: 0 accepted, 1 refused, 2 cannot tell, 64 usage.
"""

from __future__ import annotations

import typer

from chatelaine.cli.policy_bundle import bundle
from chatelaine.cli.policy_capture import capture
from chatelaine.cli.policy_diff import diff
from chatelaine.cli.policy_inspect import inspect
from chatelaine.cli.policy_sign import sign
from chatelaine.cli.policy_split import split
from chatelaine.cli.policy_try import try_policy
from chatelaine.cli.usage import UsageGroup

app = typer.Typer(
    cls=UsageGroup,
    add_completion=False,
    no_args_is_help=False,
    help="Write, sign and try policies and reference values.",
)


@app.callback()
def policy() -> None:
    """Write, sign and try policies and reference values: 0 accepted, 1 refused, 2 cannot tell, 64 usage."""


app.command()(bundle)
app.command()(capture)
app.command()(diff)
app.command()(sign)
app.command()(inspect)
app.command()(split)
app.command("test")(try_policy)


if __name__ == "__main__":
    app()
