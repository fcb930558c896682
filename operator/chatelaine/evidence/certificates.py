"""X.509 certificates of TPM keys: endorsement (EK) and attestation (AK), chained to given roots at a given time.

TCG EK Credential Profile 2.5; RFC 5280 §6. Offline: nothing is fetched, and revocation is not looked up.

1. the leaf is well formed and no CA; its kind follows from keyUsage alone (real AK certificates carry the EK's
   extended usage too), and is the one asked for;
2. no critical extension is left that is not understood; the critical directory name in the subject alternative name
   is read for the TPM's manufacturer, model and version;
3. a chain of certificates that may issue, each valid at the stated time, ends at one of the given roots.

The caller owes the roots, and that the certified key is the one in question (`spki_digest`).
"""

from __future__ import annotations

import datetime
import enum
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.x509.oid import ObjectIdentifier

from chatelaine.evidence.certificate_chain import (
    ChainSearch,
    check_critical,
    check_extended_usage,
    check_key,
    check_signature_form,
    extension,
    shown,
)
from chatelaine.evidence.errors import (
    AlgorithmRefused,
    CertificateAuthorityUse,
    CertificateKindMismatch,
    CertificateMalformed,
    NoTrustAnchor,
    TpmAttributesMissing,
)
from chatelaine.evidence.reader import bounded
from chatelaine.model.identifiers import digest_of

MAX_FILE_BYTES: Final = 256 * 1024
MAX_CERTIFICATES: Final = 64

TPM_MANUFACTURER: Final = ObjectIdentifier("2.23.133.2.1")
TPM_MODEL: Final = ObjectIdentifier("2.23.133.2.2")
TPM_VERSION: Final = ObjectIdentifier("2.23.133.2.3")

# The library raises TypeError too, for names whose values have types that it does not expect.
_UNREADABLE: Final = (ValueError, TypeError, x509.DuplicateExtension, x509.UnsupportedGeneralNameType)


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
        return _verified(leaf, kind, ChainSearch(roots, intermediates, moment))


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


def _verified(leaf: x509.Certificate, kind: CertificateKind, path: ChainSearch) -> VerifiedCertificate:
    spki = verify_kind(leaf, kind)
    try:
        tpm = _tpm_attributes(leaf)
        chain = path.from_leaf(leaf)
        return VerifiedCertificate(
            kind=kind,
            subject=leaf.subject.rfc4514_string(),
            chain=tuple(shown(certificate) for certificate in chain),
            fingerprint=digest_of(leaf.public_bytes(serialization.Encoding.DER)),
            spki_digest=digest_of(spki),
            tpm=tpm,
            valid_until=int(min(certificate.not_valid_after_utc for certificate in chain).timestamp()),
        )
    except _UNREADABLE as error:
        raise CertificateMalformed("a certificate of the chain cannot be read") from error
    except UnsupportedAlgorithm as error:
        raise AlgorithmRefused("a key or signature of the chain is of an unknown kind") from error


# --- 1: the leaf ----------------------------------------------------------------------------------------------


def _check_leaf(leaf: x509.Certificate, kind: CertificateKind) -> None:
    check_critical(leaf)
    check_key(leaf)
    check_signature_form(leaf)
    constraints = extension(leaf, x509.BasicConstraints)
    usage = extension(leaf, x509.KeyUsage)
    if (constraints is not None and constraints.ca) or (usage is not None and usage.key_cert_sign):
        raise CertificateAuthorityUse("a CA certificate is not that of a TPM key", found=shown(leaf))
    found = kind_of(leaf)
    if found is not kind:
        raise CertificateKindMismatch("the certificate is for another use", expected=kind, found=found)
    check_extended_usage(leaf)


def kind_of(leaf: x509.Certificate) -> CertificateKind:
    """EK or AK, decided by keyUsage alone.

    Raises:
        CertificateKindMismatch: keyUsage is absent, or says both, or neither.
    """
    usage = extension(leaf, x509.KeyUsage)
    decrypts = usage is not None and (usage.key_encipherment or usage.key_agreement)
    signs = usage is not None and usage.digital_signature
    if decrypts == signs:
        raise CertificateKindMismatch(
            "keyUsage does not tell an endorsement key from an attestation key",
            expected="either key encipherment or agreement, or digital signature",
            found="both" if signs else "neither",
        )
    return CertificateKind.EK if decrypts else CertificateKind.AK


# --- 2: who made the TPM --------------------------------------------------------------------------------------


def _tpm_attributes(leaf: x509.Certificate) -> TpmAttributes | None:
    names = extension(leaf, x509.SubjectAlternativeName)
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
