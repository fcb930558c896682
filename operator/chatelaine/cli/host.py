"""`chatelaine host invite`, `host join` and `host enter`: how a host becomes one of ours; and what its pods do before.

The token is a secret: it goes to standard output and comes from standard input or a file, never through an argument,
which every user of a machine can read.
"""

from __future__ import annotations

import asyncio
import secrets
import signal
import sys
import time
from pathlib import Path
from typing import Annotated

import typer

from chatelaine.cli.exits import FAILED
from chatelaine.cli.host_join import hand_over, join_host, known_users
from chatelaine.pki.errors import PkiError
from chatelaine.pki.invitation import MAX_TOKEN_CHARACTERS, Invitation
from chatelaine.wire.peer import PeerError, PeerRefused

app = typer.Typer(add_completion=False, no_args_is_help=True, help="Let a host join, and join.")


@app.command()
def invite(
    name: Annotated[str, typer.Argument(help="Name of the host; its Hsm gets the same.")],
    namespace: Annotated[str, typer.Option(help="Namespace of the operator.")] = "chatelaine-system",
    kubeconfig: Annotated[Path | None, typer.Option(help="Default: $KUBECONFIG, else the pod's own.")] = None,
) -> None:
    """Print a token that lets host NAME join once, within 30 minutes."""
    # The Kubernetes client takes a while to load, and a host that joins has no need of it.
    from chatelaine.cli.host_invite import invite_host
    from chatelaine.kube.errors import KubeError

    try:
        invitation = asyncio.run(
            invite_host(name, namespace, kubeconfig, now=int(time.time()), secret=secrets.token_bytes(32))
        )
    except (KubeError, PkiError) as error:
        raise _failed(str(error)) from error
    typer.echo(invitation.encode())
    typer.echo(f"Bring this token to {name} and run: chatelaine host join --state-dir DIR", err=True)


@app.command()
def join(
    state_dir: Annotated[Path, typer.Option(help="Gets agent/tls and gateway/tls.")] = Path("/var/lib/chatelaine"),
    token_file: Annotated[Path | None, typer.Option(help="File with the token; default: standard input.")] = None,
    agent_user: Annotated[str, typer.Option(help="Gets agent/; default: whoever runs this.", show_default=False)] = "",
    gateway_user: Annotated[
        str, typer.Option(help="Gets gateway/; default: whoever runs this.", show_default=False)
    ] = "",
) -> None:
    """Join with the token on standard input, or in a file."""
    try:
        known_users(agent_user, gateway_user)
        invitation = Invitation.decode(_token(token_file))
        asyncio.run(join_host(invitation, state_dir, now=int(time.time())))
        hand_over(state_dir, agent_user=agent_user, gateway_user=gateway_user)
    except PeerRefused as error:
        if error.problem.code == "InvitationRefused":
            raise _failed("the invitation was refused: used, expired, or replaced; make a new one") from error
        raise _failed(str(error)) from error
    except (PkiError, PeerError, LookupError, OSError) as error:
        raise _failed(str(error)) from error
    typer.echo(f"{invitation.host} has joined; keys and certificates are in {state_dir}")


@app.command()
def enter(
    name: Annotated[str, typer.Argument(help="Name of this host; its Hsm gets the same.")],
    namespace: Annotated[str, typer.Option(help="Namespace of the operator.")] = "chatelaine-system",
    state_dir: Annotated[Path, typer.Option(help="Gets agent/tls and gateway/tls.")] = Path("/var/lib/chatelaine"),
    kubeconfig: Annotated[Path | None, typer.Option(help="Default: $KUBECONFIG, else the pod's own.")] = None,
    patience_seconds: Annotated[
        float, typer.Option(min=0.0, max=86400.0, help="How long to wait for an operator that is not there yet.")
    ] = 600.0,
) -> None:
    """Join as NAME by an invitation of our own, as pods do whose account may make one. Good certificates are kept."""
    from chatelaine.cli.host_enter import Entry, enter_host
    from chatelaine.kube.errors import KubeError

    _end_when_told()
    entry = Entry(name, state_dir, namespace, kubeconfig, patience_seconds)
    try:
        joined = asyncio.run(
            enter_host(
                entry,
                wall=time.time,
                random_bytes=secrets.token_bytes,
                sleep=asyncio.sleep,
                tell=lambda said: typer.echo(f"chatelaine host: not yet: {said}", err=True),
            )
        )
    except (KubeError, PkiError, PeerError, OSError) as error:
        raise _failed(str(error)) from error
    typer.echo(f"{name} has joined" if joined else f"{name} keeps the certificates that it has")


@app.command()
def folders(
    state_dir: Annotated[Path, typer.Option(help="Gets agent, gateway and run.")],
    owner: Annotated[int, typer.Option(min=1, help="Number of the user and group that they are for.")],
) -> None:
    """Make the folders of a host in a pod, as root; nobody but OWNER may look into them."""
    from chatelaine.cli.host_pod import make_folders

    try:
        make_folders(state_dir, owner)
    except OSError as error:
        raise _failed(str(error)) from error


@app.command()
def pin(
    source: Annotated[Path, typer.Argument(help="File of a Secret's volume.")],
    target: Annotated[Path, typer.Argument(help="File that the gateway is told of.")],
) -> None:
    """Copy a PIN out of a Secret's volume in a pod: mode 0400, our own, as the gateway wants it."""
    from chatelaine.cli.host_pod import copy_pin

    try:
        copy_pin(source, target)
    except (OSError, ValueError) as error:
        raise _failed(str(error)) from error


@app.command("await")
def await_(state_dir: Annotated[Path, typer.Option(help="Folder of the agent or of the gateway.")]) -> None:
    """Wait until somebody has let the host join."""
    from chatelaine.cli.host_pod import await_join

    _end_when_told()
    await_join(state_dir)


def _token(token_file: Path | None) -> str:
    """The token, bounded: what is longer is no token."""
    limit = MAX_TOKEN_CHARACTERS + 2
    if token_file is None:
        if sys.stdin.isatty():
            typer.echo("Paste the token, then press Enter:", err=True)
            return sys.stdin.readline(limit)
        return sys.stdin.read(limit)
    with token_file.open("r", encoding="ascii", errors="replace") as file:
        return file.read(limit)


def _end_when_told() -> None:
    """The first process of a container, which waits, would not hear SIGTERM otherwise."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)


def _failed(message: str) -> typer.Exit:
    typer.echo(f"chatelaine host: {message}", err=True)
    return typer.Exit(FAILED)


if __name__ == "__main__":
    app()
