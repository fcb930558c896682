"""The mechanical rules for every definition under crds/: what is bounded, typed, described and refused."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from tools import generate_crds

ROOT = Path(__file__).resolve().parents[3]
FILES = sorted((ROOT / "crds").glob("*.yaml"))
DEFINITIONS = {path.name: yaml.safe_load(path.read_text()) for path in FILES}

UPPER_CAMEL = re.compile(r"^[A-Z][A-Za-z0-9]*$")
KNOWN = {
    "description", "type", "format", "enum", "required", "properties", "items", "additionalProperties", "pattern",
    "minLength", "maxLength", "minimum", "maximum", "minItems", "maxItems", "minProperties", "maxProperties",
}  # fmt: skip

Node = tuple[str, dict[str, Any]]


def nodes(schema: dict[str, Any], path: str = "") -> Iterator[Node]:
    """Every schema below spec and status, with its path."""
    yield path, schema
    for name, child in schema.get("properties", {}).items():
        yield from nodes(child, f"{path}.{name}")
    if "items" in schema:
        yield from nodes(schema["items"], f"{path}[]")
    if isinstance(schema.get("additionalProperties"), dict):
        yield from nodes(schema["additionalProperties"], f"{path}{{}}")


def version_of(name: str) -> dict[str, Any]:
    (version,) = DEFINITIONS[name]["spec"]["versions"]
    return version


def root_of(name: str) -> dict[str, Any]:
    return version_of(name)["schema"]["openAPIV3Schema"]


def every_node() -> list[tuple[str, str, dict[str, Any]]]:
    return [
        (name, path, schema)
        for name in DEFINITIONS
        for part in ("spec", "status")
        for path, schema in nodes(root_of(name)["properties"][part], f".{part}")
    ]


NODES = every_node()


def offenders(violates: Any) -> list[str]:
    return [f"{name}: {path}" for name, path, schema in NODES if violates(path, schema)]


def is_closed(name: str, path: str) -> bool:
    """A CEL rule refuses the field, so nothing ever stands in it."""
    parent, _, field = path.removesuffix("[]").rpartition(".")
    rules = [
        rule["rule"] for owner, where, node in NODES if (owner, where) == (name, parent)
        for rule in node.get("x-kubernetes-validations", ())
    ]  # fmt: skip
    return f"!has(self.{field})" in rules


def test_there_is_one_definition_a_kind() -> None:
    kinds = {definition["spec"]["names"]["kind"] for definition in DEFINITIONS.values()}
    assert kinds == {"Hsm", "HsmClaim", "AttestationPolicy"}


def test_generated_files_are_up_to_date() -> None:
    assert [str(path.relative_to(ROOT)) for path in generate_crds.stale()] == []


def test_every_string_is_bounded() -> None:
    assert offenders(lambda _, s: s.get("type") == "string" and not ("maxLength" in s or "enum" in s)) == []


def test_every_integer_is_bounded_and_there_are_no_floats() -> None:
    assert offenders(lambda _, s: s.get("type") == "integer" and not {"minimum", "maximum"} <= s.keys()) == []
    assert offenders(lambda _, s: s.get("type") == "number") == []


def test_every_list_is_bounded_and_declares_its_type() -> None:
    def violates(_: str, schema: dict[str, Any]) -> bool:
        if schema.get("type") != "array":
            return False
        kind = schema.get("x-kubernetes-list-type")
        keyed = kind != "map" or bool(schema.get("x-kubernetes-list-map-keys"))
        return "maxItems" not in schema or kind not in {"atomic", "set", "map"} or not keyed

    assert offenders(violates) == []


def test_keys_of_list_maps_are_required_fields_of_their_items() -> None:
    def violates(_: str, schema: dict[str, Any]) -> bool:
        keys = schema.get("x-kubernetes-list-map-keys", [])
        return not set(keys) <= set(schema.get("items", {}).get("required", []))

    assert offenders(violates) == []


def test_every_map_is_bounded() -> None:
    assert offenders(lambda _, s: "additionalProperties" in s and "maxProperties" not in s) == []


def test_every_field_is_described() -> None:
    assert offenders(lambda path, s: not path.endswith(("[]", "{}")) and not s.get("description")) == []


def test_nothing_is_defaulted_so_that_git_holds_what_the_user_meant() -> None:
    assert offenders(lambda _, s: "default" in s) == []


def test_nothing_is_a_boolean() -> None:
    assert offenders(lambda _, s: s.get("type") == "boolean") == []


def test_enums_are_upper_camel_case() -> None:
    assert offenders(lambda _, s: any(not UPPER_CAMEL.match(value) for value in s.get("enum", ()))) == []


def test_durations_are_integers_of_seconds() -> None:
    assert offenders(lambda path, s: path.endswith("Seconds") and s.get("type") != "integer") == []
    words = ("Duration", "Timeout", "Period", "Ttl", "Minutes", "Millis")
    assert offenders(lambda path, _: path.endswith(words)) == []


def test_schemas_are_structural() -> None:
    assert offenders(lambda _, s: not {k for k in s if not k.startswith("x-kubernetes-")} <= KNOWN) == []
    assert offenders(lambda _, s: "type" not in s) == []


def test_fields_without_a_schema_are_closed() -> None:
    open_ended = [
        f"{name}: {path}"
        for name, path, schema in NODES
        if schema.get("x-kubernetes-preserve-unknown-fields") and not is_closed(name, path)
    ]
    assert open_ended == []


def test_every_rule_has_a_message_without_jargon() -> None:
    for name, path, schema in NODES:
        for rule in schema.get("x-kubernetes-validations", ()):
            assert rule.keys() == {"rule", "message"}, f"{name}: {path}"
            assert "self" not in rule["message"].split(), f"{name}: {path}"
            assert len(rule["message"]) > 15, f"{name}: {path}"


def test_rules_name_fields_that_exist() -> None:
    for name, path, schema in NODES:
        for rule in schema.get("x-kubernetes-validations", ()):
            for field in re.findall(r"\bself\.([A-Za-z]\w*)(?!\w*\()", rule["rule"]):
                assert field in schema["properties"], f"{name}: {path}: {rule['rule']}"


def test_enums_in_rules_are_values_that_exist() -> None:
    values = {value for _, _, schema in NODES for value in schema.get("enum", ())}
    for name, path, schema in NODES:
        for rule in schema.get("x-kubernetes-validations", ()):
            for quoted in re.findall(r"'([A-Z]\w*)'", rule["rule"]):
                assert quoted in values, f"{name}: {path}: {rule['rule']}"


@pytest.mark.parametrize("name", DEFINITIONS)
def test_conditions_are_standard(name: str) -> None:
    status = root_of(name)["properties"]["status"]["properties"]
    assert "observedGeneration" in status
    conditions = status["conditions"]
    assert conditions["x-kubernetes-list-map-keys"] == ["type"]
    fields = conditions["items"]["properties"]
    assert fields.keys() == {"type", "status", "observedGeneration", "lastTransitionTime", "reason", "message"}


@pytest.mark.parametrize("name", DEFINITIONS)
def test_definition_has_status_columns_and_category(name: str) -> None:
    names, version = DEFINITIONS[name]["spec"]["names"], version_of(name)
    assert version["subresources"] == {"status": {}}
    assert names["categories"] == ["chatelaine"]
    columns = [column["name"] for column in version["additionalPrinterColumns"]]
    assert columns[-1] == "Age"
    assert len(columns) == len(set(columns))


def test_short_names_are_those_that_people_type() -> None:
    found = {
        short: definition["spec"]["names"]["kind"]
        for definition in DEFINITIONS.values()
        for short in [*definition["spec"]["names"].get("shortNames", []), definition["spec"]["names"]["singular"]]
    }
    assert {name: found[name] for name in ("hsm", "hsmc", "attpol")} == {
        "hsm": "Hsm",
        "hsmc": "HsmClaim",
        "attpol": "AttestationPolicy",
    }


def test_references_are_selectable() -> None:
    for name, definition in DEFINITIONS.items():
        selectable = {field["jsonPath"] for field in version_of(name).get("selectableFields", ())}
        references = {path for owner, path, _ in NODES if owner == name and path.endswith("Ref.name")}
        assert {path for path in references if path.startswith(".spec") and "[]" not in path} <= selectable, definition


@pytest.mark.parametrize("name", DEFINITIONS)
def test_columns_and_selectors_point_at_fields_that_exist(name: str) -> None:
    paths = {path for owner, path, _ in NODES if owner == name}
    version = version_of(name)
    wanted = [column["jsonPath"] for column in version["additionalPrinterColumns"]]
    wanted += [field["jsonPath"] for field in version.get("selectableFields", ())]
    for path in wanted:
        plain = re.sub(r"\[\?\(@\.type==\"\w+\"\)\]", "[]", path)
        assert plain in paths or plain == ".metadata.creationTimestamp", path
