"""Objects that lie, vanish or stand in the way: tenants who forge, restores that forget, namespaces that go."""

from __future__ import annotations

import base64

import pytest

from support.operator_cluster import API, Json, OperatorCluster, condition_of
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
        data = ours["data"]
        evil = {"host": base64.b64encode(b"evil.example").decode()}
        cluster.admin.merge({**ours, "apiVersion": "v1", "kind": "Secret"}, {"data": evil})

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
        await until("shut", lambda: host.held.standing.verdict != "Trusted")
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


def put_back(cluster: OperatorCluster, found: Json, kind: str, status: Json) -> None:
    """A restore from a backup: the status is what it was, not a word of what came after."""
    cluster.admin.replace({**found, "apiVersion": API, "kind": kind, "status": status}, subresource="status")


@pytest.mark.parametrize("older", [("Hsm",), ("HsmClaim",), ("Hsm", "HsmClaim")], ids="-and-".join)
async def test_older_status_put_back_doubles_no_seat_and_no_key(
    cluster: OperatorCluster, older: tuple[str, ...]
) -> None:
    async with cluster.operator():
        cluster.policy()
        host = await cluster.ready()
        without_seat = cluster.get_hsm(host)["status"]
        cluster.claim(keys=None, clients=None)
        without_key = (await cluster.claim_is("Ready", "True"))["status"]
        assert not without_seat.get("allocations")
        assert not without_key.get("keys")
        wanted = {"keys": [{"name": "signing", "type": "EcP256", "usages": ["Sign", "Verify"]}]}
        cluster.admin.merge(cluster.get_claim() | {"apiVersion": API, "kind": "HsmClaim"}, {"spec": wanted})
        found = await until("the key is made", lambda: versions_of(cluster) and cluster.get_claim())
        uid = found["metadata"]["uid"]
        await cluster.claim_is("Ready", "True")
        await until("served", lambda: host.served == {uid})
    if "Hsm" in older:
        put_back(cluster, cluster.get_hsm(host), "Hsm", without_seat)
    if "HsmClaim" in older:
        put_back(cluster, cluster.get_claim(), "HsmClaim", without_key)
    async with cluster.operator() as operator:

        def settled() -> bool:
            status = cluster.get_claim()["status"]
            seats = cluster.get_hsm(host)["status"].get("allocations", [])
            sequence = status["allocation"]["sequence"]
            active = [v["sequence"] for v in versions_of(cluster) if v["state"] == "Active"]
            return [(seat["claimUid"], seat["sequence"]) for seat in seats] == [(uid, sequence)] and active == [
                sequence
            ]

        await until("one seat, and one active version of the same allocation", settled)
        await cluster.claim_is("Ready", "True")
        await until("served again", lambda: host.served == {uid})
        await operator.queue.settled()
        assert settled()
    labels = [f"chat/{uid}/signing/{version['version']}" for version in versions_of(cluster)]
    # Every key in the token was made once and is on record once; a lost seat is taken anew, with a new version.
    assert labels == host.made == sorted(host.pairs)
    assert len(labels) == (2 if older == ("Hsm",) else 1)
    assert [version["state"] for version in versions_of(cluster)][:-1] == ["Deactivated"] * (len(labels) - 1)


@pytest.mark.parametrize("host_is", ["silent", "tampered", "rebooted"])
async def test_trusted_stamp_of_an_older_status_serves_nobody(cluster: OperatorCluster, host_is: str) -> None:
    async with cluster.operator():
        cluster.policy(freshness={"maxAgeSeconds": 6})
        host = await cluster.ready()
        cluster.claim()
        uid = (await cluster.claim_is("Ready", "True"))["metadata"]["uid"]
        await until("served", lambda: host.served == {uid})
        trusted = cluster.get_hsm(host)["status"]
        host.tamper()
        await cluster.hsm_is(host, "Attested", "False", "EvidenceRefuted")
        await until("cut", lambda: not host.served)
    put_back(cluster, cluster.get_hsm(host), "Hsm", trusted)
    before = len(host.held.taken)
    if host_is == "silent":
        await host.stop()
    if host_is == "rebooted":
        # The first round of the fresh operator is of a later boot than the stamp, and not of an approved one.
        host.tpm.reset()
        host.tpm.extend(4, bytes(32))
    async with cluster.operator():
        reason = "EvidenceExpired" if host_is == "silent" else "EvidenceRefuted"
        found = await cluster.hsm_is(host, "Attested", "False", reason)
        assert condition_of(found, "Attested")["message"]
        await cluster.claim_is("Ready", "False")
        if host_is == "silent":
            assert found["status"]["attestation"]["verdict"] == "Unknown"
            await host.start()
            await cluster.hsm_is(host, "Attested", "False", "EvidenceRefuted")
        await until("it is told", lambda: host.held.standing.verdict == "Untrusted")
    assert all(view.standing is None or view.standing.verdict != "Trusted" for view in host.held.taken[before:])
    assert not any(view.claims for view in host.held.taken[before:])


def versions_of(cluster: OperatorCluster) -> list[Json]:
    """All versions of the claim's only key."""
    keys = cluster.get_claim().get("status", {}).get("keys", [])
    return [version for key in keys for version in key["versions"]]
