"""How findings combine: three outcomes, no reason lost, nothing holds on an empty list."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatelaine.model.verdict import Epoch, Finding, Outcome, Verdict, all_of, any_of, verdict_of

OUTCOMES = st.sampled_from(list(Outcome))
CODES = st.text("RS", min_size=1, max_size=3)
LEAVES = st.builds(Finding, check=CODES, outcome=OUTCOMES, reason=CODES, detail=st.text(max_size=5))
CHILDREN = st.lists(LEAVES, min_size=1, max_size=6)
TREES = st.recursive(
    LEAVES,
    lambda nodes: st.builds(
        lambda combine, children: combine("node", children),
        st.sampled_from([all_of, any_of]),
        st.lists(nodes, min_size=1, max_size=3),
    ),
    max_leaves=12,
)


def outcomes(children: list[Finding]) -> set[Outcome]:
    return {child.outcome for child in children}


@pytest.mark.parametrize("combine", [all_of, any_of])
def test_an_empty_rule_set_never_holds(combine) -> None:
    with pytest.raises(ValueError, match="release: no rules"):
        combine("release", [])


@given(CHILDREN)
def test_all_of_holds_only_if_every_child_holds(children: list[Finding]) -> None:
    whole = all_of("x", children).outcome
    assert (whole is Outcome.HOLDS) == (outcomes(children) == {Outcome.HOLDS})
    assert (whole is Outcome.REFUTED) == (Outcome.REFUTED in outcomes(children))


@given(CHILDREN)
def test_any_of_holds_if_one_child_holds_and_is_refuted_only_if_all_are(children: list[Finding]) -> None:
    whole = any_of("x", children).outcome
    assert (whole is Outcome.HOLDS) == (Outcome.HOLDS in outcomes(children))
    assert (whole is Outcome.REFUTED) == (outcomes(children) == {Outcome.REFUTED})


@given(CHILDREN, st.randoms(use_true_random=False))
def test_order_never_changes_the_outcome(children: list[Finding], random) -> None:
    shuffled = random.sample(children, len(children))
    for combine in (all_of, any_of):
        assert combine("x", shuffled).outcome is combine("x", children).outcome


@given(CHILDREN)
def test_the_two_are_dual(children: list[Finding]) -> None:
    negation = {
        Outcome.HOLDS: Outcome.REFUTED,
        Outcome.REFUTED: Outcome.HOLDS,
        Outcome.CANNOT_TELL: Outcome.CANNOT_TELL,
    }
    negated = [Finding(child.check, negation[child.outcome], child.reason) for child in children]
    assert any_of("x", children).outcome is negation[all_of("x", negated).outcome]


@given(LEAVES)
def test_one_child_decides_alone(child: Finding) -> None:
    assert all_of("x", [child]).outcome is any_of("x", [child]).outcome is child.outcome


@given(CHILDREN, LEAVES)
def test_another_rule_never_makes_all_of_better(children: list[Finding], child: Finding) -> None:
    rank = [Outcome.REFUTED, Outcome.CANNOT_TELL, Outcome.HOLDS].index
    assert rank(all_of("x", [*children, child]).outcome) <= rank(all_of("x", children).outcome)
    assert rank(any_of("x", [*children, child]).outcome) >= rank(any_of("x", children).outcome)


@given(CHILDREN)
def test_the_reason_is_that_of_a_child_that_decided(children: list[Finding]) -> None:
    for combine in (all_of, any_of):
        whole = combine("x", children)
        if combine is all_of and whole.outcome is Outcome.HOLDS:
            assert whole.reason == "AllHold"
        else:
            assert (whole.reason, whole.detail) in {
                (c.reason, c.detail) for c in children if c.outcome is whole.outcome
            }


@given(TREES)
def test_no_reason_is_lost_on_the_way_up(tree: Finding) -> None:
    leaves = list(tree.leaves())
    assert leaves
    text = json.dumps(tree.as_dict())
    for leaf in leaves:
        assert json.dumps(leaf.as_dict()) in text


@given(TREES)
def test_the_first_leaf_with_the_trees_outcome_explains_it(tree: Finding) -> None:
    first = tree.first(tree.outcome)
    assert first is not None
    assert first.outcome is tree.outcome
    missing = [outcome for outcome in Outcome if outcome not in {leaf.outcome for leaf in tree.leaves()}]
    assert [tree.first(outcome) for outcome in missing] == [None] * len(missing)


def test_absent_fields_are_left_out_of_the_report() -> None:
    bare = Finding("pcr", Outcome.HOLDS, "Equal")
    assert bare.as_dict() == {"check": "pcr", "outcome": "Holds", "reason": "Equal"}
    full = Finding("pcr", Outcome.REFUTED, "Differs", "PCR 7 differs", expected="aa", found="", children=(bare,))
    assert full.as_dict() == {
        "check": "pcr",
        "outcome": "Refuted",
        "reason": "Differs",
        "detail": "PCR 7 differs",
        "expected": "aa",
        "found": "",
        "children": [bare.as_dict()],
    }


def test_each_outcome_has_its_verdict() -> None:
    assert {outcome: verdict_of(outcome) for outcome in Outcome} == {
        Outcome.HOLDS: Verdict.TRUSTED,
        Outcome.REFUTED: Verdict.UNTRUSTED,
        Outcome.CANNOT_TELL: Verdict.UNKNOWN,
    }


def test_a_reset_outranks_every_restart() -> None:
    assert Epoch(2, 0) > Epoch(1, 99) > Epoch(1, 98, 7)
    assert str(Epoch(2, 1, 3)) == "2.1.3"
