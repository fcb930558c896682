"""The gateway's TLS: its leaf, two CAs for peers, both followed live.

TLS 1.3 only: every client of ours speaks it, and it hides certificates from listeners. A client certificate is
optional, because the token exchange and the health routes are for callers without one; what may be done with which is
decided a layer above, by `peer.Peer`. Sessions are not resumed: a resumed one would carry a certificate that was
checked at another time.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable
from pathlib import Path

from cryptography import x509

from chatelaine.gateway.client_ca import ClientCa
from chatelaine.gateway.peer import Peer, Role
from chatelaine.gateway.problems import OPERATOR_ONLY, Refusal
from chatelaine.model.identifiers import OPERATOR_SERVER_NAME, gateway_server_name
from chatelaine.pki.errors import CertificateRefused
from chatelaine.pki.leaf import ProcessLeaf
from chatelaine.wire.messages import Leaf, LeafRequest


class GatewayTls:
    """Server context of one gateway.

    Args:
        folder: holds `key.pem`, `chain.pem`, `ca.pem`.
        host: the host's name; the leaf's name is `gateway.<host>.chatelaine.internal`.
        client_ca: trusted beside our internal CA.
        wall_clock: seconds since the epoch.

    Raises:
        NoLeafYet: the host has not joined yet.
        PkiError: the folder's content is not this gateway's.
    """

    def __init__(self, folder: Path, host: str, client_ca: ClientCa, wall_clock: Callable[[], float]) -> None:
        self._wall_clock = wall_clock
        self._leaf = ProcessLeaf(folder, gateway_server_name(host))
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.num_tickets = 0
        context.verify_mode = ssl.CERT_OPTIONAL
        context.set_alpn_protocols(["http/1.1"])
        context.load_verify_locations(cadata=client_ca.pem)
        # OpenSSL cannot forget a CA; `peer.identify` and `require_operator` go by the present bundle.
        self._leaf.follow(context)
        self.context = context

    @property
    def server_name(self) -> str:
        """The name in the leaf."""
        return self._leaf.server_name

    @property
    def spki(self) -> bytes:
        """The TLS key (DER); it outlives leaves."""
        return self._leaf.spki

    @property
    def bundle(self) -> tuple[x509.Certificate, ...]:
        """The internal CAs trusted now."""
        return self._leaf.bundle

    @property
    def not_after(self) -> int:
        """End of the leaf, seconds since the epoch."""
        return self._leaf.not_after

    def request(self) -> LeafRequest:
        """A request for the next leaf."""
        return LeafRequest(csr=self._leaf.request(), not_after=self._leaf.not_after)

    def install(self, leaf: Leaf) -> None:
        """Take a new leaf: new connections show it, open ones go on.

        Raises:
            CertificateRefused: not one for this gateway; nothing changes.
            OSError: the folder cannot be written.
        """
        self._leaf.install(leaf.chain_pem, leaf.ca_bundle_pem, int(self._wall_clock()))

    def require_operator(self, peer: Peer) -> None:
        """Only the operator's leaf, by the CAs and the clock of this very request.

        Raises:
            Refusal: `ERROR_OPERATOR_ONLY`.
        """
        if peer.role is not Role.PROCESS:
            raise Refusal(OPERATOR_ONLY, reason=f"Peer{peer.role}")
        try:
            self._leaf.check_peer(peer.certificate_der, OPERATOR_SERVER_NAME, int(self._wall_clock()))
        except CertificateRefused as error:
            raise Refusal(OPERATOR_ONLY, reason=f"Certificate{error.flaw}") from error
