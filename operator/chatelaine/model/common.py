"""Building blocks of the kinds: bounded strings, label selectors, references, metadata, and CEL rules.

Schema facts that JSON Schema cannot say (`x-kubernetes-…`) ride along in `json_schema_extra`; `model.crd` reads them.
"""

from __future__ import annotations

from typing import Annotated, Any, Final

from pydantic import BaseModel, ConfigDict, Field, StringConstraints
from pydantic.alias_generators import to_camel

MAX_ALLOCATIONS: Final = 256
MAX_CLAIM_KEYS: Final = 32
"""Keys in a claim's status: those of its spec, and those that were taken out of it."""
MAX_KEY_VERSIONS: Final = 64


def cel(rule: str, message: str) -> dict[str, str]:
    """One `x-kubernetes-validations` rule with the sentence a person reads on refusal."""
    return {"rule": rule, "message": message}


def validations(*rules: dict[str, str], **extra: Any) -> dict[str, Any]:
    """`json_schema_extra` carrying CEL rules (and other `x-kubernetes-…` keys)."""
    return {"x-kubernetes-validations": list(rules), **extra}


def not_yet(field: str) -> dict[str, str]:
    """The CEL rule that keeps a field closed until it is enforced."""
    return cel(f"!has(self.{field})", f"{field} is not enforced by this release yet; remove it")


def atomic_list(**extra: Any) -> dict[str, Any]:
    """A list that is replaced as a whole."""
    return {"x-kubernetes-list-type": "atomic", **extra}


def set_list(**extra: Any) -> dict[str, Any]:
    """A list of distinct scalars."""
    return {"x-kubernetes-list-type": "set", **extra}


def map_list(*keys: str, **extra: Any) -> dict[str, Any]:
    """A list of objects told apart by `keys`."""
    return {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": list(keys), **extra}


def entries(most: int, description: str, kind: dict[str, Any]) -> Any:
    """A list that holds one entry at least; absent is said by leaving it out.

    Args:
        most: entries that it may hold.
        description: what stands in the schema.
        kind: how it is merged: `set_list()`, `map_list(…)`, `atomic_list()`.
    """
    return Field(min_length=1, max_length=most, description=description, json_schema_extra=kind)


class Model(BaseModel):
    """Base of every type that crosses the API server: camelCase outside, frozen inside, unknown fields dropped."""

    model_config = ConfigDict(
        alias_generator=to_camel, populate_by_name=True, frozen=True, extra="ignore", use_enum_values=False
    )

    def dump(self) -> dict[str, Any]:
        """The object as the API server wants it: camelCase, absent fields absent."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)


Name = Annotated[str, StringConstraints(min_length=1, max_length=253, pattern=r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$")]
ShortName = Annotated[str, StringConstraints(min_length=1, max_length=63, pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$")]
Sha256Digest = Annotated[str, StringConstraints(max_length=71, pattern=r"^sha256:[0-9a-f]{64}$")]
Uid = Annotated[str, StringConstraints(min_length=1, max_length=64)]
Text = Annotated[str, StringConstraints(max_length=1024)]
Timestamp = Annotated[str, StringConstraints(max_length=32), Field(json_schema_extra={"format": "date-time"})]
LabelKey = Annotated[str, StringConstraints(min_length=1, max_length=317)]
LabelValue = Annotated[str, StringConstraints(max_length=63)]
Port = Annotated[int, Field(ge=1, le=65535)]


Later = Annotated[dict[str, Any], Field(json_schema_extra={"x-kubernetes-preserve-unknown-fields": True})]
"""A field that a later release enforces; CEL refuses it today, so nothing is accepted and ignored."""


class NameRef(Model):
    """A cluster-scoped object by name."""

    name: Annotated[Name, Field(description="Name of the object referred to.")]


class LabelSelector(Model):
    """Labels that must all be present with exactly these values."""

    model_config = ConfigDict(json_schema_extra=validations(not_yet("matchExpressions")))
    match_labels: Annotated[
        dict[LabelKey, LabelValue],
        Field(
            min_length=1,
            max_length=16,
            description="Labels that an object must carry, all of them. At least one:"
            " an empty selector would mean everybody.",
            json_schema_extra=validations(
                cel("self.all(key, key.size() <= 317)", "a label key has at most 317 characters")
            ),
        ),
    ]
    match_expressions: Annotated[
        list[Later] | None,
        Field(max_length=16, description="Label expressions (later).", json_schema_extra=atomic_list()),
    ] = None

    def matches(self, labels: dict[str, str]) -> bool:
        """Does an object with `labels` fall under this selector?"""
        return all(labels.get(key) == value for key, value in self.match_labels.items())


class Condition(Model):
    """`metav1.Condition`."""

    type: Annotated[str, StringConstraints(min_length=1, max_length=64), Field(description="Kind of condition.")]
    status: Annotated[
        str,
        Field(
            description="True, False or Unknown.",
            json_schema_extra={"enum": ["True", "False", "Unknown"]},
            max_length=7,
        ),
    ]
    observed_generation: Annotated[
        int, Field(ge=0, le=2**53, description="Generation of the object that was judged.")
    ] = 0
    last_transition_time: Annotated[Timestamp, Field(description="When the status last changed.")]
    reason: Annotated[str, StringConstraints(min_length=1, max_length=64), Field(description="UpperCamelCase code.")]
    message: Annotated[
        str, StringConstraints(max_length=4096), Field(description="What was expected, what was found, what to do.")
    ] = ""


Conditions = Annotated[
    list[Condition],
    Field(max_length=16, description="Current state, one entry a type.", json_schema_extra=map_list("type")),
]


class ObjectMeta(Model):
    """The part of `metadata` that we read."""

    name: str
    namespace: str | None = None
    uid: str = ""
    generation: int = 0
    resource_version: str = ""
    labels: dict[str, str] = Field(default_factory=dict)
    annotations: dict[str, str] = Field(default_factory=dict)
    finalizers: list[str] = Field(default_factory=list)
    deletion_timestamp: str | None = None
    creation_timestamp: str | None = None
