"""`chatelaine agent`: evidence of this host, on demand, and word of every change."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Annotated

import typer

from chatelaine.agent.errors import AgentError
from chatelaine.agent.logs import KERNEL_EVENT_LOG, KERNEL_IMA_LIST, kernel_file
from chatelaine.agent.settings import AgentSettings, AttesterKind
from chatelaine.agent.tpm_kinds import AkKind, EkKind
from chatelaine.agent.watch import POLL_SECONDS
from chatelaine.cli.exits import FAILED
from chatelaine.cli.listen import parse_listen
from chatelaine.pki.errors import PkiError
from chatelaine.telemetry.log import configure
from chatelaine.wire.messages import ALIVE_SECONDS

app = typer.Typer(add_completion=False, help="Answer for this host's TPM and HSM.")


@app.command()
def agent(
    host_name: Annotated[str, typer.Option(help="Name under which this host joined.")],
    gateway_socket: Annotated[Path, typer.Option(help="Unix socket of the gateway on this host.")],
    state_dir: Annotated[Path, typer.Option(help="Keeps the attestation key's blob.")] = Path(
        "/var/lib/chatelaine/agent"
    ),
    tls_dir: Annotated[Path | None, typer.Option(help="Keeps key and certificate; default: STATE_DIR/tls.")] = None,
    listen: Annotated[str, typer.Option(help="Address and port; port 0 takes a free one.")] = "0.0.0.0:8444",
    tcti: Annotated[str, typer.Option(help="Where the TPM is.")] = "device:/dev/tpmrm0",
    attester: Annotated[
        AttesterKind, typer.Option(help="simulated proves nothing about this machine.")
    ] = AttesterKind.TPM,
    ek: Annotated[EkKind, typer.Option(help="Endorsement key to use.")] = EkKind.RSA_2048,
    ak: Annotated[AkKind, typer.Option(help="Attestation key to make.")] = AkKind.ECC_P256,
    event_log: Annotated[
        Path | None,
        typer.Option(help="Boot event log; default: what the kernel shows of its own TPM.", show_default=False),
    ] = None,
    ima_list: Annotated[
        Path | None,
        typer.Option(help="IMA's binary list; default: what the kernel shows, if its TPM is used.", show_default=False),
    ] = None,
    poll_seconds: Annotated[float, typer.Option(min=0.01, max=5.0, help="How often the TPM is asked.")] = POLL_SECONDS,
    alive_seconds: Annotated[
        float, typer.Option(min=0.1, max=ALIVE_SECONDS, help="Longest silence on a stream.")
    ] = ALIVE_SECONDS,
    ready_file: Annotated[Path | None, typer.Option(help="Written once the agent listens.")] = None,
    log_level: Annotated[str, typer.Option(help="DEBUG, INFO, WARNING or ERROR.")] = "INFO",
) -> None:
    """Answer for this host's TPM and HSM until SIGTERM."""
    # The TPM software stack writes to standard error by itself; its errors come to us as exceptions.
    os.environ.setdefault("TSS2_LOG", "all+none")
    configure(log_level)
    listen_host, listen_port = parse_listen(listen)
    kernels_tpm = attester is AttesterKind.TPM and tcti.startswith("device:")
    settings = AgentSettings(
        host_name=host_name,
        state_dir=state_dir,
        tls_dir=tls_dir if tls_dir is not None else state_dir / "tls",
        gateway_socket=gateway_socket,
        listen_host=listen_host,
        listen_port=listen_port,
        tcti=tcti,
        attester=attester,
        ek_kind=ek,
        ak_kind=ak,
        event_log=event_log or (kernel_file(KERNEL_EVENT_LOG) if kernels_tpm else None),
        ima_list=ima_list or (kernel_file(KERNEL_IMA_LIST) if kernels_tpm else None),
        poll_seconds=poll_seconds,
        alive_seconds=alive_seconds,
        ready_file=ready_file,
    )
    from chatelaine.agent.process import run_agent

    try:
        asyncio.run(run_agent(settings))
    except (AgentError, PkiError, OSError) as error:
        typer.echo(f"chatelaine agent: {error}", err=True)
        raise typer.Exit(FAILED) from error


if __name__ == "__main__":
    app()
