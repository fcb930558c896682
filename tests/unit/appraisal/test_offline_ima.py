"""Lists judged by hand: what is shown, and what cannot be told."""

from __future__ import annotations

import pytest

from chatelaine.appraisal.ima_rules import ListedFiles
from chatelaine.appraisal.offline import Report
from chatelaine.appraisal.offline_ima import MAX_REPORTED_FILES, ImaCase, judge_ima_list
from chatelaine.model.tpm_policy import Bank, ImaRules
from chatelaine.model.verdict import Verdict
from support.paper_ima import PaperIma, sha256

BASH, EVIL = b"bash 5.2", b"something nobody approved"
GOOD = ListedFiles({"/usr/bin/bash": frozenset((sha256(BASH),))})


def judged(paper: PaperIma, **changed) -> Report:
    case = {"data": paper.data, "pcr10": paper.pcr10, "bank": "sha256"} | changed
    return judge_ima_list(ImaCase(**case))


def reasons(report: Report) -> list[str]:
    return [leaf.reason for leaf in report.findings.leaves()]


@pytest.mark.parametrize("bank", list(Bank))
@pytest.mark.parametrize("form", ["Binary", "Ascii"])
def test_list_without_an_allow_list_is_judged_by_its_replay_alone(form, bank):
    paper = PaperIma.booted().ran("/usr/bin/bash", BASH).violated("/x")
    data = paper.data if form == "Binary" else paper.lines
    found = judged(paper, data=data + b"tail", pcr10=paper.pcrs[bank], bank=bank.value.lower())
    assert found.verdict is Verdict.TRUSTED
    assert reasons(found) == ["ImaPrefixMatches", "ImaFilesNotJudged"]
    assert found.facts == {
        "form": form,
        "bank": bank.value.lower(),
        "prefix": {"entries": 3, "bytes": len(data), "bytesBehind": 4},
        "templates": {"ima-ng": 3},
        "violations": 1,
    }


def test_unknown_files_and_violations_are_named():
    paper = PaperIma.booted().ran("/usr/bin/bash", BASH).ran("/tmp/evil", EVIL).ran("/tmp/evil", BASH).violated("/x")
    found = judged(paper, files=GOOD)
    assert found.verdict is Verdict.UNTRUSTED
    assert {"ImaViolation", "ImaFileNotAllowed"} <= set(reasons(found))
    assert found.facts["unknown"] == {"count": 2, "files": {"/tmp/evil": [sha256(EVIL), sha256(BASH)]}}
    assert judged(PaperIma.booted().ran("/usr/bin/bash", BASH), files=GOOD).verdict is Verdict.TRUSTED


def test_rules_of_a_policy_judge_as_in_the_operator():
    paper = PaperIma.booted().ran("/usr/bin/bash", BASH).ran("/var/log/x", EVIL).violated("/x")
    rules = ImaRules.model_validate({"unjudgedPaths": ["/var/log/*"], "violations": "Record"})
    assert judged(paper, rules=rules, files=GOOD).verdict is Verdict.TRUSTED
    assert judged(paper, rules=rules).verdict is Verdict.UNTRUSTED


def test_reported_files_are_bounded():
    paper = PaperIma.booted()
    for number in range(MAX_REPORTED_FILES + 9):
        paper.ran(f"/tmp/{number}", EVIL)
    unknown = judged(paper, files=GOOD).facts["unknown"]
    assert (unknown["count"], len(unknown["files"])) == (MAX_REPORTED_FILES + 9, MAX_REPORTED_FILES)


@pytest.mark.parametrize("changed", [{"pcr10": b"\x01" * 32}, {"data": b""}, {"data": b"10 no line\n"}])
def test_list_without_such_a_prefix_is_undecided(changed):
    found = judged(PaperIma.booted(), **changed)
    assert found.verdict is Verdict.UNKNOWN
    assert set(reasons(found)) <= {"ImaNoPrefix", "ImaLineAmbiguous"}


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"bank": "sha1", "pcr10": bytes(20)}, "AlgorithmRefused"),
        ({"bank": "sha512", "pcr10": bytes(64)}, "AlgorithmRefused"),
        ({"bank": "sha384"}, "Malformed"),
        ({"pcr10": bytes(20)}, "Malformed"),
        ({"data": b"\xff" * 64}, "Malformed"),
    ],
)
def test_broken_list_or_value_is_refused(changed, reason):
    found = judged(PaperIma.booted(), **changed)
    assert (found.verdict, reasons(found)) == (Verdict.UNTRUSTED, [reason])


@pytest.mark.parametrize("data", [b"", b"apiVersion: v1\n", b"\0" * 64])
def test_any_file_is_no_list_of_a_pcr_that_was_never_extended(data):
    found = judged(PaperIma(), data=data, pcr10=bytes(32))
    assert found.verdict is Verdict.UNKNOWN
    assert reasons(found) == ["ImaNothingMeasured"]


def test_empty_list_of_an_untouched_pcr_shows_nothing_and_is_refused_by_rules():
    found = judged(PaperIma(), files=GOOD)
    assert "ImaNothingMeasured" in reasons(found)
    assert found.verdict is Verdict.UNTRUSTED
