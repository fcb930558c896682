"""Status: every bound of every field holds at the real API server, and spec and status are written apart."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from tools.control_plane.access import ClusterAccess
from tools.control_plane.client import ApiError

from chatelaine.model.claim import HsmClaimStatus
from chatelaine.model.crd import KINDS, Kind
from chatelaine.model.hsm import HsmStatus
from chatelaine.model.policy import AttestationPolicyStatus
from chatelaine.model.schema import structural
from support.kind_statuses import claim_status, hsm_status, policy_status
from support.kinds import Object, changed, claim, hsm, policy

STATUSES = {"Hsm": hsm_status, "HsmClaim": claim_status, "AttestationPolicy": policy_status}
MODELS = {"Hsm": HsmStatus, "HsmClaim": HsmClaimStatus, "AttestationPolicy": AttestationPolicyStatus}
by_kind = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)


@pytest.fixture
def live(control_plane: ClusterAccess, namespace: str, prefix: str, kind: Kind) -> Iterator[Object]:
    """An object of the kind, as the API server holds it."""
    makers = {"Hsm": hsm, "AttestationPolicy": policy, "HsmClaim": lambda name: claim(name, namespace)}
    made = control_plane.admin.create(makers[kind.name](prefix))
    yield made
    control_plane.admin.delete(made)


def fields(schema: Object, path: str = "status") -> Iterator[tuple[str, Object]]:
    """Every schema with the path of an example of it: the first item of a list."""
    yield path, schema
    for name, child in schema.get("properties", {}).items():
        yield from fields(child, f"{path}.{name}")
    if "items" in schema:
        yield from fields(schema["items"], f"{path}[0]")


def violations(schema: Object) -> list[Any]:
    """Values that the schema's own bounds refuse."""
    kind = schema["type"]
    if kind == "integer":
        return [schema["minimum"] - 1, schema["maximum"] + 1, "1", 1.5]
    if kind == "array":
        return [{}, [schema["items"].get("x", None)] * (schema["maxItems"] + 1)]
    if kind == "object":
        return [[], "x"]
    if "enum" in schema:
        return ["Nonsense", 7]
    beyond = [7, "x" * (schema["maxLength"] + 1)]
    if schema.get("minLength"):
        beyond.append("")
    if "pattern" in schema:
        beyond.append("~ \n")
    if schema.get("format") == "date-time":
        beyond.append("yesterday")
    return beyond


@by_kind
def test_a_whole_status_is_accepted_and_comes_back(control_plane: ClusterAccess, live: Object, kind: Kind) -> None:
    wanted = STATUSES[kind.name]()
    stored = control_plane.admin.replace(changed(live, "status", wanted), subresource="status")["status"]
    assert stored == wanted
    assert MODELS[kind.name].model_validate(stored).dump() == wanted


@by_kind
def test_the_sample_fills_in_every_field(kind: Kind) -> None:
    sample = {"status": STATUSES[kind.name]()}
    for path, _ in fields(structural(kind.status)):
        assert path in {found for found, _ in walk(sample["status"])}, path


def walk(value: Any, path: str = "status") -> Iterator[tuple[str, Any]]:
    yield path, value
    if isinstance(value, dict):
        for name, child in value.items():
            yield from walk(child, f"{path}.{name}")
    if isinstance(value, list) and value:
        yield from walk(value[0], f"{path}[0]")


@by_kind
def test_every_bound_of_every_status_field_holds(control_plane: ClusterAccess, live: Object, kind: Kind) -> None:
    whole = changed(live, "status", STATUSES[kind.name]())
    path_of_status = control_plane.admin.path_of(live, "status")
    for path, schema in fields(structural(kind.status)):
        for value in violations(schema):
            with pytest.raises(ApiError) as refusal:
                control_plane.admin.request("PUT", f"{path_of_status}?dryRun=All", changed(whole, path, value))
            assert refusal.value.status == 422, (path, value)
            assert path.removesuffix("[0]") in refusal.value.message, (path, value)


@by_kind
def test_required_status_fields_must_be_there(control_plane: ClusterAccess, live: Object, kind: Kind) -> None:
    whole = changed(live, "status", STATUSES[kind.name]())
    path_of_status = control_plane.admin.path_of(live, "status")
    for path, schema in fields(structural(kind.status)):
        for name in schema.get("required", ()):
            obj = changed(whole, f"{path}.{name}", None)
            with pytest.raises(ApiError) as refusal:
                control_plane.admin.request("PUT", f"{path_of_status}?dryRun=All", obj)
            assert refusal.value.status == 422, f"{path}.{name}"


@by_kind
def test_a_status_sent_with_the_spec_is_ignored(control_plane: ClusterAccess, live: Object, kind: Kind) -> None:
    control_plane.admin.merge(live, {"status": STATUSES[kind.name]()})
    assert "status" not in control_plane.admin.get(control_plane.admin.path_of(live))


@by_kind
def test_a_spec_sent_with_the_status_is_ignored(control_plane: ClusterAccess, live: Object, kind: Kind) -> None:
    change = {"spec": {"failover": "Rebind", "cordoned": "Enabled", "enforcement": "Audit"}}
    stored = control_plane.admin.merge(live, {"status": STATUSES[kind.name](), **change}, subresource="status")
    assert stored["spec"] == live["spec"]
    assert stored["metadata"]["generation"] == live["metadata"]["generation"]


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind.name == "Hsm"], ids=["Hsm"])
def test_writing_places_over_a_stale_version_is_a_conflict(
    control_plane: ClusterAccess, live: Object, kind: Kind
) -> None:
    """Two leaders: the second writer of the scarce side loses, because it read an older object."""
    control_plane.admin.replace(changed(live, "status", hsm_status()), subresource="status")
    with pytest.raises(ApiError) as refusal:
        control_plane.admin.replace(changed(live, "status", hsm_status()), subresource="status")
    assert refusal.value.status == 409


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind.name == "Hsm"], ids=["Hsm"])
def test_one_claim_cannot_hold_two_places(control_plane: ClusterAccess, live: Object, kind: Kind) -> None:
    status = hsm_status()
    status["allocations"] *= 2
    with pytest.raises(ApiError, match="Duplicate value"):
        control_plane.admin.replace(changed(live, "status", status), subresource="status")
