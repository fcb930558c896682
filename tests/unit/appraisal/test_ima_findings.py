"""What the rule over IMA's list tells: every check of it, with reason, expected and found; and its bounds."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import Any

import pytest
from tools.lab import ima as lab

from chatelaine.appraisal import ima_rules
from chatelaine.appraisal.ima_rules import MAX_NAMED_FILES, ImaRule, ListedFiles, by_time_alone, ima_rule
from chatelaine.evidence import tpm_algorithms as alg
from chatelaine.evidence.ima import verify_ima
from chatelaine.evidence.tpm_quote import VerifiedQuote
from chatelaine.evidence.tpm_types import Selection
from chatelaine.model.tpm_policy import Bank, ImaRules, Violations
from chatelaine.model.verdict import Finding, Outcome
from support.paper_host import PaperHost
from support.paper_ima import AGGREGATE, GracefulFiles, PaperIma, file_signature, pem, plain, sha256
from support.paper_tpm import ecc_key

AT = 1000
GOOD, EVIL = b"good", b"evil"
FILES = GracefulFiles({"/good": {sha256(GOOD): None, sha256(b"old"): AT, sha256(b"soon"): AT + 1}})
ZERO = dict.fromkeys(range(10), bytes(32))
KEY, STRANGER = ecc_key(alg.NIST_P256, 210), ecc_key(alg.NIST_P256, 211)
BROKEN_KEY = "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----"
MATCHES = f"sha256:{AGGREGATE.hex()}"


def booted() -> PaperIma:
    return PaperIma.booted()


def rule(at: int = AT, files: GracefulFiles | None = FILES, **words: Any) -> ImaRule:
    return ima_rule(ImaRules.model_validate(words), files, at=at)


def quote_of(paper: PaperIma, pcrs: dict[int, bytes]) -> VerifiedQuote:
    values = {**pcrs, 10: paper.pcr10}
    selection = Selection(Bank.SHA256, tuple(values))
    return VerifiedQuote("Ecdsa-Sha256", selection, values, b"", b"", b"", 0, 5, 1, True, 0)


def judged(paper: PaperIma, pcrs: dict[int, bytes] | None = None, **words: Any) -> Finding:
    quote = quote_of(paper, ZERO if pcrs is None else pcrs)
    return rule(**words).judge_ima(verify_ima(paper.data, quote), quote)


def told(finding: Finding) -> list[tuple[Any, ...]]:
    return [(leaf.check, leaf.outcome, leaf.reason, leaf.expected, leaf.found) for leaf in finding.leaves()]


AGGREGATE_HOLDS = ("boot aggregate", Outcome.HOLDS, "BootAggregateMatches", MATCHES, MATCHES)
NO_VIOLATIONS = ("violations", Outcome.HOLDS, "ImaNoViolations", None, None)
FILES_HOLD = ("files", Outcome.HOLDS, "ImaFilesAllowed", None, None)


def refused(check: str, reason: str, content: bytes = EVIL) -> tuple[Any, ...]:
    return check, Outcome.REFUTED, reason, None, sha256(content)


@pytest.mark.parametrize(
    ("paper", "said"),
    [
        (booted().ran("/good", GOOD), [AGGREGATE_HOLDS, NO_VIOLATIONS, FILES_HOLD]),
        (booted().ran("/bad", EVIL), [AGGREGATE_HOLDS, NO_VIOLATIONS, refused("file /bad", "ImaFileNotAllowed")]),
        (booted().ran("/good", b"old"),
         [AGGREGATE_HOLDS, NO_VIOLATIONS, refused("file /good", "ImaGraceEnded", b"old")]),
        (booted().ran("/good", b"soon"), [AGGREGATE_HOLDS, NO_VIOLATIONS, FILES_HOLD]),
        (booted().ran("", EVIL), [AGGREGATE_HOLDS, NO_VIOLATIONS, refused("file entry 1", "ImaEntryUnreadable")]),
        (booted().add("ima-buf", plain("b", EVIL) + lab.field(EVIL)),
         [AGGREGATE_HOLDS, NO_VIOLATIONS, refused("buffer b", "ImaFileNotAllowed")]),
        (booted().violated("/v").violated("/w"),
         [AGGREGATE_HOLDS, ("violations", Outcome.REFUTED, "ImaViolation", "none", "2"), FILES_HOLD]),
        (booted().add("ima-ng", plain("/good", GOOD), pcr=11).ran("/good", GOOD),
         [AGGREGATE_HOLDS, NO_VIOLATIONS, FILES_HOLD, ("other PCRs", Outcome.CANNOT_TELL, "ImaOtherPcr", None, None)]),
    ],
)  # fmt: skip
def test_each_check_tells_what_it_expected_and_found(paper: PaperIma, said: list[tuple[Any, ...]]) -> None:
    finding = judged(paper)
    assert finding.check == "ima"
    assert told(finding) == said


@pytest.mark.parametrize(
    ("paper", "pcrs", "said"),
    [
        (PaperIma(), ZERO, ("boot aggregate", Outcome.REFUTED, "ImaNothingMeasured", None, None)),
        (PaperIma().ran("/good", GOOD), ZERO, ("boot aggregate", Outcome.REFUTED, "BootAggregateMissing", None, None)),
        (booted(), {}, ("boot aggregate", Outcome.HOLDS, "BootAggregateNotJudged", None, MATCHES)),
        (booted(), ZERO | {9: b"\1" * 32},
         ("boot aggregate", Outcome.REFUTED, "BootAggregateMismatch",
          sha256(bytes(288) + b"\1" * 32), MATCHES)),
    ],
)  # fmt: skip
def test_boot_aggregate_is_told_with_what_the_quoted_pcrs_make(
    paper: PaperIma, pcrs: dict[int, bytes], said: tuple[Any, ...]
) -> None:
    assert told(judged(paper, pcrs))[0] == said


@pytest.mark.parametrize(
    ("paper", "pcrs", "said"),
    [
        (PaperIma().ran("/good", GOOD), ZERO, "but with /good"),
        (PaperIma().ran("", GOOD), ZERO, "but with something unreadable"),
        (booted(), {}, "name them all in the policy"),
        (booted(), ZERO | {9: b"\1" * 32}, "begins with another boot"),
    ],
)
def test_boot_aggregate_that_does_not_match_is_told_with_its_reason(
    paper: PaperIma, pcrs: dict[int, bytes], said: str
) -> None:
    assert said in judged(paper, pcrs).children[0].detail


def test_what_is_listed_for_a_path_is_told_two_at_most() -> None:
    digests = [f"sha256:{number:064x}" for number in (3, 1, 2)]
    for count, expected in (
        (1, digests[0]),
        (2, f"{digests[1]} or {digests[0]}"),
        (3, f"{digests[1]} or {digests[2]}"),
    ):
        allow = [{"path": "/bad", "digests": digests[:count]}, {"path": "/other", "digests": digests[:1]}]
        leaf = judged(booted().ran("/bad", EVIL), allow=allow).first(Outcome.REFUTED)
        assert leaf is not None
        assert leaf.expected == expected


def test_entry_without_a_digest_is_told_without_one() -> None:
    leaf = judged(booted().add("unknown", plain("/x", EVIL))).first(Outcome.REFUTED)
    assert leaf is not None
    assert (leaf.reason, leaf.found) == ("ImaEntryUnreadable", None)


@pytest.mark.parametrize(("offending", "rest"), [(16, None), (17, "1 entry more"), (18, "2 entries more")])
def test_offending_files_are_named_up_to_a_bound_and_the_rest_counted(offending: int, rest: str | None) -> None:
    paper = booted()
    for number in range(offending):
        paper.ran(f"/bad/{number}", EVIL)
    files = judged(paper).children[2]
    assert [leaf.check for leaf in files.children] == [f"file /bad/{number}" for number in range(MAX_NAMED_FILES)]
    more = f" (and {rest} than are named)" if rest else ""
    assert files.detail == files.children[0].detail + more


def test_what_is_refused_for_good_is_named_before_what_time_refused() -> None:
    paper = booted().ran("/good", b"old").ran("/bad", EVIL)
    files = judged(paper).children[2]
    assert [leaf.reason for leaf in files.children] == ["ImaFileNotAllowed", "ImaGraceEnded"]
    assert files.reason == "ImaFileNotAllowed"
    assert not by_time_alone(files)
    assert by_time_alone(judged(booted().ran("/good", b"old")))
    assert not by_time_alone(judged(booted().ran("/good", GOOD)))


def test_content_under_two_paths_and_two_contents_of_one_path_are_each_named() -> None:
    paper = booted().ran("/a", EVIL).ran("/b", EVIL).ran("/a", b"worse").ran("/a", EVIL)
    files = judged(paper).children[2]
    assert [(leaf.check, leaf.found) for leaf in files.children] == [
        ("file /a", sha256(EVIL)),
        ("file /b", sha256(EVIL)),
        ("file /a", sha256(b"worse")),
    ]


def test_boot_aggregate_that_cannot_be_read_begins_no_list() -> None:
    paper = PaperIma().add("ima-ng", lab.digest_field("sm3", bytes(32)) + lab.path_field("boot_aggregate"))
    assert {reason for _, _, reason, _, _ in told(judged(paper))} >= {"BootAggregateMissing", "ImaEntryUnreadable"}


def test_list_of_evidence_is_held_against_the_boot_that_was_quoted() -> None:
    paper, evidence = booted().ran("/good", GOOD), PaperHost().judged()
    for pcrs, outcome in ((ZERO, Outcome.HOLDS), (ZERO | {4: b"\1" * 32}, Outcome.REFUTED)):
        quote = quote_of(paper, pcrs)
        shown = replace(evidence, quote=quote, ima=verify_ima(paper.data, quote))
        assert rule().judge(shown).outcome is outcome


# --- what counts as good ---------------------------------------------------------------------------------------


def test_entries_after_a_refused_one_are_judged_too() -> None:
    paper = booted().ran("/bad", EVIL).ran("/good", GOOD).violated("/v")
    paper.add("ima-ng", plain("/good", GOOD), pcr=11).ran("/worse", EVIL)
    assert [leaf.check for leaf in judged(paper).children[2].children] == ["file /bad", "file /worse"]


def test_own_list_and_that_of_the_reference_values_count_both_and_neither_for_another_path() -> None:
    allow = [{"path": "/own", "digests": [sha256(EVIL)]}]
    assert judged(booted().ran("/own", EVIL).ran("/good", GOOD), allow=allow).outcome is Outcome.HOLDS
    for path, content in (("/own", GOOD), ("/good", EVIL)):
        assert judged(booted().ran(path, content), allow=allow).outcome is Outcome.REFUTED
    assert judged(booted().ran("/good", GOOD), files=None).outcome is Outcome.REFUTED


def test_second_boot_aggregate_must_be_that_of_the_quoted_boot() -> None:
    """After a kexec. An entry of that name is no excuse for any other content."""
    again = lab.digest_field("sha256", AGGREGATE) + lab.path_field("boot_aggregate")
    other = lab.digest_field("sha256", bytes(32)) + lab.path_field("boot_aggregate")
    assert judged(booted().add("ima-ng", again)).outcome is Outcome.HOLDS
    assert judged(booted().add("ima-ng", other)).outcome is Outcome.REFUTED
    assert judged(booted().add("ima-ng", again), {}).outcome is Outcome.REFUTED


def test_one_of_several_globs_is_enough() -> None:
    paths = ["/var/log/**", "/tmp/*"]
    for path, outcome in (("/tmp/x", Outcome.HOLDS), ("/var/log/a/b", Outcome.HOLDS), ("/tmp/x/y", Outcome.REFUTED)):
        assert judged(booted().ran(path, EVIL), unjudgedPaths=paths).outcome is outcome


def test_unlisted_digest_of_each_strong_hash_is_good_only_where_it_is_listed() -> None:
    for name in ("sha256", "sha384", "sha512"):
        digest = hashlib.new(name, GOOD)
        paper = booted().add("ima-ng", lab.digest_field(name, digest.digest()) + lab.path_field("/x"))
        files = GracefulFiles({"/x": {f"{name}:{digest.hexdigest()}": None}})
        assert judged(paper, files=files).outcome is Outcome.HOLDS
        assert judged(paper).reason == "ImaFileNotAllowed"


def test_grace_that_ended_for_a_signed_file_is_told_as_such_unless_its_signature_holds() -> None:
    for signer, outcome in ((KEY, Outcome.HOLDS), (STRANGER, Outcome.REFUTED)):
        paper = booted().ran("/good", b"old", file_signature(signer, b"old"))
        finding = judged(paper, signingKeys=[pem(KEY)])
        assert finding.outcome is outcome
        assert finding.reason == ("AllHold" if outcome is Outcome.HOLDS else "ImaGraceEnded")


@pytest.mark.parametrize(("failing", "good"), [(2, True), (3, False)])
def test_signatures_are_tried_until_too_many_have_failed(
    monkeypatch: pytest.MonkeyPatch, failing: int, good: bool
) -> None:
    monkeypatch.setattr(ima_rules, "MAX_FAILED_SIGNATURES", 3)
    paper = booted().ran("/unsigned", EVIL)
    for number in range(failing):
        paper.ran(f"/bad/{number}", EVIL, file_signature(STRANGER, EVIL))
    paper.ran("/signed", EVIL, file_signature(KEY, EVIL))
    named = {leaf.check: leaf.reason for leaf in judged(paper, signingKeys=[pem(KEY)]).children[2].children}
    assert named.get("file /signed") == (None if good else "ImaFileNotAllowed")


def test_signature_without_any_key_of_the_policy_is_none() -> None:
    finding = judged(booted().ran("/x", EVIL, file_signature(KEY, EVIL)))
    assert (finding.outcome, finding.reason) == (Outcome.REFUTED, "ImaFileNotAllowed")
    assert "no usable signing key" in finding.detail


def test_unusable_key_leaves_open_only_what_is_signed() -> None:
    keys = [pem(KEY), BROKEN_KEY, BROKEN_KEY]
    signed = booted().ran("/a", EVIL, file_signature(STRANGER, EVIL)).ran("/b", EVIL, file_signature(STRANGER, EVIL))
    finding = judged(signed, signingKeys=keys)
    assert (finding.outcome, finding.reason) == (Outcome.CANNOT_TELL, "ImaSigningKeyUnusable")
    assert finding.children[2].check == "files"
    assert finding.detail.startswith("signing key 2 of the policy cannot be used (")
    assert "2 signed files" in finding.detail
    assert judged(signed, signingKeys=keys[:1]).reason == "FileSignatureInvalid"
    mixed = judged(signed.ran("/c", EVIL), signingKeys=keys).children[2]
    assert [leaf.check for leaf in mixed.children] == ["file /c"]
    assert [found.partition(" of the policy")[0] for found in rule(signingKeys=keys).unusable] == [
        "signing key 2",
        "signing key 3",
    ]


# --- violations ------------------------------------------------------------------------------------------------


def test_violations_are_counted_and_the_first_is_named() -> None:
    paper = booted().ran("/good", GOOD).violated("/v").violated("/w")
    for words, outcome in (({}, Outcome.REFUTED), ({"violations": "Record"}, Outcome.HOLDS)):
        finding = judged(paper, **words).children[1]
        assert (finding.check, finding.outcome) == ("violations", outcome)
        assert "2 violations: " in finding.detail
        assert "the first is entry 2, said to be /v" in finding.detail
    assert rule().violations is Violations.REFUSE
    assert judged(booted().violated("/v"), violations="Record").children[1].reason == "ImaViolationsRecorded"


def test_entries_of_another_pcr_are_counted_and_the_first_is_named() -> None:
    paper = booted().add("ima-ng", plain("/a", EVIL), pcr=11).add("ima-ng", plain("/b", EVIL), pcr=12, violation=True)
    finding = judged(paper.ran("/good", GOOD)).children[3]
    assert "2 entries (the first is 1) were measured into another PCR, as PCR 11" in finding.detail


# --- graces ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("since", "at", "ended"), [(999, 1000, True), (1000, 1000, False), (1000, 1001, True), (1, 999, False)]
)
def test_a_grace_that_ended_since_the_last_look_is_seen(since: int, at: int, ended: bool) -> None:
    assert rule(at).ended_since(since) is ended
    assert rule(at, files=None).ended_since(since) is False


def test_small_list_has_no_end_and_counts_its_digests() -> None:
    files = ListedFiles({"/a": frozenset({"1", "2"}), "/b": frozenset({"1"})})
    assert len(files) == 3
    assert not files.ended(after=0, until=2**62)
    assert files.allows("/a", "2", at=2**62)
    assert not files.allows("/b", "2", at=0)
    assert not files.allows("/c", "1", at=0)
