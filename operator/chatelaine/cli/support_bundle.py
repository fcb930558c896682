"""`chatelaine support-bundle`: what somebody needs who is to help from afar, in one file, without a secret.

Secrets are read by their metadata alone, so their data never gets here. Whatever else looks like a key, a token or a
PIN is left out, and a file in which something is still found is not written.
"""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Annotated

import typer

from chatelaine.cli.doctor import SAYS, progress
from chatelaine.cli.exits import FAILED, UNWRITABLE
from chatelaine.cli.explain import SYSTEM, Kubeconfig, System
from chatelaine.cli.invocation import command_name
from chatelaine.cli.usage import UsageGroup

app = typer.Typer(cls=UsageGroup, add_completion=False, help="Collect what helps others to help, without secrets.")


@app.callback(invoke_without_command=True)
def support_bundle(
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="F", help="File to write; default: chatelaine-support-TIME.tar.gz."),
    ] = None,
    kubeconfig: Kubeconfig = None,
    system: System = SYSTEM,
    seconds: Annotated[float, typer.Option(min=1.0, max=600.0, help="Bound on what doctor reads.")] = 60.0,
) -> None:
    """Write objects, Events, logs, versions and doctor's findings to a tar.gz; every Secret's data is left out."""
    from chatelaine.cli.support_bundle_files import written
    from chatelaine.cli.support_bundle_reading import collected
    from chatelaine.kube.errors import KubeError

    place = output or Path(time.strftime("chatelaine-support-%Y%m%dT%H%M%SZ.tar.gz", time.gmtime()))
    try:
        with progress() as tell:
            bundle = asyncio.run(collected(kubeconfig, system, SAYS, seconds=seconds, tell=tell))
    except KubeError as error:
        typer.echo(f"{command_name()} support-bundle: {error}", err=True)
        raise typer.Exit(FAILED) from error
    try:
        refused = written(place, bundle)
    except OSError as error:
        typer.echo(f"{command_name()} support-bundle: {place}: {error.strerror or error}", err=True)
        raise typer.Exit(UNWRITABLE) from error
    for name, why in refused.items():
        typer.echo(f"{name} was not written: it looks like {why}", err=True)
    typer.echo(f"{place}: look through it before you hand it on; README.txt in it says what it holds", err=True)


if __name__ == "__main__":
    app()
