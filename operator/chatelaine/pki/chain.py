"""Checks of certificates that our CA issued, and digests of public keys.

Our chains have one shape: a leaf directly under a root of the bundle. What OpenSSL has checked in a handshake is
checked here again where it matters later: on long-lived connections, after a CA has left the bundle, and for the name.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import ExtendedKeyUsageOID

from chatelaine.model.identifiers import PKI_DOMAIN, digest_of
from chatelaine.pki.errors import CertificateRefused, Flaw, NameRefused

MAX_CERTIFICATE_BYTES: Final = 16 * 1024
MAX_BUNDLE_BYTES: Final = 64 * 1024
MAX_BUNDLE_CERTIFICATES: Final = 8

_LABEL: Final = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
_MAX_NAME_CHARACTERS: Final = 253


@dataclass(frozen=True, slots=True)
class CheckedLeaf:
    """A leaf that chains to the bundle, is in time, and carries exactly this name. Times: seconds since the epoch."""

    name: str
    spki: bytes
    not_before: int
    not_after: int


def spki_of(certificate: x509.Certificate) -> bytes:
    """SubjectPublicKeyInfo (DER) of a certificate.

    Raises:
        CertificateRefused: the key is of a kind that cannot be read.
    """
    try:
        return spki_of_key(certificate.public_key())
    except (ValueError, TypeError) as error:
        raise CertificateRefused(Flaw.MALFORMED, f"public key: {error}") from error


def spki_of_key(key: CertificatePublicKeyTypes) -> bytes:
    """SubjectPublicKeyInfo (DER) of a key."""
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def spki_digest(certificate: x509.Certificate) -> str:
    """`sha256:` over the SubjectPublicKeyInfo (DER)."""
    return digest_of(spki_of(certificate))


def checked_server_name(name: str) -> str:
    """`name`, if it is a DNS name under our private domain.

    Raises:
        NameRefused: it is not.
    """
    if len(name) > _MAX_NAME_CHARACTERS or not name.endswith("." + PKI_DOMAIN):
        raise NameRefused(f"{name[:_MAX_NAME_CHARACTERS]!r} is not under {PKI_DOMAIN}")
    if not all(_LABEL.fullmatch(label) for label in name.split(".")):
        raise NameRefused(f"{name!r} is no DNS name")
    return name


def load_bundle(pem: str | bytes) -> tuple[x509.Certificate, ...]:
    """The certificates of a PEM text, bounded.

    Raises:
        CertificateRefused: too large, empty, too many, or no certificates.
    """
    data = pem.encode() if isinstance(pem, str) else pem
    if len(data) > MAX_BUNDLE_BYTES:
        raise CertificateRefused(Flaw.MALFORMED, f"over {MAX_BUNDLE_BYTES} bytes")
    try:
        certificates = tuple(x509.load_pem_x509_certificates(data))
    except (ValueError, x509.InvalidVersion) as error:
        raise CertificateRefused(Flaw.MALFORMED, str(error)) from error
    if not 1 <= len(certificates) <= MAX_BUNDLE_CERTIFICATES:
        raise CertificateRefused(Flaw.MALFORMED, f"{len(certificates)} certificates")
    return certificates


def pem_of(certificates: Sequence[x509.Certificate]) -> str:
    """PEM text, in this order."""
    return b"".join(certificate.public_bytes(Encoding.PEM) for certificate in certificates).decode()


def check_leaf_der(der: bytes, bundle: Sequence[x509.Certificate], *, name: str | None, now: int) -> CheckedLeaf:
    """As `check_leaf`, from DER, bounded.

    Raises:
        CertificateRefused: see `Flaw`.
    """
    if len(der) > MAX_CERTIFICATE_BYTES:
        raise CertificateRefused(Flaw.MALFORMED, f"over {MAX_CERTIFICATE_BYTES} bytes")
    try:
        certificate = x509.load_der_x509_certificate(der)
    except (ValueError, x509.InvalidVersion) as error:
        raise CertificateRefused(Flaw.MALFORMED, str(error)) from error
    return check_leaf(certificate, bundle, name=name, now=now)


def check_leaf(
    certificate: x509.Certificate, bundle: Sequence[x509.Certificate], *, name: str | None, now: int
) -> CheckedLeaf:
    """Accept a leaf of our CA: issued directly by one of `bundle`, in time, for server and client use.

    Args:
        certificate: the leaf.
        bundle: the CAs that are trusted now.
        name: the one DNS name that it must carry; None accepts any single name of ours.
        now: seconds since the epoch.

    Raises:
        CertificateRefused: see `Flaw`.
    """
    issuer = next((ca for ca in bundle if issued_by(certificate, ca)), None)
    if issuer is None:
        raise CertificateRefused(Flaw.UNKNOWN_ISSUER, "no CA of the bundle has issued this certificate")
    for one in (certificate, issuer):
        if not _start(one) <= now <= _end(one):
            raise CertificateRefused(Flaw.NOT_IN_TIME, f"valid from {_start(one)} to {_end(one)}, now {now}")
    found = _single_name(certificate)
    if name is not None and found != name:
        raise CertificateRefused(Flaw.OTHER_NAME, f"certificate of {found!r}, wanted {name!r}")
    return CheckedLeaf(found, spki_of(certificate), _start(certificate), _end(certificate))


def issued_by(certificate: x509.Certificate, ca: x509.Certificate) -> bool:
    """Does the signature of `certificate` verify under `ca`, and does it name it? Nothing else is looked at."""
    try:
        certificate.verify_directly_issued_by(ca)
    except (InvalidSignature, ValueError, TypeError):
        return False
    return True


def _single_name(certificate: x509.Certificate) -> str:
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        usages = set(certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value)
        basic = certificate.extensions.get_extension_for_class(x509.BasicConstraints).value
    except (x509.ExtensionNotFound, x509.DuplicateExtension, ValueError) as error:
        raise CertificateRefused(Flaw.NO_LEAF, str(error)) from error
    if basic.ca or not {ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH} <= usages:
        raise CertificateRefused(Flaw.NO_LEAF, "not for server and client use")
    entries = list(names)
    if len(entries) != 1 or not isinstance(entries[0], x509.DNSName):
        raise CertificateRefused(Flaw.NO_LEAF, "not exactly one DNS name")
    return entries[0].value


def _start(certificate: x509.Certificate) -> int:
    return int(certificate.not_valid_before_utc.timestamp())


def _end(certificate: x509.Certificate) -> int:
    return int(certificate.not_valid_after_utc.timestamp())
