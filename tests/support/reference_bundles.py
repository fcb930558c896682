"""Signed reference values for tests: signers, envelopes that can be bent in every place, and the policy's side."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from chatelaine.evidence.dsse import Envelope, PublicKey, Signature, key_id_of
from chatelaine.evidence.reference_files import GoodFile
from chatelaine.evidence.reference_values import PAYLOAD_TYPE, Predicate
from chatelaine.model.tpm_policy import Bank, ReferenceKey, ReferenceValuesSource

NOW = 1_800_000_000
SERIES = "baseline"
DIGEST = "sha256:" + "ab" * 32
OLD_DIGEST = "sha256:" + "cd" * 32
PREDICATE = Predicate(
    name=SERIES,
    version=7,
    issued_at="2026-11-21T12:00:00Z",
    pcrs={Bank.SHA256: {4: ("11" * 32, "22" * 32), 7: ("77" * 32,)}},
    dbx_at_least=("aa" * 32, "bb" * 32),
    files=(
        GoodFile("/usr/bin/gateway", (DIGEST,)),
        GoodFile("/usr/bin/gateway", (OLD_DIGEST,), NOW + 3600),
        GoodFile("/usr/lib/libtpm.so", ("sha384:" + "cd" * 48, "sha512:" + "ef" * 64)),
    ),
)


@dataclass(frozen=True)
class Signer:
    """A person with a key."""

    name: str
    key: ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey = field(
        default_factory=lambda: ec.generate_private_key(ec.SECP256R1())
    )

    @property
    def public(self) -> PublicKey:
        """The public half."""
        return self.key.public_key()

    def sign(self, message: bytes) -> Signature:
        """A signature over exactly `message`, with an honest hint."""
        if isinstance(self.key, ed25519.Ed25519PrivateKey):
            raw = self.key.sign(message)
        else:
            raw = self.key.sign(message, ec.ECDSA(hashes.SHA256()))
        return Signature(raw, key_id_of(self.public))

    def listed(self, name: str | None = None) -> ReferenceKey:
        """As the policy lists the key."""
        pem = self.public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
        return ReferenceKey(name=name or self.name, public_key=pem)


ALICE = Signer("alice")
BOB = Signer("bob", ed25519.Ed25519PrivateKey.generate())
CAROL = Signer("carol")
MALLORY = Signer("mallory")


def signed(payload: bytes, *signers: Signer, payload_type: str = PAYLOAD_TYPE) -> Envelope:
    """An envelope over `payload`."""
    envelope = Envelope(payload_type, payload)
    return replace(envelope, signatures=tuple(signer.sign(envelope.message) for signer in signers))


def bundle(*signers: Signer, **changes: Any) -> bytes:
    """A bundle of `PREDICATE` with `changes`, signed by `signers` (Alice, if nobody is named)."""
    return signed(replace(PREDICATE, **changes).encode(), *(signers or (ALICE,))).encode()


def source(*signers: Signer, threshold: int = 1, series: str = SERIES) -> ReferenceValuesSource:
    """What a policy says of its reference values; Alice, Bob and Carol may sign, if nobody is named."""
    keys = [signer.listed() for signer in signers or (ALICE, BOB, CAROL)]
    return ReferenceValuesSource(series=series, file="baseline.dsse.json", keys=keys, threshold=threshold)
