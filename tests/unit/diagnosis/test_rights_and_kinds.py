"""What the operator needs is what the chart grants; kinds of this version are the chart's."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace
from typing import Any

import pytest
import yaml
from tools import privileges
from tools.generate_crds import FOLDERS

from chatelaine.diagnosis.kinds import OURS, differences, established
from chatelaine.diagnosis.rights import NEEDED, Right, Rule, lacking
from chatelaine.model.identifiers import GROUP

EVERYTHING = Rule(frozenset("*"), frozenset("*"), frozenset("*"))
GIVEN = [
    Rule(
        frozenset({right.group}),
        frozenset({right.resource}),
        frozenset({right.verb}),
        own_namespace=right.own_namespace,
    )
    for right in NEEDED
]


def granted() -> set[Right]:
    """Every right that the chart gives the operator."""
    return {
        Right(group, resource, verb, role["kind"] == "Role")
        for role in privileges.rendered("--show-only", "templates/rbac-operator.yaml")
        for rule in role.get("rules", ())
        for group in rule.get("apiGroups", ())
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }


def test_what_is_needed_is_what_the_chart_grants() -> None:
    assert set(NEEDED) == granted()
    assert len(NEEDED) == len(set(NEEDED))


def test_nothing_is_lacking_where_exactly_what_is_needed_is_given() -> None:
    assert lacking(GIVEN) == ()
    assert lacking([EVERYTHING]) == ()
    assert lacking([]) == NEEDED


@pytest.mark.parametrize("right", NEEDED, ids=str)
def test_each_right_that_is_taken_away_is_found(right: Right) -> None:
    rest = [rule for rule, given in zip(GIVEN, NEEDED, strict=True) if given != right]
    assert lacking(rest) in ((right,), ())
    everywhere = Right(right.group, right.resource, right.verb)
    assert (lacking(rest) == ()) == (right.own_namespace and everywhere in NEEDED)


def test_a_right_for_objects_of_some_names_is_not_the_right() -> None:
    assert lacking([replace(EVERYTHING, names=frozenset({"one"}))]) == NEEDED


def test_a_right_in_the_operators_namespace_is_not_a_right_everywhere() -> None:
    found = lacking([replace(EVERYTHING, own_namespace=True)])
    assert set(found) == {right for right in NEEDED if not right.own_namespace}


@pytest.mark.parametrize("kind", OURS, ids=lambda kind: kind.name)
def test_a_definition_as_the_chart_has_it_does_not_differ(kind: Any) -> None:
    definition = yaml.safe_load((FOLDERS[0] / f"{GROUP}_{kind.plural}.yaml").read_text())
    assert differences(kind, definition) == []
    other = deepcopy(definition)
    del other["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["x-kubernetes-validations"]
    assert differences(kind, other) == ["x-kubernetes-validations"]
    other["spec"]["versions"][0]["served"] = False
    assert differences(kind, other) == ["version v1alpha1 is not served"]
    other["spec"]["scope"] = "Universe"
    assert differences(kind, other) == ["it is another kind"]
    assert not established(definition)
