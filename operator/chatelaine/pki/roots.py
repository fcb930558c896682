"""Roots that sign leaves: the cluster's, and each gateway's own for its clients."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final, Self

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from chatelaine.pki.errors import AuthorityMalformed

CA_LIFETIME_SECONDS: Final = 5 * 365 * 24 * 3600
BACKDATE_SECONDS: Final = 300
"""How far the clocks of our hosts may be behind ours."""
SERIAL_BYTES: Final = 16
INTERNAL: Final = "Internal CA"


@dataclass(frozen=True, slots=True)
class CaPair:
    """A root and its key."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey = field(repr=False)

    @classmethod
    def make(
        cls,
        key: ec.EllipticCurvePrivateKey,
        *,
        now: int,
        serial: bytes,
        lifetime_seconds: int = CA_LIFETIME_SECONDS,
        name: str = INTERNAL,
        unit: str = "",
    ) -> Self:
        """A self-signed root over `key` (P-256). The serial in its name keeps two roots of one `name` apart."""
        subject = _subject(f"{name} {serial[:4].hex()}", unit)
        certificate = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(subject)
            .public_key(key.public_key())
            .serial_number(serial_number(serial))
            .not_valid_before(time_of(now - BACKDATE_SECONDS))
            .not_valid_after(time_of(now + lifetime_seconds))
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(key_usage(signs_certificates=True), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .sign(key, hashes.SHA256())
        )
        return cls(certificate, key)

    @classmethod
    def load(cls, certificate_pem: bytes, key_pem: bytes) -> Self:
        """A stored pair.

        Raises:
            AuthorityMalformed: not a CA certificate and its own EC key.
        """
        try:
            certificate = x509.load_pem_x509_certificate(certificate_pem)
            key = serialization.load_pem_private_key(key_pem, password=None)
            basic = certificate.extensions.get_extension_for_class(x509.BasicConstraints).value
        except (ValueError, TypeError, UnsupportedAlgorithm, x509.ExtensionNotFound) as error:
            # `from None`: a parser's error may repeat what it could not read, and that may be a key.
            raise AuthorityMalformed(f"stored CA: {type(error).__name__}") from None
        if not isinstance(key, ec.EllipticCurvePrivateKey) or key.public_key() != certificate.public_key():
            raise AuthorityMalformed("stored CA: the key is not this certificate's")
        if not basic.ca:
            raise AuthorityMalformed("stored CA: the certificate is no CA")
        return cls(certificate, key)

    @property
    def not_after(self) -> int:
        """End of the root, seconds since the epoch."""
        return int(self.certificate.not_valid_after_utc.timestamp())

    def certificate_pem(self) -> bytes:
        """The root, PEM."""
        return self.certificate.public_bytes(serialization.Encoding.PEM)

    def key_pem(self) -> bytes:
        """The root's key, PEM (PKCS#8), in clear: for a Secret or a private file only."""
        return self.key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )


def serial_number(random_bytes: bytes) -> int:
    """A certificate's serial out of 16 random bytes.

    Raises:
        ValueError: not so many.
    """
    if len(random_bytes) != SERIAL_BYTES:
        raise ValueError(f"a serial is made of {SERIAL_BYTES} random bytes")
    # RFC 5280 §4.1.2.2: positive and at most 20 octets; the leading one keeps it from being zero.
    return int.from_bytes(b"\x01" + random_bytes)


def time_of(seconds: int) -> datetime:
    """Seconds since the epoch as certificates want them."""
    return datetime.fromtimestamp(seconds, tz=UTC)


def key_usage(*, signs_certificates: bool) -> x509.KeyUsage:
    """Of a root, or of a leaf."""
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )


def _subject(common_name: str, unit: str) -> x509.Name:
    units = [x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, unit)] if unit else []
    return x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Chatelaine"),
            *units,
            x509.NameAttribute(NameOID.COMMON_NAME, common_name),
        ]
    )
