"""Entries that stand twice in a list where the API server takes each once.

The server looks at `x-kubernetes-list-type` of the CRD; a file that is judged without one has to be looked at by the
same schema, or a policy would be tried that nobody can apply.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import cache
from typing import Any

from chatelaine.model.policy import AttestationPolicySpec
from chatelaine.model.schema import Schema, structural


def twice(raw: object) -> Iterator[str]:
    """Paths of entries of a policy's spec that stand twice, and what names them."""
    yield from _twice(raw, _schema(), "spec")


@cache
def _schema() -> Schema:
    return structural(AttestationPolicySpec)


def _twice(raw: object, schema: Schema, path: str) -> Iterator[str]:
    if isinstance(raw, dict):
        fields = schema.get("properties", {})
        for key, item in raw.items():
            if key in fields:
                yield from _twice(item, fields[key], f"{path}.{key}")
    elif isinstance(raw, list):
        yield from _repeated(raw, schema, path)
        for number, item in enumerate(raw):
            yield from _twice(item, schema.get("items", {}), f"{path}[{number}]")


def _repeated(entries: list[Any], schema: Schema, path: str) -> Iterator[str]:
    seen = set()
    for number, entry in enumerate(entries):
        named = _named(entry, schema)
        said = json.dumps(named, sort_keys=True, default=str)
        if named is not None and said in seen:
            yield f"{path}[{number}] ({said})"
        seen.add(said)


def _named(entry: object, schema: Schema) -> object:
    """What tells this entry from others of its list; None where the list may hold anything."""
    kind = schema.get("x-kubernetes-list-type")
    if kind == "map" and isinstance(entry, dict):
        return {key: entry.get(key) for key in schema["x-kubernetes-list-map-keys"]}
    return entry if kind == "set" else None
