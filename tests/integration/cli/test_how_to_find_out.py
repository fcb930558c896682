"""The page about finding out what is wrong: its commands, as a person would type them."""

from __future__ import annotations

import asyncio
import os
import re
import sys
from pathlib import Path

from support.operator_cluster import SYSTEM, OperatorCluster
from support.waiting import until

PAGE = Path(__file__).resolve().parents[3] / "docs" / "how-to" / "find-out-what-is-wrong.md"
BLOCK = re.compile(r"^```sh\n(.*?)^```$", re.DOTALL | re.MULTILINE)


async def test_every_command_of_the_page_does_what_it_says(cluster: OperatorCluster) -> None:
    tools = cluster.folder / "bin"
    tools.mkdir()
    command = tools / "chatelaine"
    command.write_text(f'#!/bin/bash\nexec "{sys.executable}" -m chatelaine.cli.main "$@"\n')
    command.chmod(0o755)
    async with cluster.operator(leader_election=True):
        cluster.policy(freshness={"maxAgeSeconds": 300})
        host = await cluster.ready()
        cluster.claim()
        await cluster.claim_is("Ready", "True")
        await until("the CA is published", lambda: cluster.find("v1", "ConfigMap", "chatelaine-ca", SYSTEM))
        script = "\n".join(BLOCK.findall(PAGE.read_text()))
        names = {
            "payments/checkout": f"{cluster.namespace}/c1",
            "hsm-a": host.name,
            "hsm-baseline": f"{cluster.prefix}-base",
        }
        for said, meant in names.items():
            assert said in script
            script = script.replace(said, meant)
        process = await asyncio.create_subprocess_exec(
            "bash", "-euxo", "pipefail", "-c", script, cwd=cluster.folder,
            env={**os.environ, "PATH": f"{tools}:{os.environ['PATH']}", "KUBECONFIG": str(cluster.plane.kubeconfig)},
            stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        out, err = await asyncio.wait_for(process.communicate(), 240)
    assert process.returncode == 0, f"{out.decode()}\n{err.decode()}"
    assert f"HsmClaim {cluster.namespace}/c1 is Ready." in out.decode()
    assert f"The installation in namespace {SYSTEM} is well." in out.decode()
    assert (cluster.folder / "bundle.tar.gz").is_file()
