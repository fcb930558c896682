"""`chatelaine policy inspect`: what reference values say, and whether they would be taken."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

import typer
from pydantic import ValidationError

from chatelaine.appraisal.offline import Report
from chatelaine.cli import policy_files
from chatelaine.cli import policy_inputs as inputs
from chatelaine.cli.report import finish
from chatelaine.evidence.dsse import Envelope
from chatelaine.evidence.errors import ReferenceValuesError
from chatelaine.evidence.reference_values import Predicate, verify_bundle
from chatelaine.model.identifiers import digest_of
from chatelaine.model.tpm_policy import ReferenceKey, ReferenceValuesSource
from chatelaine.model.verdict import Finding, Outcome

CHECK = "referenceValues"


def inspect(
    file: Annotated[str, typer.Argument(metavar="F", help="Envelope, or unsigned payload.")],
    policy: Annotated[
        str | None, typer.Option(metavar="F", help="AttestationPolicy that says who must have signed.")
    ] = None,
    key: Annotated[
        list[str] | None, typer.Option(metavar="F", help="Public key, PEM, instead of --policy; several times.")
    ] = None,
    threshold: Annotated[
        int | None, typer.Option(min=1, help="How many of --key must have signed; absent: all.")
    ] = None,
    not_below: Annotated[int, typer.Option(min=0, help="Highest version that was used before.")] = 0,
    *,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Say what reference values hold, and verify them: 0 they would be taken, 1 refused, 2 not told who may sign."""
    if policy is not None and (key or threshold is not None):
        raise typer.BadParameter("--policy says who must have signed", param_hint="--key")
    facts: dict[str, object] = {}
    try:
        envelope = inputs.envelope(file)
        facts["signatures"] = [entry.key_id for entry in envelope.signatures]
        found = inputs.predicate_of(envelope)
        facts |= _facts(envelope, found)
        source = _source(policy, key or [], threshold, found.name)
        finding = _finding(envelope, source, not_below)
    except ReferenceValuesError as error:
        finding = _refusal(error)
    finish(Report(finding, facts), json=json)


def _source(policy: str | None, keys: list[str], threshold: int | None, series: str) -> ReferenceValuesSource | None:
    if policy is not None:
        source = policy_files.policy(policy).spec.reference_values
        if source is None:
            raise typer.BadParameter(f"{policy}: has no referenceValues", param_hint="--policy")
        return source
    if not keys:
        return None
    try:
        return ReferenceValuesSource(
            series=series,
            keys=[_key(f"key-{number}", file) for number, file in enumerate(keys, 1)],
            threshold=len(keys) if threshold is None else threshold,
        )
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        raise typer.BadParameter(f"{'.'.join(map(str, first['loc']))}: {first['msg']}", param_hint="--key") from error


def _key(name: str, file: str) -> ReferenceKey:
    try:
        return ReferenceKey(name=name, public_key=inputs.public_key(file))
    except ValidationError as error:
        why = f"{file}: no public key in PEM (`openssl pkey -in KEY -pubout` writes that of a private one)"
        raise typer.BadParameter(why, param_hint="--key") from error


def _finding(envelope: Envelope, source: ReferenceValuesSource | None, not_below: int) -> Finding:
    if source is None:
        detail = "nobody said who may sign; give --policy or --key"
        return Finding(CHECK, Outcome.CANNOT_TELL, "SignersUnknown", detail)
    taken = verify_bundle(envelope.encode(), source, not_below=not_below)
    detail = f"{source.threshold} of {len(source.keys)} keys had to sign; signed by {', '.join(taken.signed_by)}"
    return Finding(CHECK, Outcome.HOLDS, "ThresholdMet", detail)


def _refusal(error: ReferenceValuesError) -> Finding:
    return Finding(CHECK, Outcome.REFUTED, error.reason, error.detail, expected=error.expected, found=error.found)


def _facts(envelope: Envelope, found: Predicate) -> Mapping[str, object]:
    return {
        "name": found.name,
        "version": found.version,
        "issuedAt": found.issued_at,
        "digest": digest_of(envelope.payload),
        "pcrs": {
            bank.value: {str(index): list(values) for index, values in sorted(by_index.items())}
            for bank, by_index in found.pcrs.items()
        },
        "dbxAtLeast": len(found.dbx_at_least),
        "files": {
            "paths": len({file.path for file in found.files}),
            "contents": sum(len(file.digests) for file in found.files),
            "inGrace": sum(len(file.digests) for file in found.files if file.until is not None),
        },
    }
