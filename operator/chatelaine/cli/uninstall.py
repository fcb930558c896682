"""`chatelaine uninstall check|abandon`: what the chart's hooks run before and after a release is deleted.

Finalizers of claims and Hsms are taken off by the operator alone. Once it is gone, whoever deletes such an object, or
its namespace, waits for ever.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from pathlib import Path
from typing import Annotated, Any

import typer

from chatelaine.cli.exits import FAILED

app = typer.Typer(add_completion=False, no_args_is_help=True, help="Leave a cluster without leaving anything stuck.")

Kubeconfig = Annotated[Path | None, typer.Option(help="Default: $KUBECONFIG, else the pod's own.")]


@app.command()
def check(kubeconfig: Kubeconfig = None) -> None:
    """Say which claims would be stuck without an operator. Exit status: 0 none, 1 some."""
    from chatelaine.cli.finalizers import held_claims

    held = _run(held_claims(kubeconfig))
    if not held:
        typer.echo("no claim holds a finalizer: nothing will be stuck")
        return
    typer.echo(
        f"{len(held)} claims hold a finalizer that only the operator takes off: {', '.join(held[:10])}"
        f"{', …' if len(held) > 10 else ''}. Delete them first (kubectl delete hsmclaims --all --all-namespaces), or"
        " give them up with the chart's value uninstall.claims=Abandon: their keys stay in the tokens.",
        err=True,
    )
    raise typer.Exit(FAILED)


@app.command()
def abandon(kubeconfig: Kubeconfig = None) -> None:
    """Take our finalizer off all claims and Hsms, once no operator runs. Their keys stay in the tokens."""
    from chatelaine.cli.finalizers import abandon_all

    typer.echo(f"{_run(abandon_all(kubeconfig))} objects were let go")


def _run(work: Coroutine[Any, Any, Any]) -> Any:
    from chatelaine.kube.errors import KubeError

    try:
        return asyncio.run(work)
    except KubeError as error:
        typer.echo(f"chatelaine uninstall: {error}", err=True)
        raise typer.Exit(FAILED) from error


if __name__ == "__main__":
    app()
