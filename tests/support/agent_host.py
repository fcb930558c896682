"""One host with a real TPM and its agent's routes over real mutual TLS."""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from tools.lab.swtpm import Swtpm

from chatelaine.agent.evidence import SocketGateway
from chatelaine.agent.server import AgentServer
from chatelaine.agent.tpm import TpmAttester
from chatelaine.agent.watch import ChangeCounter, watch_gateway, watch_tpm
from chatelaine.evidence.tpm_types import Selection
from chatelaine.model.identifiers import OPERATOR_SERVER_NAME, agent_server_name
from chatelaine.model.tpm_policy import Bank
from chatelaine.pki.authority import Authority
from chatelaine.pki.leaf import ProcessLeaf
from chatelaine.wire.messages import Change, ChangeKind
from chatelaine.wire.peer import PeerClient, Target
from chatelaine.wire.serve import Listener
from support.pki import new_authority, new_leaf
from support.simulated_gateway import SimulatedGateway

HOST = "hsm-a"
NAME = agent_server_name(HOST)
UID = "5f0c1a9e-0000-4000-8000-000000000001"
SELECTION = Selection(Bank.SHA256, (0, 7, 14))
DEADLINE_SECONDS = 20.0


class AgentHost:
    """One host with its agent, and the CA that knows it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.tpm = Swtpm()
        self.authority: Authority = new_authority()
        self.leaf = new_leaf(self.authority, folder / "agent", NAME)
        self.operator = new_leaf(self.authority, folder / "operator", OPERATOR_SERVER_NAME)
        self.gateway = SimulatedGateway()
        self.port = 0
        self.clock = time.time

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Everything that runs on the host, until the end of the block."""
        await self.gateway.start(self.folder / "gw.sock")
        attester, counter = TpmAttester(self.tpm.tcti, self.folder / "state"), ChangeCounter()
        socket = SocketGateway(str(self.folder / "gw.sock"))
        server = AgentServer(attester, socket, self.leaf, counter, lambda: self.clock(), alive_seconds=0.2)
        listener = Listener(server.application(), self.leaf.server_context())
        self.port = await listener.start("127.0.0.1", 0)
        watchers = [
            asyncio.create_task(watch_tpm(attester, counter, poll_seconds=0.02)),
            asyncio.create_task(watch_gateway(socket.client, counter)),
        ]
        try:
            yield
        finally:
            for task in watchers:
                task.cancel()
            await asyncio.gather(*watchers, return_exceptions=True)
            await listener.stop()
            await socket.close()
            await attester.close()
            await self.gateway.stop()
            self.tpm.stop()

    def client(self, leaf: ProcessLeaf | None = None, context: ssl.SSLContext | None = None) -> PeerClient:
        """Of the operator, or of whoever holds `leaf`."""
        return PeerClient(
            Target("127.0.0.1", self.port, NAME),
            context or (leaf or self.operator).client_context(),
            timeout_seconds=DEADLINE_SECONDS,
            max_answer_bytes=1 << 20,
        )


async def heard(changes: AsyncIterator[Change], kind: ChangeKind) -> Change:
    """The next change of this kind."""
    async with asyncio.timeout(DEADLINE_SECONDS):
        async for change in changes:
            if change.kind is kind:
                return change
    raise AssertionError("the stream ended")
