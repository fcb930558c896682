"""From an unknown host to a bound claim and back, on a real API server, over the real wire."""

from __future__ import annotations

import json

from support.operator_cluster import API, OperatorCluster, condition_of
from support.waiting import until


async def test_a_host_waits_for_approval_and_then_serves(cluster: OperatorCluster) -> None:
    async with cluster.operator():
        cluster.policy()
        host = await cluster.host()
        hsm = cluster.hsm(host, approved=False)
        await cluster.hsm_is(host, "Enrolled", "False", "AwaitingApproval")
        await until(
            "both digests are named",
            lambda: all(
                d in condition_of(cluster.get_hsm(host), "Enrolled")["message"] for d in host.identity.values()
            ),
        )
        cluster.claim()
        await cluster.claim_is("Bound", "False", "NoSuitableHsm")
        cluster.admin.merge(hsm, {"spec": {"identity": host.identity}})
        await cluster.hsm_is(host, "Ready", "True")
        claim = await cluster.claim_is("Ready", "True")

        uid = claim["metadata"]["uid"]
        allocations = cluster.get_hsm(host)["status"]["allocations"]
        assert [seat["claimUid"] for seat in allocations] == [uid]
        version = claim["status"]["keys"][0]["versions"][0]
        assert version["state"] == "Active"
        assert "PUBLIC KEY" in version["publicKey"]
        assert host.made == [f"chat/{uid}/signing/1"]
        await until("the gateway serves the claim", lambda: host.served == {uid})
        secret = cluster.find("v1", "Secret", "c1-hsm", cluster.namespace)
        assert secret is not None
        assert secret["metadata"]["ownerReferences"][0]["uid"] == uid


async def test_tampering_cuts_the_gateway_and_sticks(cluster: OperatorCluster) -> None:
    async with cluster.operator() as operator:
        cluster.policy()
        host = await cluster.ready()
        cluster.claim()
        claim = await cluster.claim_is("Ready", "True")
        await until("served", lambda: host.served == {claim["metadata"]["uid"]})

        host.tamper()
        await until("cut", lambda: host.held.standing is not None and host.held.standing.verdict == "Untrusted")
        assert host.served == set()
        await cluster.hsm_is(host, "Attested", "False", "EvidenceRefuted")
        await cluster.claim_is("Attested", "False")

        host.tpm.reset()
        host.changed()
        rounds = operator.metrics.rounds.labels("authenticated")._value.get
        before = rounds()
        await until("good evidence came", lambda: rounds() > before + 1)
        await cluster.hsm_is(host, "Attested", "False", "EvidenceRefuted")
        assert host.served == set()

        found = cluster.get_hsm(host)
        digest = found["status"]["attestation"]["evidenceDigest"]
        cluster.admin.merge(found, {"metadata": {"annotations": {"chatelaine.dev/readmit": digest}}})
        await cluster.hsm_is(host, "Ready", "True")
        assert cluster.get_hsm(host)["status"]["attestation"]["epoch"]["generation"] == 2
        await cluster.claim_is("Ready", "True")
        await until("served again", lambda: host.served == {claim["metadata"]["uid"]})


async def test_an_unchanged_world_is_not_written_to(cluster: OperatorCluster) -> None:
    async with cluster.operator() as operator:
        cluster.policy()
        host = await cluster.ready()
        cluster.claim()
        await cluster.claim_is("Ready", "True")
        await operator.queue.settled()
        audit = cluster.plane.audit_log
        assert audit is not None

        def writes() -> list[str]:
            lines = [json.loads(line) for line in audit.read_text().splitlines()]
            return [f"{x['verb']} {x['requestURI']}" for x in lines if x.get("userAgent", "").startswith("test-")]

        # Two more rounds of evidence and a whole second look at everything.
        taken = operator.metrics.rounds.labels("authenticated")._value.get
        await until("settled", lambda: len(host.held.taken) > 1)
        before, rounds = writes(), taken()
        await until("two rounds", lambda: taken() >= rounds + 2)
        operator._everything()
        await operator.queue.settled()
        assert writes() == before


async def test_deletion_retains_the_keys_and_gives_the_seat_back(cluster: OperatorCluster) -> None:
    async with cluster.operator():
        cluster.policy()
        host = await cluster.ready()
        claim = cluster.claim()
        found = await cluster.claim_is("Ready", "True")
        cluster.admin.delete(claim | {"apiVersion": API, "kind": "HsmClaim"})
        await until("the claim is gone", lambda: not cluster.get_claim())
        status = cluster.get_hsm(host)["status"]
        assert status["allocations"] == []
        assert [kept["claimUid"] for kept in status["retained"]] == [found["metadata"]["uid"]]
        assert len(host.pairs) == 1
        await until("not served", lambda: host.served == set() and not host.held.claims)


async def test_reclaim_destroy_destroys_the_keys(cluster: OperatorCluster) -> None:
    async with cluster.operator():
        cluster.policy()
        host = await cluster.ready()
        claim = cluster.claim(reclaimPolicy="Destroy")
        await cluster.claim_is("Ready", "True")
        cluster.admin.delete(claim | {"apiVersion": API, "kind": "HsmClaim"})
        await until("the claim is gone", lambda: not cluster.get_claim())
        assert host.pairs == {}
        assert cluster.get_hsm(host)["status"].get("retained", []) == []
