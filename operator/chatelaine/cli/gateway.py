"""`chatelaine gateway`: beside the HSM, the only holder of the PIN."""

from __future__ import annotations

import pwd
from pathlib import Path
from typing import Annotated

import typer
import uvloop

from chatelaine.cli.exits import FAILED
from chatelaine.cli.listen import parse_listen
from chatelaine.gateway.errors import SettingsRefused
from chatelaine.gateway.server import Gateway
from chatelaine.gateway.settings import Address, GatewaySettings, HsmKind
from chatelaine.pkcs11.errors import HsmError
from chatelaine.pki.errors import PkiError
from chatelaine.telemetry.log import configure

app = typer.Typer(add_completion=False, help="Serve one token to those who may use it.")


@app.command()
def gateway(
    host_name: Annotated[str, typer.Option(help="Name of the Hsm object that this host serves.")],
    state_dir: Annotated[Path, typer.Option(help="Client CA, pins, audit log; this gateway's alone.")],
    tls_dir: Annotated[Path, typer.Option(help="key.pem, chain.pem, ca.pem, as `chatelaine host join` writes them.")],
    local_socket: Annotated[Path, typer.Option(help="Unix socket for the agent of this host.")],
    listen: Annotated[
        str,
        typer.Option(help="Address and port for clients and operator; port 0 takes a free one; [::] hears IPv6 only."),
    ] = "0.0.0.0:8443",
    hsm: Annotated[HsmKind, typer.Option(help="What stands behind the gateway.")] = HsmKind.PKCS11,
    module: Annotated[Path | None, typer.Option(help="PKCS#11 library.")] = None,
    token_uri: Annotated[str, typer.Option(help="Token, as RFC 7512 URI, without PIN.")] = "",
    serial: Annotated[str, typer.Option(help="Serial of the token, if it is known.")] = "",
    pin_file: Annotated[Path | None, typer.Option(help="File with the PIN, 0600 or 0400.")] = None,
    agent_user: Annotated[
        str,
        typer.Option(
            help="User of the agent, if it is not ours; --local-socket is open to our group then.", show_default=False
        ),
    ] = "",
    ready_file: Annotated[Path | None, typer.Option(help="Written when the gateway listens.")] = None,
    log_level: Annotated[str, typer.Option(help="DEBUG, INFO, WARNING or ERROR.")] = "INFO",
) -> None:
    """Serve one token: check every operation's trust token, execute it, record it."""
    configure(log_level)
    try:
        settings = GatewaySettings(
            host_name=host_name,
            state_dir=state_dir,
            tls_dir=tls_dir,
            listen=Address(*parse_listen(listen)),
            local_socket=local_socket,
            hsm=hsm,
            module=module,
            token_uri=token_uri,
            serial=serial,
            pin_file=pin_file,
            ready_file=ready_file,
            agent_uid=_uid(agent_user) if agent_user else None,
        )
    except SettingsRefused as error:
        raise typer.BadParameter(str(error)) from error

    async def serve() -> None:
        await Gateway(settings).run()

    try:
        uvloop.run(serve())
    except (PkiError, HsmError, OSError) as error:
        typer.echo(f"the gateway cannot start: {error}", err=True)
        raise typer.Exit(FAILED) from error


def _uid(user: str) -> int:
    """Number of a user of this machine."""
    try:
        return pwd.getpwnam(user).pw_uid
    except KeyError as error:
        raise typer.BadParameter(f"--agent-user: this machine has no user {user!r}") from error


if __name__ == "__main__":
    app()
