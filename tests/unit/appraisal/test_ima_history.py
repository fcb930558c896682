"""A list judged part by part: the answer is that of the whole, and what was refuted stays refuted."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from chatelaine.appraisal import ima_history
from chatelaine.appraisal.ima_history import ImaFindings, ImaFold, rule_of, shown, worst
from chatelaine.appraisal.ima_rules import GRACE_ENDED, ImaRule, by_time_alone, ima_rule
from chatelaine.evidence import errors
from chatelaine.evidence.bundle import LogFlaw
from chatelaine.evidence.ima import ImaEntry, ImaProgress, VerifiedIma, verify_ima
from chatelaine.evidence.tpm_quote import VerifiedQuote
from chatelaine.evidence.tpm_types import Selection
from chatelaine.model.material import PolicyMaterial, ReferenceValues
from chatelaine.model.policy import AttestationPolicy
from chatelaine.model.tpm_policy import Bank, ImaRules
from chatelaine.model.verdict import Finding, Outcome
from support.paper_host import PaperHost
from support.paper_ima import GracefulFiles, PaperIma, sha256

GOOD, OLD, EVIL = b"good", b"good until its grace ends", b"evil"
ENDS = 1000
AT = ENDS + 10
FILES = GracefulFiles({"/good": {sha256(GOOD): None, sha256(OLD): ENDS}})
HELD = Finding("ima", Outcome.HOLDS, "AllHold")
UNTOLD = Finding("ima", Outcome.CANNOT_TELL, "ImaOtherPcr", "another PCR")
REFUSED = Finding("ima", Outcome.REFUTED, "ImaFileNotAllowed", "entry 1")
LATE = Finding("ima", Outcome.REFUTED, GRACE_ENDED, "entry 2")


@pytest.fixture(autouse=True)
def small_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ima_history, "GROUP_ENTRIES", 3)


def rule(at: int = AT) -> ImaRule:
    return ima_rule(ImaRules.model_validate({}), FILES, at=at)


def listed(*contents: bytes) -> tuple[tuple[ImaEntry, ...], VerifiedQuote]:
    """A boot aggregate and one entry for each content, and the quote that covers them."""
    paper = PaperIma.booted()
    for content in contents:
        paper.ran("/good", content)
    values = {**dict.fromkeys(range(10), bytes(32)), 10: paper.pcr10}
    quote = VerifiedQuote(
        "Ecdsa-Sha256", Selection(Bank.SHA256, tuple(values)), values, b"", b"", b"", 0, 5, 1, True, 0
    )
    return verify_ima(paper.data, quote).entries, quote


def folded(*contents: bytes, since: int = 0, pieces: int = 100, at: int = AT, **more: Any) -> ImaFindings:
    """What the entries from number `since` on show, handed over in pieces."""
    entries, quote = listed(*contents)
    fold = ImaFold({"mine": rule(at)}, quote, since, **more)
    for first in range(since, len(entries), pieces):
        fold.take(entries[first : first + pieces])
    return fold.end()


def leaves(found: ImaFindings) -> list[str]:
    return [leaf.reason for leaf in found.by_policy["mine"].leaves() if leaf.outcome is not Outcome.HOLDS]


# --- the whole and its parts -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "contents",
    [
        [GOOD] * 2,
        [GOOD] * 3,
        [GOOD] * 7,
        [GOOD, EVIL, GOOD, GOOD],
        [GOOD] * 5 + [EVIL],
        [OLD, GOOD, GOOD, EVIL],
        [OLD] * 5,
    ],
)
def test_answer_does_not_depend_on_the_pieces_in_which_the_list_came(contents: list[bytes]) -> None:
    whole = folded(*contents)
    for pieces in (1, 2, 3, 4):
        assert folded(*contents, pieces=pieces) == whole
    assert (whole.by_policy["mine"].outcome is Outcome.HOLDS) == (set(contents) == {GOOD})


@pytest.mark.parametrize(
    ("count", "told"),
    [
        (1, "2 new entries from entry 0"),
        (2, "3 new entries from entry 0"),
        (3, "1 new entry from entry 3"),
        (6, "1 new entry from entry 6"),
    ],
)
def test_groups_are_counted_from_the_beginning_of_the_list(count: int, told: str) -> None:
    files = folded(*[GOOD] * count).by_policy["mine"].children[2]
    assert (files.check, files.detail) == ("files", f"{told} on")


@pytest.mark.parametrize("since", [1, 2, 3, 4])
def test_later_part_is_judged_in_the_same_groups_as_the_whole(since: int) -> None:
    part = folded(*[GOOD] * 6, since=since).by_policy["mine"]
    assert (part.children[0].check, part.children[0].reason) == ("boot aggregate", "BootAggregateJudgedBefore")
    assert part.children[2].detail == "1 new entry from entry 6 on"


def test_refused_file_of_the_first_group_is_not_forgotten_over_good_ones() -> None:
    found = folded(EVIL, *[GOOD] * 9)
    assert leaves(found) == ["ImaFileNotAllowed"]
    assert found.deviates == {"mine"}


def test_lasting_refusal_is_told_before_one_by_time_alone() -> None:
    for contents in ([OLD, GOOD, GOOD, EVIL], [EVIL, GOOD, GOOD, OLD]):
        found = folded(*contents).by_policy["mine"]
        assert found.reason == "ImaFileNotAllowed"
        assert not by_time_alone(found)
    assert by_time_alone(folded(OLD, *[GOOD] * 5, OLD).by_policy["mine"])


def test_first_refused_group_is_the_one_that_is_told() -> None:
    found = folded(GOOD, EVIL, GOOD, EVIL, EVIL).by_policy["mine"]
    assert "entry 2" in found.detail
    assert len(found.children[2].children) == 1


def test_host_that_measured_nothing_is_refused_and_one_with_nothing_new_is_not() -> None:
    _, quote = listed()
    fold = ImaFold({"mine": rule()}, quote, 0)
    assert leaves(fold.end()) == ["ImaNothingMeasured"]
    before = ImaFindings({"mine": HELD})
    assert ImaFold({"mine": rule()}, quote, 4, before).end() == before


# --- what earlier parts have shown -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("known", "reason"),
    [(REFUSED, "ImaFileNotAllowed"), (LATE, GRACE_ENDED), (UNTOLD, "ImaOtherPcr"), (HELD, "AllHold")],
)
def test_good_entries_do_not_make_up_for_what_was_refuted_before(known: Finding, reason: str) -> None:
    before = ImaFindings({"mine": known, "another": REFUSED})
    found = folded(*[GOOD] * 3, since=2, before=before)
    assert list(found.by_policy) == ["mine"]
    assert found.by_policy["mine"].reason == reason
    assert not found.deviates


def test_refusal_under_another_policy_is_not_taken_over() -> None:
    before = ImaFindings({"another": REFUSED}, frozenset({"another"}))
    found = folded(*[GOOD] * 3, since=2, before=before)
    assert (found.by_policy["mine"].outcome, found.deviates) == (Outcome.HOLDS, frozenset())


def test_host_that_deviated_still_does() -> None:
    before = ImaFindings({"mine": REFUSED}, frozenset({"mine", "another"}))
    assert folded(*[GOOD] * 3, since=2, before=before).deviates == {"mine"}


@pytest.mark.parametrize(
    ("contents", "seen", "deviates"),
    [
        ([GOOD, EVIL], 0, True),
        ([GOOD, EVIL], 2, True),
        ([GOOD, EVIL], 3, False),
        ([EVIL, GOOD], 2, False),
        ([EVIL, EVIL], 2, True),
        ([EVIL, *[GOOD] * 4, EVIL], 6, True),
        ([EVIL, *[GOOD] * 4, EVIL], 7, False),
        ([OLD, *[GOOD] * 4, OLD], 6, True),
        ([OLD, *[GOOD] * 4, OLD], 7, False),
        ([EVIL, *[GOOD] * 5], 2, False),
        ([*[GOOD] * 5, EVIL], 7, False),
        ([GOOD, GOOD, GOOD], 0, False),
    ],
)
def test_host_deviates_only_by_what_it_measured_after_the_policy_changed(
    contents: list[bytes], seen: int, deviates: bool
) -> None:
    """Entry 0 is the boot aggregate. What was there already is refused by the policy's change, not by the host's."""
    found = folded(*contents, seen_entries=seen)
    assert found.deviates == (frozenset({"mine"}) if deviates else frozenset())
    assert found.by_policy["mine"].outcome is (Outcome.HOLDS if set(contents) == {GOOD} else Outcome.REFUTED)


def test_every_policy_is_judged_by_itself() -> None:
    entries, quote = listed(GOOD, OLD, GOOD, GOOD)
    fold = ImaFold({"late": rule(), "early": rule(ENDS - 1)}, quote, 0)
    fold.take(entries)
    found = fold.end()
    assert {name: part.outcome for name, part in found.by_policy.items()} == {
        "late": Outcome.REFUTED,
        "early": Outcome.HOLDS,
    }
    assert found.deviates == {"late"}


def test_file_that_a_second_policy_refuses_is_seen_after_the_first_has_refused() -> None:
    entries, quote = listed(GOOD, GOOD, GOOD, EVIL)
    strict = ima_rule(ImaRules.model_validate({}), None, at=AT)
    fold = ImaFold({"strict": strict, "mine": rule()}, quote, 0)
    fold.take(entries)
    found = fold.end()
    assert {part.outcome for part in found.by_policy.values()} == {Outcome.REFUTED}
    assert found.deviates == {"strict", "mine"}


def test_list_of_another_boot_is_refused_part_by_part_as_well() -> None:
    entries, quote = listed(GOOD, GOOD, GOOD)
    fold = ImaFold({"mine": rule()}, quote._replace(pcrs={**quote.pcrs, 4: b"\x01" * 32}), 0)
    fold.take(entries)
    assert leaves(fold.end()) == ["BootAggregateMismatch"]


@pytest.mark.parametrize(
    ("findings", "index"),
    [
        ([HELD, HELD], 1),
        ([HELD, UNTOLD, HELD], 1),
        ([UNTOLD, REFUSED, HELD], 1),
        ([UNTOLD, LATE, REFUSED], 2),
        ([LATE, UNTOLD], 0),
        ([REFUSED, REFUSED], 0),
        ([LATE], 0),
    ],
)
def test_worst_finding_decides(findings: list[Finding], index: int) -> None:
    assert worst(iter(findings)) is findings[index]


# --- rounds without a list -------------------------------------------------------------------------------------

NO_PREFIX = LogFlaw.of(errors.ImaNoPrefix("no prefix replays"))


@pytest.mark.parametrize(
    ("flaw", "known", "outcome", "reason"),
    [
        (None, HELD, Outcome.REFUTED, "ImaListMissing"),
        (None, None, Outcome.REFUTED, "ImaListMissing"),
        (None, REFUSED, Outcome.REFUTED, "ImaFileNotAllowed"),
        (NO_PREFIX, HELD, None, "ImaNoPrefix"),
        (NO_PREFIX, None, None, "ImaNoPrefix"),
        (NO_PREFIX, REFUSED, Outcome.REFUTED, "ImaFileNotAllowed"),
    ],
)
def test_round_that_shows_no_list_neither_holds_nor_takes_a_refusal_back(
    flaw: LogFlaw | None, known: Finding | None, outcome: Outcome | None, reason: str
) -> None:
    evidence = replace(PaperHost().judged(), ima=None, ima_flaw=flaw)
    before = ImaFindings({} if known is None else {"mine": known}, frozenset({"mine"}))
    found = shown(evidence, {"mine": rule()}, before)
    assert (found.by_policy["mine"].check, found.by_policy["mine"].reason) == ("ima", reason)
    assert found.by_policy["mine"].outcome is (
        outcome or (Outcome.REFUTED if flaw and flaw.refutes else Outcome.CANNOT_TELL)
    )
    assert found.deviates == before.deviates
    assert not shown(evidence, {"mine": rule()}, None).deviates
    assert shown(evidence, {}, before).by_policy == {}


def test_list_in_the_evidence_goes_on_from_what_was_shown_before() -> None:
    entries, quote = listed(GOOD, EVIL, GOOD)
    rest = VerifiedIma(entries[3:], ImaProgress.at_start_of(quote), 3)
    evidence = replace(PaperHost().judged(), quote=quote, ima=rest)
    assert leaves(shown(evidence, {"mine": rule()}, None)) == []
    assert leaves(shown(evidence, {"mine": rule()}, ImaFindings({"mine": REFUSED}))) == ["ImaFileNotAllowed"]


def test_empty_list_of_a_boot_that_was_not_seen_before_is_refused() -> None:
    _, quote = listed()
    evidence = replace(PaperHost().judged(), quote=quote, ima=VerifiedIma((), ImaProgress.at_start_of(quote), 0))
    assert leaves(shown(evidence, {"mine": rule()}, None)) == ["ImaNothingMeasured"]


# --- the rule of a policy --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ima", "reference", "outcome"),
    [(None, True, None), ({}, False, Outcome.REFUTED), ({}, True, Outcome.HOLDS)],
)
def test_rule_of_a_policy_leans_on_its_reference_values(ima: Any, reference: bool, outcome: Outcome | None) -> None:
    tpm = {"pcrs": {"bank": "Sha256", "values": [{"index": 0, "anyOf": ["00" * 32]}]}}
    body = {"metadata": {"name": "base"}, "spec": {"freshness": {"maxAgeSeconds": 30}, "tpm": tpm}}
    if ima is not None:
        tpm["ima"] = ima
    values = ReferenceValues("lab", 1, "sha256:", (), {}, frozenset(), FILES) if reference else None
    policy = AttestationPolicy.model_validate(body).with_material(PolicyMaterial((), values))
    found = rule_of(policy, at=ENDS)
    assert (found is None) == (outcome is None)
    if found is not None:
        assert found.at == ENDS
        entries, quote = listed(GOOD)
        fold = ImaFold({"mine": found}, quote, 0)
        fold.take(entries)
        assert fold.end().by_policy["mine"].outcome is outcome
