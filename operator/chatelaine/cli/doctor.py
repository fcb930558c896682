"""`chatelaine doctor`: is the whole installation well? It reads with the caller's own rights and changes nothing.

Exit status: 0 all is well, 1 something is wrong, 2 cannot tell, 64 usage.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from chatelaine.cli.exits import STATES, VERIFY_USAGE
from chatelaine.cli.explain import SYSTEM, Json, Kubeconfig, System
from chatelaine.cli.invocation import command_name
from chatelaine.cli.usage import UsageGroup
from chatelaine.diagnosis.check import Diagnosis, State

if TYPE_CHECKING:
    from chatelaine.cli.doctor_reading import Tell
    from chatelaine.diagnosis.installation import CertificateSight

app = typer.Typer(cls=UsageGroup, add_completion=False, help="Look at the whole installation.")

SAYS: Final = {
    State.READY: "is well.",
    State.NOT_READY: "needs somebody.",
    State.CANNOT_TELL: "may be well or not: it cannot be told.",
}


@app.callback(invoke_without_command=True)
def doctor(
    kubeconfig: Kubeconfig = None,
    system: System = SYSTEM,
    seconds: Annotated[float, typer.Option(min=1.0, max=600.0, help="Bound on all of it.")] = 60.0,
    leaf: Annotated[
        list[Path] | None,
        typer.Option(metavar="DIR", help="Folder with a process's chain.pem (--state-dir, --tls-dir); repeatable."),
    ] = None,
    json: Json = False,
) -> None:
    """Look at kinds, operator, rights, pods, certificates, policies, Hsms and claims; change nothing."""
    from chatelaine.cli.doctor_reading import leaves_in
    from chatelaine.cli.explain_report import finish
    from chatelaine.kube.errors import KubeError

    try:
        leaves = leaves_in(leaf or ())
    except (OSError, ValueError) as error:
        typer.echo(f"{command_name()} doctor: --leaf: expected a folder with a readable chain.pem: {error}", err=True)
        raise typer.Exit(VERIFY_USAGE) from error
    try:
        with progress() as tell:
            diagnosis = asyncio.run(_examined(kubeconfig, system, leaves, seconds, tell))
    except KubeError as error:
        typer.echo(f"{command_name()} doctor: {error}", err=True)
        raise typer.Exit(STATES[State.CANNOT_TELL]) from error
    finish(diagnosis, json=json, says=SAYS)


async def _examined(
    kubeconfig: Path | None, system: str, leaves: tuple[CertificateSight, ...], seconds: float, tell: Tell
) -> Diagnosis:
    from chatelaine.cli.doctor_reading import installation
    from chatelaine.cli.explain_access import PersonAdapter
    from chatelaine.diagnosis.installation import examine
    from chatelaine.diagnosis.names import Names

    async with await PersonAdapter.of(kubeconfig) as kube:
        seen = await installation(kube, system, leaves, seconds=seconds, tell=tell)
    return examine(seen, Names(command_name(), system))


@contextlib.contextmanager
def progress() -> Iterator[Tell]:
    """On a terminal, a line of standard error that says what is still being read; it is gone at the end."""
    if not sys.stderr.isatty():
        yield lambda pending: None
        return
    from rich.console import Console

    with Console(stderr=True).status("asking the cluster") as status:
        yield lambda pending: status.update(f"reading {', '.join(sorted(pending)) or 'done'}")


if __name__ == "__main__":
    app()
