"""Boot logs per second and core: parsed and replayed, held against a quote for the first time, and again.

The log has the form of a cloud machine's: 44 events, three banks, 24 KB. CPU time, medians over blocks that run in
turn. Two peers: the hashing that nobody can leave out, and `tpm2_eventlog`, which also prints all events as text; what
it costs to start it, measured on a log of one event, is taken off. It is a C program, and no library: this is as near
as one gets.
"""

from __future__ import annotations

import hashlib
import resource
import statistics
import subprocess
import tempfile
import tracemalloc
from pathlib import Path
from typing import Final

from tools.lab import event_log_writer as tcg
from tools.lab.firmware import Boot, authority_digest, write_boot

from bench.report import Figure, write
from bench.turns import in_turn
from chatelaine.appraisal.boot_rules import boot_rules
from chatelaine.evidence import boot_log
from chatelaine.evidence import tpm_algorithms as alg
from chatelaine.evidence.boot_log import verify_boot_log
from chatelaine.evidence.event_log import parse_event_log, replay
from chatelaine.evidence.tpm_quote import VerifiedQuote
from chatelaine.evidence.tpm_types import Selection
from chatelaine.model.tpm_policy import Bank, TpmRules
from chatelaine.model.verdict import Outcome

EVENTS: Final = 44
LOG_BYTES: Final = 24_000
BANKS: Final = (tcg.SHA1, tcg.SHA256, tcg.SHA384)
BLOCKS: Final = 41
CALLS: Final = 200
TOOL_RUNS: Final = 40
UNCACHED_GOAL: Final = 5_000
CACHED_GOAL: Final = 100_000
KEPT_LOGS: Final = 64
HASHES: Final = {tcg.SHA1: hashlib.sha1, tcg.SHA256: hashlib.sha256, tcg.SHA384: hashlib.sha384}
RULES: Final = {
    "pcrs": {"bank": "Sha256", "values": [{"index": 0, "anyOf": ["00" * 32]}]},
    "eventLog": {
        "replay": "Required",
        "secureBoot": "Enabled",
        "authorities": {"allowed": [authority_digest("Laboratory db")]},
        "optionRoms": "Refuse",
        "kernelCommandLine": {"required": ["lockdown=*"], "forbidden": ["init=*"]},
    },
}


def run() -> None:
    """Writes the figures."""
    data = _log()
    log = parse_event_log(data)
    quote = _quote(replay(log, alg.SHA256))
    verified = verify_boot_log(data, quote)
    (rule,) = boot_rules(TpmRules.model_validate(RULES), None)
    if len(log.events) != EVENTS or rule.judge_log(verified).outcome is not Outcome.HOLDS:
        raise AssertionError("the log is not the one that is to be measured")
    parsed, hashing = in_turn(lambda: _replayed(data), lambda: _hashed(log.events), blocks=BLOCKS, times=CALLS)
    first, again = in_turn(
        lambda: _first(data, quote), lambda: verify_boot_log(data, quote), blocks=BLOCKS, times=CALLS
    )
    (judged,) = in_turn(lambda: rule.judge_log(verified), blocks=BLOCKS, times=CALLS)
    hashes: dict[str, object] = {"what": "its 132 hashes alone", "value": 1 / hashing, "unit": "1/s a core"}
    tool: dict[str, object] = {
        "what": "tpm2_eventlog, less its start; prints all events as text",
        "value": 1 / _tool_seconds(data),
        "unit": "1/s a core",
    }
    rate = "1/s a core"
    figures = [
        Figure("logs parsed and replayed, three banks", 1 / parsed, rate, f">= {UNCACHED_GOAL}",
               1 / parsed >= UNCACHED_GOAL, tool),
        Figure("the same, against its hashes alone", hashing / parsed, "", peer=hashes),
        Figure("logs held against a quote, with all facts, uncached", 1 / first, rate),
        Figure("logs held against a quote, cached", 1 / again, rate, f">= {CACHED_GOAL}", 1 / again >= CACHED_GOAL),
        Figure("logs judged by five rules", 1 / judged, rate),
        Figure("memory per log that is kept", _kept_bytes() / 1024, "KiB"),
    ]  # fmt: skip
    write("event_logs", figures)


def _log(serial: str = "host") -> bytes:
    """The laboratory's boot in three banks, filled up to the size of a real one."""
    log = tcg.EventLogWriter(BANKS)
    write_boot(log, Boot(serial=serial, revoked=tuple(b"revoked %d" % number for number in range(180))))
    missing = EVENTS - len(parse_event_log(log.data).events)
    room = LOG_BYTES - len(log.data) - missing * 150
    for number in range(missing):
        text = f"menuentry {number} {{".encode().ljust(max(32, room // missing), b"x")
        log.measure(8, tcg.EV_IPL, b"grub_cmd: " + text + b"\0", text)
    return log.data


def _quote(values: dict[int, bytes]) -> VerifiedQuote:
    return VerifiedQuote("", Selection(Bank.SHA256, tuple(values)), values, b"", b"", b"", 0, 1, 0, True, 0)


def _replayed(data: bytes) -> None:
    log = parse_event_log(data)
    for bank in BANKS:
        replay(log, bank)


def _hashed(events: tuple[object, ...]) -> None:
    """One hash an event and bank, over two values."""
    for bank in BANKS:
        new = HASHES[bank]
        value = new(b"").digest()
        for _ in events:
            value = new(value + value).digest()


def _first(data: bytes, quote: VerifiedQuote) -> None:
    boot_log._remembered.cache_clear()  # noqa: SLF001 -- the first time is what is measured
    verify_boot_log(data, quote)


def _kept_bytes() -> float:
    """Bytes that one more host's log costs, its own bytes included."""
    logs = [_log(f"host {number}") for number in range(KEPT_LOGS)]
    quotes = [_quote(replay(parse_event_log(data), alg.SHA256)) for data in logs]
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    kept = [verify_boot_log(bytes(bytearray(data)), quote) for data, quote in zip(logs, quotes, strict=True)]
    after = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    return (after - before) / len(kept)


def _tool_seconds(data: bytes) -> float:
    """Seconds of CPU that `tpm2_eventlog` takes for the log, less those for a log of one event."""
    small = tcg.EventLogWriter(BANKS)
    small.measure(8, tcg.EV_IPL, b"x")
    with tempfile.TemporaryDirectory() as folder:
        whole, least = Path(folder, "whole"), Path(folder, "least")
        whole.write_bytes(data)
        least.write_bytes(small.data)
        pairs = [(_child_seconds(whole), _child_seconds(least)) for _ in range(TOOL_RUNS)]
    return statistics.mean(first for first, _ in pairs) - statistics.mean(second for _, second in pairs)


def _child_seconds(path: Path) -> float:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(
        ["tpm2_eventlog", str(path)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=True, timeout=60
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
