"""Condition types and reasons: complete, documented, and in a form that the API server takes."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from tools import generate_reference
from tools.reference.conditions import CARRIED_BY

from chatelaine.model.crd import KINDS
from chatelaine.model.reasons import CONDITIONS, EXPLAINED, ConditionType, Reason

ROOT = Path(__file__).resolve().parents[3]
UPPER_CAMEL = re.compile(r"^[A-Z][A-Za-z0-9]*$")


def test_every_reason_and_every_condition_is_explained() -> None:
    assert set(EXPLAINED) == set(Reason)
    assert set(CONDITIONS) == set(ConditionType)


@pytest.mark.parametrize("text", [*EXPLAINED.values(), *CONDITIONS.values()])
def test_explanations_are_sentences_on_one_line(text: str) -> None:
    assert text.endswith(".")
    assert "\n" not in text
    assert 5 <= len(text) <= 160


@pytest.mark.parametrize("code", [*Reason, *ConditionType])
def test_codes_fit_into_conditions(code: str) -> None:
    assert UPPER_CAMEL.match(code)
    assert len(code) <= 64
    assert code.name.replace("_", "") == code.value.upper()


def test_reference_pages_are_up_to_date() -> None:
    assert [str(path.relative_to(ROOT)) for path in generate_reference.stale()] == []


def test_every_condition_is_carried_by_a_kind() -> None:
    assert {kind.name for kind in KINDS} == set(CARRIED_BY)
    carried = {type_ for types in CARRIED_BY.values() for type_ in types}
    assert carried == {type_.value for type_ in ConditionType}


def test_conditions_are_written_with_known_reasons_only() -> None:
    """Nobody writes conditions but the setter, which takes nothing but a Reason."""
    package = ROOT / "operator" / "chatelaine"
    offenders = [
        str(path.relative_to(package))
        for path in package.rglob("*.py")
        if re.search(r"\bCondition\(", path.read_text()) and path.parent.name != "model"
    ]
    assert offenders == []
