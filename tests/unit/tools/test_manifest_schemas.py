"""Schemas for kubeconform: closed objects, and the places where Kubernetes' description is not JSON Schema."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from tools import manifest_schemas

OPENAPI: dict[str, Any] = {
    "definitions": {
        "v1.Thing": {
            "properties": {"properties": {"type": "object"}, "amount": {"$ref": "#/definitions/v1.Other"}},
            "x-kubernetes-group-version-kind": [{"group": "apps.example", "version": "v1", "kind": "Thing"}],
        },
        "v1.Other": {"properties": {"a": {"type": "string"}}},
    }
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    described, own = tmp_path / "openapi.json", tmp_path / "crd.yaml"
    described.write_text(json.dumps(OPENAPI))
    properties = {
        "port": {"x-kubernetes-int-or-string": True},
        "gone": {"type": "string", "nullable": True},
        "free": {"type": "object", "properties": {}, "x-kubernetes-preserve-unknown-fields": True},
        "list": {"type": "array", "items": {"type": "object", "properties": {"a": {"type": "string"}}}},
    }
    schema = {"type": "object", "properties": {"spec": {"type": "object", "properties": properties}}}
    version = {"name": "v1alpha1", "schema": {"openAPIV3Schema": schema}}
    own.write_text(yaml.dump({"spec": {"group": "own.dev", "names": {"kind": "Mine"}, "versions": [version]}}))
    target = tmp_path / "schemas"
    target.mkdir()
    assert manifest_schemas.write(target, described, [own]) == f"{target}/{manifest_schemas.LOCATION}"
    return target


def test_kinds_of_kubernetes_are_closed_and_share_their_definitions(folder: Path) -> None:
    assert json.loads((folder / "thing-apps-v1.json").read_text()) == {
        "$ref": "_definitions.json#/definitions/v1.Thing"
    }
    shared = json.loads((folder / "_definitions.json").read_text())["definitions"]
    assert shared["v1.Thing"]["additionalProperties"] is False
    assert shared["v1.Thing"]["properties"]["amount"] == {"$ref": "_definitions.json#/definitions/v1.Other"}
    assert shared["v1.Thing"]["properties"]["properties"] == {"type": "object"}


def test_our_kinds_are_closed_too(folder: Path) -> None:
    schema = json.loads((folder / "mine-own-v1alpha1.json").read_text())
    assert schema["properties"]["kind"] == {"enum": ["Mine"]}
    assert schema["properties"]["apiVersion"] == {"enum": ["own.dev/v1alpha1"]}
    spec = schema["properties"]["spec"]
    assert (schema["additionalProperties"], spec["additionalProperties"]) == (False, False)
    assert spec["properties"]["list"]["items"]["additionalProperties"] is False
    assert "additionalProperties" not in spec["properties"]["free"]
    assert spec["properties"]["port"]["type"] == ["integer", "string"]
    assert spec["properties"]["gone"]["type"] == ["string", "null"]
