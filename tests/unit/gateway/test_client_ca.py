from __future__ import annotations

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from chatelaine.gateway.client_ca import ClientCa
from chatelaine.gateway.errors import PeerUnknown
from chatelaine.gateway.limits import CLIENT_CA_RENEW_SECONDS, CLIENT_CA_SECONDS, CLIENT_LEAF_SECONDS
from chatelaine.gateway.peer import Peer, Role, identify
from chatelaine.model.identifiers import OPERATOR_SERVER_NAME, agent_server_name
from chatelaine.pki.errors import AuthorityMalformed, CsrRefused, KeyFileExposed
from chatelaine.tokens.trust_token import Subject
from support import pki

NOW = 1_800_000_000.0
SUBJECT = Subject("payments", "checkout", "pod-1")


def _csr(key=None, *extensions) -> bytes:
    builder = x509.CertificateSigningRequestBuilder().subject_name(
        x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, OPERATOR_SERVER_NAME)])
    )
    for extension in extensions:
        builder = builder.add_extension(extension, critical=False)
    return builder.sign(key or ec.generate_private_key(ec.SECP256R1()), hashes.SHA256()).public_bytes(Encoding.DER)


def _leaf(ca: ClientCa, csr: bytes, now: float = NOW) -> x509.Certificate:
    return x509.load_pem_x509_certificate(ca.issue(csr, SUBJECT, now).chain_pem.encode())


def _der(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(Encoding.DER)


def test_csr_that_asks_for_the_operators_name_gets_only_the_pods(tmp_path):
    ca = ClientCa(tmp_path, "hsm-a", NOW)
    wish = x509.SubjectAlternativeName([x509.DNSName(OPERATOR_SERVER_NAME)])
    leaf = _leaf(ca, _csr(None, wish, x509.BasicConstraints(ca=True, path_length=None)))
    assert leaf.subject == x509.Name([])
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert list(names) == [x509.UniformResourceIdentifier("urn:chatelaine:workload:payments:checkout:pod-1")]
    assert not leaf.extensions.get_extension_for_class(x509.BasicConstraints).value.ca


def test_leaf_lives_an_hour_at_most_and_never_longer_than_its_ca(tmp_path):
    ca = ClientCa(tmp_path, "hsm-a", NOW)
    assert _leaf(ca, _csr()).not_valid_after_utc.timestamp() == NOW + CLIENT_LEAF_SECONDS
    late = NOW + CLIENT_CA_SECONDS - 60
    assert _leaf(ca, _csr(), late).not_valid_after_utc.timestamp() == NOW + CLIENT_CA_SECONDS


def test_the_ca_is_kept_private_and_is_the_same_after_a_restart(tmp_path):
    first = ClientCa(tmp_path, "hsm-a", NOW)
    path = tmp_path / "client-ca.pem"
    assert path.stat().st_mode & 0o777 == 0o600
    assert ClientCa(tmp_path, "hsm-a", NOW).certificate == first.certificate
    path.chmod(0o640)
    with pytest.raises(KeyFileExposed):
        ClientCa(tmp_path, "hsm-a", NOW)


def test_ca_near_its_end_is_replaced_at_the_next_start(tmp_path):
    first = ClientCa(tmp_path, "hsm-a", NOW)
    later = NOW + CLIENT_CA_SECONDS - CLIENT_CA_RENEW_SECONDS
    assert ClientCa(tmp_path, "hsm-a", later - 1).certificate == first.certificate
    assert ClientCa(tmp_path, "hsm-a", later + 1).certificate != first.certificate


def test_damaged_ca_file_is_refused(tmp_path):
    path = tmp_path / "client-ca.pem"
    path.touch(mode=0o600)
    path.write_text("no key")
    with pytest.raises(AuthorityMalformed, match=r"client-ca\.pem"):
        ClientCa(tmp_path, "hsm-a", NOW)


@pytest.mark.parametrize(
    "csr",
    [
        b"",
        b"\x30\x00",
        b"0" * 9000,
        _csr(rsa.generate_private_key(65537, 1024)),
        _csr(ec.generate_private_key(ec.SECP521R1())),
        _csr(ec.generate_private_key(ec.SECP256R1()))[:-1] + b"\x00",
    ],
    ids=["empty", "empty sequence", "oversized", "short RSA", "other curve", "signature of another key"],
)
def test_request_that_cannot_be_certified_is_refused(tmp_path, csr):
    with pytest.raises(CsrRefused):
        ClientCa(tmp_path, "hsm-a", NOW).issue(csr, SUBJECT, NOW)


def test_the_role_follows_from_the_issuer_not_from_names(tmp_path):
    ca = ClientCa(tmp_path, "hsm-a", NOW)
    bundle = pki.new_authority(int(NOW)).signing.certificate
    peer = identify(_der(_leaf(ca, _csr())), "192.0.2.1", ca, (bundle,), NOW)
    assert (peer.role, peer.workload, peer.holder) == (Role.CLIENT, "payments:checkout:pod-1", peer.jkt)
    nobody = identify(None, "192.0.2.1", ca, (bundle,), NOW)
    assert (nobody.role, nobody.jkt, nobody.holder) == (Role.ANONYMOUS, "", "192.0.2.1")


def test_leaf_of_a_ca_that_is_not_trusted_now_is_nobodys(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    ca, other = ClientCa(tmp_path / "a", "hsm-a", NOW), ClientCa(tmp_path / "b", "hsm-a", NOW)
    authority, former = pki.new_authority(int(NOW)), pki.new_authority(int(NOW))
    bundle = (authority.signing.certificate,)
    process = former.issue_leaf(_csr(), agent_server_name("x"), int(NOW), serial=b"1" * 16, lifetime_seconds=60)
    left = x509.load_pem_x509_certificate(process.chain_pem.encode())
    for der in (_der(_leaf(other, _csr())), _der(left), b"garbage", b"0" * 20_000):
        with pytest.raises(PeerUnknown):
            identify(der, "192.0.2.1", ca, bundle, NOW)
    assert identify(_der(left), "192.0.2.1", ca, (former.signing.certificate,), NOW).role is Role.PROCESS


def test_leaf_that_ends_on_an_open_connection_holds_nothing_any_more():
    peer = Peer(Role.CLIENT, "192.0.2.1", "thumb", "w", NOW)
    assert peer.jkt_at(NOW - 0.001) == "thumb"
    assert peer.jkt_at(NOW) == ""
