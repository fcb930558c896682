"""A stored round in one file, with all that it leans on: to be handed to somebody else, and judged there.

Deterministic CBOR: `{"v", "round", "parts"}`. `round` is the stored round as it is (`stored_form`), so that its digest
stays what the operator's store calls it by; `parts` are the bytes of its parts, in the order of their digests.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from chatelaine.appraisal.stored import MAX_PARTS, StoredRound
from chatelaine.appraisal.stored_form import decode_round
from chatelaine.evidence import cbor
from chatelaine.evidence.errors import EvidencePartMissing, Malformed

VERSION: Final = "chatelaine/evidence-bundle/v1"
MAX_BUNDLE_FILE_BYTES: Final = 72 * 1024 * 1024
"""A whole IMA list, reference values, a log, and the round."""
_FIELDS: Final = ("v", "round", "parts")
_MAX_ITEMS: Final = 16 + MAX_PARTS


@dataclass(frozen=True, slots=True)
class EvidenceBundle:
    """One stored round and the parts that came with it, by SHA-256."""

    round: StoredRound
    parts: Mapping[bytes, bytes]

    def part(self, digest: bytes) -> bytes:
        """One of them.

        Raises:
            EvidencePartMissing: it did not come along.
        """
        if digest not in self.parts:
            raise EvidencePartMissing("the bundle names a part that is not in it", found=digest)
        return self.parts[digest]


def encode_bundle(round_: bytes, parts: Iterable[bytes]) -> bytes:
    """One encoded round and its parts as a file."""
    ordered = sorted(set(parts), key=lambda part: hashlib.sha256(part).digest())
    return cbor.encode({"v": VERSION, "round": round_, "parts": ordered})


def decode_bundle(data: bytes) -> EvidenceBundle:
    """What a file holds. Nothing in it is believed yet.

    Raises:
        Oversized: longer than the bound.
        Malformed: a defect of form, or a part that the round does not name.
    """
    value = cbor.decode(data, limit_bytes=MAX_BUNDLE_FILE_BYTES, what="the evidence bundle", max_items=_MAX_ITEMS)
    found = cbor.fields(value, _FIELDS, "the evidence bundle")
    round_, parts = found["round"], found["parts"]
    if found["v"] != VERSION:
        raise Malformed("the evidence bundle is of another version", expected=VERSION, found=str(found["v"])[:64])
    if type(round_) is not bytes or not isinstance(parts, list) or any(type(part) is not bytes for part in parts):
        raise Malformed("the evidence bundle is no round with parts")
    by_digest = {hashlib.sha256(part).digest(): part for part in parts}
    if list(by_digest) != sorted(by_digest) or len(by_digest) != len(parts):
        raise Malformed("parts of the evidence bundle are not in order, or are in it twice")
    stored = decode_round(round_)
    if not by_digest.keys() <= set(stored.parts):
        raise Malformed("the evidence bundle has a part that its round does not name")
    return EvidenceBundle(stored, by_digest)


def bundled(round_: bytes, read: Callable[[bytes], bytes]) -> bytes:
    """The file of an encoded round whose parts `read` gives by digest; those that were left out stay out.

    Raises:
        EvidenceError: it is no stored round.
    """
    stored = decode_round(round_)
    return encode_bundle(round_, [read(part) for part in stored.parts if part not in stored.left_out])
