"""EK and AK certificates of real TPMs, and what is made of them by swapping, cutting and flipping."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest
from cryptography.hazmat.primitives import serialization

from chatelaine.evidence import errors
from chatelaine.evidence.certificates import (
    CertificateKind,
    VerifiedCertificate,
    load_certificates,
    split_roots,
    verify_certificate,
)
from support.vectors import VECTORS, needs_vectors

pytestmark = needs_vectors

AT = int(datetime(2026, 6, 1, tzinfo=UTC).timestamp())
EK, AK = CertificateKind.EK, CertificateKind.AK
LEAVES = {
    "pca_tpm_ecc_enc_cert.pem": EK,
    "pca_tpm_ecc_sign_cert.pem": AK,
    "pca_tpm_rsa_enc_cert.pem": EK,
    "pca_tpm_rsa_sign_cert.pem": AK,
    "uca_tpm_rsa_enc_cert.pem": EK,
    "uca_tpm_rsa_sign_cert.pem": AK,
}


def leaf(name: str) -> bytes:
    return (VECTORS / "tpm" / "certs" / name).read_bytes()


def authorities(*names: str) -> list:
    folder = VECTORS / "tpm" / "ca"
    return [
        certificate
        for path in sorted(folder.iterdir())
        if not names or path.name in names
        for certificate in load_certificates(path.read_bytes())
    ]


def judged(data: bytes, kind: CertificateKind, given=None, at: int = AT) -> VerifiedCertificate:
    roots, others = split_roots(authorities() if given is None else given)
    return verify_certificate(load_certificates(data)[0], kind=kind, roots=roots, intermediates=others, at=at)


@pytest.mark.parametrize(("name", "kind"), LEAVES.items())
def test_real_certificate_chains_to_its_root(name, kind):
    verified = judged(leaf(name), kind)
    assert len(verified.chain) == 3
    assert verified.kind is kind


def test_attestation_certificate_of_the_quoting_machine_chains():
    value = json.loads((VECTORS / "tpm" / "gce-cos-85-nonce9009.json").read_text())
    verified = judged(value["ak_cert_pem"].encode(), AK)
    assert verified.tpm is not None
    assert (verified.tpm.manufacturer, verified.tpm.model) == ("id:474F4F47", "vTPM")


@pytest.mark.parametrize(("name", "kind"), LEAVES.items())
def test_endorsement_certificate_offered_as_attestation_certificate_is_refused(name, kind):
    other = AK if kind is EK else EK
    with pytest.raises(errors.CertificateKindMismatch):
        judged(leaf(name), other)


@pytest.mark.parametrize("name", LEAVES)
def test_certificate_without_its_intermediate_is_refused(name):
    given = authorities("gcp_ek_ak_ca_root.crt", "tpm_ek_root_1.cer")
    with pytest.raises(errors.ChainIncomplete):
        judged(leaf(name), LEAVES[name], given)


def test_certificate_under_another_vendors_root_is_refused():
    given = authorities("gcp_ek_ak_ca_root.crt", "gcp_ek_ak_ca_intermediate_v3.crt")
    with pytest.raises(errors.ChainIncomplete):
        judged(leaf("uca_tpm_rsa_enc_cert.pem"), EK, given)


def test_sibling_intermediate_of_the_same_root_is_not_enough():
    given = authorities("tpm_ek_root_1.cer", "tpm_ek_intermediate_2.crt")
    with pytest.raises(errors.ChainIncomplete):
        judged(leaf("uca_tpm_rsa_enc_cert.pem"), EK, given)


def test_intermediate_alone_is_no_trust_anchor():
    with pytest.raises(errors.NoTrustAnchor):
        judged(leaf("uca_tpm_rsa_enc_cert.pem"), EK, authorities("tpm_ek_intermediate_3.crt"))


def test_ca_certificate_offered_as_a_leaf_is_refused():
    data = (VECTORS / "tpm" / "ca" / "tpm_ek_intermediate_3.crt").read_bytes()
    with pytest.raises(errors.CertificateAuthorityUse):
        judged(data, AK)


@pytest.mark.parametrize("year", [2019, 2060])
def test_certificate_outside_its_validity_is_refused(year):
    at = int(datetime(year, 1, 1, tzinfo=UTC).timestamp())
    with pytest.raises(errors.CertificateExpired):
        judged(leaf("uca_tpm_rsa_enc_cert.pem"), EK, at=at)


SIGNED = {
    "ChainIncomplete",
    "CertificateMalformed",
    "AlgorithmRefused",
    "CriticalExtensionUnknown",
    "CertificateExpired",
}
"""What a changed byte of the signed part leads to: at the latest, no issuer's signature is over it."""
LABELLED = {"TpmAttributesMissing", "CertificateKindMismatch"}
"""And where names and uses are written that only this kind of certificate has."""


@pytest.mark.parametrize(
    ("name", "signed"),
    [("pca_tpm_ecc_enc_cert.pem", SIGNED), ("uca_tpm_rsa_sign_cert.pem", SIGNED | LABELLED)],
)
def test_bit_flip_at_every_byte_of_a_certificate_is_refused(name, signed):
    certificate = load_certificates(leaf(name))[0]
    der, body = certificate.public_bytes(serialization.Encoding.DER), certificate.tbs_certificate_bytes
    start, end, signature = der.index(body), der.index(body) + len(body), len(der) - len(certificate.signature)
    given = authorities()

    def reasons(first: int, behind: int) -> set[str]:
        return {_reason_of_flip(der, position, LEAVES[name], given) for position in range(first, behind)}

    assert reasons(0, start) == {"CertificateMalformed"}
    assert reasons(start, end) == signed
    assert reasons(end, signature) == {"CertificateMalformed", "AlgorithmRefused"}
    assert reasons(signature, len(der)) == {"ChainIncomplete"}


def _reason_of_flip(der: bytes, position: int, kind: CertificateKind, given: list) -> str:
    changed = bytearray(der)
    changed[position] ^= 1
    with pytest.raises(errors.EvidenceError) as refusal:
        judged(bytes(changed), kind, given)
    return refusal.value.reason


def test_every_truncation_of_a_certificate_is_refused():
    der = load_certificates(leaf("pca_tpm_ecc_enc_cert.pem"))[0].public_bytes(serialization.Encoding.DER)
    for length in range(len(der)):
        with pytest.raises(errors.CertificateMalformed):
            load_certificates(der[:length])
