"""`chatelaine explain claim|hsm|policy`: is it Ready, what does that rest on, and where it is not, what to do.

Exit status: 0 Ready, 1 not Ready, 2 cannot tell, 64 usage. It reads with the caller's own rights and changes nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from chatelaine.cli.exits import STATES, VERIFY_USAGE
from chatelaine.cli.invocation import command_name
from chatelaine.cli.usage import UsageGroup
from chatelaine.diagnosis.check import Diagnosis, State

app = typer.Typer(
    cls=UsageGroup,
    add_completion=False,
    no_args_is_help=True,
    help="Say whether a claim, an Hsm or a policy is Ready, why not, and what to do.",
)

Kubeconfig = Annotated[
    Path | None, typer.Option(metavar="F", help="Default: $KUBECONFIG, else the pod's own, else ~/.kube/config.")
]
System = Annotated[str, typer.Option("--system-namespace", metavar="NAME", help="Namespace of the operator.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
SYSTEM = "chatelaine-system"


@app.command()
def claim(
    name: Annotated[str, typer.Argument(metavar="[NAMESPACE/]NAME", help="The HsmClaim.")],
    namespace: Annotated[str | None, typer.Option("--namespace", "-n", metavar="NAME", help="Of the claim.")] = None,
    kubeconfig: Kubeconfig = None,
    system: System = SYSTEM,
    json: Json = False,
) -> None:
    """Explain an HsmClaim: its HSM, that HSM's proof, policies, release rules, keys, network."""
    where, slash, bare = name.rpartition("/")
    if slash and namespace not in (None, where):
        _usage(f"{name} is in namespace {where}, --namespace says {namespace}; say one of them")
    if not (where or namespace) or not bare or "/" in where:
        _usage(f"{name!r}: expected NAMESPACE/NAME, or --namespace NAMESPACE and NAME")
    from chatelaine.cli.explain_work import explained_claim

    _end(explained_claim(kubeconfig, where or namespace or "", bare, system, command_name()), json)


@app.command()
def hsm(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The Hsm.")],
    kubeconfig: Kubeconfig = None,
    system: System = SYSTEM,
    json: Json = False,
) -> None:
    """Explain an Hsm: its enrolment, its host's answers, its evidence, the policy that judges it."""
    from chatelaine.cli.explain_work import explained_hsm

    _end(explained_hsm(kubeconfig, name, system, command_name()), json)


@app.command()
def policy(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The AttestationPolicy.")],
    kubeconfig: Kubeconfig = None,
    system: System = SYSTEM,
    json: Json = False,
) -> None:
    """Explain an AttestationPolicy: its rules, what it leans on, and whom it judges."""
    from chatelaine.cli.explain_work import explained_policy

    _end(explained_policy(kubeconfig, name, system, command_name()), json)


def _usage(message: str) -> NoReturn:
    typer.echo(f"{command_name()} explain: {message}", err=True)
    raise typer.Exit(VERIFY_USAGE)


def _end(work: Coroutine[Any, Any, Diagnosis], json: bool) -> NoReturn:
    from chatelaine.cli.explain_report import finish
    from chatelaine.kube.errors import KubeError

    try:
        diagnosis = asyncio.run(work)
    except ValueError as error:
        _usage(str(error))
    except KubeError as error:
        typer.echo(f"{command_name()} explain: {error}", err=True)
        raise typer.Exit(STATES[State.CANNOT_TELL]) from error
    finish(diagnosis, json=json)


if __name__ == "__main__":
    app()
