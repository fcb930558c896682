"""What an operator logs of a claim's life: each scarce step once, by claim uid and Hsm."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from support.operator_cluster import OperatorCluster
from support.waiting import until


async def test_scarce_steps_of_a_claim_are_logged_with_its_uid(
    cluster: OperatorCluster, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "chatelaine")

    def lines(message: str) -> list[dict[str, Any]]:
        return [record.facts for record in caplog.records if record.getMessage() == message]

    async with cluster.operator():
        cluster.policy()
        hosts = {host.name: host for host in [await cluster.ready("a"), await cluster.ready("b")]}
        cluster.claim(failover="Rebind", reclaimPolicy="Destroy")
        uid = (await cluster.claim_is("Ready", "True"))["metadata"]["uid"]
        first = cluster.get_claim()["status"]["allocation"]["hsm"]["name"]
        (second,) = hosts.keys() - {first}
        about = {"claim_uid": uid, "hsm": first}
        claim = {"namespace": cluster.namespace, "name": "c1"}
        await until("bound", lambda: lines("bound") == [{**about, **claim, "sequence": 1}])
        assert lines("seat given") == [{**about, "mode": "Shared", "sequence": 1}]
        assert {**about, "key": "signing", "version": 1} in lines("key made")

        hosts[first].tamper()
        moved = {**about, **claim, "hsm": second, "sequence": 2, "before": first}
        await until("rebound", lambda: lines("rebound") == [moved])
        assert {**about, "reason": "EvidenceRefuted"} in lines("cut")
        await cluster.claim_is("Ready", "True")
        assert {**about, "hsm": second, "key": "signing", "version": 2} in lines("key made")

        cluster.admin.delete(cluster.get_claim())
        await until("released", lambda: {**about, "hsm": second} in lines("seat released"))
        assert {**about, "hsm": second, "key": "signing", "version": 2} in lines("key destroyed")
