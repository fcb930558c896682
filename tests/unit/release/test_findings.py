"""What a refusal says to the one who reads the audit record: every leaf in full, as it is kept."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from chatelaine.model.keys import KeyType, Sensitivity, Usage
from chatelaine.release.rules import AllOf, AnyOf, ReleaseRequest, judge_release
from support import releases
from support.releases import REQUEST

RULE = {
    **releases.RULE,
    "namespaces": {"matchLabels": {"team": "payments", "stage": "live"}},
    "keyTypes": ["EcP256", "Rsa3072"],
}
HELD: dict[str, tuple[str, str]] = {
    "release/namespaces": ("stage=live, team=payments", "stage=live, team=payments"),
    "release/maxSensitivity": ("at most Confidential", "Internal"),
    "release/keyTypes": ("EcP256, Rsa3072", "EcP256"),
    "release/usages": ("Sign", "Sign"),
    "release/workloadTypes": ("PaymentSigning", "PaymentSigning"),
    "release/compliance": ("Fips140_3Level3", "Fips140_3Level3"),
    "release/maxClaims": ("at most 3", "2"),
}


def _judged(request: ReleaseRequest, *rules: dict[str, Any]) -> dict[str, Any]:
    return judge_release("baseline", releases.policy(*rules), request).as_dict()


def test_what_holds_says_what_was_asked_and_what_is_allowed() -> None:
    leaves = [
        {"check": check, "outcome": "Holds", "reason": "Allowed", "expected": expected, "found": found}
        for check, (expected, found) in HELD.items()
    ]
    assert _judged(REQUEST, RULE) == {
        "check": "release/baseline",
        "outcome": "Holds",
        "reason": "AllHold",
        "children": [{"check": "release/anyOf/0", "outcome": "Holds", "reason": "AllHold", "children": leaves}],
    }


@pytest.mark.parametrize(
    ("change", "check", "reason", "expected", "found", "detail"),
    [
        ({"namespace_labels": {"team": "thieves"}}, "namespaces", "NamespaceNotAllowed", "stage=live, team=payments",
         "team=thieves", "namespace payments does not carry stage=live, team=payments"),
        ({"namespace_labels": {}}, "namespaces", "NamespaceNotAllowed", "stage=live, team=payments", "none",
         "namespace payments does not carry stage=live, team=payments"),
        ({"sensitivity": Sensitivity.RESTRICTED}, "maxSensitivity", "SensitivityNotAllowed", "at most Confidential",
         "Restricted", "sensitivity Restricted is above Confidential"),
        ({"key_types": frozenset({KeyType.EC_P384, KeyType.EC_P256})}, "keyTypes", "KeyTypeNotAllowed",
         "EcP256, Rsa3072", "EcP256, EcP384", "key types EcP384 are not allowed"),
        ({"usages": frozenset({Usage.VERIFY})}, "usages", "UsageNotAllowed", "Sign", "Verify",
         "usages Verify are not allowed"),
        ({"workload_type": None}, "workloadTypes", "WorkloadTypeNotAllowed", "PaymentSigning", "none",
         "workload type (none) is not allowed"),
        ({"workload_type": "Mining"}, "workloadTypes", "WorkloadTypeNotAllowed", "PaymentSigning", "Mining",
         "workload type Mining is not allowed"),
        ({"compliance": frozenset()}, "compliance", "ComplianceMissing", "Fips140_3Level3", "none",
         "the HSM does not hold Fips140_3Level3"),
        ({"bound_claims": 3}, "maxClaims", "TooManyClaims", "at most 3", "3",
         "namespace payments has 3 claims bound, 3 are allowed"),
    ],
)  # fmt: skip
def test_a_refusal_says_what_was_asked_and_what_is_allowed(
    change: dict[str, Any], check: str, reason: str, expected: str, found: str, detail: str
) -> None:
    tree = _judged(replace(REQUEST, **change), RULE)
    (leaf,) = (leaf for leaf in tree["children"][0]["children"] if leaf["outcome"] == "Refuted")
    assert leaf == {
        "check": f"release/{check}",
        "outcome": "Refuted",
        "reason": reason,
        "detail": detail,
        "expected": expected,
        "found": found,
    }
    assert (tree["reason"], tree["detail"]) == (reason, detail)


def test_a_claim_that_is_bound_already_is_shown_as_such() -> None:
    tree = _judged(replace(REQUEST, bound_claims=None), RULE)
    assert tree["children"][0]["children"][-1]["found"] == "bound already"


def test_each_rule_is_named_by_its_place() -> None:
    tree = _judged(REQUEST, {**RULE, "usages": ["Verify"]}, RULE)
    assert [child["check"] for child in tree["children"]] == ["release/anyOf/0", "release/anyOf/1"]


@pytest.mark.parametrize("composed", [AllOf, AnyOf])
def test_an_empty_composition_says_its_name(composed: type[AllOf | AnyOf]) -> None:
    assert composed("release/here", ()).check(REQUEST).as_dict() == {
        "check": "release/here",
        "outcome": "Refuted",
        "reason": "NoRules",
        "detail": "there are no release rules, so nothing is released",
    }
