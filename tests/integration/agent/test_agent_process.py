"""The agent as a process: started from the command line, killed, started again."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tools.lab.swtpm import Swtpm

from chatelaine.evidence.tpm_quote import attestation_key, verify_quote
from chatelaine.evidence.tpm_types import Selection, parse_quote
from chatelaine.model.identifiers import OPERATOR_SERVER_NAME, agent_server_name
from chatelaine.model.tpm_policy import Bank
from chatelaine.wire.messages import Change, ChangeKind, EvidenceRequest, EvidenceResponse, HostIdentity
from chatelaine.wire.peer import PeerClient, Target
from support.agent_process import START_SECONDS, AgentProcess
from support.pki import new_authority, new_leaf
from support.simulated_gateway import SimulatedGateway

HOST = "hsm-a"


class World:
    def __init__(self, folder: Path, *arguments: str) -> None:
        self.agent = AgentProcess(folder, HOST, folder / "gw.sock", *arguments)
        self.authority = new_authority()
        self.operator = new_leaf(self.authority, folder / "operator", OPERATOR_SERVER_NAME)
        self.leaf = new_leaf(self.authority, folder / "agent" / "tls", agent_server_name(HOST))
        self.gateway = SimulatedGateway()
        self.folder = folder

    def client(self) -> PeerClient:
        return PeerClient(
            Target("127.0.0.1", self.agent.port, agent_server_name(HOST)),
            self.operator.client_context(),
            timeout_seconds=START_SECONDS,
            max_answer_bytes=1 << 20,
        )

    async def identity(self) -> tuple[HostIdentity, bytes]:
        async with self.client() as client:
            answer = await client.call("GET", "/v1/identity", None, HostIdentity)
            return answer.message, answer.peer_spki


@pytest.fixture(params=["tpm", "simulated"])
async def world(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[World]:
    tpm = Swtpm() if request.param == "tpm" else None
    made = World(tmp_path, *(("--tcti", tpm.tcti) if tpm else ("--attester", "simulated")))
    await made.gateway.start(tmp_path / "gw.sock")
    await made.agent.start()
    yield made
    if made.agent.process is not None:
        await made.agent.end(signal.SIGKILL)
    await made.gateway.stop()
    if tpm is not None:
        tpm.stop()


async def test_a_killed_agent_comes_back_with_the_same_keys(world: World) -> None:
    before = await world.identity()
    assert await world.agent.end(signal.SIGKILL) == -signal.SIGKILL
    await world.agent.start()
    assert await world.identity() == before
    assert before[1] == world.leaf.spki


async def test_the_process_gives_evidence_that_verifies(world: World) -> None:
    async with world.client() as client:
        asked = EvidenceRequest(nonce=bytes(range(32)), subject_uid="uid", bank="Sha256", indices=(0, 7))
        said = (await client.call("POST", "/v1/evidence", asked, EvidenceResponse)).message
    verify_quote(
        said.attest,
        said.signature,
        ak=attestation_key(said.ak_public),
        expected_extra_data=parse_quote(said.attest).extra_data,
        selection=Selection(Bank.SHA256, (0, 7)),
        pcrs={int(index): value for index, value in said.pcrs.items()},
    )


async def test_sigterm_ends_it_cleanly_with_a_stream_open(world: World) -> None:
    async with world.client() as client:
        changes = client.lines("/v1/changes", Change, silence_seconds=START_SECONDS)
        assert (await anext(changes)).kind is ChangeKind.ALIVE
        assert await world.agent.end(signal.SIGTERM) == 0
        async with asyncio.timeout(START_SECONDS):
            assert [change async for change in changes if change.kind is ChangeKind.PCR] == []
    assert "Traceback" not in world.agent.log()
    assert "the agent stops" in world.agent.log()


async def test_a_host_that_has_not_joined_is_told_what_to_do(tmp_path: Path) -> None:
    done = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-m", "chatelaine.cli.main", "agent", "--host-name", HOST, "--attester", "simulated",
         "--state-dir", str(tmp_path), "--gateway-socket", str(tmp_path / "gw.sock"), "--listen", "127.0.0.1:0"],
        capture_output=True, text=True, timeout=START_SECONDS, check=False, env=os.environ,
    )  # fmt: skip
    assert done.returncode == 1
    assert "chatelaine host join" in done.stderr
    assert "Traceback" not in done.stderr


def test_an_agent_without_the_tpm_software_stack_names_the_extra_to_install(tmp_path: Path) -> None:
    new_leaf(new_authority(), tmp_path / "tls", agent_server_name(HOST))
    code = "import sys; sys.modules['tpm2_pytss'] = None; from chatelaine.cli.agent import app; app()"
    arguments = ("--host-name", HOST, "--gateway-socket", tmp_path / "gw.sock", "--state-dir", tmp_path)
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments), "--listen", "127.0.0.1:0"],
        capture_output=True,
        text=True,
        timeout=START_SECONDS,
        check=False,
    )
    assert done.returncode == 1
    assert "chatelaine agent: the TPM software stack is not installed" in done.stderr
    assert "pip install 'chatelaine[agent]'" in done.stderr
    assert "Traceback" not in done.stderr
