"""Every field of every kind against the real API server: what is taken, what is refused, and with which words."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
from tools.control_plane.access import ClusterAccess
from tools.control_plane.client import ApiError

from chatelaine.model.crd import KINDS
from chatelaine.model.schema import structural
from support import kind_tables as tables
from support.kind_tables import Row
from support.kinds import ABSENT, Object, changed, claim, hsm, policy
from support.policy_tables import POLICY

DRY = "dryRun=All&fieldValidation=Strict&fieldManager=test"


def external_hsm(name: str) -> Object:
    return changed(hsm(name), "spec.gateway", {"external": {**tables.EXTERNAL, "cidrs": ["192.0.2.10/32"]}})


def prebound_claim(name: str) -> Object:
    return changed(changed(claim(name, "default"), "spec.selector", ABSENT), "spec.hsmRef", {"name": "hsm-a"})


BASES: dict[str, tuple[Callable[[str], Object], list[Row]]] = {
    "Hsm": (hsm, tables.HSM),
    "Hsm/external": (external_hsm, tables.HSM_EXTERNAL),
    "HsmClaim": (lambda name: claim(name, "default"), tables.CLAIM),
    "HsmClaim/prebound": (prebound_claim, tables.CLAIM_PREBOUND),
    "AttestationPolicy": (policy, POLICY),
}
ROWS = [pytest.param(base, row, id=f"{base}:{row.path}") for base, (_, rows) in BASES.items() for row in rows]


def would_create(control_plane: ClusterAccess, obj: Object) -> None:
    """Asks the API server to judge `obj` as if it were created; raises ApiError if it refuses."""
    metadata = obj["metadata"]
    path = control_plane.admin.collection(obj["apiVersion"], obj["kind"], metadata.get("namespace"))
    control_plane.admin.request("POST", f"{path}?{DRY}", obj)


def fields_below(schema: dict[str, Any], path: str) -> set[str]:
    """Paths of every named field, list items written `[]`."""
    found = {path}
    for name, child in schema.get("properties", {}).items():
        found |= fields_below(child, f"{path}.{name}")
    if "items" in schema:
        found |= fields_below(schema["items"], f"{path}[]") - {f"{path}[]"}
    return found


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_every_field_has_a_row(kind: Any) -> None:
    covered = {
        re.sub(r"\[\d+\]", "[]", row.path)
        for base, (_, rows) in BASES.items()
        if base.split("/")[0] == kind.name
        for row in rows
    }
    assert fields_below(structural(kind.spec), "spec") - covered == set()


@pytest.mark.parametrize("base", BASES)
def test_the_whole_manifest_is_accepted(control_plane: ClusterAccess, prefix: str, base: str) -> None:
    would_create(control_plane, BASES[base][0](prefix))


@pytest.mark.parametrize(("base", "row"), ROWS)
def test_field_accepts(control_plane: ClusterAccess, prefix: str, base: str, row: Row) -> None:
    for value in row.accepted:
        would_create(control_plane, changed(BASES[base][0](prefix), row.path, value))


@pytest.mark.parametrize(("base", "row"), ROWS)
def test_field_refuses_and_says_why(control_plane: ClusterAccess, prefix: str, base: str, row: Row) -> None:
    assert row.refused
    parent = row.path.rsplit(".", 1)[0]
    for value, words in row.refused:
        with pytest.raises(ApiError) as refusal:
            would_create(control_plane, changed(BASES[base][0](prefix), row.path, value))
        assert refusal.value.status == 422, value
        assert words in refusal.value.message, value
        # Rules over several fields speak of the object that holds them all.
        complaint = refusal.value.message.split("is invalid: ", 1)[-1]
        assert parent in complaint or "spec: Invalid value" in complaint, value


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_unknown_fields_are_refused_by_strict_clients(control_plane: ClusterAccess, prefix: str, kind: Any) -> None:
    with pytest.raises(ApiError, match="unknown field"):
        would_create(control_plane, changed(BASES[kind.name][0](prefix), "spec.surprise", "x"))


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_names_that_do_not_fit_into_labels_are_refused(control_plane: ClusterAccess, kind: Any) -> None:
    would_create(control_plane, BASES[kind.name][0]("n" * 63))
    with pytest.raises(ApiError, match="must fit into labels"):
        would_create(control_plane, BASES[kind.name][0]("n" * 64))


IMMUTABLE = {
    "selector": ({"matchLabels": {"chatelaine.dev/zone": "eu-2"}}, "selector is immutable"),
    "requirements": ({"sensitivity": "Public"}, "requirements are immutable"),
    "mode": ("Exclusive", "mode is immutable"),
}


@pytest.mark.parametrize("field", IMMUTABLE)
def test_what_a_claim_was_bound_by_is_immutable(control_plane: ClusterAccess, namespace: str, field: str) -> None:
    value, words = IMMUTABLE[field]
    made = control_plane.admin.create(claim("bound", namespace))
    for change in (value, None):
        with pytest.raises(ApiError, match=words) as refusal:
            control_plane.admin.merge(made, {"spec": {field: change}})
        assert refusal.value.status == 422


def test_a_prebound_claim_cannot_move_to_another_hsm(control_plane: ClusterAccess, namespace: str) -> None:
    wanted = changed(prebound_claim("pinned"), "metadata.namespace", namespace)
    made = control_plane.admin.create(wanted)
    with pytest.raises(ApiError, match="hsmRef is immutable"):
        control_plane.admin.merge(made, {"spec": {"hsmRef": {"name": "hsm-b"}}})
    with pytest.raises(ApiError, match="hsmRef is immutable"):
        control_plane.admin.merge(made, {"spec": {"hsmRef": None, "selector": {"matchLabels": {"a": "b"}}}})


def test_a_key_keeps_its_type(control_plane: ClusterAccess, namespace: str) -> None:
    made = control_plane.admin.create(claim("typed", namespace))
    retyped = changed(made, "spec.keys[0].type", "Rsa3072")["spec"]["keys"]
    with pytest.raises(ApiError, match="the type of a key is immutable"):
        control_plane.admin.merge(made, {"spec": {"keys": retyped}})


def test_what_may_change_later_may_change(control_plane: ClusterAccess, namespace: str) -> None:
    made = control_plane.admin.create(claim("changing", namespace))
    keys = [*made["spec"]["keys"], {"name": "more", "type": "Rsa3072", "usages": ["Sign"]}]
    for change in ({"keys": keys}, {"failover": "Rebind"}, {"reclaimPolicy": "Destroy"}, {"policyRef": None}):
        control_plane.admin.merge(made, {"spec": change})


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_applying_twice_changes_nothing(control_plane: ClusterAccess, prefix: str, kind: Any) -> None:
    wanted = BASES[kind.name][0](prefix)
    try:
        first = control_plane.admin.apply(wanted, manager="gitops")
        second = control_plane.admin.apply(wanted, manager="gitops")
        assert second["metadata"]["resourceVersion"] == first["metadata"]["resourceVersion"]
        assert second["spec"] == wanted["spec"]
    finally:
        control_plane.admin.delete(wanted)


BIG = {
    "Hsm": ("spec.token", "spec.offers.compliance", "spec.gateway.service.podSelector.matchExpressions[0]"),
    "HsmClaim": ("spec.policyRef.name", "spec.requirements.compliance", "spec.adopt"),
    "AttestationPolicy": ("spec.tpm.endorsement.listed[0].note", "spec.release.anyOf[0].compliance", "spec.tpm.ima"),
}


def big_manifests(kind: str, name: str) -> dict[str, Object]:
    base, text = BASES[kind][0](name), "x" * 2**20
    string, array, nested = BIG[kind]
    depth: Object = {}
    for _ in range(500):
        depth = {"a": depth}
    return {
        "string": changed(base, string, text),
        "list": changed(base, array, [f"A{n}".ljust(60, "x") for n in range(16000)]),
        "depth": changed(base, nested, depth),
        "unknown field": changed(base, "spec.surprise", text),
        "name": changed(base, "metadata.name", text),
        "label": changed(base, "metadata.labels", {"a": text}),
        "annotation": changed(base, "metadata.annotations", {"a": text}),
    }


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_manifests_of_a_megabyte_are_refused_cleanly(control_plane: ClusterAccess, prefix: str, kind: Any) -> None:
    for what, obj in big_manifests(kind.name, prefix).items():
        with pytest.raises(ApiError) as refusal:
            would_create(control_plane, obj)
        assert refusal.value.status in {400, 413, 422}, what
        # The server's own checks of metadata repeat the value, up to twice; ours do not.
        assert len(refusal.value.message) < (2**22 if what in {"name", "label"} else 2**10), what


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_manifests_beyond_the_body_limit_are_refused(control_plane: ClusterAccess, prefix: str, kind: Any) -> None:
    obj = changed(BASES[kind.name][0](prefix), "metadata.annotations", {"a": "x" * 2**22})
    with pytest.raises(ApiError) as refusal:
        would_create(control_plane, obj)
    assert refusal.value.status == 413


def test_people_find_objects_by_what_they_refer_to(control_plane: ClusterAccess, namespace: str) -> None:
    control_plane.admin.create(claim("first", namespace))
    control_plane.admin.create(changed(claim("second", namespace), "spec.policyRef.name", "other"))
    found = control_plane.kubectl(
        "get", "hsmc", "-n", namespace, "--field-selector=spec.policyRef.name=other", "-o=name"
    )
    assert found.split() == ["hsmclaim.chatelaine.dev/second"]


def test_kubectl_shows_the_story_in_columns(control_plane: ClusterAccess, namespace: str, prefix: str) -> None:
    made = [hsm(prefix), policy(prefix), claim("mine", namespace)]
    for obj in made:
        control_plane.admin.create(obj)
    try:
        shown = [control_plane.kubectl("get", name).split("\n")[0].split() for name in ("hsm", "attpol")]
        shown.append(control_plane.kubectl("get", "hsmc", "-n", namespace).split("\n")[0].split())
    finally:
        for obj in made:
            control_plane.admin.delete(obj)
    assert shown == [
        ["NAME", "VERDICT", "ENROLLED", "READY", "REASON", "EPOCH", "AGE"],
        ["NAME", "ENFORCEMENT", "HSMS", "CLAIMS", "VALID", "AGE"],
        ["NAME", "HSM", "BOUND", "ATTESTED", "KEYS", "READY", "REASON", "AGE"],
    ]
