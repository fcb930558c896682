"""`chatelaine support-bundle` as a person runs it: what helps is in it, and no secret that was planted is."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path

from tools.lab.installation import RELEASE

from support.operator_cluster import SYSTEM, OperatorCluster
from support.people import person
from support.policy_bench import chatelaine

PIN = "pkcs11:token=a?pin-value=83641927"
PEM = "-----BEGIN EC PRIVATE KEY-----\nMHcCAQEEIPlanted\n-----END EC PRIVATE KEY-----"
JWT = "eyJhbGciOiJub25lIn0.eyJzdWIiOiJwbGFudGVkIn0.c2lnbmF0dXJlLXBsYW50ZWQ"
PLANTED = ("83641927", "MHcCAQEEIPlanted", "eyJzdWIiOiJwbGFudGVkIn0", "planted-data", "cGxhbnRlZC1kYXRh")


def unpacked(place: Path) -> dict[str, str]:
    """Files of a bundle."""
    with tarfile.open(place) as archive:
        found = {entry.name: archive.extractfile(entry) for entry in archive.getmembers()}
        return {name.removeprefix("chatelaine-support/"): file.read().decode() for name, file in found.items() if file}


async def test_secrets_planted_in_annotations_and_secrets_do_not_get_into_the_bundle(cluster: OperatorCluster) -> None:
    async with cluster.operator():
        cluster.policy()
        host = await cluster.ready()
        claim = cluster.claim()
        await cluster.claim_is("Ready", "True")
        cluster.admin.merge(claim, {"metadata": {"annotations": {"note": JWT, "pin": "x"}}})
        hsm = cluster.get_hsm(host)
        cluster.admin.merge(hsm, {"metadata": {"annotations": {"a": PIN, "b": PEM}}})
        applied = json.dumps({"data": {"k": "cGxhbnRlZC1kYXRh"}})
        secret = {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {
                "name": "planted",
                "namespace": cluster.namespace,
                "labels": {"app.kubernetes.io/managed-by": "chatelaine"},
                "annotations": {"kubectl.kubernetes.io/last-applied-configuration": applied},
            },
            "stringData": {"k": "planted-data"},
        }
        cluster.admin.create(secret)
        host.tamper(4)
        await cluster.claim_is("Ready", "False")
    place = cluster.folder / "bundle.tar.gz"
    done = await chatelaine("support-bundle", "-o", place, "--kubeconfig", cluster.plane.kubeconfig)
    assert done.status == 0, done.err
    assert "was not written" not in done.err
    files = unpacked(place)
    assert {
        "README.txt", "doctor.json", "doctor.txt", "versions.json", "objects/hsms.json", "objects/hsmclaims.json",
        "objects/attestationpolicies.json", "objects/networkpolicies.json", "objects/secrets-names.json",
        "events/events.json",
    } <= set(files)  # fmt: skip
    everything = "\n".join(files.values())
    assert not [planted for planted in PLANTED if planted in everything]
    assert [item["metadata"]["name"] for item in json.loads(files["objects/hsms.json"])] == [host.name]
    assert "EvidenceRefuted" in files["doctor.txt"]
    assert any(event["reason"] == "EvidenceRefuted" for event in json.loads(files["events/events.json"]))
    names = json.loads(files["objects/secrets-names.json"])
    assert "planted" in {item["metadata"]["name"] for item in names}
    assert all("data" not in item for item in names)
    again = await chatelaine("support-bundle", "-o", place, "--kubeconfig", cluster.plane.kubeconfig)
    assert again.status == 74
    assert "File exists" in again.err


async def test_somebody_with_few_rights_gets_what_they_may_read_and_is_told_the_rest(cluster: OperatorCluster) -> None:
    place = cluster.folder / "few.tar.gz"
    login = person(cluster, f"{RELEASE}-view")
    done = await chatelaine("support-bundle", "-o", place, "--kubeconfig", login)
    assert done.status == 0, done.err
    told = unpacked(place)["README.txt"]
    assert "Not read: hsms: you may not list hsms." in told
    assert f"you may not list our pods in namespace {SYSTEM}" in told
