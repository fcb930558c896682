"""Objects that lie, vanish or stand in the way: tenants who forge, restores that forget, namespaces that go."""

from __future__ import annotations

import base64

from support.operator_cluster import API, OperatorCluster, condition_of
from support.waiting import until


async def test_forged_allocation_in_a_claims_status_is_not_served(cluster: OperatorCluster) -> None:
    async with cluster.operator() as operator:
        cluster.policy()
        host = await cluster.ready(capacity={"claims": 0})
        claim = cluster.claim() | {"apiVersion": API, "kind": "HsmClaim"}
        await cluster.claim_is("Bound", "False", "NoSuitableHsm")
        hsm = cluster.get_hsm(host)
        forged = {
            "allocation": {
                "sequence": 1,
                "hsm": {"name": host.name, "uid": hsm["metadata"]["uid"]},
                "at": "2026-01-01T00:00:00Z",
                "policies": [],
                "evidenceDigest": hsm["status"]["attestation"]["evidenceDigest"],
                "epoch": {"resetCount": 1, "restartCount": 0, "generation": 1},
            },
            "conditions": [
                {
                    "type": "Ready", "status": "True", "reason": "AllReady", "message": "",
                    "lastTransitionTime": "2026-01-01T00:00:00Z", "observedGeneration": 1,
                }
            ],
        }  # fmt: skip
        cluster.admin.merge(claim, {"status": forged}, subresource="status")
        await until(
            "the forgery is undone", lambda: condition_of(cluster.get_claim(), "Ready").get("status") == "False"
        )
        await operator.queue.settled()
        assert host.held.claims == {}
        assert host.made == []
        assert cluster.get_hsm(host)["status"].get("allocations", []) == []


async def test_secret_of_somebody_else_is_not_touched(cluster: OperatorCluster) -> None:
    async with cluster.operator():
        cluster.policy()
        await cluster.ready()
        theirs = {
            "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "c1-hsm", "namespace": cluster.namespace},
            "data": {"password": base64.b64encode(b"theirs").decode()},
        }  # fmt: skip
        cluster.admin.create(theirs)
        cluster.claim()
        await cluster.claim_is("Ready", "False", "SecretNameTaken")
        found = cluster.find("v1", "Secret", "c1-hsm", cluster.namespace)
        assert found is not None
        assert found["data"] == theirs["data"]
        assert "labels" not in found["metadata"]
        cluster.admin.delete(theirs)
        cluster.admin.merge(
            cluster.get_claim() | {"apiVersion": API, "kind": "HsmClaim"},
            {"metadata": {"annotations": {"look": "now"}}},
        )
        await cluster.claim_is("Ready", "True")
        await until("ours is there", lambda: cluster.find("v1", "Secret", "c1-hsm", cluster.namespace))


async def test_binding_secret_that_was_changed_is_repaired(cluster: OperatorCluster) -> None:
    async with cluster.operator():
        cluster.policy()
        await cluster.ready()
        cluster.claim()
        await cluster.claim_is("Ready", "True")
        ours = await until("ours is there", lambda: cluster.find("v1", "Secret", "c1-hsm", cluster.namespace))
        data = ours["data"]  # type: ignore[index]
        evil = {"host": base64.b64encode(b"evil.example").decode()}
        cluster.admin.merge({**ours, "apiVersion": "v1", "kind": "Secret"}, {"data": evil})  # type: ignore[dict-item]

        def repaired() -> bool:
            found = cluster.find("v1", "Secret", "c1-hsm", cluster.namespace)
            return found is not None and found["data"] == data

        await until("repaired", repaired)


async def test_namespace_deleted_under_a_claim_does_not_hang(cluster: OperatorCluster) -> None:
    async with cluster.operator():
        cluster.policy(freshness={"maxAgeSeconds": 5})
        host = await cluster.ready()
        cluster.claim(reclaimPolicy="Destroy")
        await cluster.claim_is("Ready", "True")
        await host.stop()
        cluster.admin.delete({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": cluster.namespace}})
        await until("the namespace is gone", lambda: not cluster.find("v1", "Namespace", cluster.namespace), seconds=60)
        status = cluster.get_hsm(host)["status"]
        assert status["allocations"] == []
        assert len(status["retained"]) == 1


async def test_lost_status_needs_readmission_and_is_rebuilt_from_the_token(cluster: OperatorCluster) -> None:
    async with cluster.operator():
        cluster.policy()
        host = await cluster.ready()
        cluster.claim()
        uid = (await cluster.claim_is("Ready", "True"))["metadata"]["uid"]
        await until("served", lambda: host.served == {uid})
    hsm = cluster.get_hsm(host) | {"apiVersion": API, "kind": "Hsm"}
    # As after a restore from a backup without status.
    cluster.admin.merge(hsm, {"status": None}, subresource="status")
    async with cluster.operator():
        await cluster.hsm_is(host, "Enrolled", "False", "AwaitingReadmission")
        await until("shut", lambda: host.held.standing.verdict != "Trusted")  # type: ignore[union-attr]
        await until(
            "the seat is rebuilt",
            lambda: [s["claimUid"] for s in cluster.get_hsm(host)["status"].get("allocations", [])] == [uid],
        )
        digest = cluster.get_hsm(host)["status"]["attestation"]["evidenceDigest"]
        cluster.admin.merge(hsm, {"metadata": {"annotations": {"chatelaine.dev/readmit": digest}}})
        await cluster.hsm_is(host, "Ready", "True")
        await cluster.claim_is("Ready", "True")
        await until("served again", lambda: host.served == {uid})
        assert len(host.made) == 1
