"""What the chart says of metrics and values: every name it uses is one that the processes and the schema know."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
import yaml
from prometheus_client import CollectorRegistry
from tools import privileges

from chatelaine.telemetry.metrics import OperatorMetrics

FILES = privileges.CHART / "files"
RULES = [rule for group in yaml.safe_load((FILES / "alerts.yaml").read_text())["groups"] for rule in group["rules"]]
PANELS = json.loads((FILES / "dashboard.json").read_text())["panels"]
EXPRESSIONS = {
    **{rule["alert"]: rule["expr"] for rule in RULES},
    **{f"{panel['title']} {one['refId']}": one["expr"] for panel in PANELS for one in panel["targets"]},
}
SERIES = re.compile(r"\b(chatelaine_\w+)(?:\{([^}]*)\})?")
GROUPING = re.compile(r"\bby \(([^)]*)\)")
MATCHER = re.compile(r'(\w+)(?:=~|!~|!=|=)"[^"]*"')


def exposed(registry: CollectorRegistry) -> dict[str, set[str]]:
    """Labels of every time series that a process exposes."""
    found: dict[str, set[str]] = {}
    for instrument in set(registry._collector_to_names):
        labels = set(instrument._labelnames)
        match instrument._type:
            case "counter":
                found[f"{instrument._name}_total"] = labels
            case "histogram":
                found |= {f"{instrument._name}_bucket": labels | {"le"}}
                found |= {f"{instrument._name}{part}": labels for part in ("_sum", "_count")}
            case _:
                found[instrument._name] = labels
    return found


EXPOSED = exposed(OperatorMetrics().registry)


@pytest.mark.parametrize("name", EXPRESSIONS)
def test_expressions_name_metrics_and_labels_that_the_operator_exposes(name: str) -> None:
    expression = EXPRESSIONS[name]
    series = SERIES.findall(expression)
    assert series
    for metric, matchers in series:
        assert metric in EXPOSED
        assert set(MATCHER.findall(matchers)) <= EXPOSED[metric]
    known = set.union(*(EXPOSED[metric] for metric, _ in series))
    for labels in GROUPING.findall(expression):
        assert {label.strip() for label in labels.split(",")} <= known


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: str(rule["alert"]))
def test_alerts_say_what_is_wrong_and_what_to_do_with_labels_that_they_have(rule: dict[str, Any]) -> None:
    assert set(rule["annotations"]) == {"summary", "description"}
    assert rule["labels"]["severity"] in {"critical", "warning"}
    used = set(re.findall(r"\$labels\.(\w+)", " ".join(rule["annotations"].values())))
    assert used <= {label.strip() for labels in GROUPING.findall(rule["expr"]) for label in labels.split(",")}


def test_no_two_panels_are_in_one_place() -> None:
    taken = [
        (x, y)
        for place in (panel["gridPos"] for panel in PANELS)
        for x in range(place["x"], place["x"] + place["w"])
        for y in range(place["y"], place["y"] + place["h"])
    ]
    assert len(taken) == len(set(taken))
    assert max(x for x, _ in taken) < 24
    assert len({panel["id"] for panel in PANELS}) == len(PANELS)


def test_every_value_that_the_schema_knows_stands_in_the_values_file_with_its_default_or_in_a_comment() -> None:
    schema = json.loads((privileges.CHART / "values.schema.json").read_text())
    text = (privileges.CHART / "values.yaml").read_text()
    missing = [path for path in paths(schema, schema["definitions"]) if not re.search(rf"\b{path[-1]}\b", text)]
    assert missing == [("global",)]


def test_everything_in_the_schema_is_described_and_closed() -> None:
    schema = json.loads((privileges.CHART / "values.schema.json").read_text())
    definitions = schema["definitions"]
    for path, found in described(schema, definitions):
        assert "description" in found or definitions[found["$ref"].rpartition("/")[2]]["description"], path
        if "properties" in found:
            assert found["additionalProperties"] is False, path


def described(schema: dict[str, Any], definitions: dict[str, Any]) -> Iterator[tuple[tuple[str, ...], dict[str, Any]]]:
    for name, found in [*schema.get("properties", {}).items(), *schema.get("definitions", {}).items()]:
        yield (name,), found
        for path, inner in described(found, definitions):
            yield (name, *path), inner


def paths(schema: dict[str, Any], definitions: dict[str, Any]) -> Iterator[tuple[str, ...]]:
    for name, found in schema.get("properties", {}).items():
        yield (name,)
        target = definitions[found["$ref"].rpartition("/")[2]] if "$ref" in found else found
        target = target.get("items", target)
        target = definitions[target["$ref"].rpartition("/")[2]] if "$ref" in target else target
        for path in paths(target, definitions):
            yield (name, *path)


def test_a_privilege_that_nobody_gave_a_reason_for_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    assert privileges.differs() == ""
    monkeypatch.setattr(privileges, "REASONS", {k: v for k, v in privileges.REASONS.items() if k != "group 0"})
    assert "group 0" in privileges.differs()


def test_a_gateway_that_is_given_a_privilege_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    objects = privileges.rendered()
    (gateway, *_) = (spec for name, spec in privileges.pods(objects) if name.startswith("gateway-"))
    gateway["volumes"].append({"name": "tpm", "hostPath": {"path": "/dev/tpmrm0", "type": "CharDevice"}})
    monkeypatch.setattr(privileges, "rendered", lambda: objects)
    assert "gateway-hsm-a" in privileges.differs()
