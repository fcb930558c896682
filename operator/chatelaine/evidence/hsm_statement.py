"""What a token says of itself, signed by its attestation key (trust rules, §4).

PKCS#11 cannot attest: the host assembles the facts and the token's key signs them. The statement says so
(`HostAsserted`). It is bound to the host's boot state by the quoted PCR digest, and to the round by the nonce.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, Final

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, utils

from chatelaine.evidence import cbor
from chatelaine.evidence.binding import NONCE_BYTES
from chatelaine.evidence.errors import (
    AlgorithmRefused,
    Malformed,
    StatementNonceMismatch,
    StatementPcrMismatch,
    StatementSerialMismatch,
    StatementSignatureInvalid,
)
from chatelaine.evidence.reader import bounded
from chatelaine.model.policy import StatementLevel

DOMAIN: Final = b"chatelaine/hsm-statement/v1\x00"
MAX_STATEMENT_BYTES: Final = 4096
MAX_SPKI_BYTES: Final = 512
MAX_TEXT_CHARACTERS: Final = 256
DIGEST_BYTES: Final = 32
PCR_DIGEST_BYTES: Final = (32, 48)
SIGNATURE_BYTES: Final = 64


@dataclass(frozen=True, slots=True)
class HsmStatement:
    """The facts. Texts are CK_TOKEN_INFO's, trailing blanks removed.

    Attributes:
        serial: CK_TOKEN_INFO.serialNumber, pinned at enrolment.
        manufacturer: CK_TOKEN_INFO.manufacturerID.
        model: CK_TOKEN_INFO.model.
        firmware: firmware version, `major.minor`.
        hardware_version: hardware version, `major.minor`.
        flags: CK_TOKEN_INFO.flags.
        mechanisms_digest: SHA-256 of the mechanism list.
        pcr_digest: the digest that the host's TPM quotes in this round.
        inventory_digest: `inventory.inventory_digest` of all keys in the token.
        nonce: the verifier's 32 bytes.
        log_digest: SHA-256 of the boot event log, None where none is judged.
        level: who vouches for all this.
    """

    serial: str
    manufacturer: str
    model: str
    firmware: str
    hardware_version: str
    flags: int
    mechanisms_digest: bytes
    pcr_digest: bytes
    inventory_digest: bytes
    nonce: bytes
    log_digest: bytes | None = None
    level: str = StatementLevel.HOST_ASSERTED.value

    def encode(self) -> bytes:
        """Deterministic CBOR."""
        return cbor.encode({name: getattr(self, name) for name in _FIELDS})


_FIELDS: Final = tuple(field.name for field in fields(HsmStatement))
_TEXTS: Final = ("serial", "manufacturer", "model", "firmware", "hardware_version", "level")


def statement_to_sign(statement: HsmStatement) -> bytes:
    """The message that the token signs (ECDSA P-256 over its SHA-256): a domain prefix, then the statement."""
    return DOMAIN + statement.encode()


def decode_statement(data: bytes) -> HsmStatement:
    """The statement in `data`, not yet believed.

    Raises:
        Oversized: more than 4 KiB.
        NotCanonical: not deterministic CBOR.
        Malformed: any other defect of form.
    """
    value = cbor.decode(data, limit_bytes=MAX_STATEMENT_BYTES, what="the HSM statement")
    item: dict[str, Any] = dict(cbor.fields(value, _FIELDS, "the HSM statement"))
    for name in _TEXTS:
        if type(item[name]) is not str or len(item[name]) > MAX_TEXT_CHARACTERS:
            raise Malformed(f"the HSM statement's {name} is not a short text")
    if item["level"] not in set(StatementLevel):
        raise Malformed("unknown level", expected=[level.value for level in StatementLevel], found=item["level"])
    if type(item["flags"]) is not int or not 0 <= item["flags"] < 2**64:
        raise Malformed("the HSM statement's flags are no number of 64 bits")
    for name in ("mechanisms_digest", "inventory_digest", "log_digest"):
        _check_length(item, name, (DIGEST_BYTES,), optional=name == "log_digest")
    _check_length(item, "pcr_digest", PCR_DIGEST_BYTES)
    _check_length(item, "nonce", (NONCE_BYTES,))
    return HsmStatement(**item)


def _check_length(item: dict[str, Any], name: str, allowed: tuple[int, ...], *, optional: bool = False) -> None:
    value = item[name]
    if value is None and optional:
        return
    if type(value) is not bytes or len(value) not in allowed:
        raise Malformed(f"the HSM statement's {name} has another length or kind", expected=f"{allowed} bytes")


def verify_statement(
    raw: bytes,
    signature: bytes,
    public_key_spki: bytes,
    *,
    nonce: bytes,
    pcr_digest: bytes,
    serial: str | None,
) -> HsmStatement:
    """Check the signature first, then read, then compare.

    Args:
        raw: the statement's CBOR.
        signature: r and s, 32 bytes each, as PKCS#11's CKM_ECDSA gives them.
        public_key_spki: the enrolled HSM attestation key (DER).
        nonce: of this round.
        pcr_digest: the quoted one.
        serial: the pinned serial; None only before enrolment, when there is none to compare with.

    Raises:
        StatementSignatureInvalid: not signed by that key.
        StatementNonceMismatch, StatementPcrMismatch, StatementSerialMismatch: made for another round, boot state,
            or token.
        Malformed: a defect of form.
    """
    raw = bounded(raw, MAX_STATEMENT_BYTES, "the HSM statement")
    _verify_signature(DOMAIN + raw, signature, attestation_public_key(public_key_spki))
    statement = decode_statement(raw)
    if statement.nonce != nonce:
        raise StatementNonceMismatch("the HSM statement was made for another round")
    if statement.pcr_digest != pcr_digest:
        raise StatementPcrMismatch(
            "the HSM statement was made on another boot state than the quoted one",
            expected=pcr_digest,
            found=statement.pcr_digest,
        )
    if serial is not None and statement.serial != serial:
        raise StatementSerialMismatch("another token answers", expected=serial, found=statement.serial)
    return statement


def attestation_public_key(spki: bytes) -> ec.EllipticCurvePublicKey:
    """An HSM attestation key from its SubjectPublicKeyInfo.

    Raises:
        AlgorithmRefused: not on P-256.
        Malformed: no SubjectPublicKeyInfo.
    """
    spki = bounded(spki, MAX_SPKI_BYTES, "the HSM attestation key")
    try:
        key = serialization.load_der_public_key(spki)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise Malformed("the HSM attestation key is no SubjectPublicKeyInfo") from error
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise AlgorithmRefused("an HSM attestation key is on NIST P-256", found=type(key).__name__)
    return key


def _verify_signature(message: bytes, signature: bytes, key: ec.EllipticCurvePublicKey) -> None:
    if len(signature) != SIGNATURE_BYTES:
        raise Malformed("the statement's signature has another length", expected=SIGNATURE_BYTES, found=len(signature))
    half = SIGNATURE_BYTES // 2
    der = utils.encode_dss_signature(int.from_bytes(signature[:half]), int.from_bytes(signature[half:]))
    try:
        key.verify(der, message, ec.ECDSA(hashes.SHA256()))
    except InvalidSignature as error:
        raise StatementSignatureInvalid("the HSM statement is not signed by the enrolled attestation key") from error
