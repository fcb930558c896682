"""`chatelaine verify bundle` and `verify replay`: stored rounds of evidence, verified and judged again."""

from __future__ import annotations

import contextlib
import json as json_text
import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Final, NoReturn

import typer

from chatelaine.appraisal.explain import Boot
from chatelaine.appraisal.offline import Report, refusal
from chatelaine.appraisal.offline_bundle import BundleCase, judge_bundle, judge_replay
from chatelaine.appraisal.replay import boot_of
from chatelaine.appraisal.stored import RoundKind, StoredRound
from chatelaine.cli import verify_inputs as inputs
from chatelaine.cli.evidence_files import Kept, kept_in
from chatelaine.cli.exits import VERDICTS
from chatelaine.cli.report import Terminal, mark, plain, print_report
from chatelaine.evidence.errors import EvidenceError
from chatelaine.model.verdict import Finding, Outcome, Verdict, all_of

Source = Annotated[str, typer.Argument(metavar="FILE|DIR", help="An exported round, or the operator's folder of them.")]
AkNames = Annotated[
    list[str] | None,
    typer.Option("--ak-name", metavar="HEX", help="Who must have signed: Hsm.status.identity.akName; several: one of."),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]

Whose = tuple[str, bytes]
"""UID of the Hsm, and the TPM's name of its attestation key."""

NAME_BYTES: Final = (2 + 32, 2 + 48)
"""Of a TPM name by SHA-256 and by SHA-384."""
MAX_NAME_CHARACTERS: Final = 100

SENTENCES: Final = {"explanation": "What happened", "advice": "What to do"}


def bundle(
    source: Source,
    ak_name: AkNames = None,
    trusted: Annotated[
        str | None, typer.Option(metavar="FILE", help="An earlier trusted round of this TPM, to compare the boot with.")
    ] = None,
    *,
    json: Json = False,
) -> None:
    """Verify stored evidence again, judge it by the policy it was judged by, and explain what is refused.

    Without --ak-name it cannot be told whose TPM it is (exit 2, unless something is refuted). Of a folder every round
    is judged, each compared with the trusted one before it.
    """
    found = kept_in(source)
    before = {} if trusted is None else _boots(trusted, found)
    _finish(_judged(found, judge_bundle, _names(ak_name), before), "evidence bundles", json=json)


def replay(source: Source, ak_name: AkNames = None, *, json: Json = False) -> None:
    """Judge stored evidence again: exit 0 if the very bytes of the stored verdict come out, 1 with what differs."""
    _finish(_judged(kept_in(source), judge_replay, _names(ak_name), {}), "replays", json=json)


def _names(given: list[str] | None) -> tuple[str, ...]:
    """TPM names: an algorithm, and a digest by it. What is none is a usage error, not another TPM's name."""
    for name in given or ():
        if len(inputs.hexadecimal(name, "--ak-name")) not in NAME_BYTES:
            why = f"{name[:MAX_NAME_CHARACTERS]}: no TPM name; status.identity.akName of the Hsm is one"
            raise typer.BadParameter(why, param_hint="--ak-name")
    return tuple(given or ())


def _whose(round_: StoredRound) -> Whose:
    return round_.asked.subject_uid, round_.asked.identity.ak_name


def _boots(source: str, judged: Sequence[Kept]) -> dict[Whose, Boot]:
    """The trusted boot of `source` for the TPM of one of the rounds that are judged: no other can be compared."""
    wanted = {_whose(kept.round) for kept in judged if kept.round is not None}
    boots: dict[Whose, Boot] = {}
    for kept in kept_in(source):
        if kept.round is None or kept.round.kind is not RoundKind.TRUSTED or _whose(kept.round) not in wanted:
            continue
        try:
            boots[_whose(kept.round)] = boot_of(kept.round, kept.part)
        except EvidenceError as error:
            raise typer.BadParameter(f"{source}: {error}", param_hint="--trusted") from error
    if not boots:
        raise typer.BadParameter(f"{source}: no trusted round of the TPM that is judged", param_hint="--trusted")
    return boots


def _judged(
    found: list[Kept], judge: Callable[[BundleCase], Report], ak_names: tuple[str, ...], before: Mapping[Whose, Boot]
) -> list[Report]:
    """A report for each round."""
    reports = []
    boots = dict(before)
    for kept in found:
        if kept.round is None:
            reports.append(_unreadable(kept))
            continue
        whose = _whose(kept.round)
        reports.append(judge(BundleCase(kept.round, kept.part, ak_names, boots.get(whose))))
        if kept.round.kind is RoundKind.TRUSTED and reports[-1].findings.outcome is not Outcome.REFUTED:
            with contextlib.suppress(EvidenceError):
                boots[whose] = boot_of(kept.round, kept.part)
    return reports


def _unreadable(kept: Kept) -> Report:
    if isinstance(kept.wrong, EvidenceError):
        return Report(all_of("stored round", [refusal(kept.name, kept.wrong)]), {})
    finding = Finding(kept.name, Outcome.CANNOT_TELL, type(kept.wrong).__name__, str(kept.wrong))
    return Report(all_of("stored round", [finding]), {})


def _finish(reports: list[Report], what: str, *, json: bool) -> NoReturn:
    """Print, and end with the worst of the verdicts. One round is printed as itself, several as one object."""
    whole = reports[0]
    if len(reports) > 1:
        findings = all_of(what, [report.findings for report in reports])
        whole = Report(findings, {"rounds": [dict(report.facts) for report in reports]})
    if json:
        sys.stdout.write(json_text.dumps(whole.as_dict(), indent=2) + "\n")
    elif len(reports) == 1:
        _print(whole)
    else:
        _print_all(reports)
    raise typer.Exit(VERDICTS[whole.verdict])


def _print_all(reports: Sequence[Report]) -> None:
    """A line a round, and all of those that are refused: these are what a person came for."""
    console = Terminal()
    for report in reports:
        said = [str(report.facts.get(name, "")) for name in ("receivedAt", "hsm", "kind", "evidenceDigest")]
        whole = report.findings
        leaf = None if whole.outcome is Outcome.HOLDS else whole.first(whole.outcome)
        why = "" if leaf is None else f": {plain(leaf.check)}: {plain(leaf.reason)}"
        console.print(f"{mark(whole.outcome)} {plain('  '.join(filter(None, said)))}{why}")
    for report in reports:
        if report.verdict is Verdict.UNTRUSTED:
            console.print()
            _print(report)
    count = Counter(report.verdict for report in reports)
    refused, open_ = count[Verdict.UNTRUSTED], count[Verdict.UNKNOWN]
    console.print(f"\n{len(reports)} rounds: {refused} refused, of {open_} it cannot be told.")


def _print(report: Report) -> None:
    """What was expected and found, and what a person makes of it."""
    facts = {name: value for name, value in report.facts.items() if name not in SENTENCES}
    print_report(Report(report.findings, facts))
    console = Terminal()
    for name, title in SENTENCES.items():
        sentences = report.facts.get(name)
        if isinstance(sentences, list) and sentences:
            console.print(f"\n[bold]{title}[/bold]")
            for sentence in sentences:
                console.print(f"  • {plain(str(sentence))}")
