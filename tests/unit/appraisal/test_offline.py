"""Single pieces of evidence judged by hand: every line of the report, and what is left open."""

from __future__ import annotations

import datetime
import hashlib
from dataclasses import replace
from functools import cache
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from chatelaine.appraisal.offline import QuoteCase, Report, judge_certificate, judge_quote, quote_appraisal, refusal
from chatelaine.evidence import errors
from chatelaine.evidence import tpm_algorithms as alg
from chatelaine.evidence.certificates import TPM_MANUFACTURER, TPM_MODEL, TPM_VERSION, CertificateKind
from chatelaine.model.identifiers import canonical_json
from chatelaine.model.policy import AttestationPolicySpec
from chatelaine.model.verdict import Epoch, Outcome, Verdict
from support.paper_host import spki
from support.paper_tpm import PCRS, PaperTpm, ecc_key, rsa_key

EXTRA = b"\x5a" * 32
PEM = serialization.Encoding.PEM
SPKI = serialization.PublicFormat.SubjectPublicKeyInfo


def case(tpm: PaperTpm | None = None, *, quote: dict[str, Any] | None = None, **changed: Any) -> QuoteCase:
    tpm = tpm or PaperTpm()
    attest, signature = tpm.quote(EXTRA, **(quote or {}))
    made = QuoteCase(attest, signature, tpm.public, {"sha256": PCRS}, extra_data=EXTRA)
    return replace(made, **changed)


def policy(*indices: int, hsm: bool = False, bank: str = "Sha256", value: str | None = None) -> AttestationPolicySpec:
    size = 32 if bank == "Sha256" else 48
    values = [
        {"index": index, "anyOf": [value or (PCRS[index].hex() if index in PCRS else "00" * size)]} for index in indices
    ]
    spec: dict[str, Any] = {
        "freshness": {"maxAgeSeconds": 30},
        "tpm": {"pcrs": {"bank": bank, "values": values}},
    }
    if hsm:
        spec["hsm"] = {"statement": "HostAsserted"}
    return AttestationPolicySpec.model_validate(spec)


def lines(report: Report) -> dict[str, dict[str, object]]:
    return {finding.check: finding.as_dict() for finding in report.findings.children}


RESTRICTED = {
    "check": "ak attributes",
    "outcome": "Holds",
    "reason": "AkRestricted",
    "detail": "restricted signing key that cannot leave its TPM",
}
NOT_ANCHORED = {
    "check": "ak anchor",
    "outcome": "Holds",
    "reason": "AkNotAnchored",
    "detail": "nothing here says whose TPM this key is in; enrolment (credential activation) does",
}


def test_a_genuine_and_fresh_quote_is_reported_in_full() -> None:
    tpm = PaperTpm()
    report = judge_quote(case(tpm, quote={"resets": 8, "restarts": 3}))
    assert report.findings.as_dict() == {
        "check": "tpm-quote",
        "outcome": "Holds",
        "reason": "AllHold",
        "children": [
            {
                "check": "quote",
                "outcome": "Holds",
                "reason": "QuoteGenuine",
                "detail": "signed under the given key, Ecdsa-Sha256",
            },
            {"check": "freshness", "outcome": "Holds", "reason": "ExtraDataMatches", "found": EXTRA.hex()},
            {"check": "clock", "outcome": "Holds", "reason": "ClockSafe"},
            RESTRICTED,
            NOT_ANCHORED,
        ],
    }
    assert report.verdict is Verdict.TRUSTED
    assert report.subject == f"tpm-ak:{tpm.name.hex()}"
    assert report.epoch == Epoch(8, 3, 0)
    assert report.facts == {
        "algorithm": "Ecdsa-Sha256",
        "selection": {"bank": "sha256", "indices": [0, 7]},
        "clock": {"milliseconds": 123456, "safe": True},
        "epoch": {"resetCount": 8, "restartCount": 3},
        "pcrs": {"sha256": {"0": PCRS[0].hex(), "7": PCRS[7].hex()}},
        "pcrDigest": hashlib.sha256(PCRS[0] + PCRS[7]).hexdigest(),
        "extraData": EXTRA.hex(),
        "firmwareVersion": "0000000020240101",
        "akName": tpm.name.hex(),
    }
    assert report.as_dict() == {"verdict": "Trusted", "findings": report.findings.as_dict(), "facts": report.facts}


def test_a_quote_of_unknown_age_leaves_the_verdict_open() -> None:
    report = judge_quote(case(extra_data=None))
    assert report.verdict is Verdict.UNKNOWN
    assert lines(report)["freshness"] == {
        "check": "freshness",
        "outcome": "CannotTell",
        "reason": "FreshnessUnknown",
        "detail": "no expected extra data was given; the quote may be old, or somebody else's answer",
        "found": EXTRA.hex(),
    }
    attest, signature = PaperTpm().quote(b"")
    bare = judge_quote(case(attest=attest, signature=signature, extra_data=None))
    assert lines(bare)["quote"]["reason"] == "ExtraDataMismatch"


def test_a_quote_made_for_another_question_is_refuted() -> None:
    report = judge_quote(case(extra_data=b"\x00" * 32))
    assert report.verdict is Verdict.UNTRUSTED
    assert report.facts == {}
    assert (report.subject, report.epoch) == ("", Epoch(0, 0, 0))
    assert report.findings.check == "tpm-quote"
    assert lines(report)["quote"] == {
        "check": "quote",
        "outcome": "Refuted",
        "reason": "ExtraDataMismatch",
        "detail": "the quote was not made for this question",
        "expected": "00" * 32,
        "found": EXTRA.hex(),
    }


def test_a_clock_that_may_have_run_backwards_is_told() -> None:
    report = judge_quote(case(quote={"safe": 0}))
    assert lines(report)["clock"] == {
        "check": "clock",
        "outcome": "Holds",
        "reason": "ClockUnsafe",
        "detail": "the TPM was not shut down in an orderly way; its clock may have run backwards",
    }
    assert report.facts["clock"] == {"milliseconds": 123456, "safe": False}


def test_a_bare_key_says_that_its_attributes_are_unknown() -> None:
    tpm = PaperTpm()
    report = judge_quote(case(tpm, ak=tpm.key.public_key().public_bytes(PEM, SPKI)))
    assert lines(report)["ak attributes"] == {
        "check": "ak attributes",
        "outcome": "Holds",
        "reason": "AkAttributesUnknown",
        "detail": "a bare public key: whether it signs only what its TPM made cannot be seen",
    }
    assert report.subject == f"sha256:{hashlib.sha256(spki(tpm.key)).hexdigest()}"
    assert "akName" not in report.facts


def test_a_policy_is_judged_by_its_pcrs_and_says_what_it_did_not_judge() -> None:
    held = judge_quote(case(policy=policy(0, 7, hsm=True)))
    assert held.verdict is Verdict.TRUSTED
    assert [child.check for child in held.findings.children[-2].children] == ["pcr Sha256:0", "pcr Sha256:7"]
    assert lines(held)["policy"]["outcome"] == "Holds"
    assert lines(held)["hsm rules"] == {
        "check": "hsm rules",
        "outcome": "Holds",
        "reason": "OutsideOfQuote",
        "detail": "the policy's rules for the HSM are not about a quote; they were not judged",
    }
    refuted = judge_quote(case(policy=policy(7, value="00" * 32)))
    assert refuted.verdict is Verdict.UNTRUSTED
    assert "hsm rules" not in lines(refuted)


# --- which bank -------------------------------------------------------------------------------------------------


def test_the_bank_is_the_one_asked_for_then_the_policys_then_the_only_one_reported() -> None:
    both = {"Sha256": PCRS, "sha384": {0: b"\x38" * 48}}
    assert judge_quote(case(pcrs=both)).verdict is Verdict.TRUSTED  # SHA-256 by default
    assert judge_quote(case(pcrs=both, bank="SHA256")).verdict is Verdict.TRUSTED
    assert judge_quote(case(pcrs=both, policy=policy(0))).verdict is Verdict.TRUSTED
    assert judge_quote(case(pcrs={"SHA256": PCRS})).verdict is Verdict.TRUSTED
    for changed in (
        {"bank": "sha384"},
        {"policy": policy(0, bank="Sha384")},
        {"pcrs": {"sha384": both["sha384"]}},
        {"bank": "sha384", "policy": policy(0)},
    ):
        report = judge_quote(case(**{"pcrs": both} | changed))
        assert lines(report)["quote"]["reason"] == "PcrSelectionMismatch"


@pytest.mark.parametrize(("pcrs", "bank"), [({}, None), ({"sha256": {}}, "sha256"), ({"sha384": PCRS}, "sha256")])
def test_a_bank_without_values_is_missing(pcrs: dict[str, Any], bank: str | None) -> None:
    assert lines(judge_quote(case(pcrs=pcrs, bank=bank)))["quote"] == {
        "check": "quote",
        "outcome": "Refuted",
        "reason": "PcrMissing",
        "detail": "no PCR values were reported for this bank",
        "expected": "Sha256",
    }


def test_an_unknown_bank_is_refused() -> None:
    assert lines(judge_quote(case(bank="sha1")))["quote"]["reason"] == "AlgorithmRefused"


# --- the attestation result -------------------------------------------------------------------------------------


def test_a_verdict_over_a_quote_lasts_as_long_as_its_policy_says() -> None:
    spec = policy(7, 0)
    judged = case(policy=spec)
    report = judge_quote(judged)
    verdict = quote_appraisal(judged, report, issued_at=1000)
    assert (verdict.subject, verdict.verdict, verdict.findings) == (report.subject, report.verdict, report.findings)
    assert (verdict.issued_at, verdict.valid_until) == (1000, 1030)
    assert [(stamp.name, stamp.uid, stamp.generation, stamp.digest) for stamp in verdict.policies] == [
        ("", "", 0, spec.digest())
    ]
    assert verdict.compared == ("pcr Sha256:0,7",)
    assert verdict.epoch == report.epoch
    assert verdict.evidence_digest == judged.evidence_digest()


def test_a_verdict_without_a_policy_is_one_of_the_moment() -> None:
    judged = case()
    verdict = quote_appraisal(judged, judge_quote(judged), issued_at=1000)
    assert (verdict.valid_until, verdict.policies, verdict.compared) == (1000, (), ())


def test_a_quote_is_named_by_its_parts() -> None:
    judged = case()
    parts = {
        "attest": judged.attest.hex(),
        "signature": judged.signature.hex(),
        "ak": judged.ak.hex(),
        "pcrs": {"sha256": {"0": PCRS[0].hex(), "7": PCRS[7].hex()}},
    }
    assert judged.evidence_digest() == f"sha256:{hashlib.sha256(canonical_json(parts)).hexdigest()}"


def test_only_where_nothing_could_be_compared_is_a_refusal_open() -> None:
    outcomes = [refusal("chain", error("")).outcome for error in (errors.NoTrustAnchor, errors.ChainIncomplete)]
    assert outcomes == [Outcome.CANNOT_TELL, Outcome.REFUTED]


# --- certificates -----------------------------------------------------------------------------------------------

START = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
AT = int(datetime.datetime(2026, 6, 1, tzinfo=datetime.UTC).timestamp())


def name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def certificate(subject: str, public: Any, issuer: str, key: ec.EllipticCurvePrivateKey, use: str) -> x509.Certificate:
    builder = (
        x509.CertificateBuilder()
        .subject_name(name(subject))
        .issuer_name(name(issuer))
        .public_key(public)
        .serial_number(7)
        .not_valid_before(START)
        .not_valid_after(START + datetime.timedelta(days=365))
        .add_extension(x509.BasicConstraints(use == "issue", None), critical=True)
        .add_extension(
            x509.KeyUsage(
                digital_signature=use == "sign",
                content_commitment=False,
                key_encipherment=use == "encrypt",
                data_encipherment=False,
                key_agreement=False,
                key_cert_sign=use == "issue",
                crl_sign=False,
                encipher_only=False,
                decipher_only=False,
            ),
            critical=True,
        )
    )
    if use == "encrypt":
        said = ((TPM_MANUFACTURER, "id:AA"), (TPM_MODEL, "model"), (TPM_VERSION, "id:01"))
        maker = x509.Name([x509.NameAttribute(oid, value) for oid, value in said])
        builder = builder.add_extension(x509.SubjectAlternativeName([x509.DirectoryName(maker)]), critical=True)
    return builder.sign(key, hashes.SHA256())


@cache
def authority(number: int, subject: str, below: int | None = None, issuer: str = "root") -> x509.Certificate:
    key = ecc_key(alg.NIST_P256, 300 + number)
    signer = ecc_key(alg.NIST_P256, 300 + below) if below is not None else key
    return certificate(subject, key.public_key(), issuer if below is not None else subject, signer, "issue")


def pem(*certificates: x509.Certificate) -> bytes:
    return b"".join(one.public_bytes(PEM) for one in certificates)


def leaf(use: str = "encrypt", public: Any = None) -> x509.Certificate:
    return certificate("leaf", public or rsa_key(2048).public_key(), "middle", ecc_key(alg.NIST_P256, 302), use)


def test_a_certificate_that_chains_is_reported_in_full() -> None:
    root, middle, ours = authority(1, "root"), authority(2, "middle", 1), leaf()
    der = ours.public_bytes(serialization.Encoding.DER)
    for data, given in ((pem(ours), [root, middle]), (pem(ours, middle), [root])):
        report = judge_certificate(data, kind=CertificateKind.EK, given=given, at=AT)
        assert report.findings.as_dict() == {
            "check": "certificate",
            "outcome": "Holds",
            "reason": "AllHold",
            "children": [
                {
                    "check": "kind",
                    "outcome": "Holds",
                    "reason": "CertificateKindMatches",
                    "detail": "a certificate of an Ek key",
                },
                {
                    "check": "chain",
                    "outcome": "Holds",
                    "reason": "ChainHolds",
                    "detail": "CN=leaf <- CN=middle <- CN=root",
                },
                {
                    "check": "revocation",
                    "outcome": "Holds",
                    "reason": "RevocationNotChecked",
                    "detail": "this check works offline; no list was asked",
                },
            ],
        }
        assert report.facts == {
            "kind": "Ek",
            "subject": "CN=leaf",
            "chain": ["CN=leaf", "CN=middle", "CN=root"],
            "fingerprint": f"sha256:{hashlib.sha256(der).hexdigest()}",
            "spkiDigest": f"sha256:{hashlib.sha256(spki(rsa_key(2048))).hexdigest()}",
            "tpm": {"manufacturer": "id:AA", "model": "model", "version": "id:01"},
            "validUntil": int((START + datetime.timedelta(days=365)).timestamp()),
            "at": AT,
        }


def test_a_certificate_that_names_no_maker_says_so() -> None:
    given = [authority(1, "root"), authority(2, "middle", 1)]
    report = judge_certificate(pem(leaf("sign")), kind=CertificateKind.AK, given=given, at=AT)
    assert report.verdict is Verdict.TRUSTED
    assert report.facts["tpm"] is None


@pytest.mark.parametrize(
    ("given", "outcome", "reason"),
    [
        ((), "CannotTell", "NoTrustAnchor"),
        (("middle",), "CannotTell", "NoTrustAnchor"),
        (("root",), "Refuted", "ChainIncomplete"),
    ],
)
def test_a_certificate_that_does_not_chain_is_refused(given: tuple[str, ...], outcome: str, reason: str) -> None:
    known = {"root": authority(1, "root"), "middle": authority(2, "middle", 1)}
    report = judge_certificate(pem(leaf()), kind=CertificateKind.EK, given=[known[one] for one in given], at=AT)
    (finding,) = report.findings.children
    assert (report.findings.check, finding.check, finding.outcome.value, finding.reason) == (
        "certificate",
        "chain",
        outcome,
        reason,
    )
    assert report.facts == {"at": AT}


def test_a_certificate_that_came_along_must_name_the_key_that_signed() -> None:
    tpm = PaperTpm()
    report = judge_quote(case(tpm, ak_certificate=pem(leaf("sign", tpm.key.public_key()))))
    assert report.verdict is Verdict.TRUSTED
    assert lines(report)["ak certificate"] == {
        "check": "ak certificate",
        "outcome": "Holds",
        "reason": "CertificateNamesKey",
        "detail": "its chain was not judged",
    }
    other = judge_quote(case(tpm, ak_certificate=pem(leaf("sign"))))
    assert other.verdict is Verdict.UNTRUSTED
    assert lines(other)["ak certificate"] == {
        "check": "ak certificate",
        "outcome": "Refuted",
        "reason": "CertificateKeyMismatch",
        "detail": "the certificate is for another key than the one that signed",
    }
    wrong = judge_quote(case(tpm, ak_certificate=pem(leaf("encrypt", tpm.key.public_key()))))
    assert lines(wrong)["ak certificate"]["reason"] == "CertificateKindMismatch"
