"""`chatelaine verify` as people and scripts run it: exit status, JSON, standard input, usage."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from typer.testing import CliRunner

from chatelaine.cli.verify import app
from chatelaine.evidence import tpm_algorithms as alg
from support.paper_tpm import PCRS, PaperTpm, ek_public, pcr_list, sized
from support.vectors import VECTORS, needs_vectors

EXTRA = b"\x5a" * 32
TPM = PaperTpm()


def run(*arguments: str | Path, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [sys.executable, "-m", "chatelaine.cli.verify", *map(str, arguments)],
        input=stdin,
        capture_output=True,
        timeout=60,
        check=False,
    )


def status_here(*arguments: str | Path) -> int:
    """The exit status, without a process of its own: for the many ways of wrong usage."""
    return CliRunner().invoke(app, [str(argument) for argument in arguments]).exit_code


def verdict(*arguments: str | Path, stdin: bytes = b"") -> tuple[int, dict]:
    done = run(*arguments, "--json", stdin=stdin)
    assert done.stdout, done.stderr
    return done.returncode, json.loads(done.stdout)


def leaves(finding: dict) -> list[dict]:
    return [leaf for child in finding["children"] for leaf in leaves(child)] if "children" in finding else [finding]


def reasons(report: dict) -> set[str]:
    return {leaf["reason"] for leaf in leaves(report["findings"])}


class Quote:
    """Files of one quote; `arguments` names them all."""

    def __init__(self, folder: Path, tpm: PaperTpm = TPM, **fields) -> None:
        attest, signature = tpm.quote(EXTRA, **fields)
        self.files = {"attest": attest, "signature": signature, "ak": tpm.public}
        self.folder = folder
        for name, data in self.files.items():
            (folder / name).write_bytes(data)
        self.write_pcrs({"sha256": {str(index): value.hex() for index, value in PCRS.items()}})

    def write_pcrs(self, value: object) -> None:
        (self.folder / "pcrs").write_text(json.dumps(value))

    def arguments(self, *, extra: bytes | None = EXTRA, **changed: str) -> list[str]:
        names = {name: str(self.folder / name) for name in ("attest", "signature", "ak", "pcrs")} | changed
        found = [part for name, path in names.items() for part in (f"--{name}", path)]
        return ["tpm-quote", *found, *(["--extra-data", extra.hex()] if extra else [])]


@pytest.fixture
def quote(tmp_path: Path) -> Quote:
    return Quote(tmp_path)


def policy(folder: Path, values: list[dict], **hsm) -> Path:
    path = folder / "policy.yaml"
    spec = {"freshness": {"maxAgeSeconds": 30}, "tpm": {"pcrs": {"bank": "Sha256", "values": values}}}
    if hsm:
        spec["hsm"] = hsm
    path.write_text(json.dumps({"apiVersion": "chatelaine.dev/v1alpha1", "kind": "AttestationPolicy", "spec": spec}))
    return path


# --- quotes -----------------------------------------------------------------------------------------------------


def test_genuine_quote_is_trusted_under_its_key_and_says_that_the_key_is_not_anchored(quote):
    status, report = verdict(*quote.arguments())
    assert (status, report["verdict"]) == (0, "Trusted")
    assert "AkNotAnchored" in reasons(report)
    facts = report["facts"]
    assert facts["algorithm"] == "Ecdsa-Sha256"
    assert facts["selection"] == {"bank": "sha256", "indices": [0, 7]}
    assert facts["clock"] == {"milliseconds": 123456, "safe": True}
    assert facts["epoch"] == {"resetCount": 5, "restartCount": 1}
    assert facts["pcrs"] == {"sha256": {"0": "11" * 32, "7": "77" * 32}}


def test_without_extra_data_freshness_cannot_be_told(quote):
    status, report = verdict(*quote.arguments(extra=None))
    assert (status, report["verdict"]) == (2, "Unknown")
    assert "FreshnessUnknown" in reasons(report)


def test_replayed_quote_is_untrusted(quote):
    status, report = verdict(*quote.arguments(extra=b"\x01" * 32))
    assert (status, reasons(report)) == (1, {"ExtraDataMismatch"})


def test_bad_quote_stays_untrusted_even_if_freshness_cannot_be_told(quote):
    (quote.folder / "ak").write_bytes(PaperTpm(number=1).public)
    status, report = verdict(*quote.arguments(extra=None))
    assert (status, reasons(report)) == (1, {"SignatureInvalid"})


@pytest.mark.parametrize("name", ["attest", "signature", "ak"])
def test_malformed_part_is_untrusted(quote, name):
    (quote.folder / name).write_bytes(quote.files[name][:-1])
    status, report = verdict(*quote.arguments())
    assert status == 1
    assert reasons(report) <= {"Truncated", "Malformed"}


@pytest.mark.parametrize("name", ["attest", "signature", "ak"])
def test_endless_part_is_untrusted_and_not_read_to_its_end(quote, name):
    status, report = verdict(*quote.arguments(**{name: "/dev/zero"}))
    assert (status, reasons(report)) == (1, {"Oversized"})


@pytest.mark.parametrize("name", ["attest", "signature", "ak", "pcrs"])
def test_each_part_may_come_from_standard_input(quote, name):
    status, _ = verdict(*quote.arguments(**{name: "-"}), stdin=(quote.folder / name).read_bytes())
    assert status == 0


def test_key_may_be_tpm2b_or_pem(quote):
    (quote.folder / "ak").write_bytes(sized(TPM.public))
    assert verdict(*quote.arguments())[0] == 0
    pem = TPM.key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    (quote.folder / "ak").write_bytes(pem)
    status, report = verdict(*quote.arguments())
    assert status == 0
    assert "AkAttributesUnknown" in reasons(report)


def test_endorsement_key_offered_as_attestation_key_is_untrusted(quote):
    (quote.folder / "ak").write_bytes(ek_public())
    assert reasons(verdict(*quote.arguments())[1]) == {"AttributesRefused"}


@pytest.mark.parametrize(
    ("pcrs", "reason"),
    [
        ({"sha256": {"0": "11" * 32}}, "PcrSelectionMismatch"),
        ({"sha256": {"0": "11" * 32, "8": "77" * 32}}, "PcrSelectionMismatch"),
        ({"sha256": {"0": "77" * 32, "7": "11" * 32}}, "PcrDigestMismatch"),
        ({"sha256": {"0": "11" * 20, "7": "77" * 20}}, "Malformed"),
        ({"sha256": {}}, "PcrMissing"),
        ({"sha1": {"0": "11" * 20, "7": "77" * 20}}, "AlgorithmRefused"),
    ],
)
def test_reported_values_that_were_not_signed_are_untrusted(quote, pcrs, reason):
    quote.write_pcrs(pcrs)
    status, report = verdict(*quote.arguments())
    assert (status, reasons(report)) == (1, {reason})


def test_sha1_bank_is_refused(tmp_path):
    quote = Quote(tmp_path, selection=pcr_list((alg.SHA1, (0, 7))))
    status, report = verdict(*quote.arguments(), "--bank", "sha1")
    assert (status, reasons(report)) == (1, {"AlgorithmRefused"})


def test_policy_that_is_met(quote):
    path = policy(quote.folder, [{"index": 7, "anyOf": ["77" * 32]}], inventory="Accounted")
    status, report = verdict(*quote.arguments(), "--policy", path)
    assert status == 0
    assert {"PcrMatches", "OutsideOfQuote"} <= reasons(report)


def test_policy_that_is_not_met(quote):
    path = policy(quote.folder, [{"index": 0, "anyOf": ["11" * 32]}, {"index": 7, "anyOf": ["00" * 32]}])
    status, report = verdict(*quote.arguments(), "--policy", path)
    assert status == 1
    assert {"PcrMatches", "PcrMismatch"} <= reasons(report)


def test_policy_that_names_an_unquoted_pcr_is_not_met(quote):
    path = policy(quote.folder, [{"index": 4, "anyOf": ["11" * 32]}])
    status, report = verdict(*quote.arguments(), "--policy", path)
    assert status == 1
    assert "PcrNotQuoted" in reasons(report)


def test_report_for_people_names_verdict_and_reasons(quote):
    done = run(*quote.arguments(extra=b"\x01"))
    text = done.stdout.decode()
    assert done.returncode == 1
    assert text.startswith("Untrusted")
    assert "ExtraDataMismatch" in text


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["no-such-kind"],
        ["tpm-quote"],
        ["tpm-quote", "--no-such-option"],
        ["tpm-quote", "--bundle", "/nonexistent"],
        ["tpm-quote", "--bundle", "/dev/null"],
        ["tpm-quote", "--bundle", "/dev/null", "--attest", "/dev/null"],
        ["certificate", "/nonexistent", "--kind", "ek", "--roots", "/tmp"],
        ["certificate", "/dev/null", "--kind", "tls", "--roots", "/tmp"],
        ["certificate", "/dev/null", "--kind", "ek", "--roots", "/nonexistent"],
        ["certificate", "/dev/null", "--kind", "ek", "--roots", "/usr", "--at", "yesterday"],
        ["certificate", "/dev/null", "--kind", "ek", "--roots", "/usr", "--at", "2026-01-01T00:00:00"],
    ],
)
def test_usage_errors_end_with_64_and_say_why(arguments):
    done = run(*arguments)
    assert done.returncode == 64
    assert done.stderr
    assert b"Traceback" not in done.stderr
    assert not done.stdout


@pytest.mark.parametrize("value", ["zz", "0", ""])
def test_extra_data_that_is_no_hexadecimal_is_a_usage_error(quote, value):
    assert status_here(*quote.arguments(extra=None), f"--extra-data={value}") == 64


@pytest.mark.parametrize(
    "content", ["", "kind: Hsm", "spec: 1", "kind: AttestationPolicy", "a: [", "{freshness: {maxAgeSeconds: 1}}"]
)
def test_policy_that_is_none_is_a_usage_error(quote, content):
    (quote.folder / "policy").write_text(content)
    assert status_here(*quote.arguments(), "--policy", quote.folder / "policy") == 64


@pytest.mark.parametrize(
    "content", ["", "[]", "{}", '{"sha256": []}', '{"sha256": {"x": "00"}}', '{"sha256": {"24": "00"}}']
)
def test_pcr_values_that_are_none_are_a_usage_error(quote, content):
    (quote.folder / "pcrs").write_text(content)
    assert status_here(*quote.arguments()) == 64


def test_standard_input_cannot_be_read_twice(quote):
    assert status_here(*quote.arguments(attest="-", signature="-")) == 64


# --- the attestation result -------------------------------------------------------------------------------------

GOOD_PCRS = [{"index": index, "anyOf": [value.hex()]} for index, value in PCRS.items()]
OTHER_PCRS = [{"index": 7, "anyOf": ["00" * 32]}]


def report_here(*arguments: str | Path) -> dict:
    """The report, without a process of its own."""
    return json.loads(CliRunner().invoke(app, [*map(str, arguments), "--json"]).stdout)


def test_attestation_result_holds_the_verdict_and_its_whole_tree(quote):
    report = report_here(*quote.arguments(), "--policy", policy(quote.folder, GOOD_PCRS))
    ear = report["ear"]
    assert ear.pop("exp") == ear.pop("iat") + 30
    assert ear.pop("chatelaine.dev/findings") == report["findings"]
    assert ear.pop("chatelaine.dev/evidence-digest").startswith("sha256:")
    digest = ear["chatelaine.dev/policies"][0]["digest"]
    assert digest.startswith("sha256:")
    assert ear == {
        "eat_profile": "tag:ietf.org,2026:rats/ear#04",
        "ear_verifier_id": {"build": version("chatelaine"), "developer": "https://chatelaine.dev"},
        "submods": {
            "tpm": {
                "ear_status": "affirming",
                "ear_trustworthiness_vector": {"instance-identity": 0, "executables": 2},
                "ear_appraisal_policy_ids": [f"//0/{digest}"],
            }
        },
        "chatelaine.dev/status": "affirming",
        "chatelaine.dev/verdict": "Trusted",
        "chatelaine.dev/subject": f"tpm-ak:{TPM.name.hex()}",
        "chatelaine.dev/reference-digest": None,
        "chatelaine.dev/compared": ["pcr Sha256:0,7"],
        "chatelaine.dev/epoch": {"resetCount": 5, "restartCount": 1, "generation": 0},
        "chatelaine.dev/policies": [{"name": "", "uid": "", "generation": 0, "digest": digest}],
    }


@pytest.mark.parametrize(
    ("extra", "values", "said"),
    [
        (EXTRA, None, ("Trusted", "none", 0)),
        (EXTRA, OTHER_PCRS, ("Untrusted", "contraindicated", 96)),
        (None, GOOD_PCRS, ("Unknown", "none", 0)),
        (None, OTHER_PCRS, ("Untrusted", "contraindicated", 96)),
        (b"\x01" * 32, GOOD_PCRS, ("Untrusted", "contraindicated", 96)),
        (b"\x01" * 32, None, ("Untrusted", "contraindicated", 96)),
    ],
    ids=["no policy", "another pcr", "fresh or not", "another pcr, fresh or not", "replayed", "replayed, no policy"],
)
def test_attestation_result_affirms_nothing_that_was_not_compared(quote, extra, values, said):
    more = ["--policy", policy(quote.folder, values)] if values is not None else []
    report = report_here(*quote.arguments(extra=extra), *more)
    platform = report["ear"]["submods"]["tpm"]
    vector = platform["ear_trustworthiness_vector"]
    assert (report["verdict"], platform["ear_status"], vector["executables"]) == said
    assert vector["instance-identity"] == 0
    assert report["ear"]["chatelaine.dev/verdict"] == report["verdict"]


def test_attestation_result_of_a_refused_quote_names_no_subject(quote):
    (quote.folder / "ak").write_bytes(PaperTpm(number=1).public)
    assert report_here(*quote.arguments())["ear"]["chatelaine.dev/subject"] == ""


def test_the_same_quote_gives_the_same_evidence_digest_and_another_one_another(quote):
    reports = [report_here(*quote.arguments()) for _ in range(2)]
    quote.write_pcrs({"sha256": {"0": "00" * 32}})
    first, again, other = (
        r["ear"]["chatelaine.dev/evidence-digest"] for r in [*reports, report_here(*quote.arguments())]
    )
    assert first == again != other


# --- real evidence ----------------------------------------------------------------------------------------------


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
