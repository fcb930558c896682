"""Public keys as JWKs and their thumbprints (RFC 7517, RFC 7638)."""

from __future__ import annotations

from typing import Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_der_public_key
from joserfc.jwk import ECKey, OKPKey, RSAKey

MAX_SPKI_BYTES: Final = 1024
MIN_RSA_BITS: Final = 2048
MAX_RSA_BITS: Final = 4096

PublicJwk = ECKey | RSAKey | OKPKey


class UnusableKey(Exception):
    """A public key of a type or size that we do not take."""


def public_jwk(spki_der: bytes) -> PublicJwk:
    """The key behind a SubjectPublicKeyInfo: P-256, P-384, Ed25519, or RSA of 2048 to 4096 bits.

    Raises:
        UnusableKey: not DER of such a key.
    """
    if len(spki_der) > MAX_SPKI_BYTES:
        raise UnusableKey(f"the key has {len(spki_der)} bytes, at most {MAX_SPKI_BYTES} are read")
    try:
        key = load_der_public_key(spki_der)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise UnusableKey("not a SubjectPublicKeyInfo") from error
    pem = key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    if isinstance(key, ec.EllipticCurvePublicKey) and isinstance(key.curve, ec.SECP256R1 | ec.SECP384R1):
        return ECKey.import_key(pem)
    if isinstance(key, rsa.RSAPublicKey) and MIN_RSA_BITS <= key.key_size <= MAX_RSA_BITS:
        return RSAKey.import_key(pem)
    if isinstance(key, ed25519.Ed25519PublicKey):
        return OKPKey.import_key(pem)
    raise UnusableKey("not P-256, P-384, Ed25519, or RSA of 2048 to 4096 bits")


def thumbprint(spki_der: bytes) -> str:
    """RFC 7638 SHA-256 thumbprint, base64url: 43 characters.

    Raises:
        UnusableKey: as `public_jwk`.
    """
    return str(public_jwk(spki_der).thumbprint())
