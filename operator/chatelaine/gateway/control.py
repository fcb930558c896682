"""The operator's routes, on the clients' port: only the operator's own leaf gets past the first line of each.

GET  /control/v1/hello            -> GatewayHello
PUT  /control/v1/view             ViewUpdate -> ViewAck (200) or GatewayHello (409)
POST /control/v1/keys/ensure      EnsureKey -> KeyMade
POST /control/v1/keys/destroy     DestroyKey -> KeyGone
GET  /control/v1/inventory        -> Inventory
POST /control/v1/leaf/request     -> LeafRequest
PUT  /control/v1/leaf             Leaf -> empty
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from chatelaine.evidence.errors import EvidenceError
from chatelaine.evidence.inventory import encode_inventory
from chatelaine.gateway import problems
from chatelaine.gateway.audit import AuditRecord
from chatelaine.gateway.connections import Connection
from chatelaine.gateway.errors import AuditUnavailable, ViewOutdated, ViewRefused
from chatelaine.gateway.http import (
    Receive,
    Scope,
    Send,
    answer,
    answer_refusal,
    connection_of,
    decode_message,
    read_body,
)
from chatelaine.gateway.metrics import ALLOWED, FAILED
from chatelaine.gateway.problems import HSM_STATUS, Refusal
from chatelaine.gateway.runtime import Runtime, moment
from chatelaine.model.identifiers import ClaimKey, parse_key_label
from chatelaine.model.keys import KeyType
from chatelaine.pkcs11.errors import HsmError
from chatelaine.pkcs11.port import DestroyOutcome
from chatelaine.pkcs11.uri import key_uri
from chatelaine.pki.errors import PkiError
from chatelaine.wire.messages import (
    MAX_CONTROL_BODY_BYTES,
    DestroyKey,
    EnsureKey,
    GatewayHello,
    Inventory,
    KeyGone,
    KeyMade,
    Leaf,
    Message,
    ViewAck,
    ViewUpdate,
    encode,
)

Route = Callable[[bytes, Connection], Awaitable[tuple[int, Message | None]]]


class Control:
    """ASGI application under `/control/`."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._routes: dict[tuple[str, bytes], Route] = {
            ("GET", b"/control/v1/hello"): self._hello,
            ("PUT", b"/control/v1/view"): self._view,
            ("POST", b"/control/v1/keys/ensure"): self._ensure,
            ("POST", b"/control/v1/keys/destroy"): self._destroy,
            ("GET", b"/control/v1/inventory"): self._inventory,
            ("POST", b"/control/v1/leaf/request"): self._leaf_request,
            ("PUT", b"/control/v1/leaf"): self._leaf,
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send, path: bytes) -> None:
        """One request.

        Raises:
            Refusal: for whoever is not the operator, before anything else is looked at.
        """
        connection = connection_of(scope)
        self._runtime.tls.require_operator(connection.peer)
        route = self._routes.get((scope["method"], path))
        if route is None:
            raise Refusal(problems.NOT_FOUND)
        body = await read_body(scope, receive, MAX_CONTROL_BODY_BYTES)
        try:
            status, message = await route(body, connection)
        except HsmError as error:
            await answer_refusal(send, Refusal(error.code, str(error), status=HSM_STATUS.get(error.code, 502)))
            return
        await answer(send, status, b"" if message is None else encode(message))

    async def _hello(self, _body: bytes, _connection: Connection) -> tuple[int, Message]:
        return 200, self._said_hello()

    def _said_hello(self) -> GatewayHello:
        runtime = self._runtime
        view = runtime.view
        return GatewayHello(
            instance=view.instance,
            term=view.term,
            number=view.number,
            identity=runtime.require_service().identity(runtime.tls.spki),
        )

    async def _view(self, body: bytes, _connection: Connection) -> tuple[int, Message]:
        runtime = self._runtime
        update = decode_message(body, ViewUpdate)
        try:
            applied = runtime.view.apply(update, moment())
        except ViewOutdated:
            return 409, self._said_hello()
        except ViewRefused as error:
            raise Refusal(problems.VIEW_REFUSED, str(error)) from error
        runtime.revoke(applied.revoked, "Revoked")
        runtime.watch_deadlines()
        return 200, ViewAck(instance=update.instance, term=update.term, number=update.number)

    async def _ensure(self, body: bytes, connection: Connection) -> tuple[int, Message]:
        runtime = self._runtime
        said = decode_message(body, EnsureKey)
        key = _claim_key(said.label)
        key_type = _key_type(said.type)
        self._recordable()
        token = runtime.require_service().token
        try:
            made = await runtime.hsm.ensure_key_pair(said.label, key_type, may_generate=said.may_generate)
        except HsmError as error:
            await self._record("EnsureKey", key, FAILED, error.code, connection)
            raise
        if made.created:
            runtime.keys.forget(said.label)
            runtime.inventory.poke()
        await self._record("EnsureKey", key, ALLOWED, "Created" if made.created else "Present", connection)
        uri = str(key_uri(token, said.label))
        return 200, KeyMade(label=said.label, spki=made.spki_der, pkcs11_uri=uri, created=made.created)

    async def _destroy(self, body: bytes, connection: Connection) -> tuple[int, Message]:
        runtime = self._runtime
        said = decode_message(body, DestroyKey)
        key = _claim_key(said.label)
        self._recordable()
        try:
            outcome = await runtime.hsm.destroy_key(said.label)
        except HsmError as error:
            await self._record("DestroyKey", key, FAILED, error.code, connection)
            raise
        runtime.keys.forget(said.label)
        runtime.inventory.poke()
        await self._record("DestroyKey", key, ALLOWED, outcome.value, connection)
        return 200, KeyGone(label=said.label, existed=outcome is DestroyOutcome.DESTROYED)

    async def _inventory(self, _body: bytes, _connection: Connection) -> tuple[int, Message]:
        keys = await self._runtime.hsm.inventory()
        try:
            return 200, Inventory(inventory=encode_inventory(keys))
        except EvidenceError as error:
            raise Refusal(problems.HSM_FAILED, str(error)) from error

    async def _leaf_request(self, _body: bytes, _connection: Connection) -> tuple[int, Message]:
        return 200, self._runtime.tls.request()

    async def _leaf(self, body: bytes, _connection: Connection) -> tuple[int, None]:
        leaf = decode_message(body, Leaf)
        try:
            self._runtime.tls.install(leaf)
        except PkiError as error:
            raise Refusal(problems.LEAF_REFUSED, str(error)) from error
        return 204, None

    def _recordable(self) -> None:
        try:
            self._runtime.audit.require_open()
        except AuditUnavailable as error:
            raise Refusal(problems.AUDIT_UNAVAILABLE) from error

    async def _record(self, operation: str, key: ClaimKey, result: str, reason: str, connection: Connection) -> None:
        peer = connection.peer
        record = AuditRecord(
            at=moment().wall,
            operation=operation,
            result=result,
            reason=reason,
            claim=key.claim_uid,
            key=key.key,
            version=key.version,
            subject=peer.workload,
            holder=peer.jkt,
            source=peer.address,
        )
        try:
            await self._runtime.audit.record(record)
        except AuditUnavailable as error:
            raise Refusal(problems.AUDIT_UNAVAILABLE) from error


def _claim_key(label: str) -> ClaimKey:
    """Our service keys are made and destroyed by nobody's order."""
    key = parse_key_label(label)
    if key is None:
        raise Refusal(problems.LABEL_REFUSED, "expected chat/<claim uid>/<key>/<version>")
    return key


def _key_type(said: str) -> KeyType:
    try:
        return KeyType(said)
    except ValueError as error:
        raise Refusal(problems.BAD_REQUEST, "unknown key type") from error
