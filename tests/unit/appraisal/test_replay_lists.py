"""Replays of rounds whose IMA list went on from where an earlier round had left it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from chatelaine.appraisal.ima_history import ImaFindings, ImaHistory
from chatelaine.appraisal.replay import replay
from chatelaine.appraisal.stored_form import decode_round, encode_round
from chatelaine.evidence.bundle import QuoteEvidence
from chatelaine.model.verdict import Finding, Outcome, Verdict
from support.paper_ima import PaperIma, sha256
from support.stored_rounds import HOST, Told, stored

WITH_LIST = (*range(11),)
LISTED = {
    "freshness": {"maxAgeSeconds": 30},
    "tpm": {
        "pcrs": {"bank": "Sha256", "values": [{"index": 7, "anyOf": ["00" * 32]}]},
        "ima": {"allow": [{"path": "/good", "digests": [sha256(b"good")]}]},
    },
}


def measured(paper: PaperIma, since: int = 0) -> QuoteEvidence:
    pcrs = {**dict.fromkeys(range(10), bytes(32)), 10: paper.pcr10}
    return HOST.answer(pcrs=pcrs, ima=(since, paper.data[since:]))


def went_on(content: bytes, known: Finding | None) -> Told:
    """A round whose list goes on from where an earlier one had been left, with what that had shown."""
    paper = PaperIma.booted().ran("/good", b"good")
    first = stored(spec=LISTED, evidence=measured(paper), quoted=WITH_LIST)
    again = replay(first.round, first.part)
    assert (again.appraisal.verdict, again.encoded) == (Verdict.TRUSTED, first.round.appraisal)
    seen = again.evidence
    assert seen is not None
    assert seen.ima is not None
    left = len(paper.data)
    findings = ImaFindings({first.round.case.stamp.digest: known} if known is not None else {})
    history = ImaHistory(seen.ima.progress, findings)
    later = measured(paper.ran("/good", content), left)
    return stored(spec=LISTED, evidence=later, quoted=WITH_LIST, ima_before=history)


REFUTED_BEFORE = Finding("ima", Outcome.REFUTED, "ImaFileNotAllowed", "entry 1")
HELD_BEFORE = Finding("ima", Outcome.HOLDS, "AllHold", "the beginning")


@pytest.mark.parametrize(
    ("content", "known", "verdict"),
    [
        (b"good", None, Verdict.TRUSTED),
        (b"good", HELD_BEFORE, Verdict.TRUSTED),
        (b"evil", HELD_BEFORE, Verdict.UNTRUSTED),
        (b"good", REFUTED_BEFORE, Verdict.UNTRUSTED),
    ],
    ids=["nothing known", "held", "an unlisted file", "refused before"],
)
def test_list_that_goes_on_is_replayed_from_where_it_was_left(
    content: bytes, known: Finding | None, verdict: Verdict
) -> None:
    told = went_on(content, known)
    kept = decode_round(encode_round(told.round))
    again = replay(kept, told.part)
    assert (again.appraisal.verdict, again.encoded) == (verdict, told.round.appraisal)
    assert again.evidence is not None
    assert again.evidence.ima is not None
    assert len(again.evidence.ima.entries) == 1


def test_list_that_was_left_elsewhere_shows_nothing_in_a_replay() -> None:
    told = went_on(b"good", HELD_BEFORE)
    whole = told.changed(case=replace(told.round.case, ima_before=None))
    again = replay(whole.round, whole.part)
    assert again.appraisal.verdict is not Verdict.TRUSTED
    assert again.encoded != told.round.appraisal
