"""X.509 certificates of TPM keys: endorsement (EK) and attestation (AK), chained to given roots at a given time.

TCG EK Credential Profile 2.5; RFC 5280 §6. Offline: nothing is fetched, and revocation is not looked up.

1. the leaf is well formed and no CA; its kind follows from keyUsage alone (real AK certificates carry the EK's
   extended usage too), and is the one asked for;
2. no critical extension is left that is not understood; the critical directory name in the subject alternative name
   is read for the TPM's manufacturer, model and version;
3. a chain of certificates that may issue, each valid at the stated time, ends at one of the given roots.

The verifier of `cryptography` cannot do this: it wants DNS or IP names and web usages, and refuses directory names.

The caller owes the roots, and that the certified key is the one in question (`spki_digest`).
"""

from __future__ import annotations

import datetime
import enum
import hashlib
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, TypeVar

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, ExtensionOID, ObjectIdentifier

from chatelaine.evidence import tpm_algorithms as alg
from chatelaine.evidence.errors import (
    AlgorithmRefused,
    CertificateAuthorityUse,
    CertificateError,
    CertificateExpired,
    CertificateKindMismatch,
    CertificateMalformed,
    ChainIncomplete,
    CriticalExtensionUnknown,
    EvidenceError,
    NoTrustAnchor,
    TpmAttributesMissing,
    WeakKey,
)
from chatelaine.evidence.reader import bounded
from chatelaine.model.identifiers import digest_of

MAX_FILE_BYTES: Final = 256 * 1024
MAX_CERTIFICATES: Final = 64
MAX_DEPTH: Final = 8
MAX_SIGNATURE_CHECKS: Final = 64

EK_USAGE: Final = ObjectIdentifier("2.23.133.8.1")
AK_USAGE: Final = ObjectIdentifier("2.23.133.8.3")
TPM_MANUFACTURER: Final = ObjectIdentifier("2.23.133.2.1")
TPM_MODEL: Final = ObjectIdentifier("2.23.133.2.2")
TPM_VERSION: Final = ObjectIdentifier("2.23.133.2.3")

_TPM_USAGES: Final = frozenset((EK_USAGE, AK_USAGE, ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE))
_UNDERSTOOD: Final = frozenset(
    (
        ExtensionOID.BASIC_CONSTRAINTS,
        ExtensionOID.KEY_USAGE,
        ExtensionOID.EXTENDED_KEY_USAGE,
        ExtensionOID.SUBJECT_ALTERNATIVE_NAME,
    )
)
_HASHES: Final = (hashes.SHA256, hashes.SHA384, hashes.SHA512)
# The library raises TypeError too, for names whose values have types that it does not expect.
_UNREADABLE: Final = (ValueError, TypeError, x509.DuplicateExtension, x509.UnsupportedGeneralNameType)
_CURVES: Final = (ec.SECP256R1, ec.SECP384R1, ec.SECP521R1)
_Extension = TypeVar("_Extension", bound=x509.ExtensionType)


class CertificateKind(enum.StrEnum):
    """What the certified key is for."""

    EK = "Ek"
    AK = "Ak"


@dataclass(frozen=True, slots=True)
class TpmAttributes:
    """Who made the TPM. `manufacturer` and `version` are `id:` and hexadecimal digits."""

    manufacturer: str
    model: str
    version: str


@dataclass(frozen=True, slots=True)
class VerifiedCertificate:
    """A certificate that chains to one of the roots.

    Attributes:
        kind: EK or AK.
        subject: RFC 4514 text; often empty.
        chain: subjects from the leaf to the root.
        fingerprint: `sha256:` of the certificate.
        spki_digest: `sha256:` of the certified SubjectPublicKeyInfo: an EK's digest.
        tpm: the TPM's maker, None where the certificate does not say.
        valid_until: seconds since the epoch at which the first certificate of the chain ends.
    """

    kind: CertificateKind
    subject: str
    chain: tuple[str, ...]
    fingerprint: str
    spki_digest: str
    tpm: TpmAttributes | None
    valid_until: int


def load_certificates(data: bytes) -> tuple[x509.Certificate, ...]:
    """Certificates of a PEM file (one or several) or a DER file (one).

    Raises:
        Oversized: more than 256 KiB.
        CertificateMalformed: none, too many, or not X.509.
    """
    data = bounded(data, MAX_FILE_BYTES, "the certificate file")
    try:
        if b"-----BEGIN" in data:
            found = x509.load_pem_x509_certificates(data)
        else:
            found = [x509.load_der_x509_certificate(data)]
    except (ValueError, x509.InvalidVersion) as error:
        raise CertificateMalformed("not an X.509 certificate (PEM or DER)") from error
    if len(found) > MAX_CERTIFICATES:
        raise CertificateMalformed("too many certificates in one file", expected=MAX_CERTIFICATES, found=len(found))
    return tuple(found)


def split_roots(
    certificates: Iterable[x509.Certificate],
) -> tuple[tuple[x509.Certificate, ...], tuple[x509.Certificate, ...]]:
    """Self-signed certificates (roots), and the others (intermediates, which are never trusted by themselves)."""
    roots, others = [], []
    for certificate in certificates:
        try:
            certificate.verify_directly_issued_by(certificate)
            roots.append(certificate)
        except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm):
            others.append(certificate)
    return tuple(roots), tuple(others)


def verify_certificate(
    leaf: x509.Certificate,
    *,
    kind: CertificateKind,
    roots: Sequence[x509.Certificate],
    intermediates: Sequence[x509.Certificate] = (),
    at: int,
) -> VerifiedCertificate:
    """Check a TPM key's certificate; the steps stand at the top of this module.

    Args:
        leaf: the certificate.
        kind: what it must be.
        roots: trust anchors.
        intermediates: certificates that may help; not trusted.
        at: the time to judge at, seconds since the epoch.

    Raises:
        NoTrustAnchor: `roots` is empty: nothing can be told.
        CertificateError: its subclass tells what failed.
        AlgorithmRefused: a key or signature that is not accepted.
    """
    if not roots:
        raise NoTrustAnchor("no root certificate was given")
    moment = datetime.datetime.fromtimestamp(at, tz=datetime.UTC)
    with warnings.catch_warnings():
        # Names longer than X.520 allows are common among TPM makers; they are compared, not interpreted.
        warnings.filterwarnings("ignore", message="Attribute's length must be", category=UserWarning)
        return _verified(leaf, kind, _Path(roots, intermediates, moment))


def verify_kind(leaf: x509.Certificate, kind: CertificateKind) -> bytes:
    """Check the leaf alone (step 1); says nothing about who issued it.

    Returns:
        The certified SubjectPublicKeyInfo (DER).

    Raises:
        CertificateError, AlgorithmRefused: as `verify_certificate`.
    """
    try:
        _check_leaf(leaf, kind)
        return leaf.public_key().public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        )
    except _UNREADABLE as error:
        raise CertificateMalformed("the certificate cannot be read") from error
    except UnsupportedAlgorithm as error:
        raise AlgorithmRefused("the certificate's key or signature is of an unknown kind") from error


def _verified(leaf: x509.Certificate, kind: CertificateKind, path: _Path) -> VerifiedCertificate:
    spki = verify_kind(leaf, kind)
    try:
        tpm = _tpm_attributes(leaf)
        chain = path.from_leaf(leaf)
        return VerifiedCertificate(
            kind=kind,
            subject=leaf.subject.rfc4514_string(),
            chain=tuple(_shown(certificate) for certificate in chain),
            fingerprint=digest_of(leaf.public_bytes(serialization.Encoding.DER)),
            spki_digest=digest_of(spki),
            tpm=tpm,
            valid_until=int(min(certificate.not_valid_after_utc for certificate in chain).timestamp()),
        )
    except _UNREADABLE as error:
        raise CertificateMalformed("a certificate of the chain cannot be read") from error
    except UnsupportedAlgorithm as error:
        raise AlgorithmRefused("a key or signature of the chain is of an unknown kind") from error


def _shown(certificate: x509.Certificate) -> str:
    subject = certificate.subject.rfc4514_string()
    return subject or f"serial {certificate.serial_number:x}"


def _extension(certificate: x509.Certificate, kind: type[_Extension]) -> _Extension | None:
    try:
        return certificate.extensions.get_extension_for_class(kind).value
    except x509.ExtensionNotFound:
        return None


# --- 1: the leaf ----------------------------------------------------------------------------------------------


def _check_leaf(leaf: x509.Certificate, kind: CertificateKind) -> None:
    _check_critical(leaf)
    _check_key(leaf)
    _check_signature_form(leaf)
    constraints = _extension(leaf, x509.BasicConstraints)
    usage = _extension(leaf, x509.KeyUsage)
    if (constraints is not None and constraints.ca) or (usage is not None and usage.key_cert_sign):
        raise CertificateAuthorityUse("a CA certificate is not that of a TPM key", found=_shown(leaf))
    found = kind_of(leaf)
    if found is not kind:
        raise CertificateKindMismatch("the certificate is for another use", expected=kind, found=found)
    _check_extended_usage(leaf)


def kind_of(leaf: x509.Certificate) -> CertificateKind:
    """EK or AK, decided by keyUsage alone.

    Raises:
        CertificateKindMismatch: keyUsage is absent, or says both, or neither.
    """
    usage = _extension(leaf, x509.KeyUsage)
    decrypts = usage is not None and (usage.key_encipherment or usage.key_agreement)
    signs = usage is not None and usage.digital_signature
    if decrypts == signs:
        raise CertificateKindMismatch(
            "keyUsage does not tell an endorsement key from an attestation key",
            expected="either key encipherment or agreement, or digital signature",
            found="both" if signs else "neither",
        )
    return CertificateKind.EK if decrypts else CertificateKind.AK


def _check_extended_usage(certificate: x509.Certificate) -> None:
    extended = _extension(certificate, x509.ExtendedKeyUsage)
    if extended is not None and not _TPM_USAGES & set(extended):
        raise CertificateKindMismatch(
            "the extended key usage is not that of a TPM key",
            expected=EK_USAGE.dotted_string,
            found=", ".join(usage.dotted_string for usage in extended),
        )


def _check_critical(certificate: x509.Certificate) -> None:
    for extension in certificate.extensions:
        if extension.critical and extension.oid not in _UNDERSTOOD:
            raise CriticalExtensionUnknown("a critical extension is not understood", found=extension.oid.dotted_string)


def _check_key(certificate: x509.Certificate) -> None:
    key = certificate.public_key()
    if isinstance(key, rsa.RSAPublicKey):
        if key.key_size < alg.MIN_RSA_BITS:
            raise WeakKey("the certified RSA key is too short", expected=alg.MIN_RSA_BITS, found=key.key_size)
    elif not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, _CURVES):
        raise WeakKey("the certified key is not accepted", expected="RSA or NIST curve", found=type(key).__name__)


def _check_signature_form(certificate: x509.Certificate) -> None:
    if not isinstance(certificate.signature_hash_algorithm, _HASHES):
        name = certificate.signature_hash_algorithm
        raise AlgorithmRefused(
            "the certificate's signature hash is not accepted", expected="SHA-2", found=name.name if name else "none"
        )
    # The bit string's count of unused bits is not signed; any other than 0 is a second encoding of the same.
    if not certificate.public_bytes(serialization.Encoding.DER).endswith(b"\x00" + certificate.signature):
        raise CertificateMalformed("the signature is not a whole number of bytes")


# --- 2: who made the TPM --------------------------------------------------------------------------------------


def _tpm_attributes(leaf: x509.Certificate) -> TpmAttributes | None:
    names = _extension(leaf, x509.SubjectAlternativeName)
    if names is None:
        if not list(leaf.subject):
            raise TpmAttributesMissing("neither a subject nor an alternative name")
        return None
    for name in names:
        if isinstance(name, x509.DirectoryName):
            return _read_attributes(name.value)
    raise TpmAttributesMissing("the alternative name holds no directory name")


def _read_attributes(name: x509.Name) -> TpmAttributes:
    values = []
    for oid in (TPM_MANUFACTURER, TPM_MODEL, TPM_VERSION):
        found = name.get_attributes_for_oid(oid)
        if len(found) != 1 or not isinstance(found[0].value, str):
            raise TpmAttributesMissing("the directory name does not say who made the TPM", expected=oid.dotted_string)
        values.append(found[0].value)
    return TpmAttributes(*values)


# --- 3: the chain ---------------------------------------------------------------------------------------------


class _Path:
    """Search for a chain, depth first, with a bound on signatures checked (hostile sets of certificates)."""

    def __init__(
        self,
        roots: Sequence[x509.Certificate],
        intermediates: Sequence[x509.Certificate],
        moment: datetime.datetime,
    ) -> None:
        self._roots = frozenset(_identity(root) for root in roots)
        self._issuers = tuple({_identity(one): one for one in [*roots, *intermediates]}.values())
        self._moment = moment
        self._checks_left = MAX_SIGNATURE_CHECKS
        self._refusal: EvidenceError | None = None

    def from_leaf(self, leaf: x509.Certificate) -> tuple[x509.Certificate, ...]:
        """The chain, leaf first, root last."""
        self._check_time(leaf)
        found = self._extend((leaf,))
        if found is None:
            raise self._refusal or ChainIncomplete(
                "no way from the certificate to one of the roots", found=leaf.issuer.rfc4514_string()
            )
        return found

    def _extend(self, chain: tuple[x509.Certificate, ...]) -> tuple[x509.Certificate, ...] | None:
        last = chain[-1]
        for issuer in self._issuers:
            if issuer.subject != last.issuer or issuer in chain or len(chain) > MAX_DEPTH:
                continue
            if not self._signed(last, issuer):
                continue
            try:
                self._check_issuer(issuer, below=len(chain) - 1)
            except (CertificateError, AlgorithmRefused) as error:
                self._refusal = self._refusal or error
                continue
            longer = (*chain, issuer)
            found = longer if _identity(issuer) in self._roots else self._extend(longer)
            if found is not None:
                return found
        return None

    def _signed(self, certificate: x509.Certificate, issuer: x509.Certificate) -> bool:
        if self._checks_left == 0:
            raise ChainIncomplete("too many possible issuers", expected=f"at most {MAX_SIGNATURE_CHECKS} checks")
        self._checks_left -= 1
        try:
            certificate.verify_directly_issued_by(issuer)
        except (InvalidSignature, ValueError, TypeError, UnsupportedAlgorithm):
            return False
        return True

    def _check_issuer(self, issuer: x509.Certificate, *, below: int) -> None:
        """`below` counts the intermediates between this issuer and the leaf."""
        self._check_time(issuer)
        _check_critical(issuer)
        _check_key(issuer)
        if _identity(issuer) not in self._roots:
            _check_signature_form(issuer)
        _check_extended_usage(issuer)
        constraints = _extension(issuer, x509.BasicConstraints)
        usage = _extension(issuer, x509.KeyUsage)
        if constraints is None or not constraints.ca or (usage is not None and not usage.key_cert_sign):
            raise CertificateAuthorityUse("the issuer is no CA", found=_shown(issuer))
        if constraints.path_length is not None and below > constraints.path_length:
            raise CertificateAuthorityUse(
                "the chain is longer than its CA allows", expected=constraints.path_length, found=below
            )

    def _check_time(self, certificate: x509.Certificate) -> None:
        start, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
        if not start <= self._moment <= end:
            raise CertificateExpired(
                f"{_shown(certificate)} is not valid at the stated time",
                expected=f"{start.isoformat()} to {end.isoformat()}",
                found=self._moment.isoformat(),
            )


def _identity(certificate: x509.Certificate) -> bytes:
    return hashlib.sha256(certificate.public_bytes(serialization.Encoding.DER)).digest()
