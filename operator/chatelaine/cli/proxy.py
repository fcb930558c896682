"""`chatelaine proxy`: beside an application, so that plain HTTP clients use its keys."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Annotated

import typer

from chatelaine.cli.exits import FAILED
from chatelaine.cli.listen import parse_listen
from chatelaine.proxy.binding import ROOT_VARIABLE, folder_of
from chatelaine.proxy.errors import PlaceTaken, SettingsRefused
from chatelaine.proxy.server import Proxy
from chatelaine.proxy.settings import (
    DEFAULT_LISTEN,
    DEFAULT_MODE,
    DEFAULT_TOKEN_FILE,
    UNIX,
    LoopbackPlace,
    ProxySettings,
    UnixPlace,
    parse_mode,
)
from chatelaine.telemetry.log import configure

app = typer.Typer(add_completion=False, help="Let an application of this pod use its keys by plain HTTP.")


@app.command()
def proxy(
    binding: Annotated[
        Path | None,
        typer.Option(help=f"Folder of the claim's binding; default: the only one of a claim below ${ROOT_VARIABLE}."),
    ] = None,
    token_file: Annotated[
        Path, typer.Option(help="The pod's projected service-account token, for the audience chatelaine.dev.")
    ] = DEFAULT_TOKEN_FILE,
    listen: Annotated[
        str, typer.Option(help="unix:PATH, 127.0.0.1:PORT or [::1]:PORT; no other address is taken.")
    ] = DEFAULT_LISTEN,
    socket_mode: Annotated[str, typer.Option(help="Who may use the Unix socket, as chmod has it.")] = DEFAULT_MODE,
    socket_group: Annotated[
        int | None, typer.Option(min=0, help="Group of the Unix socket, by number; default: as its folder has it.")
    ] = None,
    metrics_listen: Annotated[
        str, typer.Option(help="Address and port of probes and metrics, never of keys; empty: none.")
    ] = "",
    ready_file: Annotated[Path | None, typer.Option(help="Written when the sidecar listens.")] = None,
    log_level: Annotated[str, typer.Option(help="DEBUG, INFO, WARNING or ERROR.")] = "INFO",
) -> None:
    """Own a caller's key, keep a trust token for it, and forward what this pod's programs ask of their keys."""
    configure(log_level)
    try:
        settings = ProxySettings(
            binding=folder_of(binding, os.environ.get(ROOT_VARIABLE)),
            token_file=token_file,
            listen=_place(listen, socket_mode, socket_group),
            metrics_listen=parse_listen(metrics_listen) if metrics_listen else None,
            ready_file=ready_file,
        )
    except SettingsRefused as error:
        raise typer.BadParameter(str(error)) from error

    async def serve() -> None:
        await Proxy(settings).run()

    try:
        asyncio.run(serve())
    except (PlaceTaken, OSError) as error:
        typer.echo(f"the sidecar cannot start: {error}", err=True)
        raise typer.Exit(FAILED) from error


def _place(listen: str, mode: str, group: int | None) -> UnixPlace | LoopbackPlace:
    if listen.startswith(UNIX):
        return UnixPlace(Path(listen.removeprefix(UNIX)), parse_mode(mode), group)
    return LoopbackPlace(*parse_listen(listen))


if __name__ == "__main__":
    app()
