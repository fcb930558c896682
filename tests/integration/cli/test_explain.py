"""`chatelaine explain` as a person runs it, against an operator, hosts and the chart's roles for people."""

from __future__ import annotations

import shlex
from typing import Any

from tools.lab.installation import RELEASE

from support.operator_cluster import OperatorCluster
from support.people import person
from support.policy_bench import Done, chatelaine, operating


async def explain(cluster: OperatorCluster, *arguments: str, login: Any = None) -> Done:
    """As the cluster's admin, or as somebody."""
    return await chatelaine("explain", *arguments, "--kubeconfig", login or cluster.plane.kubeconfig)


def failing(done: Done) -> tuple[str, str]:
    """Name and reason of the check that decides."""
    said = done.json()
    check = next(one for one in said["checks"] if one["check"] == said["deciding"])
    return check["check"], check["reason"]


async def test_a_claim_is_explained_from_ready_to_refuted(cluster: OperatorCluster) -> None:
    async with operating(cluster):
        cluster.policy()
        host = await cluster.ready()
        cluster.claim()
        await cluster.claim_is("Ready", "True")
        claim = f"{cluster.namespace}/c1"
        done = await explain(cluster, "claim", claim)
        assert done.status == 0, done.out + done.err
        assert f"HsmClaim {claim} is Ready." in done.out
        host.tamper(4)
        await cluster.claim_is("Ready", "False")
        done = await explain(cluster, "claim", claim)
        assert done.status == 1, done.out + done.err
        assert "What decides: attestation (EvidenceRefuted)." in done.out
        assert "PCR 4" in done.out
        digest = cluster.get_hsm(host)["status"]["attestation"]["evidenceDigest"]
        assert f"kubectl annotate hsm {host.name} chatelaine.dev/readmit={digest} --overwrite" in done.out
        done = await explain(cluster, "claim", "c1", "-n", cluster.namespace, "--json")
        assert (done.status, failing(done)) == (1, ("attestation", "EvidenceRefuted"))
        done = await explain(cluster, "hsm", host.name, "--json")
        assert (done.status, failing(done)) == (1, ("attestation", "EvidenceRefuted"))
        done = await explain(cluster, "policy", f"{cluster.prefix}-base", "--json")
        assert done.status == 0
        assert done.json()["state"] == "Ready"


async def test_the_command_that_it_names_approves_the_host(cluster: OperatorCluster) -> None:
    async with operating(cluster):
        cluster.policy()
        host = await cluster.host()
        cluster.hsm(host, approved=False)
        await cluster.hsm_is(host, "Enrolled", "False", "AwaitingApproval")
        done = await explain(cluster, "hsm", host.name, "--json")
        (check,) = [one for one in done.json()["checks"] if one["check"] == "enrolment"]
        (command,) = check["do"][0]["commands"]
        words = shlex.split(command)
        assert words[0] == "kubectl"
        cluster.plane.kubectl(*words[1:])
        await cluster.hsm_is(host, "Ready", "True")


async def test_an_unbound_claim_names_every_hsm_of_the_pool(cluster: OperatorCluster) -> None:
    async with operating(cluster):
        cluster.policy()
        first = await cluster.ready("a", cordoned="Enabled")
        second = await cluster.ready("b", offers={"keyTypes": ["Rsa3072"]})
        cluster.claim()
        await cluster.claim_is("Bound", "False", "NoSuitableHsm")
        done = await explain(cluster, "claim", f"{cluster.namespace}/c1", "--json")
        (check,) = [one for one in done.json()["checks"] if one["check"] == "allocation"]
        reasons = {part["check"]: part["reason"] for part in check["checks"]}
        assert reasons == {f"Hsm {first.name}": "Cordoned", f"Hsm {second.name}": "KeyTypeNotOffered"}


async def test_a_member_of_a_team_is_told_what_they_may_not_read(cluster: OperatorCluster) -> None:
    """With rights in their own namespace alone: nothing of the pool is shown, and nothing is guessed."""
    async with operating(cluster):
        cluster.policy()
        host = await cluster.ready()
        cluster.claim()
        await cluster.claim_is("Ready", "True")
        login = person(cluster, f"{RELEASE}-view")
        done = await explain(cluster, "claim", f"{cluster.namespace}/c1", login=login)
        assert done.status == 0, done.out + done.err
        assert "you may not list hsms" in done.out
        done = await explain(cluster, "hsm", host.name, login=login)
        assert done.status == 2
        assert "you may not get Hsm" in done.out
        assert "kubectl auth can-i get hsms" in done.out
        done = await explain(cluster, "claim", "kube-system/c1", "--json", login=login)
        assert (done.status, failing(done)) == (2, ("object", "Forbidden"))


async def test_what_is_not_there_is_said_with_the_command_that_lists_what_is(cluster: OperatorCluster) -> None:
    done = await explain(cluster, "claim", f"{cluster.namespace}/nothing")
    assert done.status == 1
    assert f"There is no HsmClaim nothing in namespace {cluster.namespace}." in done.out
    assert f"kubectl --namespace {cluster.namespace} get hsmclaims" in done.out


async def test_an_unreachable_server_is_cannot_tell_and_usage_is_64(cluster: OperatorCluster) -> None:
    gone = cluster.folder / "gone.kubeconfig"
    gone.write_text(cluster.plane.kubeconfig.read_text().replace(cluster.plane.server, "https://127.0.0.1:1"))
    done = await chatelaine("explain", "hsm", "a", "--kubeconfig", gone)
    assert done.status == 2, done.out + done.err
    assert "did not answer" in done.out
    assert (await chatelaine("explain", "claim", "nowhere")).status == 64
    assert (await chatelaine("explain", "claim", "a/b", "-n", "c")).status == 64
    assert (await chatelaine("explain", "hsm", "../b", "--kubeconfig", gone)).status == 64
    assert (await chatelaine("explain", "hsm", "a", "--nonsense")).status == 64
    missing = await chatelaine("explain", "hsm", "a", "--kubeconfig", cluster.folder / "missing")
    assert missing.status == 2
    assert "no login to the API server" in missing.err
