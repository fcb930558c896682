"""From models to structural schemas."""

from __future__ import annotations

import enum
from typing import Annotated, Any

import pytest
from pydantic import BaseModel, ConfigDict, Field

from chatelaine.model.common import LabelSelector, Model, cel, validations
from chatelaine.model.schema import structural


class Colour(enum.StrEnum):
    """A colour."""

    RED = "Red"


class Inner(Model):
    """Inner."""

    model_config = ConfigDict(json_schema_extra=validations(cel("has(self.aName)", "a name is needed")))
    a_name: Annotated[str, Field(max_length=3, description="A name.")]


class Outer(Model):
    """Outer."""

    inner: Annotated[
        Inner | None, Field(description="Near.", json_schema_extra=validations(cel("true", "never said")))
    ] = None
    colour: Annotated[Colour, Field(description="Its colour.")] = Colour.RED
    many: Annotated[list[Inner], Field(description="Many.", max_length=2)] = Field(default_factory=list)
    count: Annotated[int, Field(ge=0, le=2**40, description="Count.")] = 0
    labels: Annotated[dict[str, str], Field(description="Labels.", max_length=4)] = Field(default_factory=dict)
    loose: Annotated[dict[str, Any], Field(description="Loose.")] = Field(default_factory=dict)


INNER = {
    "type": "object",
    "required": ["aName"],
    "properties": {"aName": {"type": "string", "maxLength": 3, "description": "A name."}},
}


def test_references_nulls_titles_and_defaults_are_gone() -> None:
    rule = {"rule": "has(self.aName)", "message": "a name is needed"}
    assert structural(Outer) == {
        "description": "Outer.",
        "type": "object",
        "properties": {
            "inner": {
                **INNER,
                "description": "Near.",
                "x-kubernetes-validations": [rule, {"rule": "true", "message": "never said"}],
            },
            "colour": {"type": "string", "enum": ["Red"], "description": "Its colour."},
            "many": {
                "type": "array",
                "maxItems": 2,
                "description": "Many.",
                "items": {**INNER, "description": "Inner.", "x-kubernetes-validations": [rule]},
            },
            "count": {"type": "integer", "minimum": 0, "maximum": 2**40, "format": "int64", "description": "Count."},
            "labels": {
                "type": "object",
                "maxProperties": 4,
                "description": "Labels.",
                "additionalProperties": {"type": "string"},
            },
            "loose": {"type": "object", "description": "Loose."},
        },
    }


def test_a_union_is_refused() -> None:
    class Either(BaseModel):
        value: int | str

    with pytest.raises(ValueError, match="value: a structural schema has no unions"):
        structural(Either)


class Node(BaseModel):
    """A type that holds itself."""

    child: Node | None = None


def test_a_recursive_type_is_refused() -> None:
    with pytest.raises(ValueError, match="no recursive types"):
        structural(Node)


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        ({"app": "x", "zone": "1"}, True),
        ({"app": "x", "zone": "1", "more": ""}, True),
        ({"app": "x"}, False),
        ({"app": "x", "zone": "2"}, False),
        ({}, False),
    ],
)
def test_a_selector_matches_all_of_its_labels(labels: dict[str, str], expected: bool) -> None:
    selector = LabelSelector(match_labels={"app": "x", "zone": "1"})
    assert selector.matches(labels) is expected


def test_a_selector_without_labels_cannot_be_made() -> None:
    with pytest.raises(ValueError, match="match_labels"):
        LabelSelector(match_labels={})
