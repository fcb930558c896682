"""What is fuzzed of reference values: envelopes, payloads, allow-lists, keys, CoRIMs, lists of files."""

from __future__ import annotations

import atexit
import tempfile
from collections.abc import Callable
from pathlib import Path

import cbor2
import typer
from cbor2 import CBORTag

from chatelaine.cli.policy_description import read_description
from chatelaine.cli.policy_file_lists import read_checksums
from chatelaine.evidence import dsse, reference_values
from chatelaine.evidence.corim import import_corim
from chatelaine.evidence.errors import ReferenceValuesError
from chatelaine.evidence.reference_files import CompactAllowList
from fuzz.target import Target
from support.reference_bundles import ALICE, BOB, NOW, PREDICATE, bundle, signed, source

SOURCE = source(threshold=2)
SMALL = {"pcrs": {}, "dbx_at_least": (), "files": PREDICATE.files[:2]}
_FOLDER = tempfile.TemporaryDirectory()
atexit.register(_FOLDER.cleanup)
FILE = Path(_FOLDER.name) / "file"


def envelope(data: bytes) -> None:
    """What is taken is the same when it is written again."""
    taken = dsse.parse_envelope(data)
    if dsse.parse_envelope(taken.encode()) != taken:
        raise AssertionError("written again it is another envelope")


def verified(data: bytes) -> None:
    """The signed bytes alone decide: whatever is taken holds the very payload that was signed."""
    taken = reference_values.verify_bundle(data, SOURCE, not_below=PREDICATE.version)
    if taken.name != PREDICATE.name or not {"alice", "bob"} <= set(taken.signed_by):
        raise AssertionError("taken, though nobody signed it")


def payload(data: bytes) -> None:
    """What is taken says the same when it is written again, and each of its files is found."""
    taken = reference_values.read_payload(data)
    again = reference_values.read_payload(taken.encode())
    if again.encode() != taken.encode():
        raise AssertionError("written again it is another predicate")
    listed, other = CompactAllowList(taken.files), CompactAllowList(again.files)
    for file in taken.files:
        for digest in file.digests:
            if not listed.allows(file.path, digest, at=0) or not other.allows(file.path, digest, at=0):
                raise AssertionError("listed, but not found")


def from_file(read: Callable[[str], object]) -> Callable[[bytes], object]:
    """A reader of files."""

    def parse(data: bytes) -> None:
        FILE.write_bytes(data)
        read(str(FILE))

    return parse


def corim() -> bytes:
    """An honest one, with both ways of naming PCRs."""
    measured = [{0: 4, 1: {2: [[1, b"\x11" * 32]]}}, {1: {14: {7: [[7, b"\x77" * 48]], "PCR 9": [[-16, bytes(32)]]}}}]
    comid = {1: {0: b"id"}, 4: {0: [[{0: {0: CBORTag(37, bytes(16)), 1: "ACME"}}, measured]]}}
    span = {0: CBORTag(1, NOW), 1: CBORTag(1, NOW)}
    return cbor2.dumps(CBORTag(501, {0: "id", 1: [CBORTag(506, cbor2.dumps(comid))], 4: span}))


def signed_corim() -> bytes:
    """COSE_Sign1 by Bob."""
    header = cbor2.dumps({1: -8, 3: "application/rim+cbor", 8: cbor2.dumps({0: {0: "ACME"}, 1: {1: CBORTag(1, NOW)}})})
    raw = BOB.sign(cbor2.dumps(["Signature1", header, b"", corim()])).signature
    return cbor2.dumps(CBORTag(18, [header, {}, corim(), raw]))


KEY = dsse.VerifyingKey.parse("bob", BOB.listed().public_key)
LIST = f"{'ab' * 32}  /bin/ls\n\\{'cd' * 48} *new\\nline\n".encode()
WRITTEN = b"name: lab\nversion: 1\nfiles: [{path: /a, digests: ['sha256:00'], until: 2026-12-01T00:00:00Z}]\n"

TARGETS = {
    "envelope": Target(
        envelope, (ReferenceValuesError,), lambda: [bundle(ALICE, **SMALL), signed(b"{}", ALICE, BOB).encode()]
    ),
    "bundle": Target(verified, (ReferenceValuesError,), lambda: [bundle(ALICE, BOB, **SMALL), bundle(BOB, **SMALL)]),
    "reference-payload": Target(payload, (ReferenceValuesError,), lambda: [PREDICATE.encode()]),
    "reference-key": Target(
        lambda data: dsse.VerifyingKey.parse("key", data.decode("ascii", "replace")),
        (ReferenceValuesError,),
        lambda: [signer.listed().public_key.encode() for signer in (ALICE, BOB)],
    ),
    "corim": Target(lambda data: import_corim(data, at=NOW), (ReferenceValuesError,), lambda: [corim()]),
    "signed-corim": Target(
        lambda data: import_corim(data, at=NOW, signer=KEY), (ReferenceValuesError,), lambda: [signed_corim()]
    ),
    "file-list": Target(from_file(read_checksums), (typer.BadParameter,), lambda: [LIST]),
    "description": Target(from_file(read_description), (typer.BadParameter,), lambda: [WRITTEN]),
}
