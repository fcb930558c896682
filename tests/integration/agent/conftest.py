from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from chatelaine.wire.peer import PeerClient
from support.agent_host import AgentHost


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[AgentHost]:
    made = AgentHost(tmp_path)
    async with made.running():
        yield made


@pytest.fixture
async def operator(world: AgentHost) -> AsyncIterator[PeerClient]:
    async with world.client() as client:
        yield client
