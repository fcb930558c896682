"""What the commands about reference values read and write: payloads, envelopes, and where they go."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Final

import typer

from chatelaine.cli import verify_inputs as inputs
from chatelaine.cli.exits import FAILED
from chatelaine.evidence import strict_json
from chatelaine.evidence.dsse import MAX_ENVELOPE_BYTES, Envelope, parse_envelope
from chatelaine.evidence.errors import PayloadTypeRefused, ReferenceValuesError
from chatelaine.evidence.reference_values import PAYLOAD_TYPE, Predicate, read_payload, read_predicate
from chatelaine.model.tpm_policy import MAX_PEM_CHARACTERS

STANDARD_OUTPUT: Final = "-"


def envelope(name: str) -> Envelope:
    """An envelope, or an unsigned payload (a statement, or its predicate alone) as an envelope without signatures.

    Raises:
        ReferenceValuesError: it is none of these.
    """
    data = inputs.binary(name, MAX_ENVELOPE_BYTES)
    try:
        members = strict_json.loads(data) if len(data) <= MAX_ENVELOPE_BYTES else {}
    except strict_json.NotStrict as error:
        raise typer.BadParameter(f"{name}: {error}") from error
    if isinstance(members, dict) and "predicateType" in members:
        return Envelope(PAYLOAD_TYPE, data)
    if isinstance(members, dict) and "issuedAt" in members:
        return Envelope(PAYLOAD_TYPE, read_predicate(members).encode())
    return parse_envelope(data)


def public_key(name: str) -> str:
    """A public key in PEM, not yet read as one."""
    return inputs.binary(name, MAX_PEM_CHARACTERS).decode("ascii", "replace")


def predicate_of(found: Envelope) -> Predicate:
    """What an envelope says; verifies no signature.

    Raises:
        ReferenceValuesError: it holds something else than reference values.
    """
    if found.payload_type != PAYLOAD_TYPE:
        raise PayloadTypeRefused("signed as something else", expected=PAYLOAD_TYPE, found=found.payload_type)
    return read_payload(found.payload)


def write(data: bytes, name: str) -> None:
    """To a file, or to standard output."""
    if name == STANDARD_OUTPUT:
        sys.stdout.buffer.write(data)
        return
    try:
        Path(name).write_bytes(data)
    except OSError as error:
        raise typer.BadParameter(f"{name}: {error.strerror}") from error


def summary(found: Predicate) -> str:
    """One line: what a person is about to sign, or to ship."""
    pcrs = sum(map(len, found.pcrs.values()))
    pairs = sum(len(file.digests) for file in found.files)
    return (
        f"{found.name} version {found.version} of {found.issued_at}: {pcrs} PCRs, "
        f"{len(found.dbx_at_least)} dbx entries, {pairs} file contents"
    )


def refused(error: ReferenceValuesError) -> typer.Exit:
    """Says why, and ends with 1."""
    typer.echo(f"chatelaine policy: {error}", err=True)
    return typer.Exit(FAILED)
