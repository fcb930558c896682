"""The agent's stream of changes."""

from __future__ import annotations

import asyncio

import aiohttp
import pytest

from chatelaine.agent.server import MAX_STREAMS
from chatelaine.wire.messages import (
    LINES_MEDIA_TYPE,
    Change,
    ChangeKind,
)
from chatelaine.wire.peer import PeerClient, PeerRefused
from support.agent_host import DEADLINE_SECONDS, NAME, AgentHost, heard


async def test_a_change_is_announced_on_the_stream(operator: PeerClient, world: AgentHost) -> None:
    changes = operator.lines("/v1/changes", Change, silence_seconds=DEADLINE_SECONDS)
    before = await heard(changes, ChangeKind.ALIVE)
    world.tpm.extend(7, bytes(32))
    pcr = await heard(changes, ChangeKind.PCR)
    assert pcr.counter > before.counter
    async with asyncio.timeout(DEADLINE_SECONDS):
        await world.gateway.listening.wait()
    world.gateway.tell()
    assert (await heard(changes, ChangeKind.INVENTORY)).counter > pcr.counter


async def test_a_change_stream_is_of_the_type_of_all_our_streams(world: AgentHost) -> None:
    async with (
        aiohttp.ClientSession() as session,
        session.get(
            f"https://127.0.0.1:{world.port}/v1/changes", ssl=world.operator.client_context(), server_hostname=NAME
        ) as response,
    ):
        assert response.content_type == LINES_MEDIA_TYPE


async def test_more_change_streams_than_allowed_are_refused(world: AgentHost) -> None:
    clients = [world.client() for _ in range(MAX_STREAMS + 1)]
    streams = [client.lines("/v1/changes", Change, silence_seconds=DEADLINE_SECONDS) for client in clients]
    try:
        for stream in streams[:-1]:
            await heard(stream, ChangeKind.ALIVE)
        with pytest.raises(PeerRefused) as refused:
            await heard(streams[-1], ChangeKind.ALIVE)
        assert refused.value.problem.status == 429
    finally:
        for client in clients:
            await client.close()


async def test_a_listener_that_goes_leaves_its_place_and_no_alarm(
    world: AgentHost, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(2 * MAX_STREAMS):
        async with world.client() as client, asyncio.timeout(DEADLINE_SECONDS):
            # The one before is noticed within one `Alive`; each question takes a round trip.
            while not await listened(client):
                pass
    assert "a caller was refused" not in caplog.text


async def listened(client: PeerClient) -> bool:
    try:
        await heard(client.lines("/v1/changes", Change, silence_seconds=DEADLINE_SECONDS), ChangeKind.ALIVE)
    except PeerRefused:
        return False
    return True
