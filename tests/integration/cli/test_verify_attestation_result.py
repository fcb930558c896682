"""The attestation result of `chatelaine verify tpm-quote --json`: a verdict that others can rely on."""

from __future__ import annotations

import json
from importlib.metadata import version
from pathlib import Path

import pytest

from support.paper_tpm import PCRS, PaperTpm
from support.verify_command import EXTRA, TPM, QuoteFiles, policy_file, run_here

GOOD_PCRS = [{"index": index, "anyOf": [value.hex()]} for index, value in PCRS.items()]
OTHER_PCRS = [{"index": 7, "anyOf": ["00" * 32]}]


@pytest.fixture
def quote(tmp_path: Path) -> QuoteFiles:
    return QuoteFiles(tmp_path)


def report_here(*arguments: str | Path) -> dict:
    """The report, without a process of its own."""
    return json.loads(run_here(*arguments, "--json").stdout)


def test_attestation_result_holds_the_verdict_and_its_whole_tree(quote):
    report = report_here(*quote.arguments(), "--policy", policy_file(quote.folder, GOOD_PCRS))
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
    more = ["--policy", policy_file(quote.folder, values)] if values is not None else []
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
