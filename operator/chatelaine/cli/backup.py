"""`chatelaine backup`: our objects as manifests that a restore can be made from. No Secret's data is read."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Annotated

import typer

from chatelaine.cli.exits import FAILED, UNWRITABLE

app = typer.Typer(add_completion=False)


@app.command()
def backup(
    output: Annotated[Path | None, typer.Option(help="File to write; absent: standard output.")] = None,
    kubeconfig: Annotated[Path | None, typer.Option(help="Default: $KUBECONFIG, else the pod's own.")] = None,
) -> None:
    """Write all Hsms, claims and policies as manifests, with whose keys each token holds.

    Exit status: 0 written, 1 the API server did not answer, 74 the file cannot be written.
    """
    from chatelaine.cli.backup_manifests import manifests, needed_besides, read_installation, written
    from chatelaine.kube.adapter import KubeAdapter
    from chatelaine.kube.errors import KubeError

    async def read() -> tuple[str, list[str], int]:
        async with await KubeAdapter.connect(kubeconfig, user_agent="chatelaine-backup") as kube:
            found = await read_installation(kube)
        bodies, besides = manifests(found), needed_besides(found)
        return written(bodies, ["A restore needs besides:", *(f"- {line}" for line in besides)]), besides, len(bodies)

    try:
        text, besides, count = asyncio.run(read())
    except KubeError as error:
        typer.echo(f"chatelaine backup: {error}", err=True)
        raise typer.Exit(FAILED) from error
    if output is None:
        typer.echo(text, nl=False)
    else:
        try:
            output.write_text(text)
        except OSError as error:
            typer.echo(f"chatelaine backup: {output} cannot be written: {error.strerror}", err=True)
            raise typer.Exit(UNWRITABLE) from error
    typer.echo(f"{count} objects. A restore needs besides:", err=True)
    for line in besides:
        typer.echo(f"- {line}", err=True)


if __name__ == "__main__":
    app()
