"""Everything that can be wrong with evidence, one class a cause.

    EvidenceError
    ├── Malformed                     bytes that are not what they claim to be
    │   ├── Oversized                 longer than the bound that is checked before parsing
    │   ├── Truncated                 shorter than their own length fields say
    │   ├── TrailingBytes             something follows the structure
    │   ├── NotCanonical              CBOR that is not the deterministic encoding of its value
    │   ├── WrongMagic                TPMS_ATTEST without TPM_GENERATED
    │   └── WrongAttestType           signed by the TPM, but not a quote
    ├── AlgorithmRefused              unknown, or SHA-1, or not of the list
    │   └── WeakKey                   RSA below 2048 bits, curve outside the list
    ├── KeyRefused                    a key that may not attest
    │   ├── AttributesRefused         object attributes of an attestation key are not those asked for
    │   └── HierarchyRefused          the key does not live in the endorsement hierarchy
    ├── NonceRefused                  a nonce of another length, or none
    ├── ExtraDataMismatch             the quote answers another question (replay, relay, other binding)
    ├── AttestationKeyMismatch        another attestation key than the enrolled one
    ├── SignatureInvalid              the signature does not verify
    ├── PcrSelectionMismatch          the TPM signed another selection than was asked for
    ├── PcrMissing                    a value is not reported for an index that was signed
    ├── PcrUnexpected                 a value is reported for an index that was not signed
    ├── PcrDigestMismatch             the reported values do not hash to the signed digest
    ├── StatementError
    │   ├── StatementSignatureInvalid not signed by the enrolled HSM attestation key
    │   ├── StatementNonceMismatch    made for another round
    │   ├── StatementPcrMismatch      made on another boot state than the quoted one
    │   ├── StatementSerialMismatch   another token than the one pinned at enrolment
    │   ├── InventoryMismatch         the inventory is not the one that the token's statement names
    │   └── StatementLogMismatch      the boot event log is not the one that the token's statement names
    ├── EvidencePartMissing           stored evidence names a part that is not at hand
    ├── CertificateError
    │   ├── CertificateMalformed      not X.509, or an extension that cannot be read
    │   ├── CertificateExpired        outside its validity at the stated time
    │   ├── CertificateKindMismatch   an EK offered as an AK, or the other way round
    │   ├── CertificateAuthorityUse   a CA certificate offered as a leaf, or a leaf that signs
    │   ├── CriticalExtensionUnknown  a critical extension that is not understood
    │   ├── TpmAttributesMissing      no manufacturer, model and version where they must be
    │   ├── ChainIncomplete           no way from the leaf to one of the given roots
    │   ├── CertificateAbsent         the TPM shows no EK certificate
    │   ├── EndorsementKeyMismatch    a good EK certificate, over another TPM's key
    │   └── NoTrustAnchor             no root was given: nothing can be told
    ├── ImaError
    │   ├── ImaNoPrefix               no prefix of the list replays to the quoted PCR 10: ask again
    │   ├── ImaProgressLost           progress of another boot or bank: the whole list is needed
    │   ├── ImaLineAmbiguous          a line of an ASCII list that can be read in no way, or not in one way
    │   └── FileSignatureError
    │       ├── FileSignatureRefused  a file signature of a kind that is not judged
    │       └── FileSignatureInvalid  none of the given keys made it over this digest
    ├── EventLogError
    │   ├── EventLogMismatch          the log replays to other values than the quoted ones
    │   └── EventLogBankMissing       the log has no digests of the quoted bank: nothing can be told
    ├── CredentialRefused             no credential can be made for this endorsement key
    └── ReferenceValuesError
        ├── EnvelopeOversized         longer than the bound that is checked before parsing
        ├── EnvelopeMalformed         not a DSSE envelope as it is read here
        ├── PayloadTypeRefused        signed as something else than an in-toto statement
        ├── ReferenceKeyRefused       a listed key that is no P-256 or Ed25519 key, or is listed twice
        ├── ThresholdNotMet           fewer of the listed keys have signed than must
        ├── ReferencePayloadRefused   properly signed, but not reference values as they are read here
        ├── SeriesMismatch            a bundle of another series
        ├── ReferenceRolledBack       older than a bundle that was already used
        └── CorimRefused              a CoRIM that cannot be imported

`reason` is the class's name: stable, documented, counted in metrics.

`authenticated` says whether the failing bytes were shown to come from the enrolled identity. Only then may a failure
make a subject Untrusted; whatever else fails is dropped and counted, or else a stranger could cut off anybody's HSM.
"""

from __future__ import annotations

from typing import ClassVar

from chatelaine.model.printable import printable


class EvidenceError(Exception):
    """Evidence was refused.

    Attributes:
        reason: UpperCamelCase code, the name of the class.
        authenticated: True only where the failure is a fact about the enrolled identity itself.
        detail: a sentence for a person.
        expected: what would have been accepted, if it can be said.
        found: what was there.
    """

    reason: ClassVar[str] = "EvidenceError"
    authenticated: ClassVar[bool] = False

    def __init_subclass__(cls, **kwargs: object) -> None:
        """Give each class its own name as its reason."""
        super().__init_subclass__(**kwargs)
        cls.reason = cls.__name__

    def __init__(self, detail: str, *, expected: object = None, found: object = None) -> None:
        """`expected` and `found` are shown as text; bytes in hexadecimal."""
        self.detail = detail
        self.expected = _shown(expected)
        self.found = _shown(found)
        super().__init__(detail)

    def __str__(self) -> str:
        text = f"{self.reason}: {self.detail}"
        if self.expected is not None:
            text += f"; expected {self.expected}"
        if self.found is not None:
            text += f"; found {self.found}"
        return text


class Malformed(EvidenceError):
    """Bytes that are not what they claim to be."""


class Oversized(Malformed):
    """Longer than the bound that is checked before parsing."""


class Truncated(Malformed):
    """Shorter than their own length fields say."""


class TrailingBytes(Malformed):
    """Something follows the structure."""


class NotCanonical(Malformed):
    """CBOR that is not the deterministic encoding of its value."""


class WrongMagic(Malformed):
    """TPMS_ATTEST without TPM_GENERATED: not made by a TPM, and a restricted key would never sign it."""


class WrongAttestType(Malformed):
    """An attestation structure of another kind than a quote."""


class AlgorithmRefused(EvidenceError):
    """An algorithm that is not on the list of allowed ones. Unknown means refused, never skipped."""


class WeakKey(AlgorithmRefused):
    """RSA below 2048 bits, or a curve that is not on the list."""


class KeyRefused(EvidenceError):
    """A key that may not attest."""


class AttributesRefused(KeyRefused):
    """Object attributes that would let software outside the TPM speak in its name."""


class HierarchyRefused(KeyRefused):
    """The key is not in the endorsement hierarchy; its clock counters would be obfuscated."""


class NonceRefused(EvidenceError):
    """A nonce of another length than 32 bytes, or no expected data at all."""


class ExtraDataMismatch(EvidenceError):
    """The quote answers another question: replayed, relayed, or bound to other keys."""


class AttestationKeyMismatch(EvidenceError):
    """Another attestation key than the one enrolled for this subject."""


class SignatureInvalid(EvidenceError):
    """The signature does not verify under the key."""


class PcrSelectionMismatch(EvidenceError):
    """The TPM of the enrolled host signed another selection than was asked for."""

    authenticated: ClassVar[bool] = True


class PcrMissing(EvidenceError):
    """No value is reported for an index that was signed."""


class PcrUnexpected(EvidenceError):
    """A value is reported for an index that was not signed."""


class PcrDigestMismatch(EvidenceError):
    """The reported values do not hash to the signed digest; the values, not the host, are refuted."""


class StatementError(EvidenceError):
    """The HSM's statement was refused."""


class StatementSignatureInvalid(StatementError):
    """Not signed by the enrolled HSM attestation key."""


class StatementNonceMismatch(StatementError):
    """Made for another round."""


class StatementPcrMismatch(StatementError):
    """Made on other PCR values than the quoted ones. A PCR that moves in between gives this honestly: ask again."""


class StatementSerialMismatch(StatementError):
    """The enrolled attestation key speaks from a token with another serial than the pinned one."""

    authenticated: ClassVar[bool] = True


class InventoryMismatch(StatementError):
    """The inventory handed in is not the one that the statement names."""


class StatementLogMismatch(StatementError):
    """The boot event log handed in is not the one that the statement names: cut, swapped, or left out on the way."""


class EvidencePartMissing(EvidenceError):
    """Stored evidence names a log or a list by its digest, and it is not at hand."""


class CertificateError(EvidenceError):
    """A certificate was refused."""


class CertificateMalformed(CertificateError):
    """Not X.509, or an extension that cannot be read."""


class CertificateExpired(CertificateError):
    """Outside its validity at the stated time."""


class CertificateKindMismatch(CertificateError):
    """An endorsement key offered as an attestation key, or the other way round."""


class CertificateAuthorityUse(CertificateError):
    """A CA certificate offered as a leaf, or a certificate that may not issue used as an issuer."""


class CriticalExtensionUnknown(CertificateError):
    """A critical extension that is not understood."""


class TpmAttributesMissing(CertificateError):
    """No TPM manufacturer, model and version where they must be."""


class ChainIncomplete(CertificateError):
    """No way from the leaf to one of the given roots."""


class CertificateAbsent(CertificateError):
    """The TPM shows no endorsement certificate."""


class EndorsementKeyMismatch(CertificateError):
    """A good endorsement certificate, over the key of another TPM."""


class NoTrustAnchor(CertificateError):
    """No root was given: nothing can be told about any chain."""


class ImaError(EvidenceError):
    """The list of runtime measurements was refused, or one of its entries."""


class ImaNoPrefix(ImaError):
    """No prefix of the list replays to the quoted PCR 10.

    An honest list that was read too early gives this as well, so it refutes nothing: ask again.
    """


class ImaProgressLost(ImaError):
    """What was replayed before belongs to another boot or bank; the whole list is needed."""


class ImaLineAmbiguous(ImaError):
    """A line of an ASCII list that cannot be read, or not in one way only. The binary list has no such lines."""


class FileSignatureError(ImaError):
    """The signature of a measured file was refused."""


class FileSignatureRefused(FileSignatureError):
    """A file signature of a kind that is not judged: another version, hash or purpose."""


class FileSignatureInvalid(FileSignatureError):
    """None of the given keys made this signature over this digest."""


class EventLogError(EvidenceError):
    """The boot event log was refused."""


class EventLogMismatch(EventLogError):
    """The enrolled host's log replays to other PCR values than its TPM signed: the log, or the boot, is not it."""

    authenticated: ClassVar[bool] = True


class EventLogBankMissing(EventLogError):
    """The log has no digests of the bank that was quoted: nothing can be told by it."""


class CredentialRefused(EvidenceError):
    """No credential can be made for this endorsement key."""


class ReferenceValuesError(EvidenceError):
    """Reference values were refused. They judge hosts; they are not evidence of one, so no failure refutes a host."""


class EnvelopeOversized(ReferenceValuesError):
    """Longer than the bound that is checked before parsing."""


class EnvelopeMalformed(ReferenceValuesError):
    """Not a DSSE envelope as it is read here."""


class PayloadTypeRefused(ReferenceValuesError):
    """Signed as something else than an in-toto statement."""


class ReferenceKeyRefused(ReferenceValuesError):
    """A listed key that is neither ECDSA P-256 nor Ed25519, or one key under two names."""


class ThresholdNotMet(ReferenceValuesError):
    """Fewer of the listed keys have signed than must."""


class ReferencePayloadRefused(ReferenceValuesError):
    """Properly signed, but not reference values as they are read here."""


class SeriesMismatch(ReferenceValuesError):
    """A bundle of another series than the policy names: its version says nothing about this one."""


class ReferenceRolledBack(ReferenceValuesError):
    """Older than a bundle that was already used."""


class CorimRefused(ReferenceValuesError):
    """A CoRIM that cannot be imported."""


SHOWN_BYTES = 64
SHOWN_CHARACTERS = 160


def _shown(value: object) -> str | None:
    """Text for people, bounded: hostile input must not flood logs and conditions."""
    if value is None:
        return None
    if isinstance(value, (bytes, bytearray, memoryview)):
        raw = bytes(value)
        return raw[:SHOWN_BYTES].hex() + ("…" if len(raw) > SHOWN_BYTES else "")
    return printable(str(value), SHOWN_CHARACTERS)
