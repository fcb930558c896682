"""A listener that stops: no connection is lost in between, and none is let in any more."""

from __future__ import annotations

import asyncio
import gc
import socket
import warnings

import pytest
from aiohttp import web

from chatelaine.wire.serve import Listener
from support.scripted_peer import Pki


@pytest.mark.parametrize("turns", range(5))
async def test_connection_that_is_accepted_while_the_server_closes_is_closed(pki: Pki, turns: int) -> None:
    listener = Listener(web.Application(), pki.agent.server_context())
    port = await listener.start("127.0.0.1", 0)
    with socket.create_connection(("127.0.0.1", port)) as caller, warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        for _ in range(turns):
            await asyncio.sleep(0)
        stopping = asyncio.create_task(listener.stop())
        # It is not kept waiting by a handshake that nobody begins.
        caller.shutdown(socket.SHUT_WR)
        await stopping
        gc.collect()
    assert [str(warning.message) for warning in told if warning.category is ResourceWarning] == []
