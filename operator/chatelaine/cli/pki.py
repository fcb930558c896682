"""`chatelaine pki`: rotate the CA of our own processes, and see how far that is.

The operator does it; this asks for it, by an annotation of the ConfigMap `chatelaine-ca`, and shows what the operator
writes there. It needs `get` and `patch` of that ConfigMap and nothing else: the CA's key is never read.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine
from pathlib import Path
from typing import Annotated, Any

import typer

from chatelaine.cli.exits import FAILED

app = typer.Typer(add_completion=False, no_args_is_help=True, help="Rotate the CA of our own processes.")

Namespace = Annotated[str, typer.Option(help="Namespace of the operator.")]
Kubeconfig = Annotated[Path | None, typer.Option(help="Default: $KUBECONFIG, else the pod's own.")]


@app.command()
def rotate(
    namespace: Namespace = "chatelaine-system",
    kubeconfig: Kubeconfig = None,
    grace_seconds: Annotated[
        int | None,
        typer.Option(
            min=0,
            max=86700,
            help="How long each step waits for clients, which read the CAs out of their Secret; default: a day.",
            show_default=False,
        ),
    ] = None,
    wait: Annotated[bool, typer.Option(help="Return when the rotation is over, and say what happens until then.")] = (
        False
    ),
    timeout_seconds: Annotated[float, typer.Option(min=1.0, help="With --wait: give up after that.")] = 3 * 86400.0,
) -> None:
    """Have the operator make a new CA, move everybody to it, and retire the old one. Nothing stops meanwhile."""
    from chatelaine.cli.pki_rotation import await_end, begin

    request = _run(begin(namespace, kubeconfig, wall=time.time, grace_seconds=grace_seconds))
    typer.echo(f"asked for: {request}; the operator begins within a minute (chatelaine pki status)")
    if wait:
        _run(await_end(namespace, kubeconfig, request, typer.echo, seconds=timeout_seconds))


@app.command()
def status(
    namespace: Namespace = "chatelaine-system",
    kubeconfig: Kubeconfig = None,
    as_json: Annotated[bool, typer.Option("--json", help="For machines.")] = False,
) -> None:
    """Say which CA signs, whether a rotation is under way, and for whom it waits."""
    from chatelaine.cli.pki_rotation import seen, text_of

    found = _run(seen(namespace, kubeconfig))
    typer.echo(found.report.encode() if as_json else text_of(found))


def _run(work: Coroutine[Any, Any, Any]) -> Any:
    from chatelaine.cli.pki_rotation import RotationFailed
    from chatelaine.kube.errors import KubeError

    try:
        return asyncio.run(work)
    except (KubeError, RotationFailed) as error:
        typer.echo(f"chatelaine pki: {error}", err=True)
        raise typer.Exit(FAILED) from error


if __name__ == "__main__":
    app()
