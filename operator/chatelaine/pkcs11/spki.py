"""Public keys and signatures in the forms that leave this room. Software only: no token is asked."""

from __future__ import annotations

from typing import Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed, encode_dss_signature

from chatelaine.model.keys import KeyType
from chatelaine.model.verdict import Outcome
from chatelaine.pkcs11.port import PublicKey, SignMechanism

PSS_SALT_BYTES: Final = 32
_P256_COORDINATE_BYTES: Final = 32
SHA256_DIGEST_INFO: Final = bytes.fromhex("3031300d060960864801650304020105000420")
"""DER prefix of a SHA-256 DigestInfo (RFC 8017 section 9.2, note 1); PKCS#11's `CKM_RSA_PKCS` adds none."""


def from_point(octets: bytes) -> ec.EllipticCurvePublicKey:
    """A P-256 key from `CKA_EC_POINT`: a DER OCTET STRING (PKCS#11 v3.1 section 6.3.3), or the bare point.

    Raises:
        ValueError: not a point on P-256.
    """
    point = octets[2:] if octets[:2] == b"\x04\x41" and len(octets) == 67 else octets
    return ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), point)


def from_modulus(modulus: bytes, exponent: bytes) -> rsa.RSAPublicKey:
    """An RSA key from `CKA_MODULUS` and `CKA_PUBLIC_EXPONENT`.

    Raises:
        ValueError: the numbers are no RSA key.
    """
    return rsa.RSAPublicNumbers(int.from_bytes(exponent), int.from_bytes(modulus)).public_key()


def describe(
    label: str, key_type: KeyType, key: ec.EllipticCurvePublicKey | rsa.RSAPublicKey, *, created: bool = False
) -> PublicKey:
    """The key as the port hands it out."""
    der = key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    pem = key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo).decode()
    return PublicKey(label, key_type, der, pem, created)


def check_signature(
    key: ec.EllipticCurvePublicKey | rsa.RSAPublicKey, mechanism: SignMechanism, digest: bytes, signature: bytes
) -> Outcome:
    """Does `signature` (raw `r ‖ s` for ECDSA) stand under `key`? `HOLDS` or `REFUTED`."""
    prehashed = Prehashed(hashes.SHA256())
    try:
        if isinstance(key, ec.EllipticCurvePublicKey):
            if mechanism is not SignMechanism.ECDSA_SHA256 or len(signature) != 2 * _P256_COORDINATE_BYTES:
                return Outcome.REFUTED
            r = int.from_bytes(signature[:_P256_COORDINATE_BYTES])
            s = int.from_bytes(signature[_P256_COORDINATE_BYTES:])
            key.verify(encode_dss_signature(r, s), digest, ec.ECDSA(prehashed))
        elif mechanism is SignMechanism.RSA_PSS_SHA256:
            key.verify(signature, digest, padding.PSS(padding.MGF1(hashes.SHA256()), PSS_SALT_BYTES), prehashed)
        elif mechanism is SignMechanism.RSA_PKCS1_SHA256:
            key.verify(signature, digest, padding.PKCS1v15(), prehashed)
        else:
            return Outcome.REFUTED
    except InvalidSignature:
        return Outcome.REFUTED
    return Outcome.HOLDS
