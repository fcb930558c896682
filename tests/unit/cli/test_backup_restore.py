"""What a backup holds, and how a restore is held against it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from chatelaine.cli.backup_manifests import (
    BackupUnusable,
    Installation,
    manifests,
    needed_besides,
    read_backup,
    written,
)
from chatelaine.cli.restore_check import authority, check, live_by_name, worst
from chatelaine.kube.port import CLAIMS, HSMS, POLICIES, JsonObject, Resource
from chatelaine.model.identifiers import ANNOTATION_DESTROY, ANNOTATION_READMIT
from chatelaine.model.verdict import Outcome
from support.restored import lose_the_control_plane, readmit_all
from support.world import World
from support.world_objects import annotate_claim, annotate_hsm, put_claim, stage


def bodies(world: World) -> Installation:
    """As the API server would list them."""

    def shown(resource: Resource, items: Any) -> tuple[JsonObject, ...]:
        plain = (
            {"metadata": i.metadata.dump(), "spec": i.spec.dump(), "status": i.status.dump(), "kind": resource.kind}
            for i in items
        )
        return tuple({**body, "apiVersion": resource.api_version} for body in plain)

    return Installation(
        shown(POLICIES, world.policies.values()), shown(HSMS, world.hsms.values()), shown(CLAIMS, world.claims.values())
    )


def live(world: World) -> Any:
    found = bodies(world)
    return live_by_name([*found.policies, *found.hsms, *found.claims])


@pytest.fixture
def world() -> World:
    made = stage("hsm-a", "hsm-b")
    put_claim(made)
    made.settle()
    return made


def test_backup_says_whose_keys_are_where_and_nothing_that_a_server_wrote(world: World) -> None:
    annotate_hsm(world, "hsm-a", ANNOTATION_READMIT, "sha256:" + "0" * 64)
    annotate_claim(world, ANNOTATION_DESTROY, "signing/1")
    annotate_claim(world, "team.example/cost", "7")
    made = manifests(bodies(world))
    assert [body["kind"] for body in made] == ["AttestationPolicy", "Hsm", "Hsm", "HsmClaim"]
    assert all(set(body) == {"apiVersion", "kind", "metadata", "spec"} for body in made)
    assert all(set(body["metadata"]) <= {"name", "namespace", "labels", "annotations"} for body in made)
    uid = world.claims["payments", "checkout"].metadata.uid
    said = {body["metadata"]["name"]: body["spec"].get("adoptions") for body in made[1:3]}
    assert said == {"hsm-a": [{"claimUid": uid, "namespace": "payments", "name": "checkout"}], "hsm-b": None}
    assert "annotations" not in made[1]["metadata"]
    assert made[3]["metadata"]["annotations"] == {"team.example/cost": "7"}


def test_what_is_written_is_read_again_and_names_what_is_needed_besides(world: World, tmp_path: Path) -> None:
    found = bodies(world)
    lean = {"configMapRef": {"name": "ek-roots", "key": "ca.pem"}}
    found.policies[0]["spec"]["tpm"]["endorsement"] = {"roots": [lean]}
    file = tmp_path / "backup.yaml"
    file.write_text(written(manifests(found), needed_besides(found)))
    assert read_backup(file) == manifests(found)
    assert "# ConfigMaps of the operator's namespace: ek-roots" in file.read_text()


@pytest.mark.parametrize(
    "text", ["- a list", "kind: Secret\napiVersion: v1", "{", "!!python/object:os.system {}", "kind: Hsm", "&a [*a]"]
)
def test_a_file_that_is_no_backup_is_refused(tmp_path: Path, text: str) -> None:
    file = tmp_path / "backup.yaml"
    file.write_text(text)
    with pytest.raises(BackupUnusable):
        read_backup(file)


def test_a_restore_is_missing_then_waits_then_holds(world: World) -> None:
    backup = manifests(bodies(world))
    assert worst(check(backup, {})) is Outcome.REFUTED
    lose_the_control_plane(world)
    assert worst(check(backup, live(world))) is Outcome.CANNOT_TELL
    world.settle()
    told = {one.what: one for one in check(backup, live(world))}
    assert "readmit=sha256:" in told["Hsm hsm-a"].then
    assert told["HsmClaim payments/checkout"].outcome is Outcome.CANNOT_TELL
    readmit_all(world)
    world.settle()
    assert worst(check(backup, live(world))) is Outcome.HOLDS


def test_a_claim_that_got_new_keys_instead_of_its_own_is_told(world: World) -> None:
    backup = manifests(bodies(world))
    lose_the_control_plane(world, backed_up=False)
    world.settle()
    readmit_all(world)
    world.settle()
    told = {one.what: one for one in check(backup, live(world))}
    assert told["Hsm hsm-a"].outcome is Outcome.REFUTED
    claim = told["HsmClaim payments/checkout"]
    assert (claim.outcome, "its own are on Hsm hsm-a" in claim.message) == (Outcome.REFUTED, True)


def test_the_same_cluster_that_lost_nothing_holds(world: World) -> None:
    """A rehearsal of the check alone: no adoption is wanted where the claims are those of the backup."""
    backup = manifests(bodies(world))
    told = {one.what: one.outcome for one in check(backup, live(world))}
    assert told["HsmClaim payments/checkout"] is Outcome.HOLDS


def test_a_missing_authority_is_worse_than_anything_that_waits() -> None:
    assert authority("chatelaine-system", there=True).outcome is Outcome.HOLDS
    assert worst([authority("chatelaine-system", there=False)]) is Outcome.REFUTED


def test_the_file_is_plain_yaml(world: World) -> None:
    text = written(manifests(bodies(world)), ["a", "b"])
    assert text.startswith("# a\n# b\n---\n")
    assert len(list(yaml.safe_load_all(text))) == 4
