"""`chatelaine`: one command, whose parts are loaded when they are asked for.

A host without a TPM has no TPM software stack, a laptop that verifies a quote needs no Kubernetes client: nothing of
that is imported before its subcommand runs.
"""

from __future__ import annotations

import contextlib
import importlib
from typing import Annotated, Any, Final

import typer
import typer.main
from typer.core import TyperGroup

from chatelaine import __version__
from chatelaine.cli.exits import UNAVAILABLE
from chatelaine.cli.invocation import command_name

SUBCOMMANDS: Final = {
    "operator": "Watch the cluster and bind claims to attested HSMs.",
    "gateway": "Serve an HSM to attested workloads.",
    "agent": "Answer for this host's TPM and HSM.",
    "proxy": "Let an application of this pod use its keys by plain HTTP.",
    "host": "Let a host join, and join.",
    "pki": "Rotate the CA of our own processes.",
    "verify": "Verify evidence offline.",
    "evidence": "Look at the evidence that an operator has stored.",
    "policy": "Write, sign and try policies and reference values.",
    "explain": "Say why a claim, an Hsm or a policy is not Ready, and what to do.",
    "doctor": "Look at the whole installation; change nothing.",
    "check": "Try out whether this cluster does what we rely on.",
    "support-bundle": "Collect what helps others to help, without secrets.",
    "version": "Say which version this is, and which run in the cluster.",
    "completion": "Print the script by which a shell completes our commands.",
    "hsm": "Take HSMs out of service, and bring them back.",
    "backup": "Write our objects as manifests that a restore can be made from.",
    "restore": "See a restore through.",
    "uninstall": "Leave a cluster without leaving anything stuck.",
}
"""Each is a module of this room with a typer `app`."""


class Commands(TyperGroup):
    """Subcommands are loaded when they run; and when a shell asks what could follow."""

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """See `TyperGroup`."""
        if ctx.resilient_parsing and cmd_name in SUBCOMMANDS:
            with contextlib.suppress(typer.Exit):
                return typer.main.get_command(_load(cmd_name))
        return super().get_command(ctx, cmd_name)


app = typer.Typer(cls=Commands, no_args_is_help=True, help="Keys from hardware, for platforms that prove themselves.")


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"chatelaine {__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and end.")
    ] = False,
) -> None:
    """Keys from hardware, for platforms that prove themselves."""


def module_of(name: str) -> str:
    """The module of a subcommand."""
    return f"chatelaine.cli.{name.replace('-', '_')}"


def _mount(name: str, summary: str) -> None:
    def run(context: typer.Context) -> None:
        _load(name)(args=context.args, prog_name=context.command_path)

    app.command(
        name,
        help=summary,
        add_help_option=False,
        context_settings={"allow_extra_args": True, "ignore_unknown_options": True, "allow_interspersed_args": False},
    )(run)


def _load(name: str) -> typer.Typer:
    try:
        module = importlib.import_module(module_of(name))
    except ImportError as error:
        typer.echo(f"chatelaine {name} cannot run here: {error}", err=True)
        raise typer.Exit(UNAVAILABLE) from error
    found: typer.Typer = module.app
    return found


for _name, _summary in SUBCOMMANDS.items():
    _mount(_name, _summary)


def main() -> None:
    """By whichever name we were called."""
    app(prog_name=command_name())


if __name__ == "__main__":
    main()
