"""The REST API of the data plane: bare ASGI, because this is the hot path.

    POST /v1/token
    POST /v1/keys/{namespace}/{claim}/{key}/sign | verify
    GET  /v1/keys/{namespace}/{claim}/{key}
    GET  /v1/random?bytes=n
    GET  /healthz /readyz /metrics
    /control/v1/…                        the operator's, see `control`

Every operation: can it be recorded? what does the token say, and who holds the connection? may it? read the body; may
it still? do it; may it still? record it; answer.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Final

import msgspec

from chatelaine.gateway import metrics as counted
from chatelaine.gateway import operations, problems
from chatelaine.gateway.authorize import Asked, allowed, authenticated
from chatelaine.gateway.control import Control
from chatelaine.gateway.errors import AuditUnavailable, PeerGone
from chatelaine.gateway.exchange import TokenExchange, parse_form
from chatelaine.gateway.http import (
    Receive,
    Scope,
    Send,
    answer,
    answer_refusal,
    connection_of,
    header,
    read_body,
    require_method,
)
from chatelaine.gateway.limits import MAX_BODY_BYTES
from chatelaine.gateway.problems import Refusal
from chatelaine.gateway.runtime import Runtime, moment, refusal_of
from chatelaine.pkcs11.errors import HsmError
from chatelaine.pkcs11.port import MAX_RANDOM_BYTES
from chatelaine.tokens.decide import Operation, OperationKind
from chatelaine.tokens.grants import KeyGrant, KeyVersion

_VERBS: Final = {b"sign": OperationKind.SIGN, b"verify": OperationKind.VERIFY}
_KEY_PARTS: Final = 6
_KEY_VERB_PARTS: Final = 7
_EXCHANGE: Final = "TokenExchange"


class GatewayApp:
    """ASGI application of the TLS port."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._exchange = TokenExchange(runtime.view, runtime.hsm, runtime.client_ca)
        self._control = Control(runtime)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        path: bytes = scope["raw_path"]
        try:
            if path.startswith(b"/v1/keys/"):
                await self._key(scope, receive, send, path)
            elif path == b"/v1/token":
                await self._token(scope, receive, send)
            elif path == b"/v1/random":
                await self._random(scope, send)
            elif path.startswith(b"/control/"):
                await self._control(scope, receive, send, path)
            else:
                await self._health(scope, send, path)
        except PeerGone:
            return
        except Refusal as refusal:
            await answer_refusal(send, refusal)

    async def _key(self, scope: Scope, receive: Receive, send: Send, path: bytes) -> None:
        operation = _key_operation(path, scope["method"])
        asked = Asked(operation.kind.value, connection_of(scope))
        asked.key = operation.key
        await self._recorded(send, asked, lambda: self._use_key(scope, receive, asked, operation))

    async def _use_key(self, scope: Scope, receive: Receive, asked: Asked, operation: Operation) -> bytes:
        runtime = self._runtime
        now = moment()
        token = authenticated(runtime, scope, asked, now)
        # Judged before the body is read: only who may use the key makes us keep one, and is told what is wrong with it.
        decision = allowed(runtime, asked, operation, token, now)
        request: operations.SignRequest | None = None
        if operation.kind is not OperationKind.PUBLIC_KEYS:
            request = _request(operation.kind, await read_body(scope, receive, MAX_BODY_BYTES))
            # Judged again: a body names a version, and may have come slowly.
            operation = replace(operation, version=request.key_version)
            decision = allowed(runtime, asked, operation, token, moment())
        if decision.key is None:
            raise Refusal(problems.USAGE_NOT_ALLOWED)
        revision = runtime.view.revision
        if request is None or decision.version is None:
            reply = await runtime.keys.public_keys(decision.key)
        else:
            asked.version = decision.version.version
            reply = await self._do(decision.key, decision.version, request)
        if runtime.view.revision != revision:
            # The view changed while the HSM worked: what was revoked meanwhile is not handed out.
            allowed(runtime, asked, operation, token, moment())
        return reply

    async def _do(self, key: KeyGrant, version: KeyVersion, request: operations.SignRequest) -> bytes:
        if isinstance(request, operations.VerifyRequest):
            return await self._runtime.keys.verify(key, version, request)
        return await self._runtime.keys.sign(key, version, request)

    async def _random(self, scope: Scope, send: Send) -> None:
        require_method(scope, "GET")
        asked = Asked(OperationKind.RANDOM.value, connection_of(scope))
        await self._recorded(send, asked, lambda: self._make_random(scope, asked))

    async def _make_random(self, scope: Scope, asked: Asked) -> bytes:
        runtime = self._runtime
        now = moment()
        token = authenticated(runtime, scope, asked, now)
        allowed(runtime, asked, Operation(OperationKind.RANDOM), token, now)
        length_bytes = operations.parse_random(scope["query_string"], MAX_RANDOM_BYTES)
        return await runtime.keys.random(length_bytes)

    async def _token(self, scope: Scope, receive: Receive, send: Send) -> None:
        require_method(scope, "POST")
        body = await read_body(scope, receive, MAX_BODY_BYTES)
        asked = Asked(_EXCHANGE, connection_of(scope))
        await self._recorded(send, asked, lambda: self._issue(scope, asked, body))

    async def _issue(self, scope: Scope, asked: Asked, body: bytes) -> bytes:
        service = self._runtime.require_service()
        now = moment()
        request = parse_form(header(scope, b"content-type"), body)
        identity = self._exchange.identify(request, now)
        asked.subject = f"system:serviceaccount:{identity.namespace}:{identity.service_account}:{identity.pod_uid}"
        issued = await self._exchange.issue(request, identity, asked.connection.peer, service, now)
        asked.issued(issued.claim_uid, issued.jti, issued.jkt)
        return issued.body

    async def _recorded(self, send: Send, asked: Asked, doing: Callable[[], Awaitable[bytes]]) -> None:
        """Do it, record it, answer it; in this order, and none without the one before."""
        runtime = self._runtime
        result, reason, refusal, reply = counted.ALLOWED, "", None, b""
        try:
            runtime.audit.require_open()
            reply = await doing()
        except Refusal as error:
            refusal, result, reason = error, counted.REFUSED, error.reason
        except HsmError as error:
            refusal = refusal_of(error)
            result, reason = counted.FAILED, refusal.reason
        except AuditUnavailable:
            refusal = Refusal(problems.AUDIT_UNAVAILABLE)
        try:
            await runtime.audit.record(asked.record(moment().wall, result, reason))
        except AuditUnavailable:
            refusal = Refusal(problems.AUDIT_UNAVAILABLE)
            result, reason = counted.FAILED, "AuditUnavailable"
        if asked.operation == _EXCHANGE:
            runtime.metrics.exchanges.labels(result, reason).inc()
        else:
            runtime.metrics.operation(asked.operation, result, reason)
        if refusal is not None:
            raise refusal
        await answer(send, 200, reply)

    async def _health(self, scope: Scope, send: Send, path: bytes) -> None:
        if path not in (b"/healthz", b"/readyz", b"/metrics"):
            raise Refusal(problems.NOT_FOUND)
        require_method(scope, "GET")
        runtime = self._runtime
        if path == b"/metrics":
            await answer(send, 200, runtime.metrics.text(), counted.CONTENT_TYPE)
            return
        # Serving is not part of readiness: an unready gateway would lose the endpoint that the operator reaches it by.
        ready = path == b"/healthz" or (runtime.service is not None and runtime.audit.is_open())
        body = msgspec.json.encode({"ready": ready, "serving": runtime.view.serving(moment())})
        await answer(send, 200 if ready else 503, body)


def _key_operation(path: bytes, method: str) -> Operation:
    """Split `/v1/keys/{namespace}/{claim}/{key}[/{verb}]`; names are compared later, letter by letter, never decoded.

    Raises:
        Refusal: `ERROR_NOT_FOUND`, `ERROR_METHOD_NOT_ALLOWED`.
    """
    parts = path.split(b"/")
    kind = _VERBS.get(parts[6]) if len(parts) == _KEY_VERB_PARTS else None
    if kind is None and len(parts) == _KEY_PARTS:
        kind = OperationKind.PUBLIC_KEYS
    if kind is None or b"%" in path or not path.isascii():
        raise Refusal(problems.NOT_FOUND)
    if method != ("GET" if kind is OperationKind.PUBLIC_KEYS else "POST"):
        raise Refusal(problems.METHOD_NOT_ALLOWED)
    return Operation(kind, parts[3].decode(), parts[4].decode(), parts[5].decode())


def _request(kind: OperationKind, body: bytes) -> operations.SignRequest:
    if kind is OperationKind.VERIFY:
        return operations.parse(body, operations.VerifyRequest)
    return operations.parse(body, operations.SignRequest)
