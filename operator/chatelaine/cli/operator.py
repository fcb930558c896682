"""`chatelaine operator`: watches the cluster, binds claims to HSMs that have proven themselves, cuts them off."""

from __future__ import annotations

import asyncio
import os
import secrets
import signal
import socket
from pathlib import Path
from typing import Annotated

import typer
import uvloop

from chatelaine.cli.exits import FAILED
from chatelaine.cli.listen import parse_listen
from chatelaine.controller.executor import AfterAction
from chatelaine.controller.operator import Operator
from chatelaine.controller.settings import OperatorSettings
from chatelaine.kube.adapter import KubeAdapter
from chatelaine.kube.login import LoginFailed
from chatelaine.telemetry.log import configure

app = typer.Typer(add_completion=False, help="Watch the cluster and bind claims to attested HSMs.")


@app.command()
def operator(
    namespace: Annotated[str, typer.Option(help="Namespace of the Lease, the CA and invitations.")],
    kubeconfig: Annotated[
        Path | None, typer.Option(help="Default: $KUBECONFIG, else the pod's service account.")
    ] = None,
    state_dir: Annotated[
        Path | None,
        typer.Option(help="Keeps our own key and certificate, and evidence; default: a folder that goes with us."),
    ] = None,
    evidence_mebibytes: Annotated[
        int, typer.Option(min=8, max=1024 * 1024, help="Bound on the evidence that is stored in evidence/ of it.")
    ] = 256,
    join_listen: Annotated[str, typer.Option(help="Address and port of the join endpoint; empty: none.")] = (
        "0.0.0.0:8446"
    ),
    join_endpoint: Annotated[str, typer.Option(help="host:port under which hosts reach the join endpoint.")] = "",
    metrics_listen: Annotated[str, typer.Option(help="Address and port of probes and metrics; empty: none.")] = (
        "0.0.0.0:8080"
    ),
    leader_election: Annotated[bool, typer.Option(help="Off only where exactly one operator runs.")] = True,
    workers: Annotated[int, typer.Option(min=1, max=1024, help="Objects examined at a time.")] = 128,
    resync_seconds: Annotated[float, typer.Option(min=1.0, help="Everything is examined again this often.")] = 600.0,
    reference_values_dir: Annotated[
        Path | None, typer.Option(help="Folder of files that policies name under referenceValues.file.")
    ] = None,
    ready_file: Annotated[Path | None, typer.Option(help="Written, with the ports, once everything listens.")] = None,
    log_level: Annotated[str, typer.Option(help="DEBUG, INFO, WARNING or ERROR.")] = "INFO",
) -> None:
    """Watch the cluster and bind claims to attested HSMs until SIGTERM."""
    configure(log_level)
    settings = OperatorSettings(
        namespace=namespace,
        kubeconfig=kubeconfig,
        state_folder=state_dir,
        evidence_bytes=evidence_mebibytes * 1024 * 1024,
        join_listen=parse_listen(join_listen) if join_listen else None,
        join_endpoint=join_endpoint,
        metrics_listen=parse_listen(metrics_listen) if metrics_listen else None,
        leader_election=leader_election,
        identity=f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}",
        workers=workers,
        resync_seconds=resync_seconds,
        reference_values_folder=reference_values_dir,
        ready_file=ready_file,
    )
    try:
        uvloop.run(serve(settings))
    except LoginFailed as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(FAILED) from error


async def serve(settings: OperatorSettings, after_action: AfterAction = lambda _number, _action: None) -> None:
    """Run one operator until SIGTERM or SIGINT.

    Raises:
        LoginFailed: no usable credentials.
    """
    loop = asyncio.get_running_loop()
    async with await KubeAdapter.connect(settings.kubeconfig, user_agent="chatelaine-operator") as kube:
        running = loop.create_task(Operator(settings, kube, after_action=after_action).run())
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, running.cancel)
        try:
            await running
        except asyncio.CancelledError:
            return
