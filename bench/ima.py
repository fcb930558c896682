"""What IMA costs: an allow-list of 100,000 files (time, memory), and an increment of 10,000 measurements.

CPU time, medians over blocks that run in turn. The peer of the increment is the hashing that nobody can leave out:
two SHA-256 a measurement. The peer of the allow-list is a set of pairs, the plainest thing that answers the question.
"""

from __future__ import annotations

import hashlib
import statistics
import sys
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Final, TypeVar

from bench.report import Figure, write
from chatelaine.appraisal.ima_rules import ima_rule
from chatelaine.evidence.ima import ImaProgress, VerifiedIma, match_prefix
from chatelaine.evidence.reference_files import CompactAllowList, GoodFile
from chatelaine.model.tpm_policy import Bank, ImaRules
from chatelaine.model.verdict import Outcome

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
from support.paper_ima import PaperIma

FILES: Final = 100_000
LINES: Final = 10_000
BLOCKS: Final = 15
LOOKUPS: Final = 20_000
AT: Final = 1_780_000_000

T = TypeVar("T")


def run() -> None:
    """Writes the figures."""
    files = [_file(number) for number in range(FILES)]
    listed, list_bytes, build_seconds = _measured(lambda: CompactAllowList(files))
    pairs, pair_bytes, _ = _measured(lambda: {(str(file.path), str(file.digests[0])) for file in map(_copy, files)})
    asked = [files[number * 7919 % FILES] for number in range(LOOKUPS)]
    hit = _median(lambda: [listed.allows(file.path, file.digests[0], at=AT) for file in asked]) / LOOKUPS
    miss = _median(lambda: [listed.allows(file.path, "sha256:00", at=AT) for file in asked]) / LOOKUPS
    plain = _median(lambda: [(file.path, file.digests[0]) in pairs for file in asked]) / LOOKUPS
    sets: dict[str, object] = {"what": "a set of pairs of text"}
    figures = [
        Figure("allow-list of 100,000 files, in memory", list_bytes / 2**20, "MiB",
               peer=sets | {"value": pair_bytes / 2**20, "unit": "MiB"}),
        Figure("allow-list of 100,000 files, made", build_seconds, "s CPU"),
        Figure("look-up, listed", hit * 1e6, "us CPU", peer=sets | {"value": plain * 1e6, "unit": "us CPU"}),
        Figure("look-up, not listed", miss * 1e6, "us CPU"),
        *_increment(listed),
    ]  # fmt: skip
    write("ima", figures)


def _increment(listed: CompactAllowList) -> list[Figure]:
    """Replay and appraisal of 10,000 new measurements of listed files."""
    paper = PaperIma.booted()
    begin = ImaProgress(5, 1, Bank.SHA256, len(paper.data), 1, paper.pcr10)
    for number in range(LINES):
        paper.ran(_path(number * 7919 % FILES), _content(number * 7919 % FILES))
    data, pcr10 = paper.data[begin.offset_bytes :], paper.pcr10
    rule = ima_rule(ImaRules(), listed, at=AT)
    progress, entries = match_prefix(begin, data, pcr10)
    found = VerifiedIma(entries, progress, begin.entries)
    if len(entries) != LINES or rule.judge_ima(found).outcome is not Outcome.HOLDS:
        raise AssertionError("the increment was not accepted")
    replay = _median(lambda: match_prefix(begin, data, pcr10))
    judge = _median(lambda: rule.judge_ima(found))
    hashing = _median(lambda: _hashes(data))
    peer: dict[str, object] = {"what": "its 20,000 SHA-256 alone", "value": hashing * 1e3, "unit": "ms CPU"}
    _, kept_bytes, _ = _measured(lambda: match_prefix(begin, data, pcr10))
    return [
        Figure("increment of 10,000 lines, replayed", replay * 1e3, "ms CPU", peer=peer),
        Figure("increment of 10,000 lines, judged", judge * 1e3, "ms CPU"),
        Figure("lines replayed and judged", LINES / (replay + judge), "1/s a core"),
        Figure("increment of 10,000 lines, while it is judged", kept_bytes / 2**20, "MiB"),
        Figure("increment that brings nothing", _median(lambda: match_prefix(progress, b"", pcr10)) * 1e6, "us CPU"),
    ]


def _hashes(data: bytes) -> bytes:
    """One over each line's share of the data, and one over each value of the PCR."""
    size = len(data) // LINES
    value = bytes(32)
    for number in range(LINES):
        digest = hashlib.sha256(data[number * size : number * size + size]).digest()
        value = hashlib.sha256(value + digest).digest()
    return value


def _path(number: int) -> str:
    return f"/usr/lib/x86_64-linux-gnu/package-{number % 911}/component-{number}.so"


def _content(number: int) -> bytes:
    return b"content %d" % number


def _file(number: int) -> GoodFile:
    return GoodFile(_path(number), (f"sha256:{hashlib.sha256(_content(number)).hexdigest()}",))


def _copy(file: GoodFile) -> GoodFile:
    """With texts of its own, or the peer's memory would be counted as that of the list it was made from."""
    return GoodFile(file.path.encode().decode(), tuple(digest.encode().decode() for digest in file.digests))


def _measured(make: Callable[[], T]) -> tuple[T, int, float]:
    """What was made, the bytes that it keeps, and the seconds of CPU that it took."""
    begin = time.process_time()
    make()
    seconds = time.process_time() - begin
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    made = make()
    kept_bytes = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    return made, kept_bytes, seconds


def _median(call: Callable[[], object]) -> float:
    """Seconds of CPU a call."""
    times = []
    for _ in range(BLOCKS):
        begin = time.process_time()
        call()
        times.append(time.process_time() - begin)
    return statistics.median(times)
