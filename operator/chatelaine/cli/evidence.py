"""`chatelaine evidence`: look at the evidence that an operator has stored, and take a round of it elsewhere.

Run where the operator's folder is: `kubectl exec` into its pod, or on the laptop that runs it.
"""

from __future__ import annotations

import datetime
import json as json_text
import sys
from pathlib import Path
from typing import Annotated, Final

import typer

from chatelaine.appraisal.bundle_form import bundled
from chatelaine.appraisal.stored import RoundKind
from chatelaine.appraisal.stored_form import encode_round
from chatelaine.cli.evidence_files import STATE_FOLDER, Kept, rounds_of
from chatelaine.cli.exits import FAILED
from chatelaine.cli.usage import UsageGroup
from chatelaine.controller.evidence_folder import EVIDENCE
from chatelaine.controller.evidence_store import Entry
from chatelaine.evidence.errors import EvidenceError
from chatelaine.model.identifiers import digest_of
from chatelaine.pki.files import write_whole

app = typer.Typer(cls=UsageGroup, help="Look at stored evidence.", no_args_is_help=False, add_completion=False)

COLUMNS: Final = {
    "receivedAt": "received", "hsm": "hsm", "kind": "kind", "policy": "policy", "evidenceDigest": "evidence",
}  # fmt: skip

StateDir = Annotated[Path, typer.Option(metavar="DIR", help="The operator's --state-dir.")]
Name = Annotated[str | None, typer.Option(metavar="NAME", help="Of this Hsm alone.")]
Kind = Annotated[RoundKind | None, typer.Option(help="Of this kind alone.")]


@app.callback()
def evidence() -> None:
    """Look at the evidence that an operator has stored."""


@app.command("list")
def list_rounds(
    state_dir: StateDir = STATE_FOLDER,
    hsm: Name = None,
    kind: Kind = None,
    *,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON list.")] = False,
) -> None:
    """List stored rounds, oldest first."""
    rows = [_row(entry, kept) for entry, kept in _found(state_dir, hsm, kind)]
    if json:
        sys.stdout.write(json_text.dumps(rows, indent=2) + "\n")
        return
    shown = [tuple(COLUMNS.values()), *(tuple(str(row[name]) for name in COLUMNS) for row in rows)]
    widths = [max(map(len, column)) for column in zip(*shown, strict=True)]
    for texts in shown:
        # Digests are there to be copied: no terminal is too narrow for a whole one.
        typer.echo("  ".join(text.ljust(width) for text, width in zip(texts, widths, strict=True)).rstrip())


@app.command("export")
def export(
    digest: Annotated[
        str | None, typer.Argument(metavar="[DIGEST]", help="evidenceDigest of the round; absent: the newest.")
    ] = None,
    state_dir: StateDir = STATE_FOLDER,
    hsm: Name = None,
    kind: Kind = None,
    out: Annotated[str, typer.Option(metavar="F", help="File to write; - is standard output.")] = "-",
) -> None:
    """Write one stored round and its parts as one file, for `verify bundle`, `verify replay` and `policy test`."""
    wanted = None
    for _, kept in _found(state_dir, hsm, kind):
        if kept.round is not None and digest in (None, digest_of(kept.round.evidence)):
            wanted = kept
    if wanted is None or wanted.round is None:
        typer.echo("no such round is stored; chatelaine evidence list shows those that are", err=True)
        raise typer.Exit(FAILED)
    try:
        data = bundled(encode_round(wanted.round), wanted.part)
    except EvidenceError as error:
        typer.echo(f"the round cannot be exported: {error}", err=True)
        raise typer.Exit(FAILED) from error
    if out == "-":
        sys.stdout.buffer.write(data)
        return
    try:
        write_whole(Path(out), data)
    except OSError as error:
        raise typer.BadParameter(f"{out}: {error.strerror}", param_hint="--out") from error


def _found(state_dir: Path, hsm: str | None, kind: RoundKind | None) -> list[tuple[Entry, Kept]]:
    folder = state_dir / EVIDENCE
    if not folder.is_dir():
        raise typer.BadParameter(f"{folder}: no such folder", param_hint="--state-dir")
    return [
        (entry, kept)
        for entry, kept in rounds_of(folder)
        if kind in (None, entry.kind) and hsm in (None, kept.round.hsm if kept.round is not None else None)
    ]


def _row(entry: Entry, kept: Kept) -> dict[str, object]:
    moment = datetime.datetime.fromtimestamp(entry.received_ms / 1000, tz=datetime.UTC)
    round_ = kept.round
    return {
        "receivedAt": moment.strftime("%Y-%m-%dT%H:%M:%SZ"),
        "hsm": round_.hsm if round_ is not None else "",
        "subject": entry.hsm_uid,
        "kind": entry.kind.value,
        "policy": round_.case.stamp.name if round_ is not None else "",
        "evidenceDigest": digest_of(round_.evidence) if round_ is not None else "",
        "damaged": str(kept.wrong) if kept.wrong is not None else None,
    }


if __name__ == "__main__":
    app()
