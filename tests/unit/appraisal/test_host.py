"""The verdict over one round: what it is about, how long it holds, and that no part of the judgement is left out."""

from __future__ import annotations

import datetime
from dataclasses import replace
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from chatelaine.appraisal.endorsement import NONE_SHOWN
from chatelaine.appraisal.host import HostCase, appraise_host, appraise_refusal
from chatelaine.appraisal.ima_history import ImaFindings, ImaHistory
from chatelaine.evidence.ima import ImaProgress, verify_ima
from chatelaine.model.identifiers import digest_of, key_label
from chatelaine.model.material import PolicyMaterial, ReferenceValues
from chatelaine.model.policy import AttestationPolicy
from chatelaine.model.verdict import Appraisal, Epoch, Finding, Outcome, PolicyStamp, Verdict
from support.paper_host import SERVICE_KEYS, PaperHost, token_key
from support.paper_ima import GracefulFiles, PaperIma, sha256
from support.paper_tpm import PCRS, rsa_key
from support.vendors import Vendor

EVIDENCE = PaperHost().judged()
LABEL = key_label("0b9b1c52-31c8-4a51-a1a5-8d1f6a6a2f10", "signing", 1)
SOON = 1_780_000_000
EK = "sha256:" + b"ek".hex() * 16
GOOD = {"bank": "Sha256", "values": [{"index": index, "anyOf": [value.hex()]} for index, value in PCRS.items()]}
STAMP = PolicyStamp("base", "uid", 3, "sha256:" + "ab" * 32)
REFERENCE = ReferenceValues("lab", 1, "sha256:" + "cd" * 32, (), {}, frozenset(), GracefulFiles({}))
HELD = Finding("ima", Outcome.HOLDS, "AllHold", "ten entries")
REFUSED = Finding("ima", Outcome.REFUTED, "ImaFileNotAllowed", "entry 7")


def case(
    reference: ReferenceValues | None = None, *, roots: tuple[bytes, ...] = (), hsm: Any = None, **changed: Any
) -> HostCase:
    """`tpm`: more rules."""
    spec: dict[str, Any] = {"freshness": {"maxAgeSeconds": 30}, "tpm": {"pcrs": GOOD, **changed.pop("tpm", {})}}
    if hsm is not None:
        spec["hsm"] = hsm
    policy = AttestationPolicy.model_validate({"metadata": {"name": "base"}, "spec": spec})
    policy = policy.with_material(PolicyMaterial(roots, reference))
    made = HostCase("hsm-a", STAMP, policy, EK, None, 4, 1000, frozenset())
    return replace(made, **changed)


def judged(ima: ImaFindings | None = None, **changed: Any) -> Appraisal:
    return appraise_host(EVIDENCE, case(**changed), ima=ima)


def test_verdict_names_its_subject_its_policy_and_its_time() -> None:
    found = judged(reference=REFERENCE)
    assert (found.subject, found.verdict, found.policies) == ("hsm-a", Verdict.TRUSTED, (STAMP,))
    assert (found.issued_at, found.valid_until) == (1000, 1030)
    assert found.epoch == Epoch(EVIDENCE.quote.reset_count, EVIDENCE.quote.restart_count, 4)
    assert (found.evidence_digest, found.reference_digest) == (EVIDENCE.evidence_digest, REFERENCE.digest)
    assert judged().reference_digest is None
    assert "statement" in found.compared
    assert [child.check for child in found.findings.children] == ["endorsement", "appraisal"]
    assert found.findings.check == "host"


@pytest.mark.parametrize(
    ("endorsement", "certificate", "verdict", "reason"),
    [
        ({"listed": [{"ekDigest": EK}]}, None, Verdict.TRUSTED, "EndorsementListed"),
        ({"listed": [{"ekDigest": "sha256:" + "00" * 32}]}, None, Verdict.UNTRUSTED, "EndorsementNotListed"),
        ({"roots": [{"configMapRef": {"name": "a", "key": "b"}}]}, None, Verdict.UNKNOWN, "EndorsementUnknown"),
        ({"roots": [{"configMapRef": {"name": "a", "key": "b"}}]}, NONE_SHOWN, Verdict.UNTRUSTED, "CertificateAbsent"),
    ],
)
def test_tpm_that_the_policy_dropped_is_refused_with_good_pcrs(
    endorsement: dict[str, Any], certificate: bytes | None, verdict: Verdict, reason: str
) -> None:
    found = judged(tpm={"endorsement": endorsement}, ek_certificate=certificate)
    assert (found.verdict, found.findings.children[0].reason) == (verdict, reason)


def test_good_endorsement_does_not_make_up_for_a_wrong_pcr() -> None:
    wrong = {"bank": "Sha256", "values": [{"index": 0, "anyOf": ["00" * 32]}]}
    found = judged(tpm={"pcrs": wrong, "endorsement": {"listed": [{"ekDigest": EK}]}})
    assert (found.verdict, found.findings.reason) == (Verdict.UNTRUSTED, "PcrMismatch")


# --- what ran --------------------------------------------------------------------------------------------------


def with_ima(ima: ImaFindings | None = None, **changed: Any) -> tuple[Verdict, str]:
    values = [{"index": index, "anyOf": [value.hex()]} for index, value in PCRS.items()]
    found = judged(ima, tpm={"pcrs": {"bank": "Sha256", "values": values}, "ima": {}}, **changed)
    return found.verdict, found.findings.children[1].children[0].children[-1].reason


def test_what_ran_is_judged_where_nobody_has_judged_it_while_it_was_read() -> None:
    assert with_ima(ImaFindings({STAMP.digest: HELD})) == (Verdict.TRUSTED, "AllHold")
    assert with_ima(ImaFindings({STAMP.digest: REFUSED})) == (Verdict.UNTRUSTED, "ImaFileNotAllowed")
    assert with_ima(ImaFindings({})) == (Verdict.UNKNOWN, "ImaNotJudged")
    assert with_ima() == (Verdict.UNTRUSTED, "ImaListMissing")


def test_file_that_was_refused_earlier_stays_refused_in_a_round_without_a_list() -> None:
    before = ImaHistory(ImaProgress.at_start_of(EVIDENCE.quote), ImaFindings({STAMP.digest: REFUSED}))
    assert with_ima(ima_before=before) == (Verdict.UNTRUSTED, "ImaFileNotAllowed")


# --- what of the case decides ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("accounted", "verdict"),
    [(frozenset({LABEL}), Verdict.TRUSTED), (frozenset(), Verdict.UNTRUSTED), (None, Verdict.UNKNOWN)],
)
def test_key_that_the_case_does_not_account_for_is_refused(accounted: Any, verdict: Verdict) -> None:
    evidence = PaperHost(keys=(*SERVICE_KEYS, token_key(LABEL))).judged()
    found = appraise_host(evidence, case(accounted=accounted, hsm={"inventory": "Accounted"}))
    assert found.verdict is verdict


@pytest.mark.parametrize(("at", "verdict"), [(SOON, Verdict.TRUSTED), (SOON + 20 * 86400, Verdict.UNKNOWN)])
def test_vendors_certificate_is_judged_at_the_time_of_the_case(at: int, verdict: Verdict) -> None:
    key = rsa_key(2048).public_key()
    digest = digest_of(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo))
    vendor = Vendor("one", datetime.datetime.fromtimestamp(SOON - 5, datetime.UTC))
    roots = {"roots": [{"configMapRef": {"name": "a", "key": "b"}}]}
    made = case(
        roots=vendor.der, tpm={"endorsement": roots}, ek_digest=digest, issued_at=at,
        ek_certificate=vendor.certify(key, days=10),
    )  # fmt: skip
    assert appraise_host(EVIDENCE, made).verdict is verdict


@pytest.mark.parametrize(("at", "reason"), [(1999, "AllHold"), (2000, "ImaGraceEnded")])
def test_grace_is_judged_at_the_time_of_the_case(at: int, reason: str) -> None:
    paper = PaperIma.booted().ran("/good", b"good")
    quote = EVIDENCE.quote._replace(pcrs={**EVIDENCE.quote.pcrs, 10: paper.pcr10})
    progress = replace(ImaProgress.at_start_of(quote), pcr10=PaperIma.booted().pcr10, entries=1)
    listed = verify_ima(paper.data[len(PaperIma.booted().data) :], quote, progress)
    graceful = replace(REFERENCE, files=GracefulFiles({"/good": {sha256(b"good"): 2000}}))
    made = case(graceful, tpm={"ima": {}}, issued_at=at)
    found = appraise_host(replace(EVIDENCE, quote=quote, ima=listed), made)
    assert found.findings.children[1].children[0].children[-1].reason == reason


# --- refusals --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("last", "epoch"), [(None, Epoch(0, 0, 4)), (Epoch(7, 8, 1), Epoch(7, 8, 4))])
def test_refused_evidence_is_untrusted_in_the_last_known_epoch(last: Epoch | None, epoch: Epoch) -> None:
    found = appraise_refusal("SignatureInvalid", "the quote", "sha256:ef", case(REFERENCE, last_epoch=last))
    assert found.findings.as_dict() == {
        "check": "evidence",
        "outcome": "Refuted",
        "reason": "SignatureInvalid",
        "detail": "the quote",
    }
    assert (found.verdict, found.subject, found.epoch, found.compared) == (Verdict.UNTRUSTED, "hsm-a", epoch, ())
    assert (found.evidence_digest, found.reference_digest) == ("sha256:ef", REFERENCE.digest)
    assert (found.issued_at, found.valid_until, found.policies) == (1000, 1030, (STAMP,))
