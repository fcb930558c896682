"""`chatelaine verify` on quotes and certificates of real machines."""

from __future__ import annotations

import json

import pytest

from support.vectors import VECTORS, needs_vectors
from support.verify_command import reasons, verdict


@needs_vectors
class TestRealEvidence:
    """The machine of the vectors."""

    BUNDLE = VECTORS / "tpm" / "gce-cos-85-nonce9009.json"
    ROOTS = VECTORS / "tpm" / "ca"
    CERTIFICATES = VECTORS / "tpm" / "certs"

    @pytest.mark.parametrize("bank", [[], ["--bank", "sha256"], ["--bank", "sha384"]])
    def test_bundle_of_a_real_machine(self, bank):
        status, report = verdict("tpm-quote", "--bundle", self.BUNDLE, "--extra-data", "9009", *bank)
        assert status == 0
        assert {"AkNotAnchored", "CertificateNamesKey", "AkRestricted"} <= reasons(report)
        assert report["facts"]["epoch"] == {"resetCount": 10, "restartCount": 0}

    def test_bundle_without_extra_data(self):
        assert verdict("tpm-quote", "--bundle", self.BUNDLE)[0] == 2

    def test_bundle_from_standard_input(self):
        status, _ = verdict("tpm-quote", "--bundle", "-", "--extra-data", "9009", stdin=self.BUNDLE.read_bytes())
        assert status == 0

    def test_sha1_bank_of_the_bundle_is_refused_though_signed_with_sha256(self):
        status, report = verdict("tpm-quote", "--bundle", self.BUNDLE, "--extra-data", "9009", "--bank", "sha1")
        assert (status, reasons(report)) == (1, {"AlgorithmRefused"})

    @pytest.mark.parametrize(
        ("name", "reason"),
        [
            ("uca_tpm_rsa_enc_cert.pem", "CertificateKindMismatch"),
            ("uca_tpm_rsa_sign_cert.pem", "CertificateKeyMismatch"),
        ],
    )
    def test_swapped_certificate_in_the_bundle_is_refused(self, tmp_path, name, reason):
        value = json.loads(self.BUNDLE.read_text())
        value["ak_cert_pem"] = (self.CERTIFICATES / name).read_text()
        (tmp_path / "bundle").write_text(json.dumps(value))
        status, report = verdict("tpm-quote", "--bundle", tmp_path / "bundle", "--extra-data", "9009")
        assert status == 1
        assert reason in reasons(report)

    @pytest.mark.parametrize(
        ("name", "kind", "status"),
        [
            ("uca_tpm_rsa_enc_cert.pem", "ek", 0),
            ("uca_tpm_rsa_sign_cert.pem", "ak", 0),
            ("pca_tpm_ecc_enc_cert.pem", "ek", 0),
            ("uca_tpm_rsa_enc_cert.pem", "ak", 1),
            ("uca_tpm_rsa_sign_cert.pem", "ek", 1),
        ],
    )
    def test_real_certificates(self, name, kind, status):
        found, report = verdict(
            "certificate", self.CERTIFICATES / name, "--kind", kind, "--roots", self.ROOTS,
            "--at", "2026-06-01T00:00:00Z",
        )  # fmt: skip
        assert found == status
        assert ("CertificateKindMismatch" in reasons(report)) is bool(status)
        if not status:
            assert len(report["facts"]["chain"]) == 3

    def test_certificate_outside_its_validity(self):
        status, report = verdict(
            "certificate", self.CERTIFICATES / "uca_tpm_rsa_enc_cert.pem", "--kind", "ek", "--roots", self.ROOTS,
            "--at", "2060-01-01T00:00:00Z",
        )  # fmt: skip
        assert (status, reasons(report)) == (1, {"CertificateExpired"})

    def test_without_a_root_nothing_can_be_told(self, tmp_path):
        status, report = verdict(
            "certificate", self.CERTIFICATES / "uca_tpm_rsa_enc_cert.pem", "--kind", "ek", "--roots", tmp_path
        )
        assert (status, reasons(report)) == (2, {"NoTrustAnchor"})

    def test_something_else_than_a_certificate_is_untrusted(self, tmp_path):
        status, report = verdict("certificate", "-", "--kind", "ek", "--roots", self.ROOTS, stdin=b"no certificate")
        assert (status, reasons(report)) == (1, {"CertificateMalformed"})
