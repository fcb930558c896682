"""`chatelaine policy sign`: sign reference values, with keys in files or with signatures made elsewhere."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from chatelaine.cli import policy_inputs as inputs
from chatelaine.cli import verify_inputs
from chatelaine.cli.policy_keys import MAX_KEY_FILE_BYTES, signing_key, with_foreign_signature, with_signature_of
from chatelaine.evidence.dsse import MAX_SIGNATURE_BYTES, VerifyingKey
from chatelaine.evidence.errors import ReferenceValuesError


def sign(
    file: Annotated[
        str,
        typer.Argument(metavar="F", help="Payload of `policy bundle`, its predicate alone, or an envelope to add to."),
    ],
    key: Annotated[
        list[Path] | None,
        typer.Option(metavar="F", help="Private key, PEM: ECDSA P-256 or Ed25519. May be given several times."),
    ] = None,
    passphrase_file: Annotated[
        Path | None, typer.Option(metavar="F", help="First line: passphrase of the keys.")
    ] = None,
    signature: Annotated[
        str | None, typer.Option(metavar="F", help="A signature made elsewhere, over what --message gave.")
    ] = None,
    public_key: Annotated[str | None, typer.Option(metavar="F", help="Public key, PEM, of --signature.")] = None,
    message: Annotated[
        str | None, typer.Option(metavar="F", help="Write the bytes that a signature is made over, and sign nothing.")
    ] = None,
    output: Annotated[str, typer.Option(metavar="F", help="Where the envelope goes.")] = inputs.STANDARD_OUTPUT,
) -> None:
    """Sign reference values; what is signed is summed up on standard error.

    Signatures that an envelope already has are kept. Only reference values are signed, nothing else.
    """
    if (signature is None) != (public_key is None):
        raise typer.BadParameter("--signature and --public-key go together", param_hint="--signature")
    if sum((bool(key), signature is not None, message is not None)) != 1:
        raise typer.BadParameter("give one of --key, --signature, --message")
    secret = None if passphrase_file is None else _passphrase(passphrase_file)
    keys = [signing_key(path, secret) for path in key or ()]
    try:
        envelope = inputs.envelope(file)
        found = inputs.predicate_of(envelope)
        for each in keys:
            envelope = with_signature_of(envelope, each)
        if signature is not None and public_key is not None:
            raw = verify_inputs.binary(signature, MAX_SIGNATURE_BYTES)
            signer = VerifyingKey.parse("the key of --public-key", inputs.public_key(public_key))
            envelope = with_foreign_signature(envelope, raw, signer)
    except ReferenceValuesError as error:
        raise inputs.refused(error) from error
    typer.echo(inputs.summary(found), err=True)
    inputs.write(envelope.encode() if message is None else envelope.message, output if message is None else message)


def _passphrase(path: Path) -> bytes:
    lines = verify_inputs.binary(str(path), MAX_KEY_FILE_BYTES).splitlines()
    if not lines or not lines[0]:
        raise typer.BadParameter(f"{path}: its first line is empty", param_hint="--passphrase-file")
    return lines[0]
