"""Public areas of TPM objects: TPMT_PUBLIC, TPM2B_PUBLIC, names, attributes (TPM 2.0 Library, Part 2 §12.2, §8.3).

A *name* is the hash algorithm's identifier followed by the hash of the public area (Part 1 §16): whoever knows the
name knows the key, its attributes and its scheme.
"""

from __future__ import annotations

import enum
import struct
from dataclasses import dataclass
from typing import Final

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from chatelaine.evidence import tpm_algorithms as alg
from chatelaine.evidence.errors import AlgorithmRefused, AttributesRefused, Malformed, WeakKey
from chatelaine.evidence.reader import Reader, bounded
from chatelaine.evidence.tpm_types import TPM_RH_ENDORSEMENT
from chatelaine.model.identifiers import digest_of

MAX_PUBLIC_BYTES: Final = 2048
MAX_POLICY_BYTES: Final = 64
MAX_MODULUS_BYTES: Final = alg.MAX_RSA_BITS // 8
MAX_COORDINATE_BYTES: Final = 66


class Attribute(enum.IntFlag):
    """TPMA_OBJECT (Part 2 §8.3)."""

    FIXED_TPM = 1 << 1
    ST_CLEAR = 1 << 2
    FIXED_PARENT = 1 << 4
    SENSITIVE_DATA_ORIGIN = 1 << 5
    USER_WITH_AUTH = 1 << 6
    ADMIN_WITH_POLICY = 1 << 7
    NO_DA = 1 << 10
    ENCRYPTED_DUPLICATION = 1 << 11
    RESTRICTED = 1 << 16
    DECRYPT = 1 << 17
    SIGN = 1 << 18


AK_REQUIRED: Final = (
    Attribute.FIXED_TPM
    | Attribute.FIXED_PARENT
    | Attribute.SENSITIVE_DATA_ORIGIN
    | Attribute.RESTRICTED
    | Attribute.SIGN
)
EK_REQUIRED: Final = (
    Attribute.FIXED_TPM
    | Attribute.FIXED_PARENT
    | Attribute.SENSITIVE_DATA_ORIGIN
    | Attribute.RESTRICTED
    | Attribute.DECRYPT
)

PublicKey = rsa.RSAPublicKey | ec.EllipticCurvePublicKey


@dataclass(frozen=True, slots=True)
class Symmetric:
    """TPMT_SYM_DEF_OBJECT: how a storage key protects what is under it. `algorithm` NULL: none."""

    algorithm: int
    bits: int
    mode: int


@dataclass(frozen=True, slots=True)
class PublicArea:
    """TPMT_PUBLIC of an RSA or ECC key.

    Attributes:
        raw: the structure's bytes; the name is computed over exactly these.
        key_type: TPM algorithm, RSA or ECC.
        name_hash: hash of the name.
        attributes: TPMA_OBJECT.
        symmetric: protection of children (storage keys).
        scheme: TPM algorithm of the signing scheme, NULL if free.
        scheme_hash: TPM algorithm of the scheme's hash, NULL if none.
        key: the public key.
    """

    raw: bytes
    key_type: int
    name_hash: alg.Hash
    attributes: Attribute
    symmetric: Symmetric
    scheme: int
    scheme_hash: int
    key: PublicKey

    @property
    def name(self) -> bytes:
        """TPM name: algorithm identifier (2 bytes) and hash of the public area."""
        return struct.pack(">H", self.name_hash.tpm_id) + bytes(self.name_hash.new(self.raw).digest())

    @property
    def spki(self) -> bytes:
        """SubjectPublicKeyInfo, DER."""
        return self.key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)

    @property
    def spki_digest(self) -> str:
        """`sha256:` digest of the SubjectPublicKeyInfo: how people name an endorsement key."""
        return digest_of(self.spki)


def parse_public(data: bytes) -> PublicArea:
    """TPMT_PUBLIC, or TPM2B_PUBLIC around it.

    Raises:
        AlgorithmRefused: not RSA or ECC, or a hash, curve or scheme that is not accepted.
        WeakKey: RSA outside 2048..4096 bits, or an unusual exponent.
        Malformed: a defect of form, or a point that is not on its curve.
    """
    data = bounded(data, MAX_PUBLIC_BYTES, "TPMT_PUBLIC")
    if len(data) >= 2 and struct.unpack_from(">H", data)[0] == len(data) - 2:
        data = data[2:]
    reader = Reader(data, "TPMT_PUBLIC")
    key_type = reader.u16()
    if key_type not in (alg.RSA, alg.ECC):
        raise AlgorithmRefused("this key type is not accepted", expected="Rsa or Ecc", found=alg.name_of(key_type))
    name_hash = alg.object_hash(reader.u16(), "nameAlg")
    attributes = Attribute(reader.u32())
    reader.sized(MAX_POLICY_BYTES, "authPolicy")
    symmetric = _symmetric(reader)
    scheme, scheme_hash = _scheme(reader)
    key: PublicKey = _rsa(reader) if key_type == alg.RSA else _ecc(reader)
    reader.end()
    return PublicArea(data, key_type, name_hash, attributes, symmetric, scheme, scheme_hash, key)


def _symmetric(reader: Reader) -> Symmetric:
    algorithm = reader.u16()
    if algorithm == alg.NULL:
        return Symmetric(alg.NULL, 0, alg.NULL)
    if algorithm != alg.AES:
        raise AlgorithmRefused("this symmetric algorithm is not accepted", expected="Aes", found=alg.name_of(algorithm))
    return Symmetric(algorithm, reader.u16(), reader.u16())


def _scheme(reader: Reader) -> tuple[int, int]:
    scheme = reader.u16()
    if scheme in (alg.NULL, alg.RSAES):
        return scheme, alg.NULL
    if scheme in (alg.RSASSA, alg.RSAPSS, alg.OAEP, alg.ECDSA, alg.ECDH):
        return scheme, reader.u16()
    raise AlgorithmRefused("this key scheme is not accepted", found=alg.name_of(scheme))


def _rsa(reader: Reader) -> rsa.RSAPublicKey:
    bits = reader.u16()
    exponent = reader.u32() or alg.RSA_EXPONENT
    modulus = int.from_bytes(reader.sized(MAX_MODULUS_BYTES, "modulus"))
    if not alg.MIN_RSA_BITS <= bits <= alg.MAX_RSA_BITS or exponent != alg.RSA_EXPONENT:
        raise WeakKey(
            "this RSA key is not accepted",
            expected=f"{alg.MIN_RSA_BITS} to {alg.MAX_RSA_BITS} bits, exponent {alg.RSA_EXPONENT}",
            found=f"{bits} bits, exponent {exponent}",
        )
    if modulus.bit_length() != bits or modulus % 2 == 0:
        raise Malformed("the modulus has another length than keyBits says", expected=bits, found=modulus.bit_length())
    try:
        return rsa.RSAPublicNumbers(exponent, modulus).public_key()
    except ValueError as error:
        raise Malformed("not an RSA public key") from error


def _ecc(reader: Reader) -> ec.EllipticCurvePublicKey:
    curve_id = reader.u16()
    curve = alg.CURVES.get(curve_id)
    if curve is None:
        raise WeakKey("this curve is not accepted", expected="NIST P-256 or P-384", found=f"0x{curve_id:04x}")
    if reader.u16() != alg.NULL:
        raise AlgorithmRefused("a key derivation scheme inside an ECC key is not accepted", expected="Null")
    x = int.from_bytes(reader.sized(MAX_COORDINATE_BYTES, "x"))
    y = int.from_bytes(reader.sized(MAX_COORDINATE_BYTES, "y"))
    try:
        return ec.EllipticCurvePublicNumbers(x, y, curve).public_key()
    except ValueError as error:
        raise Malformed("the point is not on its curve") from error


def check_ak_attributes(public: PublicArea) -> None:
    """An attestation key signs only what its TPM made, and cannot leave that TPM (trust rules, §3.2).

    Raises:
        AttributesRefused: naming what is missing or too much. An endorsement key offered as an attestation key
            ends here.
    """
    _check_attributes(public, AK_REQUIRED, Attribute.DECRYPT, "an attestation key")


def check_ek_attributes(public: PublicArea) -> None:
    """An endorsement key decrypts only what is meant for its TPM, and cannot leave it.

    Raises:
        AttributesRefused: naming what is missing or too much.
    """
    _check_attributes(public, EK_REQUIRED, Attribute.SIGN, "an endorsement key")


def _check_attributes(public: PublicArea, required: Attribute, forbidden: Attribute, what: str) -> None:
    missing = required & ~public.attributes
    extra = forbidden & public.attributes
    if missing or extra:
        raise AttributesRefused(
            f"the object attributes are not those of {what}",
            expected=f"{_flags(required)} and not {_flags(forbidden)}",
            found=_flags(public.attributes),
        )


def _flags(attributes: Attribute) -> str:
    return ", ".join(str(flag.name) for flag in Attribute if flag in attributes) or "none"


def endorsement_signers(ak: PublicArea, ek: PublicArea) -> frozenset[bytes]:
    """Qualified names that an attestation key of the endorsement hierarchy can have (Part 1 §26.5).

    It is either a primary key of that hierarchy, or a child of the endorsement key.
    """
    hierarchy = struct.pack(">I", TPM_RH_ENDORSEMENT)
    parent = _qualified(ek, hierarchy)
    return frozenset((_qualified(ak, hierarchy), _qualified(ak, parent)))


def _qualified(public: PublicArea, parent: bytes) -> bytes:
    digest = bytes(public.name_hash.new(parent + public.name).digest())
    return struct.pack(">H", public.name_hash.tpm_id) + digest
