"""A process's own TLS identity: its key, its leaf, the CAs it trusts, and TLS contexts that follow renewals.

The folder holds `key.pem` (mode 0600, made once and kept across renewals: the quote binds its public key), `chain.pem`
(leaf and root) and `ca.pem` (the bundle). The bundle is written first: it always covers the chain beside it.

`install` loads the new leaf and new CAs into the living contexts, so new connections use them and open ones go on.
OpenSSL cannot take a CA out of a living context. Servers keep theirs and call `check_peer`, which judges by the present
bundle and clock, for every request. For clients there is a new context whenever the bundle changes: whoever asks for it
each time (as connections of the operator do) dials with what is trusted and shown now.
"""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from chatelaine.pki.authority import renewal_due
from chatelaine.pki.chain import (
    MAX_BUNDLE_BYTES,
    CheckedLeaf,
    check_leaf,
    check_leaf_der,
    checked_server_name,
    issued_by,
    load_bundle,
    pem_of,
    spki_of_key,
)
from chatelaine.pki.errors import CertificateRefused, Flaw, KeyFileDamaged, NoLeafYet
from chatelaine.pki.files import PUBLIC_FILE_MODE, make_private_folder, read_private, write_once, write_whole

_MAX_KEY_BYTES: Final = 8192
_KEY, _CHAIN, _BUNDLE = "key.pem", "chain.pem", "ca.pem"


class ProcessLeaf:
    """Key, leaf and bundle of one process. One instance a folder and process; not for use from several threads.

    Args:
        folder: where the three files live; made when absent.
        server_name: the name that this process is certified for, for example `agent.hsm-a.chatelaine.internal`.

    Raises:
        KeyFileRefused: the key file may be read by others, or holds no key.
        CertificateRefused: the stored chain and bundle are damaged or another process's.
        OSError: the folder cannot be used.
    """

    def __init__(self, folder: Path, server_name: str) -> None:
        self._folder = folder
        self.server_name = checked_server_name(server_name)
        make_private_folder(folder)
        self._key = _kept_key(folder / _KEY)
        self.spki = spki_of_key(self._key.public_key())
        self._bundle: tuple[x509.Certificate, ...] = ()
        self._leaf: CheckedLeaf | None = None
        self._certificate: x509.Certificate | None = None
        self._server: dict[bool, ssl.SSLContext] = {}
        self._client: ssl.SSLContext | None = None
        self._following: list[ssl.SSLContext] = []
        self.reload()

    @property
    def not_after(self) -> int:
        """End of the leaf, seconds since the epoch; 0 when there is none yet."""
        return self._leaf.not_after if self._leaf else 0

    @property
    def bundle(self) -> tuple[x509.Certificate, ...]:
        """The CAs that are trusted now."""
        return self._bundle

    def request(self) -> bytes:
        """A certificate request (PKCS#10, DER) over the key that is kept."""
        builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
        return builder.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.DER)

    def renewal_due(self, now: int) -> bool:
        """Whether two thirds of the leaf's life are over, or there is no leaf."""
        if self._leaf is None:
            return True
        return renewal_due(self._leaf.not_after, now, self._leaf.not_after - self._leaf.not_before)

    def is_of(self, root: x509.Certificate) -> bool:
        """Is our leaf one of this root?"""
        return self._certificate is not None and issued_by(self._certificate, root)

    def install(self, chain_pem: str, ca_bundle_pem: str, now: int) -> None:
        """Take a new leaf and bundle: checked first, then on disk, then live.

        Raises:
            CertificateRefused: not over our key, not for our name, not under that bundle, not in time; nothing changes.
            OSError: the folder cannot be written.
        """
        bundle = load_bundle(ca_bundle_pem)
        chain = load_bundle(chain_pem)
        self._checked(chain[0], bundle, now)
        write_whole(self._folder / _BUNDLE, pem_of(bundle).encode(), PUBLIC_FILE_MODE)
        write_whole(self._folder / _CHAIN, pem_of(chain).encode(), PUBLIC_FILE_MODE)
        self.reload()

    def reload(self) -> None:
        """Read chain and bundle from the folder again, into the living contexts too.

        Raises:
            CertificateRefused: what lies there is damaged or another process's.
        """
        chain_path, bundle_path = self._folder / _CHAIN, self._folder / _BUNDLE
        if not chain_path.exists() or not bundle_path.exists():
            return
        bundle, chain = load_bundle(_bounded(bundle_path)), load_bundle(_bounded(chain_path))
        # An expired leaf is no reason not to start (its end is shown), so it is judged by its own last second.
        self._leaf = self._checked(chain[0], bundle, int(chain[0].not_valid_after_utc.timestamp()))
        self._certificate = chain[0]
        if self._client is not None and bundle != self._bundle:
            self._following.remove(self._client)
            self._client = None
        self._bundle = bundle
        for context in self._following:
            self._load(context)

    def server_context(self, *, client_certificates: bool = True) -> ssl.SSLContext:
        """TLS 1.3 server context; with `client_certificates` only holders of our CA's leaves finish a handshake.

        Raises:
            NoLeafYet: nothing to show.
        """
        if client_certificates not in self._server:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            # No resumption: a resumed session would carry a peer certificate that was checked at another time.
            context.num_tickets = 0
            # Without client certificates: the join endpoint, whose callers have none yet and show an invitation.
            context.verify_mode = ssl.CERT_REQUIRED if client_certificates else ssl.CERT_NONE
            self.follow(context)
            self._server[client_certificates] = context
        return self._server[client_certificates]

    def client_context(self) -> ssl.SSLContext:
        """TLS 1.3 client context: trusts our bundle alone, shows our leaf, checks the name it is told to expect.

        The same object until the bundle changes.

        Raises:
            NoLeafYet: nothing to show.
        """
        if self._client is None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            self.follow(context)
            self._client = context
        return self._client

    def follow(self, context: ssl.SSLContext) -> None:
        """Make `context` speak TLS 1.3 alone, show our leaf and trust our bundle, now and after each renewal.

        Raises:
            NoLeafYet: nothing to show.
        """
        if self._leaf is None:
            raise NoLeafYet(f"{self._folder} holds no certificate yet; run: chatelaine host join")
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        self._load(context)
        self._following.append(context)

    def check_peer(self, certificate_der: bytes, name: str, now: int) -> CheckedLeaf:
        """Accept a peer's certificate by the bundle and the clock of this moment.

        Raises:
            CertificateRefused: see `Flaw`.
        """
        return check_leaf_der(certificate_der, self._bundle, name=name, now=now)

    def _load(self, context: ssl.SSLContext) -> None:
        context.load_cert_chain(self._folder / _CHAIN, self._folder / _KEY)
        context.load_verify_locations(cadata=pem_of(self._bundle))

    def _checked(self, leaf: x509.Certificate, bundle: tuple[x509.Certificate, ...], now: int) -> CheckedLeaf:
        checked = check_leaf(leaf, bundle, name=self.server_name, now=now)
        if checked.spki != self.spki:
            raise CertificateRefused(Flaw.OTHER_KEY, "the certificate is over another key than ours")
        return checked


def _kept_key(path: Path) -> ec.EllipticCurvePrivateKey:
    if not path.exists():
        fresh = ec.generate_private_key(ec.SECP256R1())
        pem = fresh.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        write_once(path, pem)
    try:
        key = serialization.load_pem_private_key(read_private(path, _MAX_KEY_BYTES), password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise KeyFileDamaged(f"{path} holds no key that can be read: {type(error).__name__}") from None
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise KeyFileDamaged(f"{path} holds no EC key")
    return key


def _bounded(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(MAX_BUNDLE_BYTES + 1)
