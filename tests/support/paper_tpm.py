"""A TPM on paper: signs structures laid out by hand, so that tests can make what no real TPM would sign."""

from __future__ import annotations

import functools
import hashlib
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa, utils

from chatelaine.evidence import tpm_algorithms as alg
from chatelaine.evidence.tpm_public import AK_REQUIRED, EK_REQUIRED, Attribute, parse_public
from chatelaine.evidence.tpm_types import ATTEST_QUOTE, TPM_GENERATED, Selection
from chatelaine.model.tpm_policy import Bank

HASHES: dict[int, Any] = {alg.SHA1: hashes.SHA1(), alg.SHA256: hashes.SHA256(), alg.SHA384: hashes.SHA384()}
DIGESTS: dict[int, Any] = {alg.SHA1: hashlib.sha1, alg.SHA256: hashlib.sha256, alg.SHA384: hashlib.sha384}
CURVES: dict[int, ec.EllipticCurve] = {alg.NIST_P256: ec.SECP256R1(), alg.NIST_P384: ec.SECP384R1()}

NONCE = bytes(range(32))
PCRS = {0: b"\x11" * 32, 7: b"\x77" * 32}
SELECTION = Selection(Bank.SHA256, (0, 7))


def sized(data: bytes) -> bytes:
    """TPM2B."""
    return struct.pack(">H", len(data)) + data


@functools.lru_cache(maxsize=16)
def rsa_key(bits: int, number: int = 0) -> rsa.RSAPrivateKey:
    """The same key for the same arguments within one process: making one is slow. `number` tells them apart."""
    return rsa.generate_private_key(65537, bits)


@functools.lru_cache(maxsize=16)
def ecc_key(curve: int, number: int = 0) -> ec.EllipticCurvePrivateKey:
    """Likewise."""
    return ec.generate_private_key(CURVES[curve])


def rsa_public(
    key: rsa.RSAPrivateKey,
    *,
    attributes: Attribute = AK_REQUIRED,
    scheme: int = alg.RSASSA,
    scheme_hash: int = alg.SHA256,
    name_hash: int = alg.SHA256,
    symmetric: bytes = struct.pack(">H", alg.NULL),
    exponent: int = 0,
) -> bytes:
    """TPMT_PUBLIC of an RSA key."""
    modulus = key.public_key().public_numbers().n
    parameters = symmetric + struct.pack(">H", scheme)
    if scheme != alg.NULL:
        parameters += struct.pack(">H", scheme_hash)
    parameters += struct.pack(">HI", key.key_size, exponent)
    head = struct.pack(">HHI", alg.RSA, name_hash, attributes)
    return head + sized(b"") + parameters + sized(modulus.to_bytes(key.key_size // 8, "big"))


def ecc_public(
    key: ec.EllipticCurvePrivateKey,
    curve: int = alg.NIST_P256,
    *,
    attributes: Attribute = AK_REQUIRED,
    scheme: int = alg.ECDSA,
    scheme_hash: int = alg.SHA256,
    name_hash: int = alg.SHA256,
    symmetric: bytes = struct.pack(">H", alg.NULL),
) -> bytes:
    """TPMT_PUBLIC of an ECC key."""
    point = key.public_key().public_numbers()
    size_bytes = key.key_size // 8
    parameters = symmetric + struct.pack(">H", scheme)
    if scheme != alg.NULL:
        parameters += struct.pack(">H", scheme_hash)
    parameters += struct.pack(">HH", curve, alg.NULL)
    head = struct.pack(">HHI", alg.ECC, name_hash, attributes)
    return (
        head
        + sized(b"")
        + parameters
        + sized(point.x.to_bytes(size_bytes, "big"))
        + sized(point.y.to_bytes(size_bytes, "big"))
    )


AES128_CFB = struct.pack(">HHH", alg.AES, 128, alg.CFB)


def ek_public(number: int = 0) -> bytes:
    """TPMT_PUBLIC of an RSA endorsement key."""
    return rsa_public(rsa_key(2048, 100 + number), attributes=EK_REQUIRED, scheme=alg.NULL, symmetric=AES128_CFB)


def pcr_list(*banks: tuple[int, tuple[int, ...]], width: int = 3) -> bytes:
    """TPML_PCR_SELECTION, bank by bank."""
    out = struct.pack(">I", len(banks))
    for bank, indices in banks:
        bits = sum(1 << index for index in indices)
        out += struct.pack(">HB", bank, width) + bits.to_bytes(width, "little")
    return out


@dataclass
class PaperTpm:
    """One attestation key. `number` makes another TPM of the same kind."""

    scheme: int = alg.ECDSA
    hash: int = alg.SHA256
    curve: int = alg.NIST_P256
    bits: int = 2048
    number: int = 0
    public: bytes = field(init=False)
    key: Any = field(init=False)

    def __post_init__(self) -> None:
        if self.scheme == alg.ECDSA:
            self.key = ecc_key(self.curve, self.number)
            self.public = ecc_public(self.key, self.curve, scheme_hash=self.hash)
        else:
            self.key = rsa_key(self.bits, self.number)
            self.public = rsa_public(self.key, scheme=self.scheme, scheme_hash=self.hash)

    @property
    def name(self) -> bytes:
        """TPM name of the attestation key."""
        return parse_public(self.public).name

    def sign(self, message: bytes) -> bytes:
        """TPMT_SIGNATURE over `message`."""
        head = struct.pack(">HH", self.scheme, self.hash)
        if self.scheme == alg.ECDSA:
            der = self.key.sign(message, ec.ECDSA(HASHES[self.hash]))
            size_bytes = self.key.key_size // 8
            return head + b"".join(sized(n.to_bytes(size_bytes, "big")) for n in utils.decode_dss_signature(der))
        if self.scheme == alg.RSASSA:
            return head + sized(self.key.sign(message, padding.PKCS1v15(), HASHES[self.hash]))
        pss = padding.PSS(padding.MGF1(HASHES[self.hash]), padding.PSS.DIGEST_LENGTH)
        return head + sized(self.key.sign(message, pss, HASHES[self.hash]))

    def attest(
        self,
        extra_data: bytes,
        pcrs: Mapping[int, bytes] = PCRS,
        *,
        selection: bytes | None = None,
        magic: int = TPM_GENERATED,
        kind: int = ATTEST_QUOTE,
        resets: int = 5,
        restarts: int = 1,
        safe: int = 1,
        signer: bytes = b"\x00\x0b" + b"\x00" * 32,
    ) -> bytes:
        """TPMS_ATTEST of a quote over `pcrs`, in rising order of their indices."""
        if selection is None:
            selection = pcr_list((alg.SHA256, tuple(pcrs)))
        digest = DIGESTS[self.hash](b"".join(pcrs[index] for index in sorted(pcrs))).digest()
        return (
            struct.pack(">IH", magic, kind)
            + sized(signer)
            + sized(extra_data)
            + struct.pack(">QIIBQ", 123456, resets, restarts, safe, 0x20240101)
            + selection
            + sized(digest)
        )

    def quote(self, extra_data: bytes, pcrs: Mapping[int, bytes] = PCRS, **fields: Any) -> tuple[bytes, bytes]:
        """TPMS_ATTEST and TPMT_SIGNATURE."""
        attest = self.attest(extra_data, pcrs, **fields)
        return attest, self.sign(attest)
