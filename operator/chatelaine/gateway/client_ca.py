"""The gateway's own CA for its clients' TLS leaves: made at the first start, trusted by this gateway alone.

A leaf says: this gateway has seen, at most an hour ago, that the holder of this key is this pod under this service
account. What the holder may do is the trust token's to say.
"""

from __future__ import annotations

import datetime
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from chatelaine.gateway.limits import (
    CLIENT_CA_RENEW_SECONDS,
    CLIENT_CA_SECONDS,
    CLIENT_LEAF_BACKDATE_SECONDS,
    CLIENT_LEAF_SECONDS,
    MAX_CSR_BYTES,
)
from chatelaine.pki.errors import KeyFileExposed
from chatelaine.pki.files import read_private, write_whole
from chatelaine.tokens.jwk import UnusableKey, thumbprint
from chatelaine.tokens.trust_token import Subject

_FILE: Final = "client-ca.pem"
_MAX_FILE_BYTES: Final = 16384
_URN: Final = "urn:chatelaine:workload:"
_CA_USAGE: Final = x509.KeyUsage(
    digital_signature=False,
    content_commitment=False,
    key_encipherment=False,
    data_encipherment=False,
    key_agreement=False,
    key_cert_sign=True,
    crl_sign=False,
    encipher_only=False,
    decipher_only=False,
)


class CsrRefused(Exception):
    """The certificate request cannot be read, proves no possession, or is over a key that we do not take."""


@dataclass(frozen=True, slots=True)
class ClientLeaf:
    """A leaf with its CA (PEM), the thumbprint of its key, and its end (seconds since the epoch)."""

    chain_pem: str
    jkt: str
    not_after: int


class ClientCa:
    """Key and certificate, in one 0600 file of the state folder.

    Raises:
        KeyFileExposed: the file may be read by others, or holds no CA.
        OSError: it cannot be read or written.
    """

    def __init__(self, folder: Path, name: str, wall_seconds: float) -> None:
        path = folder / _FILE
        if not path.exists():
            _make(path, name, wall_seconds)
        self._key, self.certificate = _load(path)
        if self.certificate.not_valid_after_utc.timestamp() < wall_seconds + CLIENT_CA_RENEW_SECONDS:
            _make(path, name, wall_seconds)
            self._key, self.certificate = _load(path)

    @property
    def pem(self) -> str:
        """The CA certificate."""
        return self.certificate.public_bytes(serialization.Encoding.PEM).decode()

    def issued(self, certificate: x509.Certificate) -> bool:
        """Has this CA signed that leaf?"""
        try:
            certificate.verify_directly_issued_by(self.certificate)
        except (InvalidSignature, ValueError, TypeError):
            return False
        return True

    def workload_of(self, certificate: x509.Certificate) -> str:
        """The subject that a leaf of ours was issued to.

        Raises:
            ValueError: it is no leaf of ours.
        """
        try:
            names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        except x509.ExtensionNotFound as error:
            raise ValueError("no subject alternative name") from error
        uris = names.get_values_for_type(x509.UniformResourceIdentifier)
        if len(uris) != 1 or not uris[0].startswith(_URN):
            raise ValueError("not exactly one workload name")
        return str(uris[0].removeprefix(_URN))

    def issue(self, csr_der: bytes, subject: Subject, wall_seconds: float) -> ClientLeaf:
        """A leaf of at most an hour over the request's key. Names and extensions of the request are not looked at.

        Raises:
            CsrRefused: over its bound, malformed, signature of another key, or a key type that we do not take.
        """
        request = _request(csr_der)
        public = request.public_key()
        spki = public.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
        try:
            jkt = thumbprint(spki)
        except UnusableKey as error:
            raise CsrRefused(str(error)) from error
        ca_end = int(self.certificate.not_valid_after_utc.timestamp())
        not_after = min(int(wall_seconds) + CLIENT_LEAF_SECONDS, ca_end)
        leaf = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([]))
            .issuer_name(self.certificate.subject)
            .public_key(public)
            .serial_number(x509.random_serial_number())
            .not_valid_before(_time(wall_seconds - CLIENT_LEAF_BACKDATE_SECONDS))
            .not_valid_after(_time(not_after))
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), critical=True)
            # RFC 5280 section 4.2.1.6: critical, because the subject is empty.
            .add_extension(
                x509.SubjectAlternativeName([x509.UniformResourceIdentifier(_URN + workload_name(subject))]),
                critical=True,
            )
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False)
            .sign(self._key, hashes.SHA256())
        )
        return ClientLeaf(leaf.public_bytes(serialization.Encoding.PEM).decode() + self.pem, jkt, not_after)


def workload_name(subject: Subject) -> str:
    """How a leaf names a pod: `<namespace>:<service account>:<pod uid>`."""
    return f"{subject.namespace}:{subject.service_account}:{subject.pod_uid}"


def _request(csr_der: bytes) -> x509.CertificateSigningRequest:
    if len(csr_der) > MAX_CSR_BYTES:
        raise CsrRefused(f"the request is over {MAX_CSR_BYTES} bytes")
    try:
        request = x509.load_der_x509_csr(csr_der)
        if not request.is_signature_valid:
            raise CsrRefused("the request's signature is not its key's")
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise CsrRefused("not a PKCS#10 request in DER") from error
    return request


def _make(path: Path, name: str, wall_seconds: float) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    serial = x509.random_serial_number()
    subject = x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Chatelaine"),
            x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, "Gateway clients"),
            # The serial keeps two CAs of one gateway apart by name as well.
            x509.NameAttribute(NameOID.COMMON_NAME, f"{name[:40]} {serial:x}"[:64]),
        ]
    )
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(serial)
        .not_valid_before(_time(wall_seconds - CLIENT_LEAF_BACKDATE_SECONDS))
        .not_valid_after(_time(wall_seconds + CLIENT_CA_SECONDS))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_CA_USAGE, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    write_whole(path, pem + certificate.public_bytes(serialization.Encoding.PEM))


def _load(path: Path) -> tuple[ec.EllipticCurvePrivateKey, x509.Certificate]:
    data = read_private(path, _MAX_FILE_BYTES)
    try:
        key = serialization.load_pem_private_key(data, password=None)
        certificate = x509.load_pem_x509_certificate(data)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise KeyFileExposed(f"{path} holds no CA that can be read: {type(error).__name__}") from None
    if not isinstance(key, ec.EllipticCurvePrivateKey) or key.public_key() != certificate.public_key():
        raise KeyFileExposed(f"{path} holds no CA with its own key")
    return key, certificate


def _time(seconds: float) -> datetime.datetime:
    return datetime.datetime.fromtimestamp(int(seconds), tz=datetime.UTC)
