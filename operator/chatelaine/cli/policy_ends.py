"""What the commands of `policy` share: how they end, and the options by which they reach live hosts."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final

import typer

from chatelaine.cli.exits import FAILED, VERDICTS
from chatelaine.model.printable import printable
from chatelaine.model.verdict import Verdict

REFUSED: Final = FAILED
CANNOT_TELL: Final = VERDICTS[Verdict.UNKNOWN]

StateDir = Annotated[
    Path, typer.Option(metavar="DIR", help="The operator's --state-dir: hosts let in whoever holds its key.")
]
DEFAULT_STATE_DIR: Final = Path("/var/lib/chatelaine/operator")
Kubeconfig = Annotated[
    Path | None, typer.Option(metavar="F", help="Default: $KUBECONFIG, else the pod's service account.")
]
Namespace = Annotated[str, typer.Option(help="Namespace of the operator.")]
DEFAULT_NAMESPACE: Final = "chatelaine-system"
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]


MAX_NAME_CHARACTERS: Final = 253
_NAME: Final = re.compile(r"[a-z0-9]([a-z0-9.-]*[a-z0-9])?")


@dataclass(frozen=True, slots=True)
class Reach:
    """How to reach a cluster and its hosts.

    Attributes:
        state_dir: where an operator keeps its leaf.
        kubeconfig: None: `$KUBECONFIG`, else the pod's service account.
        namespace: the operator's.
        reference_values_dir: the operator's folder of reference values, if it has one.
        bundle: a signed bundle that is not in the cluster yet.
    """

    state_dir: Path
    kubeconfig: Path | None
    namespace: str = DEFAULT_NAMESPACE
    reference_values_dir: Path | None = None
    bundle: bytes | None = None


def object_name(text: str, hint: str) -> str:
    """`text`, where an object of the cluster can be called so; else a usage error."""
    if len(text) > MAX_NAME_CHARACTERS or _NAME.fullmatch(text) is None:
        raise typer.BadParameter(f"{printable(text, MAX_NAME_CHARACTERS)} is no name of an object", param_hint=hint)
    return text


def say(message: str) -> None:
    """One line on standard error; what cannot be printed is replaced."""
    typer.echo(printable(message), err=True)


def ended(message: str, status: int) -> typer.Exit:
    """Says why, and ends with `status`."""
    say(f"chatelaine policy: {message}")
    return typer.Exit(status)
