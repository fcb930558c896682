"""Commands about policies as a person runs them in the operator's pod, against an operator and hosts of a test."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from support.operator_cluster import API, OperatorCluster
from support.simulated_host import SimulatedHost
from support.waiting import until


@dataclass(frozen=True)
class Done:
    """How a command ended."""

    status: int
    out: str
    err: str

    def json(self) -> Any:
        """What it printed."""
        return json.loads(self.out)


async def chatelaine(*arguments: str | Path) -> Done:
    """Run one command."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "chatelaine.cli.main", *map(str, arguments),
        stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    out, err = await asyncio.wait_for(process.communicate(), 60)
    return Done(process.returncode or 0, out.decode(), err.decode())


class Bench:
    """An operator whose leaf lies in a known folder, and the commands that use it."""

    def __init__(self, cluster: OperatorCluster) -> None:
        self.cluster = cluster
        self.state = cluster.folder / "operator"

    async def capture(self, *arguments: str | Path) -> Done:
        """`policy capture`."""
        return await chatelaine("policy", "capture", *self._reach(), *arguments)

    async def live(self, policy: dict[str, Any], *arguments: str | Path) -> Done:
        """`policy diff --live` of `policy`."""
        file = self.cluster.folder / "new.yaml"
        file.write_text(yaml.safe_dump(policy))
        return await chatelaine("policy", "diff", "--live", file, *self._reach(), *arguments)

    def _reach(self) -> list[str | Path]:
        return ["--state-dir", self.state, "--kubeconfig", self.cluster.kubeconfig]

    def written(self) -> list[str]:
        """Versions of all objects of ours: nothing was written while they are the same."""
        kinds = ("hsms", "attestationpolicies", "hsmclaims")
        found = [item for kind in kinds for item in self.cluster.list(f"/apis/{API}/{kind}")]
        return [f"{item['metadata']['uid']}/{item['metadata']['generation']}" for item in found]


@asynccontextmanager
async def operating(cluster: OperatorCluster) -> AsyncIterator[Bench]:
    """An operator that has its leaf."""
    bench = Bench(cluster)
    async with cluster.operator(state_folder=bench.state):
        await until("the operator has a leaf", (bench.state / "chain.pem").exists)
        yield bench


def policy_of(cluster: OperatorCluster, **values: str) -> dict[str, Any]:
    """The test's policy with other good values, by `p4`."""
    pcrs = [{"index": int(name[1:]), "anyOf": [value]} for name, value in values.items()]
    body = {"freshness": {"maxAgeSeconds": 20}, "tpm": {"pcrs": {"bank": "Sha256", "values": pcrs}}}
    return {
        "apiVersion": API,
        "kind": "AttestationPolicy",
        "metadata": {"name": f"{cluster.prefix}-base"},
        "spec": body,
    }


async def impostor(cluster: OperatorCluster, host: SimulatedHost) -> SimulatedHost:
    """Somebody with good leaves of `host`, at its addresses, with another TPM and another token."""
    thief = cluster.double(host)
    thief.agent_port, thief.gateway_port = host.agent_port, host.gateway_port
    await host.stop()
    await thief.start()
    return thief
