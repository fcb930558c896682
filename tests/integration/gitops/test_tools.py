"""Our kinds under Argo CD and Flux, on a real API server with a real operator: in sync, pruned, healed, taken away."""

from __future__ import annotations

import asyncio
import copy
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from tools.lab.network import machine_address

from support.gitops_tool import ARGO_CD, FLUX, GitOpsTool, Json, Sync, name_of
from support.operator_cluster import OperatorCluster
from support.waiting import until

EXAMPLES = Path(__file__).resolve().parents[3] / "examples" / "gitops"
FILES = ("fleet/policy.yaml", "fleet/hsm-a.yaml", "payments/claim.yaml")
AGENT = "gitops-operator"
RECONCILES = 5


class Repository:
    """The shipped manifests, under the names of this test and with the addresses of its host."""

    def __init__(self, cluster: OperatorCluster, host: Any, gateways: str, port: int) -> None:
        self.policy, self.hsm, self.claim = (yaml.safe_load((EXAMPLES / name).read_text()) for name in FILES)
        policy = f"{cluster.prefix}-base"
        self.policy["metadata"]["name"] = policy
        team = {"kubernetes.io/metadata.name": cluster.namespace}
        self.policy["spec"]["release"]["anyOf"][0]["namespaces"] = {"matchLabels": team}
        self.hsm["metadata"]["name"] = host.name
        service = {"namespace": gateways, "name": "gateway", "podPort": port}
        self.hsm["spec"]["gateway"]["service"] |= service | {"podSelector": {"matchLabels": {"app": "gateway"}}}
        self.hsm["spec"] |= {
            "token": f"pkcs11:token={host.name}",
            "identity": host.identity,
            "agent": {"host": "127.0.0.1", "port": host.agent_port},
            "attestation": {"policyRef": {"name": policy}, "intervalSeconds": 2},
        }
        self.claim["metadata"]["namespace"] = cluster.namespace

    @property
    def all(self) -> list[Json]:
        """In the order of their waves."""
        return sorted(
            (self.policy, self.hsm, self.claim),
            key=lambda obj: int(obj["metadata"]["annotations"]["argocd.argoproj.io/sync-wave"]),
        )


class Deployed:
    """A repository that a tool keeps in a cluster."""

    def __init__(self, cluster: OperatorCluster, repository: Repository, sync: Sync, gateways: str, host: Any) -> None:
        self.cluster, self.repository, self.sync = cluster, repository, sync
        self.gateways, self.host = gateways, host

    async def ready(self) -> None:
        await self.cluster.hsm_is(self.host, "Ready", "True")
        await self.cluster.claim_is("Ready", "True", name="checkout")

    def emitted(self) -> list[str]:
        """Names of what the operator made of the claim and the Hsm."""
        policies = self.cluster.list(f"/apis/networking.k8s.io/v1/namespaces/{self.gateways}/networkpolicies")
        secret = self.cluster.find("v1", "Secret", "checkout-hsm", self.cluster.namespace)
        return sorted(found["metadata"]["name"] for found in [*policies, *([secret] if secret else [])])

    def writes(self) -> list[str]:
        """Writes of the operator to objects that people or tools write too, by the audit log."""
        assert self.cluster.plane.audit_log is not None
        found = []
        for line in self.cluster.plane.audit_log.read_text().splitlines():
            event = json.loads(line)
            target = event.get("objectRef", {})
            ours = event.get("userAgent") == f"{AGENT}-{self.cluster.prefix}"
            taken = event["responseStatus"].get("code", 500) < 300
            if ours and taken and target["resource"] not in ("leases", "events"):
                found.append(" ".join(map(str, (event["verb"], target["resource"], target.get("name")))))
        return found


@pytest.fixture(params=[ARGO_CD, FLUX], ids=["argo-cd", "flux"])
def tool(request: pytest.FixtureRequest) -> GitOpsTool:
    found: GitOpsTool = request.param
    return found


@pytest.fixture
async def deployed(cluster: OperatorCluster, tool: GitOpsTool) -> AsyncIterator[Deployed]:
    """Applied by the tool, and Ready."""
    async with cluster.operator(identity=f"{AGENT}-{cluster.prefix}"):
        host = await cluster.host()
        gateways, address = f"{cluster.prefix}-gateways", machine_address()
        port = await host.listen_also(address)
        cluster.plane.create_namespace(gateways)
        cluster.endpoint_slice(gateways, "gateway", address, port)
        repository = Repository(cluster, host, gateways, port)
        found = Deployed(cluster, repository, Sync(tool, cluster.plane, repository.all), gateways, host)
        await found.sync.apply()
        await found.ready()
        await until("everything is emitted", lambda: len(found.emitted()) >= 3)
        yield found


async def test_applied_again_there_is_no_difference_and_no_write(deployed: Deployed) -> None:
    sync = deployed.sync
    before, written = sync.versions(), deployed.writes()
    for _ in range(RECONCILES):
        assert await sync.diff() == ""
        await sync.apply()
    assert sync.versions() == before
    assert deployed.writes() == written


async def test_pruning_takes_nothing_that_the_operator_made(deployed: Deployed) -> None:
    emitted = deployed.emitted()
    marked = {name_of(obj) for obj in await deployed.sync.everything() if deployed.sync.tool.carries_mark(obj)}
    assert marked == {name_of(obj) for obj in deployed.sync.wanted}
    assert await deployed.sync.prune() == []
    assert deployed.emitted() == emitted


async def test_what_the_tool_does_not_know_is_repaired_by_the_operator_and_nobody_fights(deployed: Deployed) -> None:
    sync, cluster = deployed.sync, deployed.cluster
    path = f"/apis/networking.k8s.io/v1/namespaces/{deployed.gateways}/networkpolicies"
    emitted, before = deployed.emitted(), sync.versions()
    for found in cluster.list(path):
        cluster.admin.delete(found | {"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy"})
    await until("the operator made them again", lambda: deployed.emitted() == emitted)
    assert await sync.diff() == ""
    await quiet(deployed)
    settled, written = sync.versions(), deployed.writes()
    assert settled == before, "repairing what was emitted writes to nothing that is in Git"
    for _ in range(RECONCILES):
        await sync.apply()
    assert (sync.versions(), deployed.writes()) == (settled, written)


async def test_an_edit_by_hand_is_put_back_once_and_access_returns(deployed: Deployed) -> None:
    sync, cluster = deployed.sync, deployed.cluster
    edited = copy.deepcopy(deployed.repository.policy)
    cluster.admin.merge(edited, {"spec": {"release": {"anyOf": [
        {"namespaces": {"matchLabels": {"kubernetes.io/metadata.name": "somebody-else"}}}
    ]}}})  # fmt: skip
    await cluster.claim_is("Ready", "False", "ReleaseRefused", name="checkout")
    assert "somebody-else" in await sync.diff()
    await sync.apply()
    await deployed.ready()
    await quiet(deployed)
    before, written = sync.versions(), deployed.writes()
    for _ in range(RECONCILES):
        assert await sync.diff() == ""
        await sync.apply()
    assert (sync.versions(), deployed.writes()) == (before, written)


async def test_removed_in_the_order_of_waves_everything_goes(deployed: Deployed) -> None:
    for obj in reversed(deployed.repository.all):
        await deployed.sync.delete([obj])
    assert deployed.sync.versions() == {}
    await until("what was emitted is gone too", lambda: deployed.emitted() == [])


async def test_a_claim_that_leaves_git_is_pruned_with_what_was_made_of_it_and_its_keys_stay(deployed: Deployed) -> None:
    sync = deployed.sync
    sync.wanted.pop()
    claim = deployed.repository.claim
    assert await sync.prune() == [name_of(claim)]
    await until("the claim is gone", lambda: not deployed.cluster.get_claim("checkout"))
    await until("its Secret is gone", lambda: "checkout-hsm" not in deployed.emitted())
    assert len(deployed.host.pairs) == 1
    await deployed.cluster.hsm_is(deployed.host, "Ready", "True")


async def test_removed_all_at_once_and_policies_first_nothing_hangs(deployed: Deployed) -> None:
    await deployed.sync.delete(deployed.repository.all)
    assert deployed.sync.versions() == {}
    await until("what was emitted is gone too", lambda: deployed.emitted() == [])


async def quiet(deployed: Deployed) -> None:
    """Until the operator has had some rounds of its host without writing anything."""
    held = deployed.host.held

    async def rested() -> bool:
        before, number = deployed.writes(), held.number
        await asyncio.sleep(0.5)
        return deployed.writes() == before and held.number == number

    await until("the operator rests", rested)
