"""A simulated token: software keys in memory, for benches and tests with many hosts. It protects nothing.

It keeps the port's contract (the same contract tests run against it and against real tokens) and says what it is:
manufacturer `Chatelaine simulation`, so that no policy written for a real model accepts it.
"""

from __future__ import annotations

import asyncio
import secrets
from dataclasses import dataclass, field
from typing import Final

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed, decode_dss_signature

from chatelaine.evidence.inventory import InventoryKey
from chatelaine.model.identifiers import digest_of, key_id
from chatelaine.model.keys import KeyType
from chatelaine.model.verdict import Outcome
from chatelaine.pkcs11 import spki
from chatelaine.pkcs11.errors import (
    KeyAbsent,
    KeyDamaged,
    KeyMismatched,
    MechanismMissing,
    WorkerDown,
)
from chatelaine.pkcs11.port import (
    RSA_BITS,
    DestroyOutcome,
    PublicKey,
    SignMechanism,
    TokenInfo,
    check_digest,
    check_label,
    check_mechanism,
    check_random_length,
    check_signature_length,
)

MANUFACTURER: Final = "Chatelaine simulation"
MODEL: Final = "Simulated"
_KEY_TYPES: Final = (KeyType.EC_P256, KeyType.RSA_3072)
_MECHANISMS: Final = (0x0000, 0x0001, 0x000D, 0x1040, 0x1041)
"""CKM_RSA_PKCS_KEY_PAIR_GEN, CKM_RSA_PKCS, CKM_RSA_PKCS_PSS, CKM_EC_KEY_PAIR_GEN, CKM_ECDSA."""
_FLAGS: Final = 0x0000_040D
"""CKF_RNG, CKF_LOGIN_REQUIRED, CKF_USER_PIN_INITIALIZED, CKF_TOKEN_INITIALIZED."""

PrivateKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey


@dataclass(slots=True)
class SimulatedPair:
    """The two objects of a pair; either may be lost (None)."""

    private: PrivateKey | None
    public: ec.EllipticCurvePublicKey | rsa.RSAPublicKey | None


@dataclass(slots=True)
class SimulatedHsm:
    """`HsmPort` without a token. `pairs` is the world: whoever simulates a mishap changes it."""

    label: str = "simulated"
    serial: str = field(default_factory=lambda: secrets.token_hex(8))
    firmware: str = "1.0"
    pairs: dict[str, SimulatedPair] = field(default_factory=dict)
    _closed: bool = False

    async def token_info(self) -> TokenInfo:
        """See `HsmPort`."""
        self._check_open()
        packed = b"".join(mechanism.to_bytes(8) for mechanism in _MECHANISMS)
        return TokenInfo(
            serial=self.serial,
            label=self.label,
            manufacturer=MANUFACTURER,
            model=MODEL,
            firmware=self.firmware,
            hardware_version="0.0",
            flags=_FLAGS,
            mechanisms=_MECHANISMS,
            mechanisms_digest=digest_of(packed),
            key_types=_KEY_TYPES,
        )

    async def ensure_key_pair(self, label: str, key_type: KeyType, *, may_generate: bool) -> PublicKey:
        """See `HsmPort`."""
        try:
            private = self._whole(label)
        except (KeyAbsent, KeyDamaged):
            if not may_generate:
                raise
            made = await _generate(key_type)
            self.pairs[label] = SimulatedPair(made, made.public_key())
            return spki.describe(label, key_type, made.public_key(), created=True)
        if _key_type(private) is not key_type:
            raise KeyMismatched(f"{label} of type {key_type.value}", f"type {_key_type(private).value}")
        return spki.describe(label, key_type, private.public_key())

    async def destroy_key(self, label: str) -> DestroyOutcome:
        """See `HsmPort`."""
        self._check_label(label)
        gone = self.pairs.pop(label, None)
        return DestroyOutcome.ALREADY_ABSENT if gone is None else DestroyOutcome.DESTROYED

    async def inventory(self) -> tuple[InventoryKey, ...]:
        """See `HsmPort`."""
        self._check_open()
        keys = []
        for label, pair in self.pairs.items():
            if pair.private is not None:
                kind = "EC" if isinstance(pair.private, ec.EllipticCurvePrivateKey) else "RSA"
                keys.append(InventoryKey(key_id(label), label, "private", kind, ("CKA_SIGN",), True, False, True, True))
            if pair.public is not None:
                kind = "EC" if isinstance(pair.public, ec.EllipticCurvePublicKey) else "RSA"
                keys.append(
                    InventoryKey(key_id(label), label, "public", kind, ("CKA_VERIFY",), False, True, True, False)
                )
        return tuple(sorted(keys))

    async def sign(self, label: str, mechanism: SignMechanism, digest: bytes) -> bytes:
        """See `HsmPort`."""
        private = self._usable(label, mechanism, digest)
        prehashed = Prehashed(hashes.SHA256())
        if isinstance(private, ec.EllipticCurvePrivateKey):
            r, s = decode_dss_signature(private.sign(digest, ec.ECDSA(prehashed)))
            return r.to_bytes(32) + s.to_bytes(32)
        if mechanism is SignMechanism.RSA_PSS_SHA256:
            return private.sign(digest, padding.PSS(padding.MGF1(hashes.SHA256()), spki.PSS_SALT_BYTES), prehashed)
        return private.sign(digest, padding.PKCS1v15(), prehashed)

    async def verify(self, label: str, mechanism: SignMechanism, digest: bytes, signature: bytes) -> Outcome:
        """See `HsmPort`."""
        check_signature_length(signature)
        private = self._usable(label, mechanism, digest)
        return spki.check_signature(private.public_key(), mechanism, digest, signature)

    async def public_key(self, label: str) -> PublicKey:
        """See `HsmPort`."""
        private = self._whole(label)
        return spki.describe(label, _key_type(private), private.public_key())

    async def random(self, length_bytes: int) -> bytes:
        """See `HsmPort`."""
        self._check_open()
        check_random_length(length_bytes)
        return secrets.token_bytes(length_bytes)

    async def close(self) -> None:
        """See `HsmPort`."""
        self._closed = True

    def _check_open(self) -> None:
        if self._closed:
            raise WorkerDown("an open token", "one that was closed")

    def _check_label(self, label: str) -> None:
        self._check_open()
        check_label(label)

    def _whole(self, label: str) -> PrivateKey:
        self._check_label(label)
        pair = self.pairs.get(label)
        if pair is None:
            raise KeyAbsent(f"a key pair {label}", "none")
        if pair.private is None or pair.public is None:
            raise KeyDamaged(f"both halves of {label}", "one")
        return pair.private

    def _usable(self, label: str, mechanism: SignMechanism, digest: bytes) -> PrivateKey:
        check_digest(digest)
        private = self._whole(label)
        check_mechanism(mechanism, _key_type(private))
        return private


def _key_type(key: PrivateKey) -> KeyType:
    return KeyType.EC_P256 if isinstance(key, ec.EllipticCurvePrivateKey) else KeyType.RSA_3072


async def _generate(key_type: KeyType) -> PrivateKey:
    if key_type is KeyType.EC_P256:
        return ec.generate_private_key(ec.SECP256R1())
    if key_type is KeyType.RSA_3072:
        # Half a second of arithmetic: not in the event loop.
        return await asyncio.to_thread(rsa.generate_private_key, 65537, RSA_BITS)
    raise MechanismMissing("EcP256 or Rsa3072", key_type.value)
