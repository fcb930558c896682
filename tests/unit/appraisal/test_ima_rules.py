"""What ran, judged: each way to slip a file past the policy, seen to be refused."""

from __future__ import annotations

import dataclasses
import hashlib

import pytest
from tools.lab import ima as lab

from chatelaine.appraisal import ima_rules
from chatelaine.appraisal.ima_rules import MAX_NAMED_FILES, MAX_SHOWN_CHARACTERS, ima_rule
from chatelaine.evidence import tpm_algorithms as alg
from chatelaine.evidence.ima import VerifiedIma, verify_ima
from chatelaine.evidence.tpm_quote import VerifiedQuote
from chatelaine.evidence.tpm_types import Selection
from chatelaine.model.tpm_policy import Bank, ImaRules
from chatelaine.model.verdict import Finding, Outcome
from support.paper_ima import AGGREGATE, GracefulFiles, PaperIma, file_signature, pem, plain, sha256
from support.paper_tpm import ecc_key

AT = 1_780_000_000
BASH, EVIL = b"bash 5.2", b"something nobody approved"
BASH_ALLOWED = {"allow": [{"path": "/usr/bin/bash", "digests": [sha256(BASH)]}]}
KEY, OTHER_KEY = ecc_key(alg.NIST_P256, 210), ecc_key(alg.NIST_P256, 211)
BOOT_PCRS = dict.fromkeys(range(10), bytes(32))
BROKEN_KEY = "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----"


def quote_of(paper: PaperIma, pcrs=BOOT_PCRS, bank: Bank = Bank.SHA256) -> VerifiedQuote:
    values = {**pcrs, 10: paper.pcrs[bank]}
    return VerifiedQuote("Ecdsa-Sha256", Selection(bank, tuple(values)), values, b"", b"", b"", 0, 5, 1, True, 0)


def judged(paper: PaperIma, files=None, *, at: int = AT, pcrs=BOOT_PCRS, bank=Bank.SHA256, **rules) -> Finding:
    quote = quote_of(paper, pcrs, bank)
    rule = ima_rule(ImaRules.model_validate(rules or BASH_ALLOWED), files, at=at)
    return rule.judge_ima(verify_ima(paper.data, quote), quote)


def reasons(finding: Finding) -> list[str]:
    """Of what does not hold."""
    return [leaf.reason for leaf in finding.leaves() if leaf.outcome is not Outcome.HOLDS]


def child(finding: Finding, check: str) -> Finding:
    return next(part for part in finding.children if part.check == check)


# --- lists ------------------------------------------------------------------------------------------------------


def test_list_of_known_files_holds():
    finding = judged(PaperIma.booted().ran("/usr/bin/bash", BASH))
    assert finding.outcome is Outcome.HOLDS
    assert child(finding, "boot aggregate").reason == "BootAggregateMatches"
    assert child(finding, "files").detail == "2 new entries from entry 0 on"


def test_file_with_another_content_is_refused_and_named_with_what_was_expected():
    finding = judged(PaperIma.booted().ran("/usr/bin/bash", EVIL))
    assert reasons(finding) == ["ImaFileNotAllowed"]
    leaf = finding.first(Outcome.REFUTED)
    assert (leaf.check, leaf.expected, leaf.found) == ("file /usr/bin/bash", sha256(BASH), sha256(EVIL))
    assert "entry 1" in leaf.detail
    assert "list it in the reference values" in leaf.detail


def test_known_content_under_another_path_is_refused():
    assert reasons(judged(PaperIma.booted().ran("/tmp/bash", BASH))) == ["ImaFileNotAllowed"]


def test_an_empty_allow_list_allows_nothing():
    assert reasons(judged(PaperIma.booted().ran("/usr/bin/bash", BASH), violations="Record")) == ["ImaFileNotAllowed"]


def test_file_of_the_reference_values_is_good_as_well():
    files = GracefulFiles({"/usr/bin/new": {sha256(EVIL): None}})
    paper = PaperIma.booted().ran("/usr/bin/bash", BASH).ran("/usr/bin/new", EVIL)
    assert reasons(judged(paper)) == ["ImaFileNotAllowed"]
    assert judged(paper, files, **BASH_ALLOWED).outcome is Outcome.HOLDS


def test_content_whose_grace_has_ended_is_refused():
    files = GracefulFiles({"/usr/bin/bash": {sha256(BASH): AT, sha256(b"bash 5.3"): None}})
    old, new = PaperIma.booted().ran("/usr/bin/bash", BASH), PaperIma.booted().ran("/usr/bin/bash", b"bash 5.3")
    rules = {"violations": "Refuse"}
    assert judged(old, files, at=AT - 1, **rules).outcome is Outcome.HOLDS
    assert reasons(judged(old, files, at=AT, **rules)) == ["ImaGraceEnded"]
    assert judged(new, files, at=AT, **rules).outcome is Outcome.HOLDS


def test_weak_digest_is_refused_even_if_some_list_has_it():
    digest = hashlib.sha1(BASH).digest()
    files = GracefulFiles({"/bin/sh": {f"sha1:{digest.hex()}": None}})
    paper = PaperIma.booted().add("ima-ng", lab.digest_field("sha1", digest) + lab.path_field("/bin/sh"))
    assert reasons(judged(paper, files)) == ["ImaWeakDigest"]
    old = PaperIma.booted().add("ima", lab.old_data(digest, "/bin/sh"))
    assert reasons(judged(old, files)) == ["ImaWeakDigest"]


def test_fs_verity_digest_is_not_taken_for_the_file_s():
    data = lab.digest_field("verity:sha256", hashlib.sha256(BASH).digest()) + lab.path_field("/usr/bin/bash")
    assert reasons(judged(PaperIma.booted().add("ima-ngv2", data))) == ["ImaVerityDigest"]


def test_buffer_is_refused_unless_it_is_listed():
    paper = PaperIma.booted().add("ima-buf", plain("kexec-cmdline", b"root=/dev/sda") + lab.field(b"root=/dev/sda"))
    finding = judged(paper)
    assert reasons(finding) == ["ImaFileNotAllowed"]
    assert finding.first(Outcome.REFUTED).check == "buffer kexec-cmdline"
    files = GracefulFiles({"kexec-cmdline": {sha256(b"root=/dev/sda"): None}})
    assert judged(paper, files).outcome is Outcome.HOLDS


def test_unreadable_entry_and_unknown_template_are_refused_not_skipped():
    data = plain("/usr/bin/bash", BASH)
    paper = PaperIma.booted()
    for template in ("evm-sig", "ima-sig"):
        paper.add(template, data)
    assert reasons(judged(paper)) == ["ImaEntryUnreadable"]
    assert "entry 1" in judged(paper).first(Outcome.REFUTED).detail


def test_template_name_that_lies_does_not_make_a_refused_file_good():
    key = {"signingKeys": [pem(KEY)]}
    for true, third in (("ima-sig", file_signature(OTHER_KEY, EVIL)), ("ima-buf", EVIL)):
        data = plain("/usr/bin/bash", EVIL) + lab.field(third)
        paper = PaperIma.booted().add(true, data)
        for claimed in ("ima", "ima-ng", "ima-sig", "ima-buf", "ima-ngv2", "ima-sigv2", "other"):
            paper.data = PaperIma.booted().data + lab.record(claimed, data) if claimed != "ima" else paper.data
            assert judged(paper, **BASH_ALLOWED, **key).outcome is Outcome.REFUTED


# --- bounds -----------------------------------------------------------------------------------------------------


def test_findings_stay_bounded_however_many_files_offend():
    paper = PaperIma.booted()
    for number in range(40):
        paper.ran(f"/tmp/{number}/" + "x" * 3000, EVIL)
    files = child(judged(paper), "files")
    assert len(files.children) == MAX_NAMED_FILES
    assert "24 entries more" in files.detail
    assert max(len(leaf.check) for leaf in files.children) < MAX_SHOWN_CHARACTERS + 10
    assert len(str(files.as_dict())) < 16 * 1024


def test_one_file_measured_again_and_again_is_named_once():
    paper = PaperIma.booted()
    for number in range(5):
        paper.add("ima-sig", plain("/tmp/evil", EVIL) + lab.field(b"%d" % number))
    files = child(judged(paper.ran("/tmp/other", EVIL)), "files")
    assert [leaf.check for leaf in files.children] == ["file /tmp/evil", "file /tmp/other"]
    assert "4 entries more" in files.detail


def test_hostile_path_is_shown_without_its_control_characters():
    leaf = judged(PaperIma.booted().ran(b"/tmp/\x1b[31m\n\xff", EVIL)).first(Outcome.REFUTED)
    assert leaf.check == "file /tmp/?[31m??"
    assert leaf.detail.isprintable()


def test_many_bad_signatures_are_not_all_tried(monkeypatch):
    monkeypatch.setattr(ima_rules, "MAX_FAILED_SIGNATURES", 3)
    tried = []
    real = ima_rules.verify_file_signature
    monkeypatch.setattr(ima_rules, "verify_file_signature", lambda *a: tried.append(a) or real(*a))
    paper = PaperIma.booted()
    for number in range(6):
        paper.ran(f"/tmp/{number}", EVIL, file_signature(OTHER_KEY, EVIL))
    assert judged(paper, signingKeys=[pem(KEY)]).outcome is Outcome.REFUTED
    assert len(tried) == 3


# --- signatures -------------------------------------------------------------------------------------------------


def test_file_that_a_named_key_signed_is_good():
    paper = PaperIma.booted().ran("/usr/bin/signed", EVIL, file_signature(KEY, EVIL))
    assert judged(paper, signingKeys=[pem(OTHER_KEY), pem(KEY)]).outcome is Outcome.HOLDS
    assert reasons(judged(paper)) == ["ImaFileNotAllowed"]


def test_file_that_another_key_signed_is_refused():
    paper = PaperIma.booted().ran("/usr/bin/signed", EVIL, file_signature(OTHER_KEY, EVIL))
    assert reasons(judged(paper, signingKeys=[pem(KEY)])) == ["FileSignatureInvalid"]


def test_signature_of_another_file_is_refused():
    paper = PaperIma.booted().ran("/usr/bin/signed", EVIL, file_signature(KEY, BASH))
    assert reasons(judged(paper, signingKeys=[pem(KEY)])) == ["FileSignatureInvalid"]


def test_evm_portable_signature_is_refused_with_its_kind():
    paper = PaperIma.booted().ran("/usr/bin/signed", EVIL, file_signature(KEY, EVIL, kind=5))
    assert reasons(judged(paper, signingKeys=[pem(KEY)])) == ["FileSignatureRefused"]


def test_signed_weak_digest_is_refused():
    data = lab.digest_field("sha1", hashlib.sha1(EVIL).digest()) + lab.path_field("/bin/sh")
    paper = PaperIma.booted().add("ima-sig", data + lab.field(file_signature(KEY, EVIL, hash_id=2)))
    assert reasons(judged(paper, signingKeys=[pem(KEY)])) == ["ImaWeakDigest"]


def test_key_of_the_policy_that_cannot_be_used_refutes_nobody_who_may_rest_on_it():
    signed = PaperIma.booted().ran("/usr/bin/signed", EVIL, file_signature(OTHER_KEY, EVIL))
    finding = judged(signed, signingKeys=[pem(KEY), BROKEN_KEY])
    assert (finding.outcome, reasons(finding)) == (Outcome.CANNOT_TELL, ["ImaSigningKeyUnusable"])
    assert "signing key 2" in finding.first(Outcome.CANNOT_TELL).detail
    assert reasons(judged(signed.ran("/tmp/evil", EVIL), signingKeys=[BROKEN_KEY])) == ["ImaFileNotAllowed"]
    good = PaperIma.booted().ran("/usr/bin/bash", BASH)
    assert judged(good, signingKeys=[BROKEN_KEY], **BASH_ALLOWED).outcome is Outcome.HOLDS


# --- paths that are not judged ----------------------------------------------------------------------------------


def test_path_is_left_unjudged_only_where_the_policy_says_so():
    paper = PaperIma.booted().ran("/var/log/app.log", EVIL)
    assert judged(paper, unjudgedPaths=["/var/log/*"]).outcome is Outcome.HOLDS
    assert reasons(judged(paper, unjudgedPaths=["/var/cache/**"])) == ["ImaFileNotAllowed"]
    assert reasons(judged(paper)) == ["ImaFileNotAllowed"]


def test_unjudged_path_excuses_no_unreadable_entry():
    data = lab.digest_field("sm3", bytes(32)) + lab.path_field("/var/log/x")
    assert reasons(judged(PaperIma.booted().add("ima-ng", data), unjudgedPaths=["**"])) == ["ImaEntryUnreadable"]


# --- violations -------------------------------------------------------------------------------------------------


def test_violation_is_refused_unless_the_policy_records_it():
    paper = PaperIma.booted().violated("/var/log/wtmp")
    assert reasons(judged(paper)) == ["ImaViolation"]
    recorded = judged(paper, violations="Record")
    assert recorded.outcome is Outcome.HOLDS
    assert "1 violation" in child(recorded, "violations").detail


def test_violation_is_not_excused_by_the_path_that_it_claims():
    paper = PaperIma.booted().violated("/usr/bin/bash")
    files = GracefulFiles({"/usr/bin/bash": {f"sha256:{'00' * 32}": None}})
    assert reasons(judged(paper, files, unjudgedPaths=["**"])) == ["ImaViolation"]


def test_violation_that_poses_as_the_boot_aggregate_is_refused():
    assert set(reasons(judged(PaperIma().violated("boot_aggregate")))) == {"ImaViolation", "BootAggregateMissing"}


# --- the boot aggregate, and what PCR 10 does not cover -----------------------------------------------------------


def test_host_without_ima_is_refused():
    finding = judged(PaperIma())
    assert reasons(finding) == ["ImaNothingMeasured"]
    assert "ima_policy" in finding.first(Outcome.REFUTED).detail


def test_list_that_does_not_begin_with_a_boot_is_refused():
    assert reasons(judged(PaperIma().ran("/usr/bin/bash", BASH))) == ["BootAggregateMissing"]


def test_list_of_another_boot_is_refused():
    finding = judged(PaperIma.booted(), pcrs={**BOOT_PCRS, 4: b"\x01" * 32})
    assert reasons(finding) == ["BootAggregateMismatch"]


@pytest.mark.parametrize("index", range(10))
def test_boot_aggregate_is_judged_only_when_all_its_pcrs_were_quoted(index):
    pcrs = {number: value for number, value in BOOT_PCRS.items() if number != index}
    finding = judged(PaperIma.booted(), pcrs=pcrs)
    assert finding.outcome is Outcome.HOLDS
    assert child(finding, "boot aggregate").reason == "BootAggregateNotJudged"


def test_boot_aggregate_of_another_bank_is_said_not_to_be_judged():
    finding = judged(PaperIma.booted(), pcrs=dict.fromkeys(range(10), bytes(48)), bank=Bank.SHA384)
    assert child(finding, "boot aggregate").reason == "BootAggregateNotJudged"
    assert finding.outcome is Outcome.HOLDS


def test_file_named_like_the_boot_aggregate_is_refused():
    assert reasons(judged(PaperIma.booted().ran("boot_aggregate", EVIL))) == ["ImaFileNotAllowed"]
    assert reasons(judged(PaperIma.booted().ran("boot_aggregate", EVIL), pcrs={})) == ["ImaFileNotAllowed"]


def test_boot_aggregate_after_a_kexec_is_judged_like_the_first():
    again = PaperIma.booted().data[: len(PaperIma.booted().data)]
    paper = PaperIma.booted().ran("/usr/bin/bash", BASH)
    aggregate = again[again.index(b"ima-ng") + 10 :]
    paper.add("ima-ng", aggregate)
    assert judged(paper).outcome is Outcome.HOLDS


def test_entry_of_another_pcr_leaves_the_host_undecided():
    finding = judged(PaperIma.booted().add("ima-ng", plain("/usr/bin/bash", BASH), pcr=11).ran("/usr/bin/bash", BASH))
    assert (finding.outcome, reasons(finding)) == (Outcome.CANNOT_TELL, ["ImaOtherPcr"])


@pytest.mark.parametrize("violation", [False, True])
def test_bad_entry_of_another_pcr_refutes_nobody(violation):
    paper = PaperIma.booted().add("ima-ng", plain("/tmp/evil", EVIL), pcr=11, violation=violation)
    finding = judged(paper.ran("/usr/bin/bash", BASH))
    assert (finding.outcome, reasons(finding)) == (Outcome.CANNOT_TELL, ["ImaOtherPcr"])


def test_boot_aggregate_of_another_pcr_begins_no_list():
    aggregate = lab.digest_field("sha256", AGGREGATE) + lab.path_field("boot_aggregate")
    paper = PaperIma().add("ima-ng", aggregate, pcr=11).ran("/usr/bin/bash", BASH)
    assert set(reasons(judged(paper))) == {"BootAggregateMissing", "ImaOtherPcr"}


# --- increments and the whole -------------------------------------------------------------------------------------


def test_increment_is_judged_by_itself():
    paper = PaperIma.booted().ran("/usr/bin/bash", BASH)
    first = verify_ima(paper.data, quote_of(paper))
    rule = ima_rule(ImaRules.model_validate(BASH_ALLOWED), None, at=AT)
    nothing_new = verify_ima(b"", quote_of(paper), first.progress)
    assert rule.judge_ima(nothing_new, quote_of(paper)).outcome is Outcome.HOLDS
    paper.ran("/tmp/evil", EVIL)
    second = verify_ima(paper.data[first.progress.offset_bytes :], quote_of(paper), first.progress)
    assert reasons(rule.judge_ima(second, quote_of(paper))) == ["ImaFileNotAllowed"]


def test_host_that_sends_no_list_is_refused_by_a_policy_that_judges_it():
    evidence = dataclasses.make_dataclass("Evidence", ["ima", "quote"])
    rule = ima_rule(ImaRules.model_validate(BASH_ALLOWED), None, at=AT)
    paper = PaperIma.booted().ran("/usr/bin/bash", BASH)
    assert rule.judge(evidence(None, quote_of(paper))).reason == "ImaListMissing"
    found: VerifiedIma = verify_ima(paper.data, quote_of(paper))
    assert rule.judge(evidence(found, quote_of(paper))).outcome is Outcome.HOLDS
