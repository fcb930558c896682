"""DSSE envelopes (Dead Simple Signing Envelope, version 1): several signatures over one typed payload.

1. the length is bounded, and the number of members and elements is counted, before anything is parsed;
2. exactly the members `payload`, `payloadType`, `signatures` (of each: `sig`, and a `keyid` that is only a hint), none
   twice, base64 in the standard or the URL-safe alphabet, padded, in its one canonical spelling;
3. each signature is over PAE(payloadType, payload), so no signature made for another type, or over the bare payload,
   counts;
4. what counts are distinct listed keys, not signatures: a key that signed twice is one key, and one key listed twice,
   under two names or one, is refused. Signatures by other keys are allowed and count nothing.

ECDSA P-256 with SHA-256 (DER), and Ed25519. Nothing reads the payload before the threshold is met.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_public_key

from chatelaine.evidence import strict_json
from chatelaine.evidence.errors import (
    EnvelopeMalformed,
    EnvelopeOversized,
    ReferenceKeyRefused,
    ThresholdNotMet,
)
from chatelaine.model.identifiers import canonical_json, digest_of
from chatelaine.model.tpm_policy import MAX_PEM_CHARACTERS

MAX_ENVELOPE_BYTES: Final = 16 * 1024 * 1024
MAX_SIGNATURES: Final = 16
MAX_SIGNATURE_BYTES: Final = 128
MAX_KEY_ID_CHARACTERS: Final = 256
MAX_PAYLOAD_TYPE_CHARACTERS: Final = 255
MAX_MARKS: Final = 1024
"""Quotes, commas and brackets in an envelope: base64 has none, so an honest envelope has about ten a signature."""

PublicKey = ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey

_URL_SAFE: Final = bytes.maketrans(b"-_", b"+/")
_PREHASHED: Final = ec.ECDSA(Prehashed(hashes.SHA256()))


@dataclass(frozen=True, slots=True)
class Signature:
    """One signature. `key_id` is what the envelope says, and proves nothing."""

    signature: bytes
    key_id: str = ""


@dataclass(frozen=True, slots=True)
class Envelope:
    """A payload and what was signed over it; nothing of it is verified."""

    payload_type: str
    payload: bytes
    signatures: tuple[Signature, ...] = ()

    @property
    def message(self) -> bytes:
        """The bytes that signatures are made over."""
        return pae(self.payload_type, self.payload)

    def encode(self) -> bytes:
        """The envelope as JSON."""
        return canonical_json(
            {
                "payloadType": self.payload_type,
                "payload": base64.b64encode(self.payload).decode(),
                "signatures": [
                    {"keyid": entry.key_id, "sig": base64.b64encode(entry.signature).decode()}
                    for entry in self.signatures
                ],
            }
        )


@dataclass(frozen=True, slots=True)
class VerifyingKey:
    """A key that may sign.

    Attributes:
        name: by which the policy knows it.
        key: ECDSA P-256 or Ed25519.
        key_id: `sha256:` over the SubjectPublicKeyInfo (DER): what our own signing writes as the hint.
    """

    name: str
    key: PublicKey
    key_id: str

    @classmethod
    def parse(cls, name: str, pem: str) -> VerifyingKey:
        """A public key in PEM.

        Raises:
            ReferenceKeyRefused: not PEM, or a key of another kind.
        """
        if len(pem) > MAX_PEM_CHARACTERS:
            raise ReferenceKeyRefused(f"key {name} is too long", expected=f"at most {MAX_PEM_CHARACTERS} characters")
        try:
            key = load_pem_public_key(pem.encode())
        except (ValueError, TypeError, UnsupportedAlgorithm) as error:
            raise ReferenceKeyRefused(f"key {name} is not a public key in PEM") from error
        if not isinstance(key, ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey) or not _is_taken(key):
            raise ReferenceKeyRefused(
                f"key {name} is of a kind that is not taken", expected="ECDSA P-256 or Ed25519", found=_kind(key)
            )
        return cls(name, key, key_id_of(key))


def key_id_of(key: PublicKey) -> str:
    """`sha256:` over the SubjectPublicKeyInfo (DER)."""
    return digest_of(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo))


def pae(payload_type: str, payload: bytes) -> bytes:
    """Pre-authentication encoding: what is signed (DSSE protocol 1.0, signature definition)."""
    kind = payload_type.encode()
    return b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)


# --- 1, 2: reading ---------------------------------------------------------------------------------------------


def parse_envelope(data: bytes) -> Envelope:
    """Read an envelope; verifies nothing.

    Raises:
        EnvelopeOversized: more than 16 MiB.
        EnvelopeMalformed: anything else that is not as the module says.
    """
    if len(data) > MAX_ENVELOPE_BYTES:
        raise EnvelopeOversized(
            "the envelope is too long", expected=f"at most {MAX_ENVELOPE_BYTES} bytes", found=f"{len(data)} bytes"
        )
    if sum(data.count(mark) for mark in (b'"', b",", b"[", b"{")) > MAX_MARKS:
        raise EnvelopeMalformed("the envelope holds too many members and elements to be one")
    try:
        value = strict_json.loads(data)
    except strict_json.NotStrict as error:
        raise EnvelopeMalformed(f"the envelope was not read: {error}") from error
    members = _members(value, {"payload", "payloadType", "signatures"}, "the envelope")
    entries = members["signatures"]
    if not isinstance(entries, list) or len(entries) > MAX_SIGNATURES:
        raise EnvelopeMalformed("signatures is not a list of allowed length", expected=f"at most {MAX_SIGNATURES}")
    return Envelope(
        payload_type=_text(members["payloadType"], MAX_PAYLOAD_TYPE_CHARACTERS, "payloadType"),
        payload=_decoded(members["payload"], "payload"),
        signatures=tuple(map(_signature, entries)),
    )


def _signature(value: object) -> Signature:
    members = _members(value, {"sig"}, "a signature", optional={"keyid"})
    raw = _decoded(members["sig"], "sig")
    if not 0 < len(raw) <= MAX_SIGNATURE_BYTES:
        raise EnvelopeMalformed("a signature is empty or too long", expected=f"1 to {MAX_SIGNATURE_BYTES} bytes")
    return Signature(raw, _text(members.get("keyid") or "", MAX_KEY_ID_CHARACTERS, "keyid"))


def _members(value: object, required: set[str], what: str, optional: Iterable[str] = ()) -> dict[str, Any]:
    if not isinstance(value, dict) or not required <= value.keys() <= required.union(optional):
        raise EnvelopeMalformed(f"{what} has other members", expected=sorted(required.union(optional)))
    return value


def _text(value: object, limit: int, what: str) -> str:
    if not isinstance(value, str) or not strict_json.is_text(value) or len(value) > limit:
        raise EnvelopeMalformed(f"{what} is not a text of at most {limit} characters")
    return value


def _decoded(value: object, what: str) -> bytes:
    """Base64 of either alphabet, not of both; padded; without bits that say nothing (RFC 4648 section 3.5)."""
    if not isinstance(value, str) or not value.isascii():
        raise EnvelopeMalformed(f"{what} is not base64")
    text = value.encode()
    standard = text if b"-" not in text and b"_" not in text else None
    if standard is None and (b"+" in text or b"/" in text):
        raise EnvelopeMalformed(f"{what} mixes two alphabets of base64")
    text = text.translate(_URL_SAFE) if standard is None else standard
    try:
        data = base64.b64decode(text)
    except binascii.Error as error:
        raise EnvelopeMalformed(f"{what} is not base64") from error
    # This sees whatever the decoder passes over, too.
    if base64.b64encode(data) != text:
        raise EnvelopeMalformed(f"{what} is not in its one canonical base64 spelling")
    return data


# --- 3, 4: verifying -------------------------------------------------------------------------------------------


def verify_envelope(envelope: Envelope, keys: Sequence[VerifyingKey], threshold: int) -> tuple[str, ...]:
    """Names of the keys that have signed, in the order of `keys`; at least `threshold` of them.

    Raises:
        ReferenceKeyRefused: one key stands among `keys` twice.
        ThresholdNotMet: fewer have signed, or the threshold is below one.
    """
    known: dict[str, str] = {}
    for key in keys:
        if key.key_id in known:
            names = f"{known[key.key_id]}, {key.name}"
            raise ReferenceKeyRefused("one key is listed twice, or under two names", found=names)
        known[key.key_id] = key.name
    message = envelope.message
    digest = hashlib.sha256(message).digest()
    signed_by = tuple(key.name for key in keys if _has_signed(key, envelope.signatures, message, digest, known))
    if threshold < 1 or len(signed_by) < threshold:
        raise ThresholdNotMet(
            "too few of the listed keys have signed this",
            expected=f"{threshold} of {', '.join(known.values())}",
            found=", ".join(signed_by) or f"none, in {len(envelope.signatures)} signatures",
        )
    return signed_by


def _has_signed(
    key: VerifyingKey, signatures: Iterable[Signature], message: bytes, digest: bytes, known: dict[str, str]
) -> bool:
    for entry in signatures:
        # A hint that names another listed key spares the attempt; every other hint is not believed.
        if entry.key_id in known and entry.key_id != key.key_id:
            continue
        try:
            if isinstance(key.key, ed25519.Ed25519PublicKey):
                key.key.verify(entry.signature, message)
            else:
                key.key.verify(entry.signature, digest, _PREHASHED)
        except InvalidSignature:
            continue
        return True
    return False


def _is_taken(key: PublicKey) -> bool:
    return isinstance(key, ed25519.Ed25519PublicKey) or isinstance(key.curve, ec.SECP256R1)


def _kind(key: object) -> str:
    curve = getattr(key, "curve", None)
    return curve.name if isinstance(curve, ec.EllipticCurve) else type(key).__name__
