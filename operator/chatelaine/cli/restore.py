"""`chatelaine restore check`: what a restore lacks, before the operator starts and after."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from chatelaine.cli.exits import FAILED, VERIFY_USAGE
from chatelaine.cli.usage import UsageGroup
from chatelaine.model.identifiers import CA_NAME
from chatelaine.model.verdict import Outcome

if TYPE_CHECKING:
    from chatelaine.cli.restore_check import Found

app = typer.Typer(cls=UsageGroup, add_completion=False, no_args_is_help=True, help="See a restore through.")
ENDS = {Outcome.HOLDS: 0, Outcome.REFUTED: 1, Outcome.CANNOT_TELL: 2}
SHOWN = {Outcome.HOLDS: "ok", Outcome.REFUTED: "MISSING", Outcome.CANNOT_TELL: "waits"}


@app.callback()
def restore() -> None:
    """Subcommands below."""


@app.command()
def check(
    backup: Annotated[Path, typer.Argument(help="What `chatelaine backup` wrote.")],
    namespace: Annotated[str, typer.Option(help="The operator's namespace.")] = "chatelaine-system",
    output_json: Annotated[bool, typer.Option("--json", help="One JSON object instead of lines.")] = False,
    kubeconfig: Annotated[Path | None, typer.Option(help="Default: $KUBECONFIG, else the pod's own.")] = None,
) -> None:
    """Hold the cluster against a backup; change nothing.

    Exit status: 0 everything is back and Ready, 1 something is missing or went wrong (or the API server did not
    answer), 2 everything is there, some of it waits for the operator or a person, 64 usage, or the file is no backup.
    """
    from chatelaine.cli.backup_manifests import BackupUnusable, read_backup
    from chatelaine.cli.restore_check import worst
    from chatelaine.kube.errors import KubeError

    try:
        found = asyncio.run(_look(read_backup(backup), namespace, kubeconfig))
    except BackupUnusable as error:
        typer.echo(f"chatelaine restore check: {error}", err=True)
        raise typer.Exit(VERIFY_USAGE) from error
    except KubeError as error:
        typer.echo(f"chatelaine restore check: {error}", err=True)
        raise typer.Exit(FAILED) from error
    _tell(found, as_json=output_json)
    raise typer.Exit(ENDS[worst(found)])


async def _look(bodies: list[dict[str, object]], namespace: str, kubeconfig: Path | None) -> list[Found]:
    from chatelaine.cli.backup_manifests import read_installation
    from chatelaine.cli.restore_check import authority, live_by_name
    from chatelaine.cli.restore_check import check as held_against
    from chatelaine.kube.adapter import KubeAdapter
    from chatelaine.kube.errors import NotFound
    from chatelaine.kube.port import CLAIMS, HSMS, POLICIES, SECRETS

    async with await KubeAdapter.connect(kubeconfig, user_agent="chatelaine-restore") as kube:
        live = await read_installation(kube)
        try:
            # Its metadata alone: nobody here needs to see the key.
            await kube.get_metadata(SECRETS, CA_NAME, namespace)
            there = True
        except NotFound:
            there = False
    kinds = ((POLICIES.kind, live.policies), (HSMS.kind, live.hsms), (CLAIMS.kind, live.claims))
    named = live_by_name([{**body, "kind": kind} for kind, found in kinds for body in found])
    return [authority(namespace, there=there), *held_against(bodies, named)]


def _tell(found: list[Found], *, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps({"found": [one.as_dict() for one in found]}))
        return
    for one in found:
        typer.echo(f"{SHOWN[one.outcome]:<8}{one.what}: {one.message}")
        if one.then:
            typer.echo(f"        → {one.then}")


if __name__ == "__main__":
    app()
