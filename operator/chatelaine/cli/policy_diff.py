"""`chatelaine policy diff`: what changes between two policies or two bundles, or for the hosts that live now.

Exit status of `diff A B`: 0 they judge alike, 1 they differ, 64 usage. Of `diff --live FILE`: 0 every host that the
policy judges holds under it, and bound claims keep their access, 1 a host would be refused or a claim cut, 2 of a host
it cannot be told, or nobody is judged, 64 usage.
"""

from __future__ import annotations

import json as json_text
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Final, NoReturn

import typer
from rich.markup import escape

from chatelaine.appraisal.bundle_diff import diff_bundles
from chatelaine.appraisal.errors import AppraisalError
from chatelaine.appraisal.policy_diff import Change, ChangeKind, diff_specs, overall
from chatelaine.appraisal.policy_words import Effect
from chatelaine.cli import verify_inputs
from chatelaine.cli.policy_ends import (
    DEFAULT_NAMESPACE,
    DEFAULT_STATE_DIR,
    REFUSED,
    Json,
    Kubeconfig,
    Namespace,
    Reach,
    StateDir,
    object_name,
)
from chatelaine.cli.policy_files import PolicyFile, policy, policy_or_bundle
from chatelaine.cli.report import Terminal
from chatelaine.evidence.dsse import MAX_ENVELOPE_BYTES
from chatelaine.evidence.reference_values import Predicate

MAX_LINES: Final = 200
"""Differences that are shown to a person; `--json` has all of them."""

_MARKS: Final = {
    ChangeKind.ADDED: "[green]+[/green]",
    ChangeKind.REMOVED: "[red]-[/red]",
    ChangeKind.CHANGED: "[yellow]~[/yellow]",
}
_EFFECTS: Final = {
    Effect.STRICTER: "It can only refuse more.",
    Effect.LOOSER: "It can only let in more.",
    Effect.EITHER: "It may refuse more, and let in more.",
    Effect.NOTHING: "It decides nothing differently.",
}


def diff(
    before: Annotated[
        str | None, typer.Argument(metavar="A", help="AttestationPolicy, YAML or JSON, or a bundle.")
    ] = None,
    after: Annotated[
        str | None, typer.Argument(metavar="B", help="What it is compared with, of the same kind.")
    ] = None,
    live: Annotated[
        str | None, typer.Option(metavar="F", help="Instead of A and B: a policy; every host that it judges is asked.")
    ] = None,
    bundle: Annotated[
        str | None, typer.Option(metavar="F", help="With --live: signed reference values that are not in place yet.")
    ] = None,
    state_dir: StateDir = DEFAULT_STATE_DIR,
    kubeconfig: Kubeconfig = None,
    namespace: Namespace = DEFAULT_NAMESPACE,
    reference_values_dir: Annotated[
        Path | None, typer.Option(metavar="DIR", help="With --live: the operator's --reference-values-dir.")
    ] = None,
    *,
    json: Json = False,
) -> None:
    """Say what changes between two policies or bundles, or, with --live, who would be refused by a policy, and why.

    Signatures of A and B are not checked. Exit status: 0 they judge alike, 1 they differ. With --live nothing is
    written; 0 every host holds and bound claims keep their access, 1 a host would be refused or a claim cut, 2 of a
    host it cannot be told, or nobody is judged.
    """
    if live is not None:
        if before is not None:
            raise typer.BadParameter("give either A and B, or --live", param_hint="--live")
        _live(live, bundle, Reach(state_dir, kubeconfig, namespace, reference_values_dir, None), json=json)
    if before is None or after is None:
        raise typer.BadParameter("give A and B, or --live F")
    verify_inputs.check_one_standard_input(before, after)
    old, new = policy_or_bundle(before), policy_or_bundle(after)
    try:
        changes = _changes(old, new)
    except AppraisalError as error:
        raise typer.BadParameter(str(error)) from error
    if json:
        typer.echo(json_text.dumps(_object(changes), indent=2))
    else:
        _print(changes)
    raise typer.Exit(REFUSED if changes else 0)


def _live(name: str, bundle: str | None, reach: Reach, *, json: bool) -> NoReturn:
    verify_inputs.check_one_standard_input(name, bundle)
    file = policy(name)
    if not file.name:
        raise typer.BadParameter(f"{name}: metadata.name says which Hsms it judges; it has none", param_hint="--live")
    object_name(file.name, "--live")
    if bundle is not None and file.spec.reference_values is None:
        raise typer.BadParameter("the policy names no reference values", param_hint="--bundle")
    data = verify_inputs.binary(bundle, MAX_ENVELOPE_BYTES) if bundle is not None else None
    # The Kubernetes client takes a while to load, and two files are compared without it.
    from chatelaine.cli.policy_live import diff_live

    diff_live(file, replace(reach, bundle=data), json=json)


def _changes(old: PolicyFile | Predicate, new: PolicyFile | Predicate) -> tuple[Change, ...]:
    if isinstance(old, Predicate) and isinstance(new, Predicate):
        return diff_bundles(old, new)
    if isinstance(old, PolicyFile) and isinstance(new, PolicyFile):
        return diff_specs(old.spec, new.spec)
    raise typer.BadParameter("a policy and a bundle cannot be compared")


def _object(changes: Sequence[Change]) -> dict[str, object]:
    return {
        "same": not changes,
        "effect": overall(changes).value,
        "changes": [change.as_dict() for change in changes],
    }


def _print(changes: Sequence[Change]) -> None:
    console = Terminal()
    if not changes:
        console.print("They judge alike.")
        return
    for change in changes[:MAX_LINES]:
        console.print(f"{_MARKS[change.kind]} {escape(change.says)}  [dim]{change.effect.value.lower()}[/dim]")
    if len(changes) > MAX_LINES:
        console.print(f"… and {len(changes) - MAX_LINES} more; --json shows all")
    console.print(f"[bold]{_EFFECTS[overall(changes)]}[/bold]")
