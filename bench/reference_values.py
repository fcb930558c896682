"""What a signed bundle of 100,000 files costs: to verify and load, in memory, on the disk, and to look up in.

The paths are like those of a Debian system: 20 files a folder, folders of 68 characters, names of 13. CPU time, medians
of blocks that run in turn. The peer is what nobody can leave out: base64, one signature check, and JSON, of the same
bytes, by the same libraries.
"""

from __future__ import annotations

import base64
import hashlib
import json
import statistics
import sys
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from bench.report import Figure, write
from chatelaine.cli.policy_split import MAX_PIECES, PIECE_BYTES
from chatelaine.evidence.dsse import MAX_ENVELOPE_BYTES, pae
from chatelaine.evidence.reference_files import GoodFile
from chatelaine.evidence.reference_values import PAYLOAD_TYPE, Predicate, verify_bundle
from chatelaine.model.material import ReferenceValues

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
from support.reference_bundles import ALICE, signed, source

FILES: Final = 100_000
FILES_OF_A_FOLDER: Final = 20
BLOCKS: Final = 5
LOOKUPS: Final = 50_000
AT: Final = 1_780_000_000
SOURCE: Final = source(ALICE, series="bench")


def run() -> None:
    """Writes the figures."""
    files = tuple(_file(number) for number in range(FILES))
    predicate = Predicate("bench", 1, "2026-11-21T12:00:00Z", files=files)
    envelope = signed(predicate.encode(), ALICE).encode()
    seconds, floor = _paired(lambda: _verified(envelope), lambda: _floor(envelope))
    kept, peak = _memory(lambda: _verified(envelope))
    pieces = -(-len(envelope) // PIECE_BYTES)
    peer: dict[str, object] = {"what": "base64, one signature, JSON of the same bytes", "value": floor, "unit": "s CPU"}
    write(
        "reference_values",
        [
            Figure("bundle of 100,000 files, verified and loaded", seconds, "s CPU", peer=peer),
            Figure("the same against its peer", seconds / floor, ""),
            Figure("memory that a loaded bundle keeps", kept / 2**20, "MiB"),
            Figure("memory at most while it is loaded", peak / 2**20, "MiB"),
            Figure("envelope", len(envelope) / 2**20, "MiB", "<= 16", len(envelope) <= MAX_ENVELOPE_BYTES),
            Figure("ConfigMaps for it", pieces, "", f"<= {MAX_PIECES}", pieces <= MAX_PIECES),
            *_lookups(_verified(envelope), files),
        ],
    )


def _lookups(bundle: ReferenceValues, files: tuple[GoodFile, ...]) -> list[Figure]:
    asked = [files[number * 7919 % FILES] for number in range(LOOKUPS)]
    if not all(bundle.files.allows(file.path, file.digests[0], at=AT) for file in asked):
        raise AssertionError("a listed file is not found")
    listed = _seconds(lambda: [bundle.files.allows(file.path, file.digests[0], at=AT) for file in asked])
    other = _seconds(lambda: [bundle.files.allows(file.path, "sha256:00", at=AT) for file in asked])
    return [
        Figure("look-ups of listed files", LOOKUPS / listed, "1/s a core"),
        Figure("look-ups of others", LOOKUPS / other, "1/s a core"),
    ]


def _file(number: int) -> GoodFile:
    folder = f"/usr/lib/python3/dist-packages/{number // FILES_OF_A_FOLDER:032x}/data"
    return GoodFile(f"{folder}/module_{number:06}", (f"sha256:{hashlib.sha256(b'%d' % number).hexdigest()}",))


def _verified(envelope: bytes) -> ReferenceValues:
    return verify_bundle(envelope, SOURCE, not_below=1)


def _floor(envelope: bytes) -> Any:
    members = json.loads(envelope)
    payload = base64.b64decode(members["payload"])
    signature = base64.b64decode(members["signatures"][0]["sig"])
    key = ALICE.public
    if not isinstance(key, ec.EllipticCurvePublicKey):
        raise TypeError("the peer checks an ECDSA signature")
    key.verify(signature, pae(PAYLOAD_TYPE, payload), ec.ECDSA(hashes.SHA256()))
    return json.loads(payload)


def _paired(first: Callable[[], object], second: Callable[[], object]) -> tuple[float, float]:
    pairs = [(_seconds(first), _seconds(second)) for _ in range(BLOCKS)]
    return statistics.median(a for a, _ in pairs), statistics.median(b for _, b in pairs)


def _seconds(call: Callable[[], object]) -> float:
    begin = time.process_time()
    call()
    return time.process_time() - begin


def _memory(load: Callable[[], object]) -> tuple[int, int]:
    """Bytes that the result keeps, and the most that were taken on the way."""
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        result = load()
        kept, peak = tracemalloc.get_traced_memory()
        del result
    finally:
        tracemalloc.stop()
    return kept - before, peak - before
