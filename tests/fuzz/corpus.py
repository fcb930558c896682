"""Names of all targets, and the inputs that are kept for them."""

from __future__ import annotations

import base64
from collections.abc import Iterable
from pathlib import Path

FOLDER = Path(__file__).resolve().parent / "corpus"
MAX_INPUT_BYTES = 2048
MAX_KEPT = 48

# The module that has a target is imported only when it is run: what it reads with is instrumented at import.
GROUPS = {
    **dict.fromkeys(
        (
            "quote", "signature", "public", "attestation-key", "pcr-selection", "cbor", "statement", "inventory",
            "evidence", "statement-key", "certificate",
        ),
        "evidence_targets",
    ),
    **dict.fromkeys(
        ("compact", "trust-token", "service-account-token", "cluster-keys", "public-jwk", "token-form"),
        "token_targets",
    ),
    **dict.fromkeys(("csr", "client-csr", "ca-bundle", "leaf", "invitation", "pkcs11-uri"), "key_targets"),
    **dict.fromkeys(
        (
            "envelope", "bundle", "reference-payload", "reference-key", "corim", "signed-corim", "file-list",
            "description",
        ),
        "reference_targets",
    ),
    **dict.fromkeys(
        ("message", "agent-evidence", "gateway-identity", "view", "sign-request", "object"),
        "wire_targets",
    ),
    **dict.fromkeys(
        (
            "event-log", "measured-boot", "uefi-variable", "signature-lists", "signature-entry", "partition-table",
            "kernel-command-line", "argument-glob",
        ),
        "boot_targets",
    ),
    **dict.fromkeys(("stored-round", "evidence-bundle", "explanation"), "stored_targets"),
    **dict.fromkeys(("ima-binary", "ima-ascii", "ima-file-signature", "path-glob"), "ima_targets"),
}  # fmt: skip


def names() -> tuple[str, ...]:
    """All targets."""
    return tuple(GROUPS)


def kept(name: str) -> list[bytes]:
    """The inputs that are kept for a target."""
    path = FOLDER / f"{name}.txt"
    return [base64.b64decode(line) for line in path.read_text().splitlines()] if path.exists() else []


def keep(name: str, inputs: Iterable[bytes]) -> None:
    """Keep these inputs, the shortest first, up to a bound."""
    chosen = sorted(set(inputs), key=lambda data: (len(data), data))[:MAX_KEPT]
    (FOLDER / f"{name}.txt").write_text("".join(base64.b64encode(data).decode() + "\n" for data in chosen))


def lay_out(folder: Path, inputs: Iterable[bytes]) -> None:
    """One file an input, as libFuzzer wants them."""
    for number, data in enumerate(inputs):
        (folder / f"{number:04}").write_bytes(data)
