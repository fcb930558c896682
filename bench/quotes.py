"""Quotes verified per second and core, against raw signature verifications in the same run.

Both sides run in turn, in short blocks, and CPU time is counted: other work on the machine hits both alike. The
figure is the median of the blocks.
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, utils

from bench.report import Figure, write
from bench.turns import seconds_a_call
from chatelaine.evidence import tpm_algorithms as alg
from chatelaine.evidence.tpm_quote import attestation_key, verify_quote
from chatelaine.evidence.tpm_types import Selection, parse_signature
from chatelaine.model.tpm_policy import Bank

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
from support.paper_tpm import PaperTpm

BLOCKS = 41
CALLS = 400
GOAL = 0.6
PCRS = {index: bytes([index]) * 32 for index in range(24)}
EXTRA = bytes(32)


def run() -> None:
    """Writes the figures for ECDSA P-256 and RSA-2048, all 24 PCRs quoted."""
    figures = []
    for what, tpm in (("ECDSA P-256", PaperTpm()), ("RSA-2048", PaperTpm(alg.RSASSA))):
        quote, raw = _sides(tpm)
        quote_seconds, raw_seconds, ratio = _compare(quote, raw)
        peer: dict[str, object] = {
            "what": "raw signature verifications",
            "value": 1 / raw_seconds,
            "unit": "1/s a core",
        }
        figures.append(Figure(f"quotes verified, {what}", 1 / quote_seconds, "1/s a core", peer=peer))
        figures.append(
            Figure(f"quotes against raw verifications, {what}", ratio, "", f">= {GOAL}", ratio >= GOAL, peer)
        )
    write("quotes", figures)


def _sides(tpm: PaperTpm) -> tuple[Callable[[], object], Callable[[], object]]:
    attest, signature = tpm.quote(EXTRA, PCRS)
    selection = Selection(Bank.SHA256, tuple(PCRS))

    def quote() -> object:
        return verify_quote(
            attest,
            signature,
            ak=attestation_key(tpm.public),
            expected_extra_data=EXTRA,
            selection=selection,
            pcrs=PCRS,
        )

    parsed = parse_signature(signature)
    key: Any = attestation_key(tpm.public).key
    sha256 = hashes.SHA256()
    if parsed.scheme == alg.ECDSA:
        der = utils.encode_dss_signature(int.from_bytes(parsed.first, "big"), int.from_bytes(parsed.second, "big"))
        ecdsa = ec.ECDSA(sha256)
        return quote, lambda: key.verify(der, attest, ecdsa)
    pkcs1 = padding.PKCS1v15()
    return quote, lambda: key.verify(parsed.first, attest, pkcs1, sha256)


def _compare(quote: Callable[[], object], raw: Callable[[], object]) -> tuple[float, float, float]:
    """Seconds of CPU a call of each, and the median over blocks of how much faster the raw side is, inverted."""
    pairs = [(seconds_a_call(quote, CALLS), seconds_a_call(raw, CALLS)) for _ in range(BLOCKS)]
    return (
        statistics.median(first for first, _ in pairs),
        statistics.median(second for _, second in pairs),
        statistics.median(second / first for first, second in pairs),
    )
