"""The operator under the chart's own ServiceAccount and roles, with a gateway inside the cluster and its policies."""

from __future__ import annotations

import json

from tools.lab import installation

from support.operator_cluster import OperatorCluster
from support.waiting import until


async def test_the_chart_gives_the_operator_what_it_needs_and_no_more(cluster: OperatorCluster) -> None:
    async with cluster.operator(leader_election=True, lease_name="chatelaine-operator") as operator:
        cluster.policy()
        host = await cluster.host()
        gateways = f"{cluster.prefix}-hsms"
        await cluster.hsm_in_cluster(host, gateways)
        pod = cluster.pod("app-1", "app", {"app": "app"})
        cluster.claim()
        claim = await cluster.claim_is("Ready", "True")
        uid = claim["metadata"]["uid"]
        await until("the pod is told", lambda: _pods(host.held.claims.get(uid)) == {pod["metadata"]["uid"]})
        policies = cluster.list(f"/apis/networking.k8s.io/v1/namespaces/{gateways}/networkpolicies")
        assert len(policies) == 3

        # Drift is repaired, a deleted policy comes back.
        for policy in policies:
            kind = {**policy, "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy"}
            cluster.admin.merge(kind, {"spec": {"ingress": [{}]}})
        first = {**policies[0], "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy"}
        cluster.admin.delete(first)

        def repaired() -> bool:
            found = cluster.list(f"/apis/networking.k8s.io/v1/namespaces/{gateways}/networkpolicies")
            return {p["metadata"]["name"]: json.dumps(p["spec"]) for p in found} == {
                p["metadata"]["name"]: json.dumps(p["spec"]) for p in policies
            }

        await until("repaired", repaired)

        host.tamper()
        await until(
            "the way in is closed",
            lambda: len(cluster.list(f"/apis/networking.k8s.io/v1/namespaces/{gateways}/networkpolicies")) == 2,
        )
        cluster.admin.delete(pod | {"apiVersion": "v1", "kind": "Pod"})
        events = await until(
            "an Event says why",
            lambda: [
                e
                for e in cluster.list("/apis/events.k8s.io/v1/namespaces/default/events")
                if e["regarding"]["name"] == host.name and e["reason"] == "EvidenceRefuted"
            ],
        )
        assert events
        for outcome in ("failed", "fault"):
            assert operator.metrics.reconciles.labels("HsmClaim", outcome)._value.get() == 0


async def test_operators_of_these_tests_write_as_the_charts_service_account_and_are_never_refused(
    cluster: OperatorCluster,
) -> None:
    async with cluster.operator(identity=f"test-{cluster.prefix}") as operator:
        cluster.policy()
        await cluster.ready()
        cluster.claim()
        await cluster.claim_is("Ready", "True")
        await operator.queue.settled()
    audit = cluster.plane.audit_log
    assert audit is not None
    lines = [json.loads(line) for line in audit.read_text().splitlines()]
    ours = [line for line in lines if line.get("userAgent") == f"test-{cluster.prefix}"]
    assert ours
    assert {line["user"]["username"] for line in ours} == {
        f"system:serviceaccount:{installation.NAMESPACE}:{installation.SERVICE_ACCOUNT}"
    }
    assert not [line["requestURI"] for line in ours if line.get("responseStatus", {}).get("code") == 403]


def _pods(view: object) -> set[str]:
    clients = getattr(view, "clients", ())
    return {uid for client in clients for uid in client.pod_uids}
