"""The door to an HSM: what the gateway asks of a token, whatever stands behind it.

Implemented by `supervisor.Pkcs11Supervisor` (a real token) and `simulated.SimulatedHsm` (benches and scale tests).
Labels are those of `model.identifiers`; `CKA_ID` follows from the label. Every call ends within a deadline of the
implementation's settings and raises a `pkcs11.errors.HsmError` when it cannot answer.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Final, Protocol

from chatelaine.evidence.inventory import InventoryKey
from chatelaine.model.keys import KeyType
from chatelaine.model.verdict import Outcome
from chatelaine.pkcs11.errors import BadRequest, MechanismMissing

MAX_LABEL_BYTES: Final = 256
MAX_RANDOM_BYTES: Final = 1024
MAX_SIGNATURE_BYTES: Final = 1024
DIGEST_BYTES: Final = 32
"""All three mechanisms sign a SHA-256 digest that the caller computed."""


class SignMechanism(enum.StrEnum):
    """How a digest is signed. The value is what the REST API calls it."""

    ECDSA_SHA256 = "ecdsa-sha256"
    """Raw `r ‖ s`, 64 bytes (PKCS#11 v3.1 section 6.3.1)."""
    RSA_PSS_SHA256 = "rsa-pss-sha256"
    """MGF1 with SHA-256, salt of 32 bytes (RFC 8017 section 8.1)."""
    RSA_PKCS1_SHA256 = "rsa-pkcs1-sha256"
    """RFC 8017 section 8.2; the DigestInfo is ours."""


KEY_TYPE_OF: Final[dict[SignMechanism, KeyType]] = {
    SignMechanism.ECDSA_SHA256: KeyType.EC_P256,
    SignMechanism.RSA_PSS_SHA256: KeyType.RSA_3072,
    SignMechanism.RSA_PKCS1_SHA256: KeyType.RSA_3072,
}
"""The key type that each mechanism needs."""


RSA_BITS: Final = 3072
"""Modulus of `KeyType.RSA_3072`, the only RSA keys that we make."""


def check_label(label: str) -> None:
    """Bound a label.

    Raises:
        BadRequest: empty, or over `MAX_LABEL_BYTES`.
    """
    length = len(label.encode())
    if not 1 <= length <= MAX_LABEL_BYTES:
        raise BadRequest(f"a label of 1 to {MAX_LABEL_BYTES} bytes", f"{length}")


def check_digest(digest: bytes) -> None:
    """Bound what is signed.

    Raises:
        BadRequest: not `DIGEST_BYTES` long.
    """
    if len(digest) != DIGEST_BYTES:
        raise BadRequest(f"a digest of {DIGEST_BYTES} bytes", f"{len(digest)}")


def check_signature_length(signature: bytes) -> None:
    """Bound what is verified.

    Raises:
        BadRequest: over `MAX_SIGNATURE_BYTES`.
    """
    if len(signature) > MAX_SIGNATURE_BYTES:
        raise BadRequest(f"a signature of at most {MAX_SIGNATURE_BYTES} bytes", f"{len(signature)}")


def check_random_length(length_bytes: int) -> None:
    """Bound what the generator is asked for.

    Raises:
        BadRequest: none, or over `MAX_RANDOM_BYTES`.
    """
    if not 1 <= length_bytes <= MAX_RANDOM_BYTES:
        raise BadRequest(f"1 to {MAX_RANDOM_BYTES} bytes", f"{length_bytes}")


def check_mechanism(mechanism: SignMechanism, key_type: KeyType) -> None:
    """A key signs by its own mechanisms only.

    Raises:
        MechanismMissing: the mechanism needs a key of another type.
    """
    if KEY_TYPE_OF[mechanism] is not key_type:
        raise MechanismMissing(f"a key for {mechanism.value}", f"a key of type {key_type.value}")


@dataclass(frozen=True, slots=True)
class TokenInfo:
    """What the token says of itself (`CK_TOKEN_INFO`, PKCS#11 v3.1 section 3.2), blanks stripped.

    `firmware` and `hardware_version` are `major.minor`; `flags` are the raw `CKF_…` bits; `mechanisms` are
    `CKM_…` numbers in rising order and `mechanisms_digest` is `sha256:…` over them as big-endian 64-bit integers;
    `key_types` are those that the token can make and that we have a template for.
    """

    serial: str
    label: str
    manufacturer: str
    model: str
    firmware: str
    hardware_version: str
    flags: int
    mechanisms: tuple[int, ...]
    mechanisms_digest: str
    key_types: tuple[KeyType, ...]


@dataclass(frozen=True, slots=True)
class PublicKey:
    """The public half: SubjectPublicKeyInfo as DER and PEM. `created` says that this very call made the pair."""

    label: str
    key_type: KeyType
    spki_der: bytes
    pem: str
    created: bool = False


class DestroyOutcome(enum.StrEnum):
    """What `destroy_key` found. In both cases the key is proven absent now."""

    DESTROYED = "Destroyed"
    ALREADY_ABSENT = "AlreadyAbsent"


class HsmPort(Protocol):
    """One token."""

    async def token_info(self) -> TokenInfo:
        """The token's description, read anew."""
        ...

    async def ensure_key_pair(self, label: str, key_type: KeyType, *, may_generate: bool) -> PublicKey:
        """The pair of that label, proven to work and to be as we make them; made if absent and `may_generate`.

        With `may_generate` half a pair (a crash in the middle of making it) is removed and made anew, so give it
        only while nothing can have been signed with the key: while its version is PreActive.

        Raises:
            KeyAbsent: there is none and `may_generate` is false.
            KeyDamaged: half a pair, and `may_generate` is false.
            KeyMismatched: a working pair of another type, extractable, not made inside, or with wrong usages.
            MechanismMissing: the token cannot make this type.
            StoreUnwritable: the token would not store it.
        """
        ...

    async def destroy_key(self, label: str) -> DestroyOutcome:
        """Destroy every object of that label's identifier and prove that none is left.

        Raises:
            StoreUnwritable: the token would not delete it.
        """
        ...

    async def inventory(self) -> tuple[InventoryKey, ...]:
        """All keys on the token, ours or not, sorted by identifier and class. Session objects do not count."""
        ...

    async def sign(self, label: str, mechanism: SignMechanism, digest: bytes) -> bytes:
        """Sign a SHA-256 digest (32 bytes) that the caller computed.

        Raises:
            KeyAbsent, KeyDamaged, KeyMismatched: as for `ensure_key_pair`.
            MechanismMissing: the key is of another type than the mechanism needs.
            BadRequest: the digest is not 32 bytes.
        """
        ...

    async def verify(self, label: str, mechanism: SignMechanism, digest: bytes, signature: bytes) -> Outcome:
        """`HOLDS` or `REFUTED`, decided by the token. What cannot be told is raised, never returned."""
        ...

    async def public_key(self, label: str) -> PublicKey:
        """The public half of an existing pair.

        Raises:
            KeyAbsent, KeyDamaged, KeyMismatched: as for `ensure_key_pair`.
        """
        ...

    async def random(self, length_bytes: int) -> bytes:
        """1 to 1024 bytes from the token's generator."""
        ...

    async def close(self) -> None:
        """Log out and end. Calls in flight get `WorkerDown`. Idempotent."""
        ...
