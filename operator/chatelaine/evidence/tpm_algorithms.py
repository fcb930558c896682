"""TPM algorithm identifiers, and which of them may carry trust (TCG Algorithm Registry; trust rules, §1.5).

What is not in these tables is refused. There is no default and no fallback.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from chatelaine.evidence.errors import AlgorithmRefused
from chatelaine.model.tpm_policy import Bank

RSA: Final = 0x0001
SHA1: Final = 0x0004
AES: Final = 0x0006
KEYEDHASH: Final = 0x0008
SHA256: Final = 0x000B
SHA384: Final = 0x000C
SHA512: Final = 0x000D
NULL: Final = 0x0010
RSASSA: Final = 0x0014
RSAES: Final = 0x0015
RSAPSS: Final = 0x0016
OAEP: Final = 0x0017
ECDSA: Final = 0x0018
ECDH: Final = 0x0019
ECDAA: Final = 0x001A
ECC: Final = 0x0023
CFB: Final = 0x0043

NIST_P256: Final = 0x0003
NIST_P384: Final = 0x0004

MIN_RSA_BITS: Final = 2048
MAX_RSA_BITS: Final = 4096
RSA_EXPONENT: Final = 65537


@dataclass(frozen=True, slots=True)
class Hash:
    """A hash algorithm that may carry trust. `size_bytes` is the length of its digests."""

    tpm_id: int
    name: str
    size_bytes: int
    new: Callable[..., Any]
    algorithm: hashes.HashAlgorithm


HASHES: Final = {
    SHA256: Hash(SHA256, "Sha256", 32, hashlib.sha256, hashes.SHA256()),
    SHA384: Hash(SHA384, "Sha384", 48, hashlib.sha384, hashes.SHA384()),
    SHA512: Hash(SHA512, "Sha512", 64, hashlib.sha512, hashes.SHA512()),
}
SIGNATURE_SCHEMES: Final = frozenset((RSASSA, RSAPSS, ECDSA))
SIGNATURE_HASHES: Final = {SHA256: HASHES[SHA256], SHA384: HASHES[SHA384]}
BANKS: Final = {Bank.SHA256: HASHES[SHA256], Bank.SHA384: HASHES[SHA384]}
CURVES: Final[dict[int, ec.EllipticCurve]] = {NIST_P256: ec.SECP256R1(), NIST_P384: ec.SECP384R1()}

NAMES: Final = {
    RSA: "Rsa", SHA1: "Sha1", AES: "Aes", KEYEDHASH: "KeyedHash", SHA256: "Sha256", SHA384: "Sha384",
    SHA512: "Sha512", NULL: "Null", RSASSA: "RsaSsa", RSAES: "RsaEs", RSAPSS: "RsaPss", OAEP: "Oaep",
    ECDSA: "Ecdsa", ECDH: "Ecdh", ECDAA: "Ecdaa", ECC: "Ecc", CFB: "Cfb",
}  # fmt: skip


def name_of(tpm_id: int) -> str:
    """A name for people; unknown ones in hexadecimal."""
    return NAMES.get(tpm_id, f"0x{tpm_id:04x}")


def bank_of(text: str) -> Bank:
    """The bank called `text` (`sha256`, `Sha384` …).

    Raises:
        AlgorithmRefused: SHA-1, or a bank that is not known.
    """
    for bank in Bank:
        if bank.value.lower() == text.lower():
            return bank
    raise AlgorithmRefused("this PCR bank is not accepted", expected=[bank.value for bank in Bank], found=text)


def object_hash(tpm_id: int, what: str) -> Hash:
    """The hash called `tpm_id`, for names and key derivation.

    Raises:
        AlgorithmRefused: SHA-1, or unknown.
    """
    found = HASHES.get(tpm_id)
    if found is None:
        raise AlgorithmRefused(
            f"{what}: this hash is not accepted", expected="Sha256, Sha384 or Sha512", found=name_of(tpm_id)
        )
    return found
