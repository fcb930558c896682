"""`chatelaine verify bundle` and `verify replay`: stored rounds of evidence, verified and judged again."""

from __future__ import annotations

import contextlib
import json as json_text
import sys
from collections.abc import Callable
from typing import Annotated, Final, NoReturn

import typer
from rich.console import Console

from chatelaine.appraisal.explain import Boot
from chatelaine.appraisal.offline import Report, refusal
from chatelaine.appraisal.offline_bundle import BundleCase, judge_bundle, judge_replay
from chatelaine.appraisal.replay import boot_of
from chatelaine.appraisal.stored import RoundKind
from chatelaine.cli.evidence_files import Kept, kept_in
from chatelaine.cli.exits import VERDICTS
from chatelaine.cli.report import plain, print_report
from chatelaine.evidence.errors import EvidenceError
from chatelaine.model.verdict import Finding, Outcome, all_of

Source = Annotated[str, typer.Argument(metavar="FILE|DIR", help="An exported round, or the operator's folder of them.")]
AkNames = Annotated[
    list[str] | None,
    typer.Option("--ak-name", metavar="HEX", help="Who must have signed: Hsm.status.identity.akName; several: one of."),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]

SENTENCES: Final = {"explanation": "What happened", "advice": "What to do"}


def bundle(
    source: Source,
    ak_name: AkNames = None,
    trusted: Annotated[
        str | None, typer.Option(metavar="FILE", help="An earlier trusted round to compare the boot with.")
    ] = None,
    *,
    json: Json = False,
) -> None:
    """Verify stored evidence again, judge it by the policy it was judged by, and explain what is refused.

    Without --ak-name it cannot be told whose TPM it is (exit 2, unless something is refuted). Of a folder every round
    is judged, each compared with the trusted one before it.
    """
    before = None if trusted is None else _boot(trusted)
    _finish(_judged(kept_in(source), judge_bundle, ak_name, before), "evidence bundles", json=json)


def replay(source: Source, ak_name: AkNames = None, *, json: Json = False) -> None:
    """Judge stored evidence again: exit 0 if the very bytes of the stored verdict come out, 1 with what differs."""
    _finish(_judged(kept_in(source), judge_replay, ak_name, None), "replays", json=json)


def _boot(source: str) -> Boot:
    (kept,) = kept_in(source)[-1:]
    if kept.round is None:
        raise typer.BadParameter(f"{source}: {kept.wrong}", param_hint="--trusted")
    try:
        return boot_of(kept.round, kept.part)
    except EvidenceError as error:
        raise typer.BadParameter(f"{source}: {error}", param_hint="--trusted") from error


def _judged(
    found: list[Kept], judge: Callable[[BundleCase], Report], ak_names: list[str] | None, trusted: Boot | None
) -> list[Report]:
    """A report for each round."""
    reports = []
    boots: dict[tuple[str, bytes], Boot] = {}
    for kept in found:
        if kept.round is None:
            reports.append(_unreadable(kept))
            continue
        asked = kept.round.asked
        whose = (asked.subject_uid, asked.identity.ak_name)
        reports.append(judge(BundleCase(kept.round, kept.part, tuple(ak_names or ()), trusted or boots.get(whose))))
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
    else:
        for report in reports:
            _print(report)
    raise typer.Exit(VERDICTS[whole.verdict])


def _print(report: Report) -> None:
    """What was expected and found, and what a person makes of it."""
    facts = {name: value for name, value in report.facts.items() if name not in SENTENCES}
    print_report(Report(report.findings, facts))
    console = Console(highlight=False)
    for name, title in SENTENCES.items():
        sentences = report.facts.get(name)
        if isinstance(sentences, list) and sentences:
            console.print(f"\n[bold]{title}[/bold]")
            for sentence in sentences:
                console.print(f"  • {plain(str(sentence))}")
