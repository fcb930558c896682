"""JSON schemas for kubeconform: of Kubernetes' own kinds from its OpenAPI description, of ours from `crds/`.

They are stricter than the API server where it would only warn: an object of a known shape takes no other fields. A
mistyped field in a template or an example is an error, not silence.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

LOCATION = "{{.ResourceKind}}{{.KindSuffix}}.json"
"""Name of a kind's schema in the folder, as kubeconform fills it in."""

# What the OpenAPI description calls a string, but manifests may write as a number too.
_NUMBERS_TOO = {
    "io.k8s.apimachinery.pkg.api.resource.Quantity",
    "io.k8s.apimachinery.pkg.util.intstr.IntOrString",
}
_SHARED = "_definitions.json"


def write(folder: Path, openapi: Path, definitions: Iterable[Path]) -> str:
    """Writes all schemas into `folder`; answers the location to give to kubeconform."""
    described = json.loads(openapi.read_text())["definitions"]
    shared = {name: _closed(described[name]) for name in described}
    for name in _NUMBERS_TOO:
        shared[name] = {"type": ["string", "number"]}
    (folder / _SHARED).write_text(
        json.dumps({"definitions": shared}).replace('"#/definitions/', f'"{_SHARED}#/definitions/')
    )
    for name, schema in described.items():
        for kind in schema.get("x-kubernetes-group-version-kind", ()):
            target = folder / _file(kind["group"], kind["version"], kind["kind"])
            target.write_text(json.dumps({"$ref": f"{_SHARED}#/definitions/{name}"}))
    for path in definitions:
        _write_own(folder, yaml.safe_load(path.read_text())["spec"])
    return f"{folder}/{LOCATION}"


def _write_own(folder: Path, spec: dict[str, Any]) -> None:
    for version in spec["versions"]:
        schema = _closed(version["schema"]["openAPIV3Schema"])
        schema["properties"] |= {
            "apiVersion": {"enum": [f"{spec['group']}/{version['name']}"]},
            "kind": {"enum": [spec["names"]["kind"]]},
            "metadata": {"$ref": f"{_SHARED}#/definitions/io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"},
        }
        (folder / _file(spec["group"], version["name"], spec["names"]["kind"])).write_text(json.dumps(schema))


def _file(group: str, version: str, kind: str) -> str:
    return "-".join(part for part in (kind, group.split(".")[0], version) if part).lower() + ".json"


def _closed(schema: Any) -> Any:
    """The schema in JSON Schema's own words, without room for unknown fields."""
    if not isinstance(schema, dict):
        return schema
    closed = dict(schema)
    for word in ("items", "additionalProperties", "not"):
        if word in schema:
            closed[word] = _closed(schema[word])
    for word in ("allOf", "anyOf", "oneOf"):
        if word in schema:
            closed[word] = [_closed(item) for item in schema[word]]
    if "properties" in schema:
        closed["properties"] = {name: _closed(item) for name, item in schema["properties"].items()}
        if not schema.get("x-kubernetes-preserve-unknown-fields"):
            closed.setdefault("additionalProperties", False)
    if schema.get("x-kubernetes-int-or-string"):
        closed["type"] = ["integer", "string"]
    elif schema.get("nullable"):
        closed["type"] = [schema["type"], "null"]
    return closed
