"""Real evidence of real machines, kept beside the repository. Absent on users' machines: those cases are left out."""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from chatelaine.evidence.tpm_types import Selection
from chatelaine.model.tpm_policy import Bank

VECTORS = Path(__file__).resolve().parents[2].parent / "shared" / "vectors"

needs_vectors = pytest.mark.skipif(
    not VECTORS.is_dir(), reason="the folder ../shared/vectors is absent; its conformance cases are left out"
)


@dataclass(frozen=True)
class QuoteVector:
    """One quote of a real machine."""

    attest: bytes
    signature: bytes
    ak: bytes
    ak_certificate: bytes
    extra_data: bytes
    selection: Selection | None
    pcrs: dict[int, bytes]


def gce(bank_id: int) -> QuoteVector:
    """The quote of the given TPM bank of the GCE machine. SHA-1 has no selection: it cannot even be asked for."""
    value: dict[str, Any] = json.loads((VECTORS / "tpm" / "gce-cos-85-nonce9009.json").read_text())
    quote = next(quote for quote in value["quotes"] if quote["bank_tpm_alg_id"] == bank_id)
    bank = {0x000B: Bank.SHA256, 0x000C: Bank.SHA384}.get(bank_id)
    return QuoteVector(
        attest=bytes.fromhex(quote["attest_hex"]),
        signature=bytes.fromhex(quote["signature_tpmt_hex"]),
        ak=bytes.fromhex(value["ak_public_tpmt_hex"]),
        ak_certificate=value["ak_cert_pem"].encode(),
        extra_data=bytes.fromhex("9009"),
        selection=Selection(bank, tuple(range(24))) if bank else None,
        pcrs={int(index): bytes.fromhex(digest) for index, digest in quote["pcrs"].items()},
    )


def gce_event_log() -> bytes:
    """The boot event log of the same machine."""
    value: dict[str, Any] = json.loads((VECTORS / "tpm" / "gce-cos-85-nonce9009.json").read_text())
    return base64.b64decode(value["event_log_base64"])


def event_log_names() -> list[str]:
    """Names of all event logs; empty where the folder is absent."""
    return sorted(path.stem for path in (VECTORS / "tpm" / "eventlogs").glob("*.bin"))


def event_log(name: str) -> bytes:
    """One of them."""
    return (VECTORS / "tpm" / "eventlogs" / f"{name}.bin").read_bytes()


def expected_pcrs(name: str) -> dict[str, dict[int, bytes]]:
    """Values that a right replay gives, by bank (`sha256`) and index."""
    value = json.loads((VECTORS / "tpm" / "eventlogs" / "expected-pcrs.json").read_text())[name]
    return {
        bank: {int(index): bytes.fromhex(digest) for index, digest in values.items()} for bank, values in value.items()
    }
