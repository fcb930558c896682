"""Signatures and key pairs per second through the supervisor, against raw python-pkcs11 calls in the same run.

Both sides run in turn on the same SoftHSM token. The raw side is one process that calls the library in a loop; the
supervised side is 64 callers, this process and the worker. CPU time of both processes is counted.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import pkcs11
from tools.lab.softhsm import SoftHsmToken

from bench.report import Figure, write
from chatelaine.model.identifiers import key_id, key_label
from chatelaine.model.keys import KeyType
from chatelaine.pkcs11.port import SignMechanism
from chatelaine.pkcs11.settings import Pkcs11Settings
from chatelaine.pkcs11.supervisor import Pkcs11Supervisor

BLOCKS = 9
CALLS = 2048
CALLERS = 64
PAIRS = 40
LABEL = key_label("bench", "signing", 1)
DIGEST = hashlib.sha256(b"bench").digest()
TICKS = os.sysconf("SC_CLK_TCK")


def run() -> None:
    """Writes the figures."""
    with tempfile.TemporaryDirectory() as directory:
        token = SoftHsmToken.create(Path(directory) / "token")
        os.environ.update(token.env)  # the raw side's library is loaded into this process
        write("pkcs11", asyncio.run(_figures(token)))


async def _figures(token: SoftHsmToken) -> list[Figure]:
    settings = Pkcs11Settings(token.module, token.uri, token.pin_file, token.state_directory, environment=token.env)
    async with Pkcs11Supervisor(settings) as port:
        begin = time.monotonic()
        for version in range(1, PAIRS + 1):
            await port.ensure_key_pair(key_label("bench", "signing", version), KeyType.EC_P256, may_generate=True)
        pairs_per_second = PAIRS / (time.monotonic() - begin)
        raw = _raw_key(token)
        rounds = [(_raw_block(raw), await _supervised_block(port)) for _ in range(BLOCKS)]
        alone = [await _one_by_one(port) for _ in range(BLOCKS)]
    raw_rate = statistics.median(CALLS / seconds for seconds, _ in rounds)
    rate = statistics.median(CALLS / seconds for _, (seconds, _) in rounds)
    ratio = statistics.median(raw_seconds / seconds for raw_seconds, (seconds, _) in rounds)
    cpu_micros = statistics.median(cpu for _, (_, cpu) in rounds) / CALLS * 1e6
    peer: dict[str, object] = {"what": "raw python-pkcs11, one process", "value": raw_rate, "unit": "1/s"}
    return [
        Figure(f"P-256 signatures, {CALLERS} callers", rate, "1/s", peer=peer),
        Figure("supervised against raw", ratio, "", peer=peer),
        Figure("CPU of both processes a signature", cpu_micros, "µs", peer=peer),
        Figure("P-256 signature, one caller", statistics.median(alone) * 1e6, "µs"),
        Figure("P-256 key pairs made and proven", pairs_per_second, "1/s"),
    ]


def _raw_key(token: SoftHsmToken) -> Any:
    session = pkcs11.lib(str(token.module)).get_token(token_label=token.label).open(user_pin=token.pin)
    return session.get_key(object_class=pkcs11.ObjectClass.PRIVATE_KEY, id=key_id(LABEL))


def _raw_block(key: Any) -> float:
    begin = time.monotonic()
    for _ in range(CALLS):
        key.sign(DIGEST, mechanism=pkcs11.Mechanism.ECDSA)
    return time.monotonic() - begin


async def _supervised_block(port: Pkcs11Supervisor) -> tuple[float, float]:
    """Seconds on the clock, and seconds of CPU of this process and the worker."""

    async def caller() -> None:
        for _ in range(CALLS // CALLERS):
            await port.sign(LABEL, SignMechanism.ECDSA_SHA256, DIGEST)

    cpu, begin = _cpu_seconds(port), time.monotonic()
    await asyncio.gather(*(caller() for _ in range(CALLERS)))
    return time.monotonic() - begin, _cpu_seconds(port) - cpu


async def _one_by_one(port: Pkcs11Supervisor) -> float:
    begin = time.monotonic()
    for _ in range(CALLERS):
        await port.sign(LABEL, SignMechanism.ECDSA_SHA256, DIGEST)
    return (time.monotonic() - begin) / CALLERS


def _cpu_seconds(port: Pkcs11Supervisor) -> float:
    fields = Path(f"/proc/{port.worker_pid}/stat").read_text().rpartition(")")[2].split()
    return time.process_time() + (int(fields[11]) + int(fields[12])) / TICKS
