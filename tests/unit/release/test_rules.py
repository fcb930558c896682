from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatelaine.model.keys import KeyType, Sensitivity, Usage
from chatelaine.model.verdict import Outcome
from chatelaine.release.rules import AllOf, AnyOf, NamespaceLabels, ReleaseRequest, judge_release
from support.releases import REQUEST, RULE, policy


def outcome(request: ReleaseRequest, *rules: dict[str, Any]) -> Outcome:
    return judge_release("p", policy(*rules), request).outcome


def test_a_request_within_every_limit_is_released() -> None:
    assert outcome(REQUEST, RULE) is Outcome.HOLDS


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"namespace_labels": {"team": "other"}}, "NamespaceNotAllowed"),
        ({"namespace_labels": {}}, "NamespaceNotAllowed"),
        ({"key_types": frozenset({KeyType.EC_P256, KeyType.RSA_3072})}, "KeyTypeNotAllowed"),
        ({"usages": frozenset({Usage.SIGN, Usage.VERIFY})}, "UsageNotAllowed"),
        ({"sensitivity": Sensitivity.RESTRICTED}, "SensitivityNotAllowed"),
        ({"workload_type": "Other"}, "WorkloadTypeNotAllowed"),
        ({"workload_type": None}, "WorkloadTypeNotAllowed"),
        ({"compliance": frozenset()}, "ComplianceMissing"),
        ({"bound_claims": 3}, "TooManyClaims"),
        ({"bound_claims": 4}, "TooManyClaims"),
    ],
)
def test_one_thing_too_much_is_refused_and_named(change: dict[str, Any], reason: str) -> None:
    finding = judge_release("p", policy(RULE), replace(REQUEST, **change))
    assert finding.outcome is Outcome.REFUTED
    assert [leaf.reason for leaf in finding.leaves() if leaf.outcome is Outcome.REFUTED] == [reason]


def test_absent_sensitivity_means_public_only() -> None:
    rule = {"namespaces": RULE["namespaces"]}
    assert outcome(REQUEST, rule) is Outcome.REFUTED
    assert outcome(replace(REQUEST, sensitivity=Sensitivity.PUBLIC), rule) is Outcome.HOLDS


def test_claim_that_is_bound_keeps_its_place_when_the_limit_falls() -> None:
    assert outcome(replace(REQUEST, bound_claims=None), {**RULE, "maxClaims": 0}) is Outcome.HOLDS


def test_limit_of_zero_lets_nobody_in() -> None:
    assert outcome(REQUEST, {**RULE, "maxClaims": 0}) is Outcome.REFUTED


def test_policy_without_release_releases_nothing() -> None:
    finding = judge_release("p", policy(release=False), REQUEST)
    assert (finding.outcome, finding.reason) == (Outcome.REFUTED, "NoRules")


def test_empty_compositions_never_hold() -> None:
    assert AllOf("all", ()).check(REQUEST).outcome is Outcome.REFUTED
    assert AnyOf("any", ()).check(REQUEST).outcome is Outcome.REFUTED
    assert NamespaceLabels({}).check(REQUEST).outcome is Outcome.REFUTED


def test_rules_are_not_mixed_two_halves_make_no_whole() -> None:
    types = {**RULE, "usages": ["Verify"]}
    usages = {**RULE, "keyTypes": ["Rsa3072"]}
    assert outcome(REQUEST, types, usages) is Outcome.REFUTED


def test_name_label_that_lies_is_not_believed() -> None:
    rule = {**RULE, "namespaces": {"matchLabels": {"kubernetes.io/metadata.name": "payments"}}}
    liar = replace(REQUEST, namespace="other", namespace_labels={"kubernetes.io/metadata.name": "payments"})
    assert outcome(liar, rule) is Outcome.REFUTED
    assert outcome(replace(REQUEST, namespace_labels={}), rule) is Outcome.HOLDS


def test_every_rules_reason_is_kept() -> None:
    finding = judge_release("p", policy({**RULE, "usages": ["Verify"]}, {**RULE, "keyTypes": ["Rsa3072"]}), REQUEST)
    refused = [leaf.reason for leaf in finding.leaves() if leaf.outcome is Outcome.REFUTED]
    assert refused == ["UsageNotAllowed", "KeyTypeNotAllowed"]


requests = st.builds(
    ReleaseRequest,
    namespace=st.sampled_from(["payments", "other"]),
    namespace_labels=st.dictionaries(st.sampled_from(["team", "stage"]), st.sampled_from(["payments", "live", "x"])),
    key_types=st.frozensets(st.sampled_from([KeyType.EC_P256, KeyType.RSA_3072])),
    usages=st.frozensets(st.sampled_from([Usage.SIGN, Usage.VERIFY])),
    sensitivity=st.sampled_from(Sensitivity),
    workload_type=st.sampled_from([None, "PaymentSigning", "Other"]),
    compliance=st.frozensets(st.sampled_from(["Fips140_3Level3", "CommonCriteria"])),
    bound_claims=st.sampled_from([None, 0, 2, 3, 9]),
)


@given(requests)
def test_released_exactly_if_every_limit_holds(request: ReleaseRequest) -> None:
    allowed = (
        request.namespace_labels.get("team") == "payments"
        and request.key_types <= {KeyType.EC_P256}
        and request.usages <= {Usage.SIGN}
        and request.sensitivity.rank <= Sensitivity.CONFIDENTIAL.rank
        and request.workload_type == "PaymentSigning"
        and "Fips140_3Level3" in request.compliance
        and (request.bound_claims is None or request.bound_claims < 3)
    )
    assert (outcome(request, RULE) is Outcome.HOLDS) == allowed


@given(
    requests,
    st.lists(st.sampled_from([RULE, {**RULE, "maxClaims": 0}, {"namespaces": RULE["namespaces"]}]), min_size=1),
)
def test_another_rule_never_takes_away(request: ReleaseRequest, rules: list[dict[str, Any]]) -> None:
    if outcome(request, *rules) is Outcome.HOLDS:
        assert outcome(request, *rules, {**RULE, "usages": ["Verify"]}) is Outcome.HOLDS
