"""`chatelaine`: one command, whose parts are loaded when they are asked for.

A host without a TPM has no TPM software stack, a laptop that verifies a quote needs no Kubernetes client: nothing of
that is imported before its subcommand runs.
"""

from __future__ import annotations

import importlib
from typing import Final

import typer

from chatelaine.cli.exits import UNAVAILABLE

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
    "hsm": "Take HSMs out of service, and bring them back.",
    "backup": "Write our objects as manifests that a restore can be made from.",
    "restore": "See a restore through.",
    "uninstall": "Leave a cluster without leaving anything stuck.",
}
"""Each is a module of this room with a typer `app`."""

app = typer.Typer(
    add_completion=False, no_args_is_help=True, help="Keys from hardware, for platforms that prove themselves."
)


def _mount(name: str, summary: str) -> None:
    def run(context: typer.Context) -> None:
        _load(name)(args=context.args, prog_name=f"chatelaine {name}")

    app.command(
        name,
        help=summary,
        add_help_option=False,
        context_settings={"allow_extra_args": True, "ignore_unknown_options": True, "allow_interspersed_args": False},
    )(run)


def _load(name: str) -> typer.Typer:
    try:
        module = importlib.import_module(f"chatelaine.cli.{name}")
    except ImportError as error:
        typer.echo(f"chatelaine {name} cannot run here: {error}", err=True)
        raise typer.Exit(UNAVAILABLE) from error
    found: typer.Typer = module.app
    return found


for _name, _summary in SUBCOMMANDS.items():
    _mount(_name, _summary)


if __name__ == "__main__":
    app()
