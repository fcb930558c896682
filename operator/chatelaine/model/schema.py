"""From a pydantic model to the structural OpenAPI v3 schema that a CustomResourceDefinition wants.

Structural schemas know no references, no null types, no titles, and we give no defaults (Git holds the user's intent);
everything else (bounds, patterns, enums, `x-kubernetes-…`) passes through as the model states it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from pydantic import BaseModel

Schema = dict[str, Any]

VALIDATIONS: Final = "x-kubernetes-validations"
INT32_MAX: Final = 2**31 - 1

_DROPPED: Final = frozenset({"title", "default", "propertyNames", "$defs"})
_ORDER: Final = ("description", "type", "format", "enum", "required", "properties")


def structural(model: type[BaseModel]) -> Schema:
    """The schema of `model`, with camelCase names, nothing referred to, nothing optional by null.

    Raises:
        ValueError: the model uses something that structural schemas cannot say (a union, a recursive type).
    """
    whole = model.model_json_schema(by_alias=True, mode="validation")
    return _convert(whole, whole.get("$defs", {}), ())


def _convert(node: Mapping[str, Any], definitions: Mapping[str, Schema], path: tuple[str, ...]) -> Schema:
    flat = _flatten(node, definitions, path)
    out = {key: value for key, value in flat.items() if key not in _DROPPED}
    if "properties" in out:
        out["properties"] = {
            name: _convert(child, definitions, (*path, name)) for name, child in out["properties"].items()
        }
    if "items" in out:
        out["items"] = _convert(out["items"], definitions, (*path, "[]"))
    if out.get("additionalProperties") is True:
        del out["additionalProperties"]
    elif "additionalProperties" in out:
        out["additionalProperties"] = _convert(out["additionalProperties"], definitions, (*path, "{}"))
    if out.get("type") == "integer" and out.get("maximum", 0) > INT32_MAX:
        out["format"] = "int64"
    return {key: out[key] for key in (*_ORDER, *out) if key in out}


def _flatten(node: Mapping[str, Any], definitions: Mapping[str, Schema], path: tuple[str, ...]) -> Schema:
    """`node` with its reference resolved and its null alternative gone; what stands nearer to the field wins."""
    flat = dict(node)
    if alternatives := flat.pop("anyOf", None):
        real = [item for item in alternatives if item != {"type": "null"}]
        if len(real) != 1:
            raise ValueError(f"{'.'.join(path)}: a structural schema has no unions")
        flat = _merged(_flatten(real[0], definitions, path), flat)
    if reference := flat.pop("$ref", None):
        name = reference.rsplit("/", 1)[-1]
        if len(path) > len(definitions) + 16:
            raise ValueError(f"{'.'.join(path)}: a structural schema has no recursive types")
        flat = _merged(_flatten(definitions[name], definitions, path), flat)
    return flat


def _merged(inner: Schema, outer: Schema) -> Schema:
    merged = {**inner, **outer}
    if rules := [*inner.get(VALIDATIONS, ()), *outer.get(VALIDATIONS, ())]:
        merged[VALIDATIONS] = rules
    return merged
