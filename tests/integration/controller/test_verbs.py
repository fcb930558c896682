"""What the operator writes, by the API server's own audit log, compared with what the chart grants it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from tools import privileges

from support.operator_cluster import OperatorCluster
from support.waiting import until

READS = {"get", "list", "watch"}
"""They are not in the log; a read that is refused shows as a watch that never completes."""

NOT_SEEN_HERE = {
    ("configmaps", "patch"): "publishing the CA, once in the life of a cluster",
    ("configmaps", "create"): "server-side apply asks for it where the object is not there yet",
    ("secrets", "update"): "rotation of the CA, after months",
}
"""Granted, and not always a part of this story: why it is needed."""


def granted() -> set[tuple[str, str]]:
    """Resource and verb of every write that the chart's roles give the operator."""
    found = set()
    for role in privileges.rendered("--show-only", "templates/rbac-operator.yaml"):
        for rule in role.get("rules", ()):
            found |= {(name, verb) for name in rule.get("resources", ()) for verb in rule["verbs"] if verb not in READS}
    return found


def written(cluster: OperatorCluster, user_agent: str) -> Iterator[tuple[str, str]]:
    """Resource and verb of every write of one operator that the API server took."""
    assert cluster.plane.audit_log is not None
    for line in cluster.plane.audit_log.read_text().splitlines():
        event = json.loads(line)
        if event.get("userAgent") == user_agent and event["responseStatus"].get("code", 500) < 300:
            target = event["objectRef"]
            part = f"/{target['subresource']}" if "subresource" in target else ""
            yield f"{target['resource']}{part}", event["verb"]


async def test_every_write_that_the_chart_grants_is_used_or_has_a_reason(cluster: OperatorCluster) -> None:
    name = f"verbs-{cluster.prefix}"
    async with cluster.operator(identity=name, leader_election=True, lease_name=name):
        cluster.policy()
        host = await cluster.host()
        gateways = f"{cluster.prefix}-gateways"
        await cluster.hsm_in_cluster(host, gateways)
        claim = cluster.claim()
        await cluster.claim_is("Ready", "True")
        path = f"/apis/networking.k8s.io/v1/namespaces/{gateways}/networkpolicies"
        drifted = {**cluster.list(path)[0], "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy"}
        cluster.admin.merge(drifted, {"spec": {"egress": [{}]}})
        await until("repaired", lambda: all(p["spec"].get("egress") != [{}] for p in cluster.list(path)))

        secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "c1-hsm", "namespace": cluster.namespace}}

        def binding() -> Any:
            return cluster.find("v1", "Secret", "c1-hsm", cluster.namespace)

        cluster.admin.merge(secret, {"data": {"host": "ZXZpbA=="}})
        await until("repaired", lambda: binding()["data"]["host"] != "ZXZpbA==")
        cluster.admin.merge(claim, {"spec": {"binding": None}})
        await until("taken away", lambda: binding() is None)
        cluster.admin.delete(claim)
        await until("gone", lambda: cluster.find(claim["apiVersion"], "HsmClaim", "c1", cluster.namespace) is None)
        host.tamper()
        await cluster.hsm_is(host, "Attested", "False", "EvidenceRefuted")
        await until("an Event tells of it", lambda: ("events", "create") in set(written(cluster, name)))
    used = set(written(cluster, name))
    assert granted() - used <= set(NOT_SEEN_HERE) <= granted()
    assert used <= granted()
