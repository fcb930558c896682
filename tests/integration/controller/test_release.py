"""A tenant who asks for more than the release rules give gets nothing, and is told which of the rules says so."""

from __future__ import annotations

from typing import Any

import pytest

from support.operator_cluster import OperatorCluster, condition_of
from support.waiting import until

GREEDY: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "namespace": (
        {"namespaces": {"matchLabels": {"team": "payments"}}},
        {},
        "namespace {namespace} does not carry team=payments",
    ),
    "namespace-by-anothers-name": (
        {"namespaces": {"matchLabels": {"kubernetes.io/metadata.name": "payments"}}},
        {},
        "namespace {namespace} does not carry kubernetes.io/metadata.name=payments",
    ),
    "key-type": (
        {"keyTypes": ["EcP256"]},
        {"keys": [{"name": "signing", "type": "Rsa3072", "usages": ["Sign"]}]},
        "key types Rsa3072 are not allowed",
    ),
    "usage": (
        {"usages": ["Sign"]},
        {"keys": [{"name": "signing", "type": "EcP256", "usages": ["Sign", "Verify"]}]},
        "usages Verify are not allowed",
    ),
    "sensitivity": (
        {"maxSensitivity": "Internal"},
        {"requirements": {"sensitivity": "Confidential"}},
        "sensitivity Confidential is above Internal",
    ),
    "sensitivity-where-the-rule-is-silent": (
        {},
        {"requirements": {"sensitivity": "Internal"}},
        "sensitivity Internal is above Public",
    ),
    "workload-type": (
        {"workloadTypes": ["PaymentSigning"]},
        {"requirements": {"workloadType": "CodeSigning"}},
        "workload type CodeSigning is not allowed",
    ),
    "compliance": ({"compliance": ["Fips140_3Level3"]}, {}, "the HSM does not hold Fips140_3Level3"),
}


def rule_for(cluster: OperatorCluster, narrowed: dict[str, Any]) -> dict[str, Any]:
    namespaces = {"matchLabels": {"kubernetes.io/metadata.name": cluster.namespace}}
    return {"release": {"anyOf": [{"namespaces": namespaces, **narrowed}]}}


@pytest.mark.parametrize("what", GREEDY)
async def test_tenant_who_asks_for_more_than_the_rules_give_is_refused(cluster: OperatorCluster, what: str) -> None:
    narrowed, asked, told = GREEDY[what]
    async with cluster.operator() as operator:
        cluster.policy(**rule_for(cluster, narrowed))
        host = await cluster.ready(offers={"maxSensitivity": "Restricted", "keyTypes": ["EcP256", "Rsa3072"]})
        cluster.claim(**{"clients": None, **asked})
        found = await cluster.claim_is("Bound", "False", "ReleaseRefused")
        message = condition_of(found, "Bound")["message"]
        expected = told.format(namespace=cluster.namespace)
        assert message.rstrip(".").endswith(f"release refused: {expected}"), message
        await operator.queue.settled()
        assert "allocation" not in cluster.get_claim()["status"]
        assert cluster.get_hsm(host)["status"].get("allocations", []) == []
        assert (host.made, host.held.claims) == ([], {})


async def test_tenant_who_asks_for_more_claims_than_the_rule_gives_is_refused_until_one_goes(
    cluster: OperatorCluster,
) -> None:
    async with cluster.operator():
        cluster.policy(**rule_for(cluster, {"maxClaims": 1}))
        host = await cluster.ready()
        first = cluster.claim("c1", binding=None)
        uid = (await cluster.claim_is("Ready", "True"))["metadata"]["uid"]
        cluster.claim("c2", binding=None)
        found = await cluster.claim_is("Bound", "False", "ReleaseRefused", name="c2")
        message = condition_of(found, "Bound")["message"]
        assert f"namespace {cluster.namespace} has 1 claims bound, 1 are allowed" in message
        assert [seat["claimUid"] for seat in cluster.get_hsm(host)["status"]["allocations"]] == [uid]
        cluster.admin.delete(first)
        await until("the first is gone", lambda: not cluster.get_claim("c1"))
        await cluster.claim_is("Ready", "True", name="c2")
