"""`chatelaine check network`: does this cluster's network enforce NetworkPolicies at all?

Everything that we promise about network paths rests on it, and a cluster that ignores them says nothing. Exit status:
0 it does, 1 it does not, 2 cannot tell, 64 usage.
"""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path
from typing import Annotated, Final

import typer

from chatelaine.cli.exits import STATES
from chatelaine.cli.explain import SYSTEM, Json, Kubeconfig, System
from chatelaine.cli.invocation import command_name
from chatelaine.cli.usage import UsageGroup
from chatelaine.diagnosis.check import Diagnosis, State

app = typer.Typer(
    cls=UsageGroup,
    add_completion=False,
    no_args_is_help=True,
    help="Try out whether this cluster does what we rely on.",
)

SAYS: Final = {
    State.READY: "enforces NetworkPolicies.",
    State.NOT_READY: "does not enforce NetworkPolicies.",
    State.CANNOT_TELL: "may enforce NetworkPolicies or not: it cannot be told.",
}
INTERRUPTED: Final = 130
"""As a shell says of a command that ended by Ctrl-C."""


@app.command()
def network(
    image: Annotated[
        str | None,
        typer.Option(metavar="IMAGE", help="Of the two pods; default: that of the operator that runs here."),
    ] = None,
    seconds: Annotated[float, typer.Option(min=1.0, max=600.0, help="How long each step may take.")] = 60.0,
    kubeconfig: Kubeconfig = None,
    system: System = SYSTEM,
    json: Json = False,
) -> None:
    """Start two short-lived pods in a namespace of their own, and see whether a NetworkPolicy cuts one off."""
    from chatelaine.cli.explain_report import finish
    from chatelaine.kube.errors import KubeError

    try:
        diagnosis = asyncio.run(_tried(kubeconfig, system, image, seconds))
    except KubeError as error:
        typer.echo(f"{command_name()} check network: {error}", err=True)
        raise typer.Exit(STATES[State.CANNOT_TELL]) from error
    except (KeyboardInterrupt, asyncio.CancelledError) as error:
        typer.echo(f"{command_name()} check network: ended early; what it had made was deleted", err=True)
        raise typer.Exit(INTERRUPTED) from error
    finish(diagnosis, json=json, says=SAYS)


async def _tried(kubeconfig: Path | None, system: str, image: str | None, seconds: float) -> Diagnosis:
    from chatelaine.cli.check_network import tried
    from chatelaine.cli.explain_access import PersonAdapter

    running = asyncio.current_task()
    if running is not None:
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, running.cancel)
    async with await PersonAdapter.of(kubeconfig) as kube:
        return await tried(kube, system, image, seconds=seconds, tell=lambda said: typer.echo(f"… {said}", err=True))


@app.command(hidden=True)
def listen(port: Annotated[int, typer.Option(min=1, max=65535)]) -> None:
    """Accept connections until killed; what the pod does that is to be reached."""
    from chatelaine.cli.check_probe import accept

    accept(port)


@app.command(hidden=True)
def connect(
    host: Annotated[str, typer.Argument()],
    port: Annotated[int, typer.Option(min=1, max=65535)],
    expect: Annotated[str, typer.Option(help="open or cut.")],
    seconds: Annotated[float, typer.Option(min=0.1, max=600.0)],
) -> None:
    """Try to connect until what is expected has come about; what the other pod does. 0: it has, 1: it has not."""
    from chatelaine.cli.check_probe import reached

    if expect not in ("open", "cut"):
        raise typer.BadParameter("expected open or cut", param_hint="--expect")
    raise typer.Exit(0 if reached(host, port, expect == "open", seconds) else 1)


if __name__ == "__main__":
    app()
