"""`chatelaine policy bundle`: put reference values together, unsigned."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Annotated, TypeVar

import typer

from chatelaine.cli import policy_inputs as inputs
from chatelaine.cli import verify_inputs
from chatelaine.cli.policy_description import Description, moment, read_description, rfc3339
from chatelaine.cli.policy_file_lists import read_checksums, read_ima_list
from chatelaine.evidence.corim import import_corim
from chatelaine.evidence.corim_cbor import MAX_CORIM_BYTES
from chatelaine.evidence.dsse import VerifyingKey, verify_envelope
from chatelaine.evidence.errors import ReferenceValuesError
from chatelaine.evidence.reference_files import GoodFile, combined, with_grace, write_files
from chatelaine.evidence.reference_values import PcrValues, Predicate, read_payload, read_predicate

T = TypeVar("T", str, int)


def bundle(
    description: Annotated[
        str | None, typer.Argument(metavar="F", help="Reference values, YAML or JSON.", show_default=False)
    ] = None,
    files: Annotated[
        list[str] | None, typer.Option(metavar="F", help="Good files, as `sha256sum` writes them; several times.")
    ] = None,
    root: Annotated[str, typer.Option(metavar="DIR", help="Taken away from the paths of --files.")] = "",
    until: Annotated[
        str | None, typer.Option(metavar="TIME", help="Makes all of --files a grace that ends then; RFC 3339.")
    ] = None,
    ima: Annotated[
        list[str] | None,
        typer.Option(metavar="F", help="Files that IMA measured (binary or ASCII list), not compared with a PCR 10."),
    ] = None,
    corim: Annotated[
        list[str] | None, typer.Option(metavar="F", help="PCR values out of a CoRIM, CBOR; several times.")
    ] = None,
    corim_key: Annotated[
        str | None, typer.Option(metavar="F", help="Public key, PEM, by which every --corim must be signed.")
    ] = None,
    previous: Annotated[
        str | None,
        typer.Option(metavar="F", help="The bundle before: gives the name, and the version that comes after it."),
    ] = None,
    previous_key: Annotated[
        list[str] | None,
        typer.Option(metavar="F", help="Public key, PEM, that must have signed --previous; several: all of them."),
    ] = None,
    grace_seconds: Annotated[
        int | None,
        typer.Option(min=1, help="How long files stay good that only --previous lists; not, if absent."),
    ] = None,
    name: Annotated[str | None, typer.Option(help="Name of the series, where F does not say it.")] = None,
    number: Annotated[int | None, typer.Option("--version", help="Version, where F does not say it.")] = None,
    output: Annotated[str, typer.Option(metavar="F", help="Where the payload goes.")] = inputs.STANDARD_OUTPUT,
) -> None:
    """Put reference values together; the result is the payload that `policy sign` signs."""
    now = int(time.time())
    if corim_key is not None and not corim:
        raise typer.BadParameter("needs --corim", param_hint="--corim-key")
    if previous is None and (grace_seconds is not None or previous_key):
        hint = "--grace-seconds" if grace_seconds is not None else "--previous-key"
        raise typer.BadParameter("needs --previous", param_hint=hint)
    end = None if until is None else moment(until, "--until")
    written = Description() if description is None else read_description(description)
    listed = [file for list_name in files or () for file in read_checksums(list_name, root=root, until=end)]
    listed += (file for list_name in ima or () for file in _measured(list_name))
    try:
        before = None if previous is None else _before(previous, previous_key or ())
        good = combined((*written.good_files(), *listed))
        if before is not None and grace_seconds is not None:
            good = with_grace(good, before.files, now=now, until=now + grace_seconds)
        pcrs = _pcrs(written, [_imported(each, corim_key, now) for each in corim or ()])
        found = _predicate(written, pcrs, good, before, name, number, now)
        payload = found.encode()
        read_payload(payload)
    except ReferenceValuesError as error:
        raise inputs.refused(error) from error
    typer.echo(inputs.summary(found), err=True)
    inputs.write(payload, output)


def _before(name: str, keys: Sequence[str]) -> Predicate:
    """The bundle before. What it lists becomes good again, so it matters who signed it; that nobody asked is told."""
    envelope = inputs.envelope(name)
    if keys:
        signers = [VerifyingKey.parse(f"of --previous-key {key}", inputs.public_key(key)) for key in keys]
        verify_envelope(envelope, signers, len(signers))
    else:
        typer.echo(f"{name}: its signatures were not checked; --previous-key says who must have signed it", err=True)
    return inputs.predicate_of(envelope)


def _measured(name: str) -> tuple[GoodFile, ...]:
    """The files of a list of measurements; what to know about them goes to standard error."""
    found = read_ima_list(name)
    for caution in found.cautions:
        typer.echo(f"{name}: {caution}", err=True)
    return found.files


def _imported(name: str, key: str | None, now: int) -> PcrValues:
    """The PCR values of a CoRIM; what it holds besides is named on standard error."""
    signer = None if key is None else VerifyingKey.parse("of --corim-key", inputs.public_key(key))
    found = import_corim(verify_inputs.binary(name, MAX_CORIM_BYTES), at=now, signer=signer)
    signed = "not signed" if found.signed_by is None else "signed by the given key"
    typer.echo(f"{name}: {signed}; PCR values for {'; '.join(found.environments)}", err=True)
    for sentence in found.left_out:
        typer.echo(f"{name}: left out: {sentence}", err=True)
    return found.pcrs


def _pcrs(written: Description, imported: Iterable[PcrValues]) -> dict[str, dict[str, list[str]]]:
    """All good values together, each once."""
    together: dict[str, dict[str, dict[str, None]]] = {}
    said: list[Mapping[str, Mapping[int, Sequence[str]]]] = [written.pcrs]
    said += ({bank.value: found for bank, found in each.items()} for each in imported)
    for banks in said:
        for bank, found in banks.items():
            listed = together.setdefault(bank, {})
            for index, values in found.items():
                listed.setdefault(str(index), {}).update(dict.fromkeys(values))
    return {bank: {index: list(values) for index, values in found.items()} for bank, found in together.items()}


def _predicate(
    written: Description,
    pcrs: dict[str, dict[str, list[str]]],
    files: tuple[GoodFile, ...],
    before: Predicate | None,
    name: str | None,
    number: int | None,
    now: int,
) -> Predicate:
    """Read as any predicate is, so that nothing is made here that would be refused later."""
    series = _said("name", written.name, name, None if before is None else before.name)
    version = _said("version", written.version, number, None if before is None else before.version + 1)
    if before is not None and (series != before.name or version <= before.version):
        raise typer.BadParameter(
            f"{series} version {version} does not come after {before.name} version {before.version}",
            param_hint="--previous",
        )
    at = now if written.issued_at is None else int(written.issued_at.timestamp())
    found = read_predicate(
        {
            "name": series,
            "version": version,
            "issuedAt": rfc3339(at),
            "pcrs": pcrs,
            "dbxAtLeast": written.dbx_at_least,
            "files": write_files(files),
        }
    )
    return replace(found, files=files)


def _said(what: str, *places: T | None) -> T:
    """The first place that says it; the description and the option must not both."""
    written, option, _ = places
    if written is not None and option is not None and written != option:
        raise typer.BadParameter(f"the description says {what} {written}", param_hint=f"--{what}")
    for found in places:
        if found is not None:
            return found
    raise typer.BadParameter(f"nothing says the {what}: write it down, or give --{what}")
