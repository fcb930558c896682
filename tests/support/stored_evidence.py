"""A store of evidence with rounds that are nothing but names of their parts."""

from __future__ import annotations

import hashlib
from collections.abc import Collection
from pathlib import Path
from typing import Any

from chatelaine.appraisal.stored import RoundKind
from chatelaine.controller.evidence_folder import AfterStep, EvidenceFolder
from chatelaine.controller.evidence_store import BLOCK_BYTES, Entry, EvidenceStore

ROOM = 64 * BLOCK_BYTES
LOG = b"a boot log" * 600


def sha(data: bytes) -> bytes:
    """SHA-256."""
    return hashlib.sha256(data).digest()


def round_(number: int, *parts: bytes) -> bytes:
    """Bytes that name their parts, as a stored round does."""
    return b"round %06d" % number + b"".join(sha(part) for part in parts)


def parts_of(data: bytes) -> tuple[bytes, ...]:
    """What `round_` named."""
    if not data.startswith(b"round "):
        raise ValueError("no round")
    rest = data[12:]
    return tuple(rest[at : at + 32] for at in range(0, len(rest), 32))


def store(path: Path, *, room: int = ROOM, after_step: AfterStep = lambda _: None) -> EvidenceStore:
    """Not opened yet."""
    return EvidenceStore(EvidenceFolder(path, after_step), room, parts_of=parts_of)


def entry(
    number: int, kind: RoundKind = RoundKind.TRUSTED, *, uid: str = "uid-a", group: int = 1, data: bytes | None = None
) -> Entry:
    """What a mark says of a round."""
    return Entry(number, uid, kind, f"{group:016x}", sha(data if data is not None else round_(number)))


def keep(
    target: EvidenceStore,
    number: int,
    kind: RoundKind = RoundKind.TRUSTED,
    *parts: bytes,
    living: Collection[str] | None = None,
    **about: Any,
) -> Entry:
    """Store a round with these parts."""
    data = round_(number, *parts)
    made = entry(number, kind, data=data, **about)
    target.keep(made, data, parts, living=living)
    return made


def object_of(path: Path, digest: bytes) -> Path:
    """Where an object lies."""
    return path / "sha256" / digest.hex()[:2] / digest.hex()[2:]


def lying_in(path: Path) -> dict[bytes, int]:
    """Digest and size of every object in the folder, whether a mark leads to it or not."""
    return dict(EvidenceFolder(path).objects())


def reopened(path: Path, **options: Any) -> EvidenceStore:
    """As a fresh process finds it."""
    fresh = store(path, **options)
    fresh.open()
    return fresh
