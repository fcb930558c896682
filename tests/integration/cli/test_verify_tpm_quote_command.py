"""`chatelaine verify tpm-quote`: what it says of quotes, good and bad, and of wrong usage."""

from __future__ import annotations

from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization

from chatelaine.evidence import tpm_algorithms as alg
from support.paper_tpm import PaperTpm, ek_public, pcr_list, sized
from support.verify_command import TPM, QuoteFiles, policy_file, reasons, run, run_here, verdict


@pytest.fixture
def quote(tmp_path: Path) -> QuoteFiles:
    return QuoteFiles(tmp_path)


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
    quote = QuoteFiles(tmp_path, selection=pcr_list((alg.SHA1, (0, 7))))
    status, report = verdict(*quote.arguments(), "--bank", "sha1")
    assert (status, reasons(report)) == (1, {"AlgorithmRefused"})


def test_policy_that_is_met(quote):
    path = policy_file(quote.folder, [{"index": 7, "anyOf": ["77" * 32]}], inventory="Accounted")
    status, report = verdict(*quote.arguments(), "--policy", path)
    assert status == 0
    assert {"PcrMatches", "OutsideOfQuote"} <= reasons(report)


def test_policy_that_is_not_met(quote):
    path = policy_file(quote.folder, [{"index": 0, "anyOf": ["11" * 32]}, {"index": 7, "anyOf": ["00" * 32]}])
    status, report = verdict(*quote.arguments(), "--policy", path)
    assert status == 1
    assert {"PcrMatches", "PcrMismatch"} <= reasons(report)


def test_policy_that_names_an_unquoted_pcr_is_not_met(quote):
    path = policy_file(quote.folder, [{"index": 4, "anyOf": ["11" * 32]}])
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
    assert run_here(*quote.arguments(extra=None), f"--extra-data={value}").exit_code == 64


@pytest.mark.parametrize(
    "content", ["", "kind: Hsm", "spec: 1", "kind: AttestationPolicy", "a: [", "{freshness: {maxAgeSeconds: 1}}"]
)
def test_policy_that_is_none_is_a_usage_error(quote, content):
    (quote.folder / "policy").write_text(content)
    assert run_here(*quote.arguments(), "--policy", quote.folder / "policy").exit_code == 64


@pytest.mark.parametrize(
    "content", ["", "[]", "{}", '{"sha256": []}', '{"sha256": {"x": "00"}}', '{"sha256": {"24": "00"}}']
)
def test_pcr_values_that_are_none_are_a_usage_error(quote, content):
    (quote.folder / "pcrs").write_text(content)
    assert run_here(*quote.arguments()).exit_code == 64


def test_standard_input_cannot_be_read_twice(quote):
    assert run_here(*quote.arguments(attest="-", signature="-")).exit_code == 64
