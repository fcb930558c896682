"""`chatelaine policy test`: would a policy accept evidence that is at hand? For pipelines; nothing is asked or written.

Exit status: 0 all of it is accepted, 1 some of it is refused, 2 of some of it cannot be told, 64 usage. Refused counts
before cannot be told.
"""

from __future__ import annotations

import base64
import binascii
import json as json_text
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from rich.markup import escape

from chatelaine.appraisal.offline import QuoteCase, Report
from chatelaine.appraisal.policy_trial import try_quote, try_round
from chatelaine.appraisal.policy_words import shown
from chatelaine.cli import policy_files, verify_inputs
from chatelaine.cli.evidence_files import kept_in
from chatelaine.cli.exits import VERDICTS
from chatelaine.cli.policy_ends import Json
from chatelaine.cli.policy_material import given_material
from chatelaine.cli.report import Terminal
from chatelaine.evidence.event_log import MAX_LOG_BYTES
from chatelaine.model.common import ObjectMeta
from chatelaine.model.policy import AttestationPolicy
from chatelaine.model.verdict import Outcome, Verdict, all_of, verdict_of

MAX_REASONS: Final = 8
_WORDS: Final = {
    Verdict.TRUSTED: "[green]accepted[/green]",
    Verdict.UNTRUSTED: "[red]refused[/red]",
    Verdict.UNKNOWN: "[yellow]cannot be told[/yellow]",
}


@dataclass(frozen=True, slots=True)
class _Tried:
    """One piece of evidence and what became of it."""

    name: str
    report: Report

    def as_dict(self) -> dict[str, object]:
        """Plain JSON value."""
        found = self.report.as_dict()
        return {"evidence": self.name, **found}


def try_policy(
    policy: Annotated[str, typer.Argument(metavar="POLICY", help="AttestationPolicy, YAML or JSON.")],
    evidence: Annotated[
        list[str],
        typer.Argument(
            metavar="EVIDENCE…",
            help="Rounds of `evidence export`, the operator's folder of them, or bundles of `verify tpm-quote`.",
        ),
    ],
    bundle: Annotated[
        str | None, typer.Option(metavar="F", help="Reference values that the policy names; unsigned ones count too.")
    ] = None,
    roots: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Vendors' certificates that the policy names.")
    ] = None,
    *,
    json: Json = False,
) -> None:
    """Say whether a policy would accept evidence that is at hand; how old it is does not matter.

    Exit status: 0 all accepted, 1 some refused, 2 of some it cannot be told.
    """
    verify_inputs.check_one_standard_input(policy, bundle, *evidence)
    file = policy_files.policy(policy)
    material = given_material(file.spec, bundle, roots)
    tried = AttestationPolicy(metadata=ObjectMeta(name=file.name), spec=file.spec).with_material(material)
    at = int(time.time())
    found = [result for name in evidence for result in _try(name, tried, at)]
    whole = all_of("policy test", [one.report.findings for one in found])
    verdict = verdict_of(whole.outcome)
    if json:
        said = {"verdict": verdict.value, "policy": file.name, "digest": tried.digest()}
        typer.echo(json_text.dumps({**said, "results": [one.as_dict() for one in found]}, indent=2))
    else:
        _print(found)
    raise typer.Exit(VERDICTS[verdict])


def _try(name: str, policy: AttestationPolicy, at: int) -> list[_Tried]:
    quoted = None if Path(name).is_dir() else _quote_bundle(name, policy)
    if quoted is not None:
        return [_Tried(name, try_quote(*quoted, policy))]
    found = []
    for kept in kept_in(name):
        if kept.round is None:
            raise typer.BadParameter(f"{name}: {shown(str(kept.wrong))}")
        found.append(_Tried(kept.name, try_round(kept.round, kept.part, policy, at=at)))
    return found


def _quote_bundle(name: str, policy: AttestationPolicy) -> tuple[QuoteCase, bytes | None] | None:
    """A quote and its log, where the file holds such a bundle."""
    if name == verify_inputs.STANDARD_INPUT or verify_inputs.binary(name, 0)[:1] != b"{":
        return None
    found = verify_inputs.bundle(name, policy.spec.tpm.pcrs.bank.value)
    case = QuoteCase(
        attest=found.attest,
        signature=found.signature,
        ak=found.ak,
        pcrs=found.pcrs,
        ak_certificate=found.ak_certificate,
    )
    return case, _log(name)


def _log(name: str) -> bytes | None:
    value: dict[str, Any] = json_text.loads(verify_inputs.text(name))
    text = value.get("event_log_base64")
    if text is None:
        return None
    try:
        log = base64.b64decode(str(text), validate=True)
    except binascii.Error as error:
        raise typer.BadParameter(f"{name}: event_log_base64 is no base64") from error
    # One byte more than allowed makes it a finding, not a usage error.
    return log[: MAX_LOG_BYTES + 1]


def _print(found: Sequence[_Tried]) -> None:
    console = Terminal()
    for one in found:
        console.print(f"[bold]{escape(shown(one.name))}[/bold]: {_WORDS[one.report.verdict]}")
        open_ = (leaf for leaf in one.report.findings.leaves() if leaf.outcome is not Outcome.HOLDS)
        # Of a quote bundle, PCRs are compared with the quote and with the log: one line says it.
        leaves = list({leaf.check: leaf for leaf in reversed(list(open_))}.values())[::-1]
        for leaf in leaves[:MAX_REASONS]:
            console.print(f"  {escape(shown(leaf.check))}: {escape(shown(leaf.detail or leaf.reason))}")
        if len(leaves) > MAX_REASONS:
            console.print(f"  and {len(leaves) - MAX_REASONS} more")
