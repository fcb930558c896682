"""`chatelaine check network` against a control plane that has no nodes: it ends kindly, and leaves nothing."""

from __future__ import annotations

import asyncio
import signal
import sys

import pytest
from tools.lab.installation import RELEASE

from support.operator_cluster import OperatorCluster
from support.people import person
from support.policy_bench import chatelaine
from support.waiting import until


def trials(cluster: OperatorCluster) -> list[str]:
    """Namespaces of trials."""
    selector = "labelSelector=app.kubernetes.io/managed-by%3Dchatelaine-check"
    return [item["metadata"]["name"] for item in cluster.list(f"/api/v1/namespaces?{selector}")]


def heard() -> None:
    """Whoever runs in the background ignores interrupts, and so does all that it starts: a person's shell does not."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def waiting(cluster: OperatorCluster) -> bool:
    """Has a trial made a pod?"""
    return any(cluster.list(f"/api/v1/namespaces/{name}/pods") for name in trials(cluster))


async def test_a_cluster_without_nodes_is_told_why_it_cannot_be_tried_and_nothing_is_left(
    cluster: OperatorCluster,
) -> None:
    done = await chatelaine("check", "network", "--seconds", 2, "--json", "--kubeconfig", cluster.plane.kubeconfig)
    assert done.status == 2, done.out + done.err
    (check,) = done.json()["checks"]
    assert check["reason"] == "NotStarted"
    assert "no node was chosen for it" in check["found"]
    assert "is gone" in done.err
    assert trials(cluster) == []


@pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGTERM])
async def test_what_was_made_is_deleted_when_somebody_interrupts(
    cluster: OperatorCluster, sign: signal.Signals
) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "chatelaine.cli.main", "check", "network", "--seconds", "300",
        "--kubeconfig", cluster.plane.kubeconfig,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE, preexec_fn=heard,
    )  # fmt: skip
    try:
        await until("a pod waits for a node", lambda: waiting(cluster), seconds=120)
        process.send_signal(sign)
        _, said = await asyncio.wait_for(process.communicate(), 120)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode == 130, said.decode()
    assert "what it had made was deleted" in said.decode()
    await until("nothing is left", lambda: not trials(cluster))


async def test_somebody_who_may_make_no_namespace_is_told_so(cluster: OperatorCluster) -> None:
    login = person(cluster, f"{RELEASE}-view")
    done = await chatelaine("check", "network", "--kubeconfig", login)
    assert done.status == 2
    assert "POST /api/v1/namespaces: 403" in done.err
    assert "could not be deleted" not in done.err
    assert trials(cluster) == []
