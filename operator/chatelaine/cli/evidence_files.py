"""Stored evidence as commands read it: a file that was exported, or the operator's own folder."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import typer

from chatelaine.appraisal.bundle_form import MAX_BUNDLE_FILE_BYTES, decode_bundle
from chatelaine.appraisal.replay import Part
from chatelaine.appraisal.stored import MAX_ROUND_BYTES, StoredRound
from chatelaine.appraisal.stored_form import decode_round
from chatelaine.cli import verify_inputs as inputs
from chatelaine.controller.evidence_folder import EVIDENCE, EvidenceFolder, StoreError
from chatelaine.controller.evidence_store import Entry, entry_of
from chatelaine.evidence.errors import EvidenceError, EvidencePartMissing

STATE_FOLDER: Final = Path("/var/lib/chatelaine/operator")
"""Where the chart's operator keeps what is its own."""


@dataclass(frozen=True, slots=True)
class Kept:
    """A stored round; `wrong` says why it cannot be read, and then `round` is None."""

    name: str
    round: StoredRound | None
    part: Part
    wrong: EvidenceError | StoreError | None = None


def kept_in(source: str) -> list[Kept]:
    """The round of a file (`-`: standard input), or all rounds of a folder, oldest first."""
    path = Path(source)
    if source != inputs.STANDARD_INPUT and path.is_dir():
        found = list(rounds_of(path))
        if not found:
            raise typer.BadParameter(f"{source}: no stored rounds there; an operator has them in STATE_DIR/{EVIDENCE}")
        return [kept for _, kept in found]
    try:
        bundle = decode_bundle(inputs.binary(source, MAX_BUNDLE_FILE_BYTES))
    except EvidenceError as error:
        raise typer.BadParameter(f"{source}: not what `chatelaine evidence export` writes: {error}") from error
    return [Kept(source, bundle.round, bundle.part)]


def rounds_of(path: Path) -> Iterator[tuple[Entry, Kept]]:
    """Every stored round of the operator's folder, oldest first."""
    folder = EvidenceFolder(path)
    part = _reader(folder)
    try:
        entries = sorted(entry for uid, mark in folder.marks() if (entry := entry_of(uid, mark)) is not None)
    except StoreError as error:
        raise typer.BadParameter(str(error)) from error
    for entry in entries:
        try:
            round_ = decode_round(folder.read(entry.digest, MAX_ROUND_BYTES))
        except (EvidenceError, StoreError) as error:
            yield entry, Kept(entry.mark, None, part, error)
        else:
            yield entry, Kept(entry.mark, round_, part)


def _reader(folder: EvidenceFolder) -> Part:
    def part(digest: bytes) -> bytes:
        try:
            return folder.read(digest)
        except StoreError as error:
            raise EvidencePartMissing(str(error), found=digest) from error

    return part
