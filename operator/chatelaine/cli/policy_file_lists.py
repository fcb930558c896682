"""Lists of files and their digests, as `sha256sum`, `sha384sum` and `sha512sum` write them, or as IMA measured them."""

from __future__ import annotations

import re
from typing import Final

import typer

from chatelaine.appraisal.capture_ima import CapturedIma, capture_ima
from chatelaine.cli import verify_inputs as inputs
from chatelaine.evidence.errors import EvidenceError
from chatelaine.evidence.ima import MAX_IMA_BYTES
from chatelaine.evidence.ima_ascii import ascii_records, is_ascii_list
from chatelaine.evidence.ima_binary import binary_records
from chatelaine.evidence.ima_entry import entry_of
from chatelaine.evidence.reader import bounded
from chatelaine.evidence.reference_files import GoodFile

MAX_LIST_BYTES: Final = 64 * 1024 * 1024

_ALGORITHMS: Final = {64: "sha256", 96: "sha384", 128: "sha512"}
_LINE: Final = re.compile(r"(\\?)([0-9a-fA-F]{64}|[0-9a-fA-F]{96}|[0-9a-fA-F]{128}) [ *](.+)", re.ASCII | re.DOTALL)
_ESCAPE: Final = re.compile(r"\\(.)", re.DOTALL)
_ESCAPED: Final = {"n": "\n", "r": "\r", "\\": "\\"}


def read_checksums(name: str, *, root: str = "", until: int | None = None) -> list[GoodFile]:
    """Every line of a list.

    Args:
        name: the file.
        root: taken away from the beginning of every path, which must have it: a mounted image is listed so.
        until: makes all of it a grace that ends then.

    Raises:
        typer.BadParameter: a line that is none, or a path outside of `root`.
    """
    data = inputs.binary(name, MAX_LIST_BYTES)
    if len(data) > MAX_LIST_BYTES:
        raise typer.BadParameter(f"{name}: longer than {MAX_LIST_BYTES} bytes")
    try:
        lines = data.decode().split("\n")
    except UnicodeDecodeError as error:
        raise typer.BadParameter(f"{name}: not UTF-8 text") from error
    return [_file(name, number, line, root, until) for number, line in enumerate(lines, 1) if line]


def read_ima_list(name: str) -> CapturedIma:
    """What a list of measurements (binary, or ASCII) holds; it is not compared with any PCR 10.

    Raises:
        typer.BadParameter: it cannot be read, or holds what could never be allowed.
    """
    try:
        data = bounded(inputs.binary(name, MAX_IMA_BYTES), MAX_IMA_BYTES, "the list")
        records = ascii_records(data) if is_ascii_list(data) else binary_records(data)
        entries = [entry_of(record, number, b"") for number, record in enumerate(records)]
    except EvidenceError as error:
        raise typer.BadParameter(f"{name}: {error}", param_hint="--ima") from error
    found = capture_ima(entries, into_bundle=True)
    if found.why or not entries:
        raise typer.BadParameter(f"{name}: {found.why or 'there is no entry in it'}", param_hint="--ima")
    return found


def _file(name: str, number: int, line: str, root: str, until: int | None) -> GoodFile:
    found = _LINE.fullmatch(line)
    if found is None:
        raise typer.BadParameter(f"{name}: line {number} is not `digest  path`, as sha256sum writes it")
    escaped, digest, path = found.groups()
    if escaped:
        path = _ESCAPE.sub(lambda sequence: _ESCAPED.get(sequence[1], sequence[0]), path)
    if not path.startswith(root) or (root and not path[len(root) :].startswith("/")):
        raise typer.BadParameter(f"{name}: line {number} is not below {root}", param_hint="--root")
    return GoodFile(path[len(root) :], (f"{_ALGORITHMS[len(digest)]}:{digest.lower()}",), until)
