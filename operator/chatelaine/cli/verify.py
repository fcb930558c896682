"""`chatelaine verify`: judge evidence offline, without a cluster.

Exit status: 0 Trusted, 1 Untrusted, 2 cannot tell, 64 usage. `--json` prints one object on standard output; without
it a report for people. `-` reads standard input.
"""

from __future__ import annotations

import datetime
import time
from importlib.metadata import version
from pathlib import Path
from typing import Annotated

import typer

from chatelaine.appraisal.ear import ear_claims
from chatelaine.appraisal.offline import QuoteCase, judge_certificate, judge_quote, quote_appraisal
from chatelaine.cli import policy_files, verify_bundle, verify_event_log, verify_ima
from chatelaine.cli import verify_inputs as inputs
from chatelaine.cli.report import finish
from chatelaine.cli.usage import UsageGroup
from chatelaine.evidence.certificates import MAX_FILE_BYTES, CertificateKind
from chatelaine.evidence.tpm_public import MAX_PUBLIC_BYTES
from chatelaine.evidence.tpm_types import MAX_ATTEST_BYTES, MAX_SIGNATURE_BYTES

app = typer.Typer(cls=UsageGroup, help="Judge evidence offline.", no_args_is_help=False, add_completion=False)

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]


@app.callback()
def verify() -> None:
    """Judge evidence offline: 0 Trusted, 1 Untrusted, 2 cannot tell, 64 usage."""


@app.command("tpm-quote")
def tpm_quote(
    *,
    attest: Annotated[str | None, typer.Option(metavar="F", help="TPMS_ATTEST.")] = None,
    signature: Annotated[str | None, typer.Option(metavar="F", help="TPMT_SIGNATURE.")] = None,
    ak: Annotated[str | None, typer.Option(metavar="F", help="TPMT_PUBLIC, TPM2B_PUBLIC or PEM.")] = None,
    pcrs: Annotated[str | None, typer.Option(metavar="F", help='JSON {"sha256": {"0": "hex", …}}.')] = None,
    bundle: Annotated[str | None, typer.Option(metavar="F", help="All of these in one JSON file, instead.")] = None,
    bank: Annotated[str | None, typer.Option(help="PCR bank that was asked for.")] = None,
    extra_data: Annotated[str | None, typer.Option(metavar="HEX", help="What the quote must carry.")] = None,
    policy: Annotated[str | None, typer.Option(metavar="F", help="AttestationPolicy, YAML or JSON.")] = None,
    json: Json = False,
) -> None:
    """Judge a TPM 2.0 quote.

    Without --extra-data freshness cannot be told (exit 2). Without --policy, Trusted means: genuine under this key.
    """
    expected = None if extra_data is None else inputs.hexadecimal(extra_data, "--extra-data")
    rules = None if policy is None else policy_files.policy(policy).spec
    parts = {"--attest": attest, "--signature": signature, "--ak": ak, "--pcrs": pcrs}
    if bundle is not None:
        if any(value is not None for value in parts.values()):
            raise typer.BadParameter("--bundle holds all parts; give either it or the parts", param_hint="--bundle")
        found = inputs.bundle(bundle, bank)
        case = QuoteCase(
            attest=found.attest,
            signature=found.signature,
            ak=found.ak,
            pcrs=found.pcrs,
            bank=found.bank,
            extra_data=expected,
            policy=rules,
            ak_certificate=found.ak_certificate,
        )
    else:
        if attest is None or signature is None or ak is None or pcrs is None:
            missing = [name for name, value in parts.items() if value is None]
            raise typer.BadParameter(f"missing: {', '.join(missing)}; or give --bundle")
        inputs.check_one_standard_input(attest, signature, ak, pcrs, policy)
        case = QuoteCase(
            attest=inputs.binary(attest, MAX_ATTEST_BYTES),
            signature=inputs.binary(signature, MAX_SIGNATURE_BYTES),
            ak=inputs.binary(ak, MAX_PUBLIC_BYTES),
            pcrs=inputs.pcr_values(pcrs),
            bank=bank,
            extra_data=expected,
            policy=rules,
        )
    report = judge_quote(case)
    appraisal = quote_appraisal(case, report, issued_at=int(time.time()))
    finish(report, json=json, ear=ear_claims(appraisal, build=version("chatelaine"), enrolled=False))


@app.command("certificate")
def certificate(
    file: Annotated[str, typer.Argument(metavar="F", help="Certificate, PEM (chain after it) or DER.")],
    kind: Annotated[str, typer.Option(help="ek or ak.")],
    roots: Annotated[Path, typer.Option(metavar="DIR", help="Roots (self-signed) and intermediates.")],
    at: Annotated[str | None, typer.Option(metavar="TIME", help="RFC 3339; absent: now.")] = None,
    *,
    json: Json = False,
) -> None:
    """Judge the certificate of a TPM's endorsement or attestation key."""
    kinds = {found.value.lower(): found for found in CertificateKind}
    if kind.lower() not in kinds:
        raise typer.BadParameter("one of: ek, ak", param_hint="--kind")
    report = judge_certificate(
        inputs.binary(file, MAX_FILE_BYTES),
        kind=kinds[kind.lower()],
        given=inputs.certificates(roots),
        at=int(time.time()) if at is None else _seconds(at),
    )
    finish(report, json=json)


app.command("event-log")(verify_event_log.event_log)
app.command("ima")(verify_ima.ima)
app.command("bundle")(verify_bundle.bundle)
app.command("replay")(verify_bundle.replay)


def _seconds(text: str) -> int:
    try:
        moment = datetime.datetime.fromisoformat(text)
    except ValueError as error:
        raise typer.BadParameter("not an RFC 3339 time", param_hint="--at") from error
    if moment.tzinfo is None:
        raise typer.BadParameter("the time needs a zone, as in 2026-01-31T12:00:00Z", param_hint="--at")
    return int(moment.timestamp())


if __name__ == "__main__":
    app()
