"""kill -9 after every step of a rotation of the CA: a fresh operator ends it, and nobody is shut out at any moment."""

from __future__ import annotations

import asyncio
import base64
import os
import sys
import time
from pathlib import Path

import msgspec
import pytest

from chatelaine.cli.pki_rotation import begin
from chatelaine.controller import pki
from chatelaine.controller.rotation import RotationReport
from chatelaine.model.identifiers import CA_NAME
from chatelaine.pki.authority import Authority, Phase
from chatelaine.pki.chain import load_bundle
from support.control_plane import ROOT
from support.operator_cluster import KILLED, SYSTEM, OperatorCluster
from support.simulated_host import SimulatedHost
from support.waiting import until

LOOK_SECONDS = 0.2
SECONDS = 180
TURNS = 3
MOST = 60
"""More steps than a rotation takes."""


def authority_of(cluster: OperatorCluster) -> Authority:
    secret = cluster.admin.read("v1", "Secret", CA_NAME, SYSTEM)
    return Authority.from_secret({key: base64.b64decode(value) for key, value in secret["data"].items()})


def binding_ca(cluster: OperatorCluster) -> str:
    secret = cluster.find("v1", "Secret", "c1-hsm", cluster.namespace)
    return base64.b64decode(secret["data"]["ca.crt"]).decode() if secret else ""


def follows(host: SimulatedHost, authority: Authority) -> bool:
    return all(
        leaf.bundle == authority.bundle and leaf.is_of(authority.signing.certificate)
        for leaf in (host.agent_leaf, host.gateway_leaf)
    )


def nobody_is_shut_out(cluster: OperatorCluster, host: SimulatedHost) -> None:
    """Clients trust the gateway by their Secret, the operator trusts the host by its CA, and the host knows the CA."""
    authority = authority_of(cluster)
    assert any(host.gateway_leaf.is_of(root) for root in load_bundle(binding_ca(cluster)))
    for leaf in (host.agent_leaf, host.gateway_leaf):
        assert any(leaf.is_of(root) for root in authority.bundle)
        assert authority.signing.certificate in leaf.bundle


async def rotated_by_a_mortal(cluster: OperatorCluster, state: Path, number: int, request: str) -> bool | None:
    """Run one that dies after `number` steps; tells whether the rotation was over before."""
    log = cluster.folder / f"mortal-{number}.log"
    with log.open("wb") as output:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "support.mortal_rotation", str(cluster.kubeconfig), str(state), str(number),
            cwd=ROOT, env={**os.environ, "PYTHONPATH": f"{ROOT / 'tests'}:{ROOT}"}, stdout=output, stderr=output,
        )  # fmt: skip
    try:
        await until(
            "the operator dies, or is through",
            lambda: process.returncode is not None or over(cluster, request),
            seconds=SECONDS,
        )
        assert process.returncode in (None, KILLED), log.read_text()
        return process.returncode is None
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


def over(cluster: OperatorCluster, request: str) -> bool:
    shown = cluster.admin.read("v1", "ConfigMap", CA_NAME, SYSTEM)["data"]["rotation"]
    report = msgspec.json.decode(shown, type=RotationReport)
    return report.request == request and report.phase is Phase.SETTLED


async def ended_by_a_fresh_one(cluster: OperatorCluster, state: Path, host: SimulatedHost, request: str) -> Authority:
    """An operator that lives: the rotation comes to its end, and everybody goes by it."""
    async with cluster.operator(state_folder=state) as operator:
        operator._pki.hasten()
        await until("the rotation is over", lambda: over(cluster, request), seconds=SECONDS)
        after = authority_of(cluster)
        await until("the host follows", lambda: follows(host, after))
        await until("so do Secrets", lambda: binding_ca(cluster) == after.bundle_pem)
        await cluster.hsm_is(host, "Ready", "True")
        await operator.queue.settled()
        return after


@pytest.mark.parametrize("first", range(1, TURNS + 1))
async def test_kill_between_every_two_steps_of_a_rotation(
    cluster: OperatorCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, first: int
) -> None:
    """Each operator dies after n steps and leaves its folder behind, as a container that is started anew finds it.

    Every n that there is, in as many tests as may run side by side.
    """
    monkeypatch.setattr(pki, "LOOK_WHILE_ROTATING_SECONDS", LOOK_SECONDS)
    cluster.policy()
    async with cluster.operator() as operator:
        host = await cluster.ready()
        cluster.claim(selector=None, hsmRef={"name": host.name})
        await cluster.claim_is("Ready", "True")
        await until("the Secret is there", lambda: binding_ca(cluster))
        await operator.queue.settled()
    interrupted: set[Phase] = set()
    for number in range(first, MOST, TURNS):
        before = authority_of(cluster)
        request = await begin(SYSTEM, cluster.plane.kubeconfig, wall=time.time, grace_seconds=0)
        through = await rotated_by_a_mortal(cluster, tmp_path / f"state-{number}", number, request)
        nobody_is_shut_out(cluster, host)
        interrupted.add(authority_of(cluster).phase)
        after = await ended_by_a_fresh_one(cluster, tmp_path / f"state-{number}", host, request)
        assert after.digest != before.digest
        assert len(after.bundle) == 1
        assert after.pace.steps == before.pace.steps + 3, "one rotation, not two"
        if through:
            assert len(interrupted) > 1, "only one phase was ever interrupted"
            return
    raise AssertionError("the rotation never ends")
