"""Requests and certificates of a version that does not exist: the library raises an error of its own kind for them."""

from __future__ import annotations

import ssl

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from chatelaine.gateway.client_ca import ClientCa
from chatelaine.gateway.peer import PeerUnknown, identify
from chatelaine.pki.chain import check_leaf_der, load_bundle
from chatelaine.pki.errors import CertificateRefused, CsrRefused
from chatelaine.pki.requests import proven_any_key
from support.pki import new_authority

AT = 1_780_000_000


def certificate_of_no_version() -> bytes:
    der = new_authority(AT).bundle[0].public_bytes(Encoding.DER)
    assert b"\xa0\x03\x02\x01\x02" in der
    return der.replace(b"\xa0\x03\x02\x01\x02", b"\xa0\x03\x02\x01\x12", 1)


def test_request_of_a_version_that_does_not_exist_is_refused() -> None:
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    der = builder.sign(ec.generate_private_key(ec.SECP256R1()), hashes.SHA256()).public_bytes(Encoding.DER)
    proven_any_key(der)
    with pytest.raises(CsrRefused):
        proven_any_key(der.replace(b"\x02\x01\x00", b"\x02\x01\x04", 1))


def test_certificate_of_a_version_that_does_not_exist_is_refused(tmp_path) -> None:
    der = certificate_of_no_version()
    bundle = new_authority(AT).bundle
    with pytest.raises(CertificateRefused):
        check_leaf_der(der, bundle, name=None, now=AT)
    with pytest.raises(PeerUnknown):
        identify(der, "192.0.2.1", ClientCa(tmp_path, "hsm-a", AT), bundle, AT)


def test_bundle_with_a_certificate_of_a_version_that_does_not_exist_is_refused() -> None:
    with pytest.raises(CertificateRefused):
        load_bundle(ssl.DER_cert_to_PEM_cert(certificate_of_no_version()))
