"""Who is at the other end of a connection: read once from the certificate, when the handshake is done."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from cryptography import x509

from chatelaine.gateway.client_ca import ClientCa
from chatelaine.gateway.errors import PeerUnknown
from chatelaine.pki.chain import MAX_CERTIFICATE_BYTES, check_leaf, spki_of
from chatelaine.pki.errors import CertificateRefused
from chatelaine.tokens.jwk import UnusableKey, thumbprint


class Role(enum.StrEnum):
    """What kind of certificate the peer showed."""

    ANONYMOUS = "Anonymous"
    CLIENT = "Client"
    """A leaf of this gateway's own client CA."""
    PROCESS = "Process"
    """A leaf of our internal CA: operator, agent, gateway."""
    LOCAL = "Local"
    """The same user on this host, over the Unix socket."""


@dataclass(frozen=True, slots=True)
class Peer:
    """`jkt` is the RFC 7638 thumbprint of a client's TLS key; `not_after` the end of its leaf (epoch seconds)."""

    role: Role
    address: str = ""
    jkt: str = ""
    workload: str = ""
    not_after: float = 0.0
    certificate_der: bytes = b""

    @property
    def holder(self) -> str:
        """By what connections are counted."""
        return self.jkt or self.address

    def jkt_at(self, wall_seconds: float) -> str:
        """The thumbprint, or nothing once the leaf has ended: a connection may outlive its certificate."""
        return self.jkt if wall_seconds < self.not_after else ""


def identify(
    certificate_der: bytes | None,
    address: str,
    client_ca: ClientCa,
    bundle: tuple[x509.Certificate, ...],
    wall_seconds: float,
) -> Peer:
    """Tell the role by which CA has issued the leaf, whatever names stand in it.

    Raises:
        PeerUnknown: a certificate that OpenSSL let in, but that none of the two CAs of this moment has issued.
    """
    if not certificate_der:
        return Peer(Role.ANONYMOUS, address)
    if len(certificate_der) > MAX_CERTIFICATE_BYTES:
        raise PeerUnknown("the certificate is over its bound")
    try:
        certificate = x509.load_der_x509_certificate(certificate_der)
        jkt = thumbprint(spki_of(certificate))
        if client_ca.issued(certificate):
            return Peer(
                Role.CLIENT,
                address,
                jkt,
                client_ca.workload_of(certificate),
                certificate.not_valid_after_utc.timestamp(),
                certificate_der,
            )
        leaf = check_leaf(certificate, bundle, name=None, now=int(wall_seconds))
    except (ValueError, TypeError, x509.InvalidVersion, UnusableKey, CertificateRefused) as error:
        raise PeerUnknown(str(error)) from error
    return Peer(Role.PROCESS, address, jkt, leaf.name, float(leaf.not_after), certificate_der)
