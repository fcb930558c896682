"""The gateway's own CA for its clients' TLS leaves: made at the first start, trusted by this gateway alone.

A leaf says: this gateway has seen, at most an hour ago, that the holder of this key is this pod under this service
account. What the holder may do is the trust token's to say.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID

from chatelaine.gateway.limits import (
    CLIENT_CA_RENEW_SECONDS,
    CLIENT_CA_SECONDS,
    CLIENT_LEAF_BACKDATE_SECONDS,
    CLIENT_LEAF_SECONDS,
)
from chatelaine.pki.chain import spki_of_key
from chatelaine.pki.errors import AuthorityMalformed, CsrRefused
from chatelaine.pki.files import read_private, write_whole
from chatelaine.pki.requests import proven_any_key
from chatelaine.pki.roots import SERIAL_BYTES, CaPair, time_of
from chatelaine.tokens.jwk import UnusableKey, thumbprint
from chatelaine.tokens.trust_token import Subject

_FILE: Final = "client-ca.pem"
_MAX_FILE_BYTES: Final = 16384
_MAX_NAME_CHARACTERS: Final = 40
"""With the serial it fits into a common name (RFC 5280: 64 characters)."""
_URN: Final = "urn:chatelaine:workload:"


@dataclass(frozen=True, slots=True)
class ClientLeaf:
    """A leaf with its CA (PEM), the thumbprint of its key, and its end (seconds since the epoch)."""

    chain_pem: str
    jkt: str
    not_after: int


class ClientCa:
    """Key and certificate, in one 0600 file of the state folder.

    Raises:
        KeyFileRefused: others may read the file, or it is over its bound.
        AuthorityMalformed: it holds no CA with its key.
        OSError: it cannot be read or written.
    """

    def __init__(self, folder: Path, name: str, wall_seconds: float) -> None:
        path = folder / _FILE
        if not path.exists():
            _make(path, name, wall_seconds)
        self._pair = _load(path)
        if self._pair.not_after < wall_seconds + CLIENT_CA_RENEW_SECONDS:
            _make(path, name, wall_seconds)
            self._pair = _load(path)

    @property
    def certificate(self) -> x509.Certificate:
        """The CA certificate."""
        return self._pair.certificate

    @property
    def pem(self) -> str:
        """The CA certificate, PEM."""
        return self._pair.certificate_pem().decode()

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
        public = proven_any_key(csr_der)
        try:
            jkt = thumbprint(spki_of_key(public))
        except UnusableKey as error:
            raise CsrRefused(str(error)) from error
        not_after = min(int(wall_seconds) + CLIENT_LEAF_SECONDS, self._pair.not_after)
        leaf = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([]))
            .issuer_name(self.certificate.subject)
            .public_key(public)
            .serial_number(x509.random_serial_number())
            .not_valid_before(time_of(int(wall_seconds) - CLIENT_LEAF_BACKDATE_SECONDS))
            .not_valid_after(time_of(not_after))
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), critical=True)
            # RFC 5280 section 4.2.1.6: critical, because the subject is empty.
            .add_extension(
                x509.SubjectAlternativeName([x509.UniformResourceIdentifier(_URN + workload_name(subject))]),
                critical=True,
            )
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self._pair.key.public_key()), critical=False
            )
            .sign(self._pair.key, hashes.SHA256())
        )
        return ClientLeaf(leaf.public_bytes(serialization.Encoding.PEM).decode() + self.pem, jkt, not_after)


def workload_name(subject: Subject) -> str:
    """How a leaf names a pod: `<namespace>:<service account>:<pod uid>`."""
    return f"{subject.namespace}:{subject.service_account}:{subject.pod_uid}"


def _make(path: Path, name: str, wall_seconds: float) -> None:
    pair = CaPair.make(
        ec.generate_private_key(ec.SECP256R1()),
        now=int(wall_seconds),
        serial=secrets.token_bytes(SERIAL_BYTES),
        lifetime_seconds=CLIENT_CA_SECONDS,
        name=name[:_MAX_NAME_CHARACTERS],
        unit="Gateway clients",
    )
    write_whole(path, pair.key_pem() + pair.certificate_pem())


def _load(path: Path) -> CaPair:
    data = read_private(path, _MAX_FILE_BYTES)
    try:
        return CaPair.load(data, data)
    except AuthorityMalformed as error:
        raise AuthorityMalformed(f"{path}: {error}; remove it, and clients ask for new leaves") from None
