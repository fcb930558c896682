"""`chatelaine verify event-log`: a boot log against PCR values, and against what may boot."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Annotated, cast

import typer
from rich.markup import escape
from rich.table import Table

from chatelaine.appraisal.offline_log import LogCase, judge_event_log
from chatelaine.cli import policy_files
from chatelaine.cli import verify_inputs as inputs
from chatelaine.cli.exits import VERDICTS
from chatelaine.cli.report import Terminal, finish, print_report
from chatelaine.evidence.event_log import MAX_LOG_BYTES


def event_log(
    file: Annotated[str, typer.Argument(metavar="F", help="binary_bios_measurements.")],
    pcrs: Annotated[
        str | None, typer.Option(metavar="F", help='JSON {"sha256": {"0": "hex", …}}, of a quote that was verified.')
    ] = None,
    policy: Annotated[str | None, typer.Option(metavar="F", help="AttestationPolicy; its tpm.eventLog judges.")] = None,
    *,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Judge a boot event log.

    Without --pcrs nothing shows that it is the log of a boot: cannot tell. Without --policy, Trusted means: it replays
    to these values.
    """
    inputs.check_one_standard_input(file, pcrs, policy)
    case = LogCase(
        data=inputs.binary(file, MAX_LOG_BYTES),
        pcrs=None if pcrs is None else inputs.pcr_values(pcrs),
        policy=None if policy is None else policy_files.policy(policy).spec,
    )
    report = judge_event_log(case)
    if json:
        finish(report, json=True)
    print_report(replace(report, facts=_for_people(report.facts)))
    events = cast("Sequence[Mapping[str, object]]", report.facts.get("events", ()))
    if events:
        _print_events(events)
    raise typer.Exit(VERDICTS[report.verdict])


def _for_people(facts: Mapping[str, object]) -> dict[str, object]:
    """What fits a screen: one bank's values, and how long the databases are. All of it is in the JSON object."""
    shown = {name: value for name, value in facts.items() if name != "events"}
    pcrs = cast("Mapping[str, object]", facts.get("pcrs", {}))
    if facts.get("bank") in pcrs:
        shown["pcrs"] = {str(facts["bank"]): pcrs[str(facts["bank"])]}
    databases = cast("Mapping[str, Sequence[str] | None]", facts.get("databases", {}))
    if databases:
        shown["databases"] = {
            name: "not shown" if entries is None else f"{len(entries)} entries" for name, entries in databases.items()
        }
    return shown


def _print_events(events: Sequence[Mapping[str, object]]) -> None:
    """A line an event."""
    table = Table(box=None, pad_edge=False)
    table.add_column("event", justify="right")
    table.add_column("PCR", justify="right")
    table.add_column("what it measures", overflow="fold")
    for event in events:
        table.add_row(str(event["number"]), str(event["pcr"]), escape(str(event["measures"])))
    Terminal().print(table, soft_wrap=False)
