"""Which TPMs a policy lets in: listed ones, those of its vendors, and nobody else."""

from __future__ import annotations

import datetime
import functools
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from chatelaine.appraisal.endorsement import NONE_SHOWN, endorsement_finding
from chatelaine.model.identifiers import digest_of
from chatelaine.model.material import PolicyMaterial
from chatelaine.model.policy import AttestationPolicy
from chatelaine.model.verdict import Finding, Outcome
from support.paper_tpm import rsa_key
from support.vendors import Vendor

OTHER = "sha256:" + "e1" * 32
ROOTS = [{"configMapRef": {"name": "vendors", "key": "all"}}]
SINCE = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
AT = int(SINCE.timestamp()) + 86400
LATER = AT + 40 * 365 * 86400
KEY = rsa_key(2048).public_key()
EK = digest_of(KEY.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo))


@functools.cache
def vendor(name: str = "one") -> Vendor:
    return Vendor(name, SINCE)


@functools.cache
def certificate() -> bytes:
    return vendor().certify(KEY)


def policy(endorsement: dict[str, Any] | None, vendors: tuple[bytes, ...] = ()) -> AttestationPolicy:
    tpm: dict[str, Any] = {"pcrs": {"bank": "Sha256", "values": [{"index": 0, "anyOf": ["00" * 32]}]}}
    if endorsement is not None:
        tpm["endorsement"] = endorsement
    body = {"metadata": {"name": "base"}, "spec": {"freshness": {"maxAgeSeconds": 30}, "tpm": tpm}}
    return AttestationPolicy.model_validate(body).with_material(PolicyMaterial(endorsement_roots=vendors))


def found(
    data: bytes | None,
    *,
    listed: str | None = None,
    vendors: tuple[bytes, ...] | None = None,
    ek: str = EK,
    at: int = AT,
) -> Finding:
    rules: dict[str, Any] = {"roots": ROOTS} | ({"listed": [{"ekDigest": listed}]} if listed else {})
    return endorsement_finding(ek, data, policy(rules, vendor().der if vendors is None else vendors), at=at)


def test_listed_endorsement_key_may_enrol() -> None:
    rules = policy({"listed": [{"ekDigest": EK}]})
    judged = endorsement_finding(EK, None, rules, at=AT)
    assert (judged.outcome, judged.reason) == (Outcome.HOLDS, "EndorsementListed")


def test_endorsement_key_that_is_not_listed_may_not_enrol() -> None:
    rules = policy({"listed": [{"ekDigest": OTHER}]}, vendor().der)
    judged = endorsement_finding(EK, certificate(), rules, at=AT)
    assert (judged.outcome, judged.reason) == (Outcome.REFUTED, "EndorsementNotListed")


def test_empty_endorsement_rule_admits_nobody() -> None:
    assert endorsement_finding(EK, certificate(), policy({}, vendor().der), at=AT).outcome is Outcome.REFUTED


def test_without_an_endorsement_rule_the_approved_identity_decides() -> None:
    judged = endorsement_finding(EK, None, policy(None), at=AT)
    assert (judged.outcome, judged.reason) == (Outcome.HOLDS, "ApprovedIdentityDecides")


def test_tpm_that_a_vendor_vouches_for_may_enrol() -> None:
    judged = found(certificate())
    assert (judged.outcome, judged.reason) == (Outcome.HOLDS, "EndorsementChains")
    assert judged.detail == "id:0001 id:0001, vouched for by CN=one root"


def test_certificate_that_does_not_name_its_maker_vouches_all_the_same() -> None:
    judged = found(vendor().certify(KEY, says_maker=False))
    assert (judged.outcome, judged.detail) == (Outcome.HOLDS, "vouched for by CN=one root")


def test_listed_tpm_needs_no_vendor() -> None:
    assert found(NONE_SHOWN, listed=EK, vendors=()).reason == "EndorsementListed"


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (NONE_SHOWN, "CertificateAbsent"),
        (Vendor("two", SINCE).certify(KEY), "ChainIncomplete"),
        (Vendor("one", SINCE).certify(KEY), "ChainIncomplete"),
        (Vendor("one", SINCE, key=vendor().key).certify(rsa_key(2048, 1).public_key()), "EndorsementKeyMismatch"),
        (vendor().certify(KEY, signs=True), "CertificateKindMismatch"),
        (b"garbage", "CertificateMalformed"),
        (bytes(2**20), "Oversized"),
    ],
    ids=["none", "another vendor's", "another vendor's of one name", "another TPM's", "an AK's", "garbage", "a MiB"],
)
def test_certificate_that_does_not_vouch_for_this_tpm_is_refused(data: bytes, reason: str) -> None:
    judged = found(data, listed=OTHER)
    assert (judged.outcome, judged.reason) == (Outcome.REFUTED, reason)
    assert EK in judged.detail


def test_activated_key_decides_and_not_the_certified_one() -> None:
    """The certificate is good; the TPM that opened the credential is another one."""
    assert found(certificate(), ek=OTHER).reason == "EndorsementKeyMismatch"


@pytest.mark.parametrize(
    ("judged", "reason"),
    [
        (lambda: found(None), "EndorsementUnknown"),
        (lambda: found(certificate(), at=LATER), "CertificateExpired"),
        (lambda: found(certificate(), at=AT - 2 * 86400), "CertificateExpired"),
        (lambda: found(certificate(), vendors=()), "NoTrustAnchor"),
    ],
    ids=["not asked for", "expired", "not yet valid", "no vendors"],
)
def test_what_cannot_be_told_lets_nobody_in_and_refutes_nobody(judged: Any, reason: str) -> None:
    assert (judged().outcome, judged().reason) == (Outcome.CANNOT_TELL, reason)


MANY = ["sha256:" + f"{number:064x}" for number in range(9)]


@pytest.mark.parametrize(
    ("judged", "reason", "expected", "found_"),
    [
        (lambda: endorsement_finding(EK, None, policy(None), at=AT), "ApprovedIdentityDecides", None, EK),
        (lambda: found(None, listed=EK), "EndorsementListed", None, EK),
        (lambda: endorsement_finding(EK, None, policy({}), at=AT), "EndorsementNotListed", "none", EK),
        (lambda: endorsement_finding(EK, None, policy({"listed": [{"ekDigest": one} for one in MANY]}), at=AT),
         "EndorsementNotListed", ", ".join(MANY[:8]), EK),
        (lambda: found(None), "EndorsementUnknown", None, EK),
        (lambda: found(certificate()), "EndorsementChains", None, EK),
        (lambda: found(certificate(), ek=OTHER), "EndorsementKeyMismatch", OTHER, OTHER),
        (lambda: found(NONE_SHOWN), "CertificateAbsent", "", EK),
    ],
    ids=["approved", "listed", "not listed", "not of many", "none shown", "chains", "another key", "no certificate"],
)  # fmt: skip
def test_each_answer_tells_what_was_expected_and_found(
    judged: Any, reason: str, expected: str | None, found_: str
) -> None:
    finding = judged()
    assert (finding.check, finding.reason) == ("endorsement", reason)
    assert (finding.expected, finding.found) == (expected, found_)
    assert finding.outcome is Outcome.HOLDS or found_ in finding.detail


def test_one_of_several_listed_keys_is_enough() -> None:
    rules = policy({"listed": [{"ekDigest": OTHER}, {"ekDigest": EK}]})
    assert endorsement_finding(EK, None, rules, at=AT).reason == "EndorsementListed"
