"""What is fuzzed of keys and certificates: requests, bundles, leaves, invitations, PKCS#11 URIs."""

from __future__ import annotations

import atexit
import tempfile
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from chatelaine.gateway import client_ca
from chatelaine.model.identifiers import agent_server_name, digest_of
from chatelaine.pkcs11 import uri
from chatelaine.pkcs11.errors import UriRefused
from chatelaine.pki.chain import check_leaf_der, load_bundle
from chatelaine.pki.errors import CertificateRefused, CsrRefused, InvitationMalformed
from chatelaine.pki.invitation import Invitation
from chatelaine.pki.requests import proven_key
from chatelaine.tokens.trust_token import Subject
from fuzz.target import Target
from support.pki import new_authority

AT = 1_780_000_000
AUTHORITY = new_authority(AT)
NAME = agent_server_name("hsm-a")
SUBJECT = Subject("payments", "checkout", "pod-1")
_FOLDER = tempfile.TemporaryDirectory()
atexit.register(_FOLDER.cleanup)
CLIENTS = client_ca.ClientCa(Path(_FOLDER.name), "fuzz", AT)


def request() -> bytes:
    """An honest certificate request."""
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    return builder.sign(ec.generate_private_key(ec.SECP256R1()), hashes.SHA256()).public_bytes(Encoding.DER)


def leaf() -> bytes:
    """A leaf of the CA that is trusted."""
    issued = AUTHORITY.issue_leaf(request(), NAME, AT, serial=b"0123456789abcdef", lifetime_seconds=3600)
    return load_bundle(issued.chain_pem)[0].public_bytes(Encoding.DER)


def invitation() -> bytes:
    """An honest invitation."""
    made = Invitation.make(
        endpoint="operator.example:8443", ca_digest=digest_of(b"ca"), host="hsm-a", secret=bytes(32), expires=AT
    )
    return made.encode().encode()


def read_invitation(data: bytes) -> None:
    """What is taken can be used: its secret and its address."""
    taken = Invitation.decode(data.decode(errors="replace"))
    if len(taken.secret_bytes()) != 32 or not taken.address[0]:
        raise AssertionError("taken, but of no use")


def read_uri(data: bytes) -> None:
    """What is taken reads the same when it is written again."""
    taken = uri.parse(data.decode(errors="replace"))
    if uri.parse(str(taken)) != taken:
        raise AssertionError("written again it is another URI")


TARGETS = {
    "csr": Target(proven_key, (CsrRefused,), lambda: [request()]),
    "client-csr": Target(lambda data: CLIENTS.issue(data, SUBJECT, AT), (client_ca.CsrRefused,), lambda: [request()]),
    "ca-bundle": Target(load_bundle, (CertificateRefused,), lambda: [AUTHORITY.bundle_pem.encode()]),
    "leaf": Target(
        lambda data: check_leaf_der(data, AUTHORITY.bundle, name=NAME, now=AT), (CertificateRefused,), lambda: [leaf()]
    ),
    "invitation": Target(read_invitation, (InvitationMalformed,), lambda: [invitation()]),
    "pkcs11-uri": Target(
        read_uri, (UriRefused,), lambda: [b"pkcs11:token=lab;serial=0123;object=chat%2Fa%2Fb;id=%01%02;type=private"]
    ),
}
