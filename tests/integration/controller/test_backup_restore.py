"""Backup and restore, rehearsed: every object is deleted and made anew from the file, without status; keys live on."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import sys
from functools import partial
from pathlib import Path
from typing import Any

import yaml
from tools.control_plane import build
from tools.control_plane.client import ApiError

from chatelaine.kube.port import CLAIMS, HSMS, POLICIES
from support.control_plane import ROOT
from support.operator_cluster import API, OperatorCluster
from support.simulated_host import SimulatedHost
from support.waiting import until

Json = dict[str, Any]
PAGE = ROOT / "docs" / "how-to" / "back-up-and-restore.md"
BLOCK = re.compile(r"^ *```sh\n(.*?)^ *```$", re.DOTALL | re.MULTILINE)


class Shell:
    """Runs the commands of the how-to page, block by block, as an administrator would type them."""

    def __init__(self, cluster: OperatorCluster, folder: Path) -> None:
        self.folder = folder
        tools = folder / "bin"
        tools.mkdir()
        for name, command in (
            ("chatelaine", f'"{sys.executable}" -m chatelaine.cli.main'),
            ("kubectl", f'"{build.require("kubectl")}"'),
        ):
            (tools / name).write_text(f'#!/bin/bash\nexec {command} "$@"\n')
            (tools / name).chmod(0o755)
        kubeconfig = str(cluster.plane.kubeconfig)
        self._environment = {**os.environ, "PATH": f"{tools}:{os.environ['PATH']}", "KUBECONFIG": kubeconfig}
        self._blocks = iter(BLOCK.findall(PAGE.read_text()))

    async def next_block(self) -> tuple[int, str]:
        """Exit status and everything that was said."""
        process = await asyncio.create_subprocess_exec(
            "bash", "-ec", next(self._blocks), cwd=self.folder, env=self._environment,
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
        )  # fmt: skip
        out, _ = await process.communicate()
        return process.returncode or 0, out.decode()


async def chatelaine(cluster: OperatorCluster, *arguments: object) -> tuple[int, str, str]:
    """The command, as an administrator: exit status, output, complaints."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "chatelaine.cli.main", *map(str, arguments),
        "--kubeconfig", str(cluster.plane.kubeconfig),
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    out, err = await process.communicate()
    return process.returncode or 0, out.decode(), err.decode()


async def lose_all_objects(cluster: OperatorCluster) -> None:
    """As if the control plane's store were empty: ours go without anybody's farewell."""
    for resource in (CLAIMS, HSMS, POLICIES):
        for found in cluster.list(resource.path()):
            found |= {"apiVersion": API, "kind": resource.kind}
            if found["metadata"].get("finalizers"):
                cluster.admin.merge(found, {"metadata": {"finalizers": []}})
            with contextlib.suppress(ApiError):
                cluster.admin.delete(found)
    await until("all are gone", lambda: not any(cluster.list(r.path()) for r in (CLAIMS, HSMS, POLICIES)))


def outcomes(cluster: OperatorCluster, said: str) -> dict[str, str]:
    """Of `restore check --json`: what, without this test's prefix, and its outcome."""
    found = json.loads(said)["found"]
    return {one["what"].replace(f"{cluster.prefix}-", ""): one["outcome"] for one in found}


def shown_keys(cluster: OperatorCluster, name: str) -> list[tuple[str, str, str, str | None]]:
    """Of a claim's versions: Hsm, state, public key, maker."""
    keys = cluster.get_claim(name).get("status", {}).get("keys", [])
    versions = [version for key in keys for version in key["versions"]]
    return [(v["hsm"]["name"], v["state"], v.get("publicKey", ""), v.get("madeBy")) for v in versions]


def serves_only(host: SimulatedHost, uid: str, label: str) -> bool:
    """Is that the one key that its gateway serves for the claim?"""
    claim = host.held.claims.get(uid) if uid in host.served else None
    return claim is not None and [v.label for key in claim.keys for v in key.versions] == [label]


async def keyed(cluster: OperatorCluster) -> tuple[list[SimulatedHost], Json]:
    """Two hosts with a key each and an empty one; of each claim uid and keys. The operator has ended."""
    async with cluster.operator() as operator:
        cluster.policy()
        hosts = [await cluster.ready("a"), await cluster.ready("b")]
        before: Json = {}
        for name in ("c1", "c2"):
            cluster.claim(name)
            found = await cluster.claim_is("Ready", "True", name=name)
            before[name] = {"uid": found["metadata"]["uid"], "keys": shown_keys(cluster, name)}
        hosts.append(await cluster.ready("empty"))
        await operator.queue.settled()
    return hosts, before


async def test_restored_without_status_each_claim_finds_its_keys_and_a_stranger_none(
    cluster: OperatorCluster, tmp_path: Path
) -> None:
    shell, file = Shell(cluster, tmp_path), tmp_path / "chatelaine-backup.yaml"
    (a, b, empty), before = await keyed(cluster)
    status, said = await shell.next_block()
    assert status == 0, said
    assert f"the namespaces of claims, with their labels: {cluster.namespace}" in said
    assert [host.made for host in (a, b, empty)] == [[f"chat/{before[n]['uid']}/signing/1"] for n in before] + [[]]
    assert all("status" not in body for body in yaml.safe_load_all(file.read_text()))
    await lose_all_objects(cluster)

    status, said, _ = await chatelaine(cluster, "restore", "check", file, "--json")
    assert (status, outcomes(cluster, said)["Hsm a"]) == (1, "Refuted")
    assert (await shell.next_block())[0] == 0  # the operator is stopped
    status, said = await shell.next_block()
    assert status == 2, said
    cluster.claim("stranger")
    assert (await shell.next_block())[0] == 0  # and started: in this process

    async with cluster.operator() as operator:
        for host in (a, b):
            await cluster.hsm_is(host, "Enrolled", "False", "AwaitingReadmission")
        await cluster.hsm_is(empty, "Ready", "True")
        # The pool has room, and it is not theirs.
        await cluster.claim_is("Ready", "True", name="stranger")
        for name in before:
            await cluster.claim_is("Bound", "False", name=name)
            assert shown_keys(cluster, name) == []
        status, said = await shell.next_block()
        assert status == 2
        for host in (a, b):
            digest = cluster.get_hsm(host)["status"]["attestation"]["evidenceDigest"]
            assert f"kubectl annotate hsm {host.name} chatelaine.dev/readmit={digest}" in said
            hsm = cluster.get_hsm(host) | {"apiVersion": API, "kind": "Hsm"}
            cluster.admin.merge(hsm, {"metadata": {"annotations": {"chatelaine.dev/readmit": digest}}})
        for host in (a, b):
            await cluster.hsm_is(host, "Ready", "True")
        for name in before:
            await cluster.claim_is("Ready", "True", name=name)
        await operator.queue.settled()
        for name, host in (("c1", a), ("c2", b)):
            uid = cluster.get_claim(name)["metadata"]["uid"]
            assert uid != before[name]["uid"]
            [(home, state, public, _)] = before[name]["keys"]
            assert shown_keys(cluster, name) == [(home, state, public, before[name]["uid"])]
            label = f"chat/{before[name]['uid']}/signing/1"
            await until("served", partial(serves_only, host, uid, label))
        await cluster.claim_is("Ready", "True", name="stranger")
        status, said, _ = await chatelaine(cluster, "restore", "check", file)
        assert status == 0, said
    # Every key that there was is there, and the stranger's is the only new one.
    stranger = cluster.get_claim("stranger")["metadata"]["uid"]
    made = [label for host in (a, b, empty) for label in host.made]
    assert sorted(made) == sorted([f"chat/{uid}/signing/1" for uid in (*(before[n]["uid"] for n in before), stranger)])


async def test_hsms_restored_without_the_backup_are_told_before_the_operator_starts(
    cluster: OperatorCluster, tmp_path: Path
) -> None:
    """Manifests from Git do not say whose keys are where: their claims would get new ones."""
    file = tmp_path / "backup.yaml"
    await keyed(cluster)
    status, _, said = await chatelaine(cluster, "backup", "--output", file)
    assert status == 0, said
    await lose_all_objects(cluster)
    bodies = list(yaml.safe_load_all(file.read_text()))
    for body in bodies:
        body["spec"].pop("adoptions", None)
        cluster.admin.create(body)
    status, said, _ = await chatelaine(cluster, "restore", "check", file)
    assert status == 1
    assert f"MISSING Hsm {cluster.prefix}-a: does not say whose keys it holds" in said
    cluster.plane.kubectl("apply", "--server-side", "--force-conflicts", "--filename", str(file))
    status, said, _ = await chatelaine(cluster, "restore", "check", file)
    assert status == 2, said


async def test_a_lost_authority_and_a_file_that_is_none_are_told(cluster: OperatorCluster, tmp_path: Path) -> None:
    status, said, err = await chatelaine(cluster, "backup")
    assert status == 0, err
    file = tmp_path / "backup.yaml"
    file.write_text(said)
    status, said, _ = await chatelaine(cluster, "restore", "check", file, "--namespace", cluster.namespace)
    assert status == 1
    assert "chatelaine-ca: is missing" in said
    file.write_text("apiVersion: v1\nkind: Secret\nmetadata: {name: x}\n")
    status, _, err = await chatelaine(cluster, "restore", "check", file)
    assert status == 64
    assert "holds something else" in err
