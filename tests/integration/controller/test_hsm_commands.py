"""`chatelaine hsm …` on a real API server, with a real operator: an HSM is drained and retired as the pages say."""

from __future__ import annotations

import asyncio
import json
import re
import sys
from typing import Any

import pytest

from chatelaine.model.identifiers import FINALIZER
from support.control_plane import ROOT
from support.operator_cluster import API, OperatorCluster
from support.simulated_host import SimulatedHost
from support.waiting import until

Json = dict[str, Any]
PAGES = [ROOT / "docs" / "how-to" / name for name in ("drain-an-hsm.md", "retire-an-hsm.md")]
BLOCK = re.compile(r"^ *```sh\n(.*?)^ *```$", re.DOTALL | re.MULTILINE)


async def hsm(cluster: OperatorCluster, *arguments: str) -> tuple[int, str, str]:
    """`chatelaine hsm …` as an administrator: exit status, output, complaints."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "chatelaine.cli.main", "hsm", *arguments, "--kubeconfig", str(cluster.plane.kubeconfig),
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    out, err = await process.communicate()
    return process.returncode or 0, out.decode(), err.decode()


def commands() -> list[list[str]]:
    """Of both pages, those that begin with `chatelaine hsm`, without these two words."""
    found = [line.split() for page in PAGES for block in BLOCK.findall(page.read_text()) for line in block.splitlines()]
    return [words[2:] for words in found if words[:2] == ["chatelaine", "hsm"]]


async def forced_gone(cluster: OperatorCluster, host: SimulatedHost) -> None:
    await until("the Hsm is gone", lambda: not cluster.get_hsm(host))


async def test_an_hsm_is_drained_and_retired_as_the_pages_say(cluster: OperatorCluster) -> None:
    pages = iter(commands())

    async def typed(name: str) -> tuple[int, str, str]:
        return await hsm(cluster, *(name if word == "hsm-a" else word for word in next(pages)))

    async with cluster.operator():
        cluster.policy()
        host = await cluster.ready()
        cluster.claim(failover="Rebind")
        uid = (await cluster.claim_is("Ready", "True"))["metadata"]["uid"]
        label = f"chat/{uid}/signing/1"

        status, said, _ = await typed(host.name)  # drain --dry-run
        assert (status, cluster.get_hsm(host)["spec"].get("cordoned")) == (2, None)
        assert "delete hsmclaim c1, then apply it again" in said
        status, said, err = await typed(host.name)  # drain
        assert (status, cluster.get_hsm(host)["spec"]["cordoned"]) == (2, "Enabled"), err
        assert "failover: Rebind moves a claim by itself only when its HSM is cut" in said
        cluster.claim("late")
        assert "is cordoned" in str(await cluster.claim_is("Bound", "False", name="late"))
        cluster.admin.delete(cluster.get_claim("late") | {"apiVersion": API, "kind": "HsmClaim"})
        status, said, err = await hsm(cluster, "retire", host.name)
        assert status == 2
        assert f"{cluster.namespace}/c1 has a place there" in err

        waiting = asyncio.create_task(typed(host.name))  # drain --wait
        cluster.admin.delete(cluster.get_claim() | {"apiVersion": API, "kind": "HsmClaim"})
        status, said, err = await waiting
        assert (status, "no claim has a place" in said) == (0, True), err
        status, said, _ = await typed(host.name)  # inventory
        assert status == 0
        assert f"{label}  retained Active  {cluster.namespace}/c1" in said

        status, _, err = await typed(host.name)  # retire
        assert (status, f"--abandon-retained {label}" in err) == (2, True)
        assert cluster.get_hsm(host)
        status, said, err = await hsm(cluster, "retire", host.name, "--abandon-retained", label)
        assert status == 0, err
        assert f"stays in the token, and is listed nowhere any more: {label}" in said
        await forced_gone(cluster, host)
        assert label in host.pairs
    assert next(pages, None) is None


async def test_a_cordon_that_git_owns_is_left_to_git(cluster: OperatorCluster) -> None:
    async with cluster.operator():
        cluster.policy()
        host = await cluster.ready()
    body = {"apiVersion": API, "kind": "Hsm", "metadata": {"name": host.name}, "spec": {"cordoned": "Enabled"}}
    cluster.admin.apply(body)
    status, _, err = await hsm(cluster, "uncordon", host.name)
    assert status == 1
    assert "is managed by" in err
    assert cluster.get_hsm(host)["spec"]["cordoned"] == "Enabled"


async def test_cordon_and_uncordon_leave_the_spec_as_it_was(cluster: OperatorCluster) -> None:
    async with cluster.operator():
        cluster.policy()
        host = await cluster.ready()
    before = cluster.get_hsm(host)["spec"]
    for verb, said in (("cordon", "is cordoned\n"), ("cordon", "is cordoned already"), ("uncordon", "any more")):
        status, out, err = await hsm(cluster, verb, host.name)
        assert (status, said in out) == (0, True), err
    assert cluster.get_hsm(host)["spec"] == before
    assert cluster.get_hsm(host)["metadata"]["finalizers"] == [FINALIZER]
    status, out, _ = await hsm(cluster, "inventory", host.name, "--json")
    assert (status, json.loads(out)["keys"]) == (0, [])


@pytest.mark.parametrize("verb", ["cordon", "drain", "retire", "inventory"])
async def test_an_hsm_that_is_not_there_is_told(cluster: OperatorCluster, verb: str) -> None:
    status, _, err = await hsm(cluster, verb, "no-such-hsm")
    assert status == 1
    assert "no-such-hsm" in err
