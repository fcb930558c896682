"""`chatelaine doctor` as a person runs it: on an installation that is well, and on ones that are not."""

from __future__ import annotations

import socket
from typing import Any

from tools.control_plane.client import ApiError
from tools.lab.installation import RELEASE

from support.operator_cluster import SYSTEM, OperatorCluster
from support.operator_fixtures import cluster, plane
from support.people import RBAC, person
from support.policy_bench import Done, chatelaine
from support.waiting import until

__all__ = ["cluster", "plane"]


async def doctor(cluster: OperatorCluster, *arguments: Any, login: Any = None) -> Done:
    """As the cluster's admin, or as somebody."""
    return await chatelaine("doctor", *arguments, "--kubeconfig", login or cluster.plane.kubeconfig)


def check(done: Done, name: str) -> Any:
    """One check of what `--json` printed."""
    return next(one for one in done.json()["checks"] if one["check"] == name)


def lease(cluster: OperatorCluster) -> Any:
    """The Lease, if it is there."""
    return cluster.find("coordination.k8s.io/v1", "Lease", f"{RELEASE}-operator", SYSTEM)


def versions(cluster: OperatorCluster) -> dict[str, str]:
    """Every object of the cluster that doctor looks at, with its version; but for the Lease, which moves by itself."""
    paths = (
        "/apis/chatelaine.dev/v1alpha1/hsms", "/apis/chatelaine.dev/v1alpha1/hsmclaims",
        "/apis/chatelaine.dev/v1alpha1/attestationpolicies", "/api/v1/namespaces", "/api/v1/configmaps",
        "/api/v1/secrets", "/api/v1/pods", f"/apis/{RBAC}/clusterroles", f"/apis/{RBAC}/roles",
    )  # fmt: skip
    return {
        item["metadata"]["uid"]: item["metadata"]["resourceVersion"] for path in paths for item in cluster.list(path)
    }


def served(cluster: OperatorCluster) -> bool:
    """After a change of its definition the API server has nothing of a kind for a moment."""
    try:
        cluster.list("/apis/chatelaine.dev/v1alpha1/hsms")
    except ApiError:
        return False
    return True


async def test_an_installation_that_is_well_is_said_to_be_and_nothing_is_changed(cluster: OperatorCluster) -> None:
    async with cluster.operator(leader_election=True, state_folder=cluster.folder / "state"):
        cluster.policy(freshness={"maxAgeSeconds": 300})
        await cluster.ready()
        cluster.claim()
        await cluster.claim_is("Ready", "True")
        await until("somebody leads", lambda: (lease(cluster) or {}).get("spec", {}).get("holderIdentity"))
        await until("the CA is published", lambda: cluster.find("v1", "ConfigMap", "chatelaine-ca", SYSTEM))
        before = versions(cluster)
        done = await doctor(cluster, "--json", "--leaf", cluster.folder / "state")
        assert versions(cluster) == before
        assert done.status == 0, done.out + done.err
        outcomes = {one["check"]: (one["outcome"], one["reason"]) for one in done.json()["checks"]}
        assert outcomes == {
            "api server": ("Holds", "Answers"),
            "clock": ("Holds", "Agrees"),
            "kinds": ("Holds", "SameVersion"),
            "your rights": ("Holds", "Enough"),
            "operator": ("Holds", "Leads"),
            "operator's rights": ("Holds", "Enough"),
            "pods": ("NotAsked", "NoPods"),
            "certificates": ("Holds", "Valid"),
            "policies": ("Holds", "Ready"),
            "hsms": ("Holds", "Ready"),
            "claims": ("Holds", "Ready"),
        }
        assert (await doctor(cluster)).out.startswith(f"The installation in namespace {SYSTEM} is well.")


async def test_everything_that_is_wrong_is_found_with_the_command_that_explains_it(cluster: OperatorCluster) -> None:
    async with cluster.operator(leader_election=True):
        cluster.policy()
        host = await cluster.ready()
        cluster.claim()
        await cluster.claim_is("Ready", "True")
        host.tamper(4)
        await cluster.claim_is("Ready", "False")
        role = cluster.find(RBAC, "ClusterRole", f"{RELEASE}-operator")
        assert role is not None
        fewer = [rule for rule in role["rules"] if "networkpolicies" not in rule.get("resources", ())]
        cluster.admin.merge(role, {"rules": fewer})
        try:
            done = await doctor(cluster, "--json")
        finally:
            cluster.admin.merge(role, {"rules": role["rules"]})
        assert done.status == 1, done.out + done.err
        assert "networkpolicies" in check(done, "operator's rights")["found"]
        (hsm,) = check(done, "hsms")["checks"]
        assert (hsm["check"], hsm["reason"]) == (host.name, "EvidenceRefuted")
        assert hsm["do"][0]["commands"] == [f"chatelaine explain hsm {host.name}"]
        (claim,) = check(done, "claims")["checks"]
        assert claim["check"] == f"{cluster.namespace}/c1"
        assert "1 not Ready (EvidenceRefuted)." in check(done, "claims")["notes"]


async def test_an_operator_that_is_gone_is_found(cluster: OperatorCluster) -> None:
    long_ago = {"holderIdentity": "gone", "leaseDurationSeconds": 8, "renewTime": "2020-01-01T00:00:00.000000Z"}
    meta = {"name": f"{RELEASE}-operator", "namespace": SYSTEM}
    body = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": meta, "spec": long_ago}
    cluster.admin.apply(body)
    done = await doctor(cluster, "--json")
    assert done.status == 1, done.out
    assert check(done, "operator")["reason"] == "LeaseStale"
    cluster.admin.merge(body, {"spec": {"holderIdentity": ""}})
    assert check(await doctor(cluster, "--json"), "operator")["reason"] == "NobodyLeads"


async def test_kinds_of_another_version_are_found(cluster: OperatorCluster) -> None:
    path = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/hsms.chatelaine.dev"
    body = cluster.admin.get(path)
    version = body["spec"]["versions"][0]
    spec = version["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]
    spec["capacity"]["properties"]["claims"]["maximum"] = 1000
    kept = cluster.admin.get(path)["spec"]
    cluster.admin.merge(body, {"spec": {"versions": body["spec"]["versions"]}})
    try:
        done = await doctor(cluster, "--json")
    finally:
        cluster.admin.merge(body, {"spec": {"versions": kept["versions"]}})
        await until("the kind is served again", lambda: served(cluster))
    (hsm,) = check(done, "kinds")["checks"]
    assert (done.status, hsm["check"], hsm["reason"]) == (1, "Hsm", "OtherVersion")
    assert "properties.spec.properties.capacity.properties.claims.maximum" in hsm["found"]


async def test_somebody_with_few_rights_is_told_what_could_not_be_looked_at(cluster: OperatorCluster) -> None:
    login = person(cluster, f"{RELEASE}-view")
    done = await doctor(cluster, "--json", login=login)
    assert done.status == 2, done.out + done.err
    assert "You may not list hsms." in check(done, "your rights")["notes"]
    assert check(done, "hsms")["outcome"] == "CannotTell"
    assert check(done, "operator's rights")["outcome"] == "NotAsked"


async def test_an_api_server_that_does_not_answer_ends_within_the_time_that_was_given(cluster: OperatorCluster) -> None:
    silent = socket.create_server(("127.0.0.1", 0))
    port = silent.getsockname()[1]
    config = cluster.folder / "silent.kubeconfig"
    config.write_text(cluster.plane.kubeconfig.read_text().replace(cluster.plane.server, f"https://127.0.0.1:{port}"))
    try:
        done = await doctor(cluster, "--json", "--seconds", 2, login=config)
    finally:
        silent.close()
    assert done.status == 2, done.out + done.err
    assert check(done, "api server")["outcome"] == "CannotTell"
    assert "not within 2 s" in done.out


async def test_folders_without_a_chain_are_usage_errors(cluster: OperatorCluster) -> None:
    done = await doctor(cluster, "--leaf", cluster.folder / "nowhere")
    assert done.status == 64
    assert "expected a folder with a readable chain.pem" in done.err
