"""Whose keys stand on a token, and what stands in the way of retiring it."""

from __future__ import annotations

from chatelaine.cli.hsm import _obstacles as obstacles
from chatelaine.cli.hsm_inventory import inventory, lines
from chatelaine.cli.hsm_owned import owners_of
from chatelaine.model.identifiers import key_label
from support.restored import lose_the_control_plane, readmit_all
from support.world import World
from support.world_objects import change_hsm, delete_claim, put_claim, stage

NOBODY: frozenset[str] = frozenset()


def shown(world: World) -> list[tuple[str, str]]:
    found = inventory(world.hsms["hsm-a"], list(world.claims.values()))
    return [(key.label, key.standing) for key in found.keys]


def test_keys_of_a_claim_then_retained_then_named() -> None:
    world = stage("hsm-a")
    uid = put_claim(world).metadata.uid
    world.settle()
    label = key_label(uid, "signing", 1)
    assert shown(world) == [(label, "claim")]
    found = inventory(world.hsms["hsm-a"], list(world.claims.values()))
    assert [line.split(":")[0] for line in obstacles(found, NOBODY)] == [
        "Hsm hsm-a takes new claims", "payments/checkout has a place there",
    ]  # fmt: skip
    delete_claim(world)
    world.settle()
    change_hsm(world, "hsm-a", cordoned="Enabled")
    found = inventory(world.hsms["hsm-a"], [])
    assert [(key.standing, key.owner) for key in found.keys] == [("retained", "payments/checkout")]
    assert obstacles(found, NOBODY) == [
        f"key {label} is retained there; name it with --abandon-retained {label} if nobody will need it again"
    ]
    assert obstacles(found, frozenset({label})) == []
    assert obstacles(found, frozenset({label, "chat/x/y/1"})) == ["chat/x/y/1 is no retained key of Hsm hsm-a"]


def test_keys_that_were_taken_over_belong_to_the_claim_of_today() -> None:
    world = stage("hsm-a")
    uid = put_claim(world).metadata.uid
    world.settle()
    lose_the_control_plane(world)
    world.settle()
    readmit_all(world)
    world.settle()
    label = key_label(uid, "signing", 1)
    assert shown(world) == [(label, "adopted"), (label, "claim")]
    found = inventory(world.hsms["hsm-a"], list(world.claims.values()))
    assert found.retained == ()
    delete_claim(world)
    world.settle()
    assert inventory(world.hsms["hsm-a"], []).retained == (label,)


def test_what_its_owners_do_says_what_becomes_of_the_keys() -> None:
    world = stage("hsm-a")
    put_claim(world, reclaimPolicy="Destroy", failover="Rebind")
    world.settle()
    [seat] = inventory(world.hsms["hsm-a"], list(world.claims.values())).seats
    assert (seat.rebinds, "DESTROYED" in seat.then) == (True, True)
    [gone] = inventory(world.hsms["hsm-a"], []).seats
    assert (gone.gone, "kubectl" in gone.then) == (True, False)


def test_keys_of_nobody_are_told_as_the_last_evidence_had_them() -> None:
    world = stage("hsm-a")
    assert list(lines(inventory(world.hsms["hsm-a"], [])))[1] == "no key version is on record"
    world.hosts["hsm-a"].labels.add("chat/stranger/x/1")
    world.attest()
    world.settle()
    found = inventory(world.hsms["hsm-a"], [])
    assert "chat/stranger/x/1" in found.unaccounted
    assert found.unaccounted in list(lines(found))[-1]


def test_owner_of_a_field_is_whoever_manages_that_very_field() -> None:
    fields: dict[str, object] = {"f:spec": {"f:cordoned": {}, "f:token": {}}}
    body = {
        "metadata": {
            "managedFields": [
                {"manager": "argocd-controller", "fieldsV1": fields},
                {"manager": "kubectl", "fieldsV1": {"f:spec": {"f:token": {}}}},
                {"manager": "odd", "fieldsV1": None},
            ]
        }
    }
    assert owners_of(body, "spec", "cordoned") == ["argocd-controller"]
    assert owners_of(body, "spec", "token") == ["argocd-controller", "kubectl"]
    assert owners_of({}, "spec", "cordoned") == []
