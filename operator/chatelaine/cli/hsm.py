"""`chatelaine hsm cordon|uncordon|drain|retire|inventory`: what a platform team does to an HSM over the years."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from chatelaine.cli.exits import FAILED
from chatelaine.cli.usage import UsageGroup

if TYPE_CHECKING:
    from chatelaine.cli.hsm_inventory import Inventory, Seat
    from chatelaine.kube.port import KubePort

app = typer.Typer(
    cls=UsageGroup, add_completion=False, no_args_is_help=True, help="Take HSMs out of service, and bring them back."
)

REMAIN = 2
"""How `drain` and `retire` end while something still stands on the HSM."""
POLL_SECONDS = 2.0

Name = Annotated[str, typer.Argument(help="Name of the Hsm.")]
Kubeconfig = Annotated[Path | None, typer.Option(help="Default: $KUBECONFIG, else the pod's own.")]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON object instead of lines.")]
T = TypeVar("T")


@app.command()
def cordon(name: Name, kubeconfig: Kubeconfig = None) -> None:
    """Bind no new claims there; those that are bound stay. Exit status: 0 done, 1 not."""
    done = _run("cordon", kubeconfig, lambda kube: _cordon(kube, name, on=True))
    typer.echo(f"Hsm {name} is cordoned{'' if done else ' already'}")


@app.command()
def uncordon(name: Name, kubeconfig: Kubeconfig = None) -> None:
    """Let claims be bound there again. Exit status: 0 done, 1 not."""
    done = _run("uncordon", kubeconfig, lambda kube: _cordon(kube, name, on=False))
    typer.echo(f"Hsm {name} is not cordoned{' any more' if done else ''}")


@app.command()
def drain(
    name: Name,
    wait: Annotated[bool, typer.Option("--wait", help="Until no claim has a place there.")] = False,
    timeout: Annotated[float, typer.Option(min=0, help="Seconds to wait at most.")] = 600.0,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Change nothing, say what would remain.")] = False,
    kubeconfig: Kubeconfig = None,
) -> None:
    """Cordon it, and name each claim that still has a place there, with what its owners do. No key is deleted.

    Exit status: 0 no claim has a place there, 1 it could not be done, 2 claims remain, 64 usage.
    """

    async def work(kube: KubePort) -> Inventory:
        from chatelaine.cli.hsm_store import read

        _, found = await read(kube, name)
        if not dry_run and await _cordon(kube, name, on=True):
            typer.echo(f"Hsm {name} is cordoned")
        for seat in found.seats:
            _tell(seat)
        return await _until_empty(kube, found, timeout) if wait and not dry_run else found

    found = _run("drain", kubeconfig, work)
    if found.seats:
        typer.echo(f"{len(found.seats)} claims have a place on Hsm {name}", err=True)
        raise typer.Exit(REMAIN)
    typer.echo(f"no claim has a place on Hsm {name}")


@app.command()
def retire(
    name: Name,
    abandon_retained: Annotated[
        list[str] | None,
        typer.Option(help="Label of a retained key (chat/UID/KEY/VERSION) that may be forgotten; one for each."),
    ] = None,
    kubeconfig: Kubeconfig = None,
) -> None:
    """Delete the Hsm object, once it is cordoned and nothing stands on it. What is in the token stays there.

    Exit status: 0 deleted, 1 it could not be done, 2 something stands in the way, 64 usage.
    """
    given = frozenset(abandon_retained or ())

    async def work(kube: KubePort) -> tuple[list[str], Inventory]:
        from chatelaine.cli.hsm_store import delete, read

        body, found = await read(kube, name)
        obstacles = _obstacles(found, given)
        if not obstacles:
            await delete(kube, body)
        return obstacles, found

    obstacles, found = _run("retire", kubeconfig, work)
    for line in obstacles:
        typer.echo(line, err=True)
    if obstacles:
        raise typer.Exit(REMAIN)
    typer.echo(f"Hsm {name} is deleted. If Git holds its manifest, take it out there, or it comes back.")
    for label in found.retained:
        typer.echo(f"stays in the token, and is listed nowhere any more: {label}")
    typer.echo("The token's own keys (chat/service/…) stay too. To be rid of all of it, initialise the token anew.")


@app.command(name="inventory")
def show_inventory(name: Name, output_json: AsJson = False, kubeconfig: Kubeconfig = None) -> None:
    """Say whose keys stand on the token, as the statuses have it. Exit status: 0 told, 1 not."""
    from chatelaine.cli.hsm_inventory import lines

    async def work(kube: KubePort) -> Inventory:
        from chatelaine.cli.hsm_store import read

        return (await read(kube, name))[1]

    found = _run("inventory", kubeconfig, work)
    typer.echo(json.dumps(found.as_dict()) if output_json else "\n".join(lines(found)))


def _obstacles(found: Inventory, given: frozenset[str]) -> list[str]:
    """Why it cannot be retired, one line each."""
    said = []
    if not found.cordoned:
        said.append(f"Hsm {found.hsm} takes new claims: chatelaine hsm drain {found.hsm}")
    said += [f"{seat.shown} has a place there: {seat.then}" for seat in found.seats]
    said += [
        f"key {label} is retained there; name it with --abandon-retained {label} if nobody will need it again"
        for label in found.retained
        if label not in given
    ]
    return said + [f"{label} is no retained key of Hsm {found.hsm}" for label in sorted(given - set(found.retained))]


def _tell(seat: Seat) -> None:
    typer.echo(f"{seat.shown}: {seat.then}")
    if seat.rebinds and not seat.gone:
        typer.echo("  (failover: Rebind moves a claim by itself only when its HSM is cut, not when it is drained)")


async def _until_empty(kube: KubePort, found: Inventory, seconds: float) -> Inventory:
    from chatelaine.cli.hsm_store import read

    loop = asyncio.get_running_loop()
    until = loop.time() + seconds
    while found.seats and (left := until - loop.time()) > 0:
        await asyncio.sleep(min(POLL_SECONDS, left))
        before, (_, found) = {seat.shown for seat in found.seats}, await read(kube, found.hsm)
        for gone in sorted(before - {seat.shown for seat in found.seats}):
            typer.echo(f"{gone} has left; {len(found.seats)} claims remain")
    return found


async def _cordon(kube: KubePort, name: str, *, on: bool) -> bool:
    from chatelaine.cli.hsm_store import cordon as write
    from chatelaine.model.hsm import Cordon

    return await write(kube, name, Cordon.ENABLED if on else Cordon.DISABLED)


def _run(verb: str, kubeconfig: Path | None, work: Callable[[KubePort], Awaitable[T]]) -> T:
    from chatelaine.cli.hsm_store import SomebodyElses
    from chatelaine.kube.adapter import KubeAdapter
    from chatelaine.kube.errors import KubeError

    async def connected() -> T:
        async with await KubeAdapter.connect(kubeconfig, user_agent="chatelaine-hsm") as kube:
            return await work(kube)

    try:
        return asyncio.run(connected())
    except (KubeError, SomebodyElses) as error:
        typer.echo(f"chatelaine hsm {verb}: {error}", err=True)
        raise typer.Exit(FAILED) from error


if __name__ == "__main__":
    app()
