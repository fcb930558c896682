"""The CA is rotated under a running operator: everybody is told before a step, and nothing is left of the old root."""

from __future__ import annotations

import base64
import json
import time
from pathlib import Path

import msgspec
import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from chatelaine.cli.pki_rotation import RotationFailed, begin, text_of
from chatelaine.cli.pki_rotation import seen as read_report
from chatelaine.controller.operator import Operator
from chatelaine.controller.rotation import RotationReport
from chatelaine.model.identifiers import (
    ANNOTATION_ROTATE_CA_GRACE,
    CA_NAME,
    LABEL_CLAIM_NAME,
    LABEL_CLAIM_UID,
    OPERATOR_SERVER_NAME,
    agent_server_name,
    gateway_server_name,
)
from chatelaine.pki.authority import Authority, Phase
from chatelaine.pki.chain import load_bundle
from chatelaine.pki.leaf import ProcessLeaf
from chatelaine.wire.messages import HostIdentity
from chatelaine.wire.peer import PeerClient, PeerNotAuthenticated, PeerRefused, Target
from support.operator_cluster import API, SYSTEM, OperatorCluster
from support.pki import renew
from support.simulated_host import SimulatedHost
from support.waiting import until

SECONDS = 60


def authority_of(cluster: OperatorCluster) -> Authority:
    secret = cluster.admin.read("v1", "Secret", CA_NAME, SYSTEM)
    return Authority.from_secret({key: base64.b64decode(value) for key, value in secret["data"].items()})


def seen(cluster: OperatorCluster) -> RotationReport:
    """What everybody may read of it."""
    shown = cluster.admin.read("v1", "ConfigMap", CA_NAME, SYSTEM)["data"]["rotation"]
    return msgspec.json.decode(shown, type=RotationReport)


async def ask(cluster: OperatorCluster, operator: Operator, grace_seconds: int | None = 0) -> str:
    await until("the operator shows what it does", lambda: shows(cluster))
    request = await begin(SYSTEM, cluster.plane.kubeconfig, wall=time.time, grace_seconds=grace_seconds)
    operator._pki.hasten()  # a person waits for its next look
    return request


def shows(cluster: OperatorCluster) -> bool:
    published = cluster.find("v1", "ConfigMap", CA_NAME, SYSTEM) or {}
    return "rotation" in published.get("data", {})


async def over(cluster: OperatorCluster, request: str) -> None:
    def holds() -> bool:
        found = seen(cluster)
        return found.request == request and found.phase is Phase.SETTLED

    await until("the rotation is over", holds, seconds=SECONDS)


def binding_ca(cluster: OperatorCluster) -> str:
    secret = cluster.find("v1", "Secret", "c1-hsm", cluster.namespace)
    return base64.b64decode(secret["data"]["ca.crt"]).decode() if secret else ""


async def bound(cluster: OperatorCluster, host: SimulatedHost) -> None:
    cluster.claim(selector=None, hsmRef={"name": host.name})
    await cluster.claim_is("Ready", "True")
    await until("the Secret is there", lambda: binding_ca(cluster))


def follows(host: SimulatedHost, authority: Authority) -> bool:
    return all(
        leaf.bundle == authority.bundle and leaf.is_of(authority.signing.certificate)
        for leaf in (host.agent_leaf, host.gateway_leaf)
    )


async def test_a_rotation_moves_hosts_and_secrets_and_leaves_nothing_of_the_old_root(cluster: OperatorCluster) -> None:
    cluster.policy()
    async with cluster.operator() as operator:
        host = await cluster.ready()
        await bound(cluster, host)
        old = authority_of(cluster)
        request = await ask(cluster, operator)
        carried: set[tuple[str, ...]] = set()

        def settled() -> bool:
            roots = load_bundle(binding_ca(cluster))
            carried.add(tuple(one.public_bytes(Encoding.PEM).decode() for one in roots))
            found = seen(cluster)
            return found.request == request and found.phase is Phase.SETTLED

        await until("the rotation is over", settled, seconds=SECONDS)
        new = authority_of(cluster)
        assert new.digest != old.digest
        assert new.bundle == (new.signing.certificate,)
        await until("hosts have forgotten the old root", lambda: follows(host, new))
        await until("Secrets have forgotten it", lambda: binding_ca(cluster) == new.bundle_pem)
        assert any(len(roots) == 2 for roots in carried), "clients were never told of both"
        assert operator._pki.leaf.is_of(new.signing.certificate)
        await cluster.hsm_is(host, "Ready", "True")
        await cluster.claim_is("Ready", "True")


async def test_a_host_that_is_away_holds_the_rotation_up_and_is_named(cluster: OperatorCluster) -> None:
    cluster.policy()
    async with cluster.operator() as operator:
        near, far = await cluster.ready("near"), await cluster.ready("far")
        await far.stop()
        request = await ask(cluster, operator)
        names = {agent_server_name(far.name), gateway_server_name(far.name)}

        def waits() -> bool:
            return set(seen(cluster).waiting_for) == names

        await until("only the host that is away is waited for", waits)
        assert seen(cluster).phase is Phase.PUBLISHED
        assert follows(near, authority_of(cluster))
        told = text_of(await read_report(SYSTEM, cluster.plane.kubeconfig))
        assert "2 have not taken it yet" in told
        with pytest.raises(RotationFailed, match="under way"):
            await begin(SYSTEM, cluster.plane.kubeconfig, wall=time.time, grace_seconds=None)
        await far.start()
        await over(cluster, request)
        await until("both follow", lambda: all(follows(host, authority_of(cluster)) for host in (near, far)))


async def test_a_host_whose_hsm_is_deleted_is_waited_for_no_longer(cluster: OperatorCluster) -> None:
    cluster.policy()
    async with cluster.operator() as operator:
        far = await cluster.ready("far")
        await far.stop()
        request = await ask(cluster, operator)

        def waits() -> bool:
            return seen(cluster).waiting_count == 2

        await until("it is waited for", waits)
        cluster.admin.delete(cluster.get_hsm(far) | {"apiVersion": API, "kind": "Hsm"})
        await over(cluster, request)


async def test_a_secret_that_a_tenant_labels_as_a_claims_holds_nothing_up(cluster: OperatorCluster) -> None:
    cluster.policy()
    async with cluster.operator() as operator:
        host = await cluster.ready()
        await bound(cluster, host)
        claim = cluster.get_claim()
        forged = {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {
                "name": "forged",
                "namespace": cluster.namespace,
                "labels": {LABEL_CLAIM_UID: claim["metadata"]["uid"], LABEL_CLAIM_NAME: "c1"},
                "ownerReferences": [
                    {"apiVersion": API, "kind": "HsmClaim", "name": "c1", "uid": claim["metadata"]["uid"]}
                ],
            },
            "stringData": {"ca.crt": "not what the operator wrote"},
        }
        cluster.admin.create(forged)
        await over(cluster, await ask(cluster, operator))


async def test_a_grace_that_is_no_number_begins_nothing_and_is_shown(cluster: OperatorCluster) -> None:
    async with cluster.operator() as operator:
        await until("the operator shows what it does", lambda: shows(cluster))
        before = authority_of(cluster)
        target = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": CA_NAME, "namespace": SYSTEM}}
        annotations = {"chatelaine.dev/rotate-ca": "bad", ANNOTATION_ROTATE_CA_GRACE: "soon"}
        cluster.admin.merge(target, {"metadata": {"annotations": annotations}})
        operator._pki.hasten()

        def refuses() -> bool:
            return "no number of seconds: soon" in seen(cluster).problem

        await until("it says so", refuses)
        assert authority_of(cluster).to_secret() == before.to_secret()
        await over(cluster, await ask(cluster, operator))


async def test_leaf_of_the_old_ca_is_refused_by_everybody_once_the_rotation_is_over(
    cluster: OperatorCluster, tmp_path: Path
) -> None:
    """Whoever stole the old CA's key, or a leaf of it, has nothing in their hands any more."""
    cluster.policy()
    async with cluster.operator() as operator:
        host = await cluster.ready()
        old = authority_of(cluster)
        impostor = cluster.double(host)
        thief = ProcessLeaf(tmp_path / "thief", OPERATOR_SERVER_NAME)
        renew(old, thief)
        assert await identity_of(host, thief), "before, it is believed"
        await over(cluster, await ask(cluster, operator))
        new = authority_of(cluster)
        await until("the host has forgotten the old root", lambda: follows(host, new))

        # The thief trusts whatever the host shows: it only wants to be believed.
        thief.client_context().load_verify_locations(cadata=new.bundle_pem)
        with pytest.raises((PeerNotAuthenticated, PeerRefused)):
            await identity_of(host, thief)

        await host.stop()
        impostor.agent_port, impostor.gateway_port = host.agent_port, host.gateway_port
        for leaf in (impostor.agent_leaf, impostor.gateway_leaf):
            leaf.server_context().load_verify_locations(cadata=new.bundle_pem)
        await impostor.start()
        try:
            await cluster.hsm_is(host, "Reachable", "False", "NotAuthenticated")
            assert impostor.held.greeted == 0
        finally:
            await impostor.stop()


async def identity_of(host: SimulatedHost, caller: ProcessLeaf) -> HostIdentity:
    """What the host's agent tells this caller."""
    target = Target("127.0.0.1", host.agent_port, agent_server_name(host.name))
    async with PeerClient(target, caller.client_context(), timeout_seconds=10, max_answer_bytes=1 << 20) as line:
        return (await line.call("GET", "/v1/identity", None, HostIdentity)).message


async def test_of_two_operators_only_the_one_that_leads_takes_steps_and_both_follow(cluster: OperatorCluster) -> None:
    cluster.policy()
    async with cluster.operator(leader_election=True) as one, cluster.operator(leader_election=True) as two:
        await until("one leads", lambda: one.leads() or two.leads())
        leader, other = (one, two) if one.leads() else (two, one)
        await cluster.ready()
        request = await ask(cluster, leader)
        await over(cluster, request)
        new = authority_of(cluster)
        other._pki.hasten()
        await until("the other follows", lambda: other._pki.leaf.bundle == new.bundle)
        assert other._pki.leaf.is_of(new.signing.certificate)


async def test_what_is_shown_is_json_for_machines(cluster: OperatorCluster) -> None:
    async with cluster.operator():
        await until("the operator shows what it does", lambda: shows(cluster))
        shown = json.loads(cluster.admin.read("v1", "ConfigMap", CA_NAME, SYSTEM)["data"]["rotation"])
        assert shown["phase"] == "Settled"
        assert shown["signing"] == authority_of(cluster).digest
        assert "PRIVATE" not in json.dumps(cluster.admin.read("v1", "ConfigMap", CA_NAME, SYSTEM))
