"""What the agent of the same host asks of its gateway, over a Unix socket that only this user can open.

GET  /local/v1/identity                             -> GatewayIdentity
POST /local/v1/statement StatementRequest           -> StatementResponse
GET  /local/v1/changes                              -> lines of Change
GET  /healthz /metrics
"""

from __future__ import annotations

import asyncio
import contextlib

from chatelaine.evidence.errors import EvidenceError
from chatelaine.gateway import metrics as counted
from chatelaine.gateway import problems
from chatelaine.gateway.errors import PeerGone
from chatelaine.gateway.http import (
    LINES,
    NO_STORE,
    Receive,
    Scope,
    Send,
    answer,
    answer_refusal,
    connection_of,
    decode_message,
    read_body,
    require_method,
)
from chatelaine.gateway.limits import MAX_BODY_BYTES
from chatelaine.gateway.problems import Refusal
from chatelaine.gateway.runtime import Runtime, refusal_of
from chatelaine.gateway.service import statement
from chatelaine.pkcs11.errors import HsmError
from chatelaine.wire.messages import ALIVE_SECONDS, Change, ChangeKind, StatementRequest, encode


class LocalApp:
    """ASGI application of the Unix socket."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        try:
            await self._route(scope, receive, send, scope["raw_path"])
        except PeerGone:
            return
        except HsmError as error:
            await answer_refusal(send, refusal_of(error))
        except Refusal as refusal:
            await answer_refusal(send, refusal)

    async def _route(self, scope: Scope, receive: Receive, send: Send, path: bytes) -> None:
        runtime = self._runtime
        if path == b"/local/v1/statement":
            require_method(scope, "POST")
            await self._statement(await read_body(scope, receive, MAX_BODY_BYTES), send)
            return
        require_method(scope, "GET")
        if path == b"/local/v1/identity":
            await answer(send, 200, encode(runtime.require_service().identity(runtime.tls.spki)))
        elif path == b"/local/v1/changes":
            await self._changes(scope, receive, send)
        elif path == b"/metrics":
            await answer(send, 200, runtime.metrics.text(), counted.CONTENT_TYPE)
        elif path == b"/healthz":
            await answer(send, 200, b"{}")
        else:
            raise Refusal(problems.NOT_FOUND)

    async def _statement(self, body: bytes, send: Send) -> None:
        runtime = self._runtime
        request = decode_message(body, StatementRequest)
        try:
            said = await statement(runtime.hsm, runtime.require_service(), runtime.tls.spki, request)
        except EvidenceError as error:
            raise Refusal(problems.BAD_REQUEST, str(error)) from error
        await answer(send, 200, encode(said))

    async def _changes(self, scope: Scope, receive: Receive, send: Send) -> None:
        """A line at once and after each change, and `Alive` when there was none for a while."""
        connection = connection_of(scope)
        connection.streams = True
        await send({"type": "http.response.start", "status": 200, "headers": [LINES, NO_STORE]})
        gone = asyncio.create_task(_until_gone(receive))
        watch = self._runtime.inventory
        counter, kind = watch.counter, ChangeKind.ALIVE
        changed = asyncio.create_task(watch.above(counter))
        try:
            while not gone.done():
                line = encode(Change(kind=kind, counter=counter)) + b"\n"
                await send({"type": "http.response.body", "body": line, "more_body": True})
                await asyncio.wait({gone, changed}, timeout=ALIVE_SECONDS, return_when=asyncio.FIRST_COMPLETED)
                kind = ChangeKind.ALIVE
                if changed.done():
                    counter, kind = changed.result(), ChangeKind.INVENTORY
                    changed = asyncio.create_task(watch.above(counter))
        finally:
            connection.streams = False
            for task in (gone, changed):
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await task


async def _until_gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
