"""Signatures of files as IMA measures them (`security.ima`, version 2), over the digest that was measured.

The header: type (1), version (1), hash (1), the key's id (4), length (2, big endian) and the signature: RSA PKCS#1
v1.5, or ECDSA in DER. What is signed is the file's digest alone: neither its path nor its age. An old version of a
file, put where another should be, is still well signed; only a list of digests tells those apart.

`evm` portable signatures (type 5) cover attributes that the list does not hold, and version 3 a structure around the
digest (fs-verity): both are refused, with their names.

Source: Linux, security/integrity/integrity.h and digsig_asymmetric.c; ima-evm-utils.
"""

from __future__ import annotations

import contextlib
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa, utils

from chatelaine.evidence import tpm_algorithms as alg
from chatelaine.evidence.errors import (
    AlgorithmRefused,
    FileSignatureInvalid,
    FileSignatureRefused,
    Malformed,
    WeakKey,
)

MAX_FILE_SIGNATURE_BYTES: Final = 1024

IMA_DIGSIG: Final = 3
EVM_PORTABLE_DIGSIG: Final = 5
VERITY_DIGSIG: Final = 6
VERSION: Final = 2

_HEADER: Final = struct.Struct(">BBB4sH")
_HASHES: Final = {4: alg.HASHES[alg.SHA256], 5: alg.HASHES[alg.SHA384], 6: alg.HASHES[alg.SHA512]}
"""By the kernel's numbers (hash_info.h). SHA-1 is refused."""

_KINDS: Final = {
    EVM_PORTABLE_DIGSIG: "an EVM portable signature, which covers attributes that the list does not hold",
    VERITY_DIGSIG: "an fs-verity signature",
}


@dataclass(frozen=True, slots=True)
class SigningKey:
    """A key whose file signatures count. `key_id` is how signatures usually name it; it is a hint and no proof."""

    key: rsa.RSAPublicKey | ec.EllipticCurvePublicKey
    key_id: bytes


def signing_key(pem: str) -> SigningKey:
    """The public key of a policy.

    Raises:
        Malformed: no PEM public key.
        WeakKey: RSA below 2048 bits, or another curve than P-256 and P-384.
        AlgorithmRefused: another kind of key.
    """
    try:
        key = serialization.load_pem_public_key(pem.encode())
    except (ValueError, UnsupportedAlgorithm) as error:
        raise Malformed("not a PEM public key", expected="-----BEGIN PUBLIC KEY-----") from error
    if isinstance(key, rsa.RSAPublicKey):
        if not alg.MIN_RSA_BITS <= key.key_size <= alg.MAX_RSA_BITS:
            raise WeakKey("this RSA key is not accepted", expected=f"{alg.MIN_RSA_BITS} bits", found=key.key_size)
    elif isinstance(key, ec.EllipticCurvePublicKey):
        if not isinstance(key.curve, (ec.SECP256R1, ec.SECP384R1)):
            raise WeakKey("this curve is not accepted", expected="NIST P-256 or P-384", found=key.curve.name)
    else:
        raise AlgorithmRefused("this key type is not accepted", expected="RSA or ECC", found=type(key).__name__)
    return SigningKey(key, x509.SubjectKeyIdentifier.from_public_key(key).digest[-4:])


def verify_file_signature(signature: bytes, digest: str, keys: Sequence[SigningKey]) -> SigningKey:
    """The key that signed a file's digest.

    Args:
        signature: `security.ima`, header included.
        digest: as in the list, `sha256:` and hexadecimal.
        keys: those that count.

    Raises:
        FileSignatureRefused: of a kind that is not judged, or its form is broken.
        FileSignatureInvalid: none of `keys` made it over `digest`.
    """
    hash_, key_id, value = _parsed(signature)
    name, _, text = digest.partition(":")
    if name != hash_.name.lower():
        raise FileSignatureRefused(
            "the signature is over another hash than was measured", expected=name, found=hash_.name.lower()
        )
    measured = bytes.fromhex(text)
    # The one that the signature names comes first: a key may be named otherwise than by its own digest.
    for candidate in sorted(keys, key=lambda key: key.key_id != key_id):
        with contextlib.suppress(InvalidSignature):
            _verify(candidate.key, value, measured, hash_)
            return candidate
    raise FileSignatureInvalid(
        f"none of the policy's {len(keys)} signing keys made the file's signature", found=f"key id {key_id.hex()}"
    )


def _parsed(signature: bytes) -> tuple[alg.Hash, bytes, bytes]:
    if not _HEADER.size < len(signature) <= MAX_FILE_SIGNATURE_BYTES:
        raise FileSignatureRefused("the file's signature is too short or too long", found=f"{len(signature)} bytes")
    kind, version, hash_id, key_id, length = _HEADER.unpack_from(signature)
    if kind != IMA_DIGSIG:
        found = _KINDS.get(kind, f"type {kind}")
        raise FileSignatureRefused("not an IMA signature", expected=f"type {IMA_DIGSIG}", found=found)
    if version != VERSION:
        raise FileSignatureRefused("a signature of another version", expected=VERSION, found=version)
    hash_ = _HASHES.get(hash_id)
    if hash_ is None:
        raise FileSignatureRefused(
            "a signature over another hash", expected="sha256, sha384 or sha512", found=f"hash {hash_id}"
        )
    value = signature[_HEADER.size :]
    if len(value) != length:
        raise FileSignatureRefused("the signature has another length than it says", expected=length, found=len(value))
    return hash_, key_id, value


def _verify(
    key: rsa.RSAPublicKey | ec.EllipticCurvePublicKey, signature: bytes, digest: bytes, hash_: alg.Hash
) -> None:
    """Raises `InvalidSignature` if `key` did not make it."""
    prehashed = utils.Prehashed(hash_.algorithm)
    if isinstance(key, rsa.RSAPublicKey):
        key.verify(signature, digest, padding.PKCS1v15(), prehashed)
    else:
        key.verify(signature, digest, ec.ECDSA(prehashed))
