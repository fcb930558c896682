"""`chatelaine policy split`: an envelope as ConfigMaps, in pieces that the API server takes."""

from __future__ import annotations

from typing import Annotated, Final

import typer
import yaml

from chatelaine.cli import policy_inputs as inputs
from chatelaine.cli.policy_ends import object_name
from chatelaine.evidence.errors import ReferenceValuesError

PIECE_BYTES: Final = 900 * 1024
"""A ConfigMap holds 1 MiB; the rest is left to its metadata, and to whoever adds some."""
MAX_PIECES: Final = 16
KEY: Final = "envelope"


def split(
    file: Annotated[str, typer.Argument(metavar="F", help="Envelope.")],
    name: Annotated[
        str | None, typer.Option(help="Beginning of the ConfigMaps' names; absent: series and version.")
    ] = None,
    namespace: Annotated[str, typer.Option(help="Namespace of the operator.")] = "chatelaine-system",
    output: Annotated[str, typer.Option(metavar="F", help="Where the manifests go.")] = inputs.STANDARD_OUTPUT,
) -> None:
    """Write an envelope as ConfigMaps of at most 900 KiB, and the `configMapRefs` that name them.

    Apply them with `kubectl apply --server-side`: they are too large for the other way.
    """
    try:
        envelope = inputs.envelope(file)
        found = inputs.predicate_of(envelope)
    except ReferenceValuesError as error:
        raise inputs.refused(error) from error
    if not envelope.signatures:
        raise typer.BadParameter(f"{file}: nobody has signed it; `chatelaine policy sign` does", param_hint="F")
    # Written anew: ASCII without line ends, which no manifest can change.
    text = envelope.encode().decode("ascii")
    pieces = [text[at : at + PIECE_BYTES] for at in range(0, len(text), PIECE_BYTES)]
    if len(pieces) > MAX_PIECES:
        raise typer.BadParameter(
            f"{file}: {len(pieces)} ConfigMaps are needed, and a policy names at most {MAX_PIECES};"
            " mount it into the operator's folder of reference values instead"
        )
    start = object_name(name or f"{found.name}-v{found.version}", "--name")
    object_name(namespace, "--namespace")
    names = [f"{start}-{number}" for number in range(len(pieces))]
    manifests = [_config_map(*named, namespace) for named in zip(names, pieces, strict=True)]
    refs = [{"name": each, "key": KEY} for each in names]
    comment = "".join(f"# {line}\n" for line in yaml.safe_dump({"configMapRefs": refs}).splitlines())
    inputs.write((comment + yaml.safe_dump_all(manifests, width=2**31)).encode(), output)


def _config_map(name: str, piece: str, namespace: str) -> dict[str, object]:
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": name, "namespace": namespace},
        "immutable": True,
        "data": {KEY: piece},
    }
