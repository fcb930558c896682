"""The agent's routes over mutual TLS; only the operator is let in.

A caller must hold a leaf of our CA for `operator.chatelaine.internal`, judged for every request, and every few seconds
on a change stream, by the bundle and the clock of that moment.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

from aiohttp import web

from chatelaine.agent.attester import Attester
from chatelaine.agent.errors import (
    ActivationRefused,
    AgentError,
    AttesterBusy,
    AttesterRefused,
    BankAbsent,
    EvidenceBusy,
    GatewayUnavailable,
    LogTooLong,
    LogUnreadable,
    StateDamaged,
)
from chatelaine.agent.evidence import EvidenceRounds, Gateway, Question
from chatelaine.agent.logs import LogFiles
from chatelaine.agent.watch import ChangeCounter
from chatelaine.evidence.ima import MAX_IMA_BYTES
from chatelaine.evidence.tpm_types import Selection
from chatelaine.model.identifiers import OPERATOR_SERVER_NAME
from chatelaine.model.tpm_policy import Bank
from chatelaine.pki.chain import MAX_BUNDLE_BYTES
from chatelaine.pki.errors import CertificateRefused
from chatelaine.pki.leaf import ProcessLeaf
from chatelaine.telemetry.log import logger
from chatelaine.wire.messages import (
    ALIVE_SECONDS,
    LINES_MEDIA_TYPE,
    NONCE_BYTES,
    Activated,
    Activation,
    EvidenceRequest,
    HostIdentity,
    ImaRequest,
    ImaResponse,
    Leaf,
    LeafRequest,
    encode,
)
from chatelaine.wire.serve import Refused, answer, peer_certificate, problems, read

log = logger(__name__)

MAX_REQUEST_BYTES: Final = 16 * 1024
MAX_LEAF_BYTES: Final = 3 * MAX_BUNDLE_BYTES
MAX_SUBJECT_CHARACTERS: Final = 128
MAX_STREAMS: Final = 8
LOG_DIGEST_BYTES: Final = 32

_STATUS: Final[dict[type[AgentError], int]] = {
    AttesterBusy: 429,
    EvidenceBusy: 429,
    BankAbsent: 422,
    ActivationRefused: 422,
    LogTooLong: 422,
    AttesterRefused: 500,
    LogUnreadable: 500,
    StateDamaged: 500,
}
_STATUS_OF_OTHERS: Final = 503

_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class AgentServer:
    """What the operator may ask of a host.

    Args:
        attester: the TPM.
        gateway: the gateway on this host.
        leaf: this agent's TLS identity.
        counter: changes to tell of.
        wall_clock: seconds since the epoch.
        logs: the kernel's logs; None on a host that has none.
        alive_seconds: longest silence on a change stream.
    """

    def __init__(
        self,
        attester: Attester,
        gateway: Gateway,
        leaf: ProcessLeaf,
        counter: ChangeCounter,
        wall_clock: Callable[[], float],
        *,
        logs: LogFiles | None = None,
        alive_seconds: float = ALIVE_SECONDS,
    ) -> None:
        self._attester = attester
        self._gateway = gateway
        self._leaf = leaf
        self._counter = counter
        self._wall_clock = wall_clock
        self._alive_seconds = alive_seconds
        self._logs = logs or LogFiles()
        self._rounds = EvidenceRounds(attester, gateway, leaf.spki, self._logs)
        self._streams: set[asyncio.Task[None]] = set()

    def application(self) -> web.Application:
        """The routes."""
        app = web.Application(
            middlewares=[problems, self._operator_only, _agent_errors], client_max_size=MAX_LEAF_BYTES
        )
        app.add_routes(
            [
                web.get("/v1/identity", self._identity),
                web.post("/v1/activate", self._activate),
                web.post("/v1/evidence", self._evidence),
                web.post("/v1/ima", self._ima),
                web.get("/v1/changes", self._changes),
                web.post("/v1/leaf/request", self._leaf_request),
                web.put("/v1/leaf", self._new_leaf),
            ]
        )
        app.on_shutdown.append(self._end_streams)
        return app

    @web.middleware
    async def _operator_only(self, request: web.Request, handler: _Handler) -> web.StreamResponse:
        self._check_caller(request)
        return await handler(request)

    def _check_caller(self, request: web.Request) -> None:
        try:
            self._leaf.check_peer(peer_certificate(request), OPERATOR_SERVER_NAME, int(self._wall_clock()))
        except CertificateRefused as error:
            log.warning("a caller was refused", flaw=error.flaw.value, peer=request.remote)
            raise Refused(403, "NotTheOperator", "only the operator's certificate is let in", closes=True) from error

    async def _identity(self, _: web.Request) -> web.Response:
        identity = await self._attester.identity()
        try:
            gateway = await self._gateway.identity()
        except GatewayUnavailable as error:
            log.warning("identity without a gateway", error=str(error))
            gateway = None
        return answer(
            HostIdentity(
                ek_public=identity.ek_public,
                ak_public=identity.ak_public,
                ek_certificate=identity.ek_certificate,
                gateway=gateway,
            )
        )

    async def _activate(self, request: web.Request) -> web.Response:
        asked = await read(request, Activation, max_bytes=MAX_REQUEST_BYTES)
        return answer(Activated(secret=await self._attester.activate(asked.credential_blob, asked.encrypted_secret)))

    async def _evidence(self, request: web.Request) -> web.Response:
        question = _question(await read(request, EvidenceRequest, max_bytes=MAX_REQUEST_BYTES))
        return answer(await self._rounds.answer(question))

    async def _ima(self, request: web.Request) -> web.Response:
        asked = await read(request, ImaRequest, max_bytes=MAX_REQUEST_BYTES)
        piece = await self._logs.ima(_offset(asked.offset))
        if piece is None:
            raise Refused(404, "NoImaList", "this host keeps no IMA list")
        return answer(ImaResponse(offset=piece.offset, piece=piece.data, more=piece.more))

    async def _changes(self, request: web.Request) -> web.StreamResponse:
        if len(self._streams) >= MAX_STREAMS:
            raise Refused(429, "TooManyStreams", f"at most {MAX_STREAMS} change streams")
        response = web.StreamResponse(headers={"Content-Type": LINES_MEDIA_TYPE, "Cache-Control": "no-store"})
        await response.prepare(request)
        stream = asyncio.create_task(self._tell(request, response))
        self._streams.add(stream)
        try:
            await stream
        except (ConnectionError, Refused) as error:
            log.debug("a change stream ended", error=str(error))
        except asyncio.CancelledError:
            # Ours is the stream; unless the whole request was cancelled, the agent is stopping.
            if not stream.cancelled():
                stream.cancel()
                raise
        finally:
            self._streams.discard(stream)
        return response

    async def _tell(self, request: web.Request, response: web.StreamResponse) -> None:
        async for change in self._counter.follow(alive_seconds=self._alive_seconds):
            if request.transport is None:
                return
            self._check_caller(request)
            await response.write(encode(change) + b"\n")

    async def _end_streams(self, _: web.Application) -> None:
        for stream in self._streams:
            stream.cancel()

    async def _leaf_request(self, _: web.Request) -> web.Response:
        return answer(LeafRequest(csr=self._leaf.request(), not_after=self._leaf.not_after))

    async def _new_leaf(self, request: web.Request) -> web.Response:
        leaf = await read(request, Leaf, max_bytes=MAX_LEAF_BYTES)
        try:
            self._leaf.install(leaf.chain_pem, leaf.ca_bundle_pem, int(self._wall_clock()))
        except CertificateRefused as error:
            raise Refused(422, "LeafRefused", str(error)) from error
        log.info("the certificate was renewed", not_after=self._leaf.not_after)
        return web.Response(status=204)


@web.middleware
async def _agent_errors(request: web.Request, handler: _Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except AgentError as error:
        log.warning("a request could not be met", path=request.path, reason=type(error).__name__, error=str(error))
        status = _STATUS.get(type(error), _STATUS_OF_OTHERS)
        raise Refused(status, type(error).__name__, str(error)) from error


def _question(asked: EvidenceRequest) -> Question:
    if len(asked.nonce) != NONCE_BYTES:
        raise Refused(400, "BadRequest", f"a nonce is {NONCE_BYTES} bytes long")
    if not 1 <= len(asked.subject_uid) <= MAX_SUBJECT_CHARACTERS:
        raise Refused(400, "BadRequest", "no subject, or too long a one")
    if asked.known_log is not None and len(asked.known_log) != LOG_DIGEST_BYTES:
        raise Refused(400, "BadRequest", f"a log's digest is {LOG_DIGEST_BYTES} bytes long")
    try:
        return Question(
            asked.nonce,
            asked.subject_uid,
            Selection(Bank(asked.bank), asked.indices),
            want_log=asked.want_log,
            known_log=asked.known_log,
            ima_from=_offset(asked.ima_from) if asked.ima_from is not None else None,
            ima_epoch=asked.ima_epoch,
        )
    except ValueError as error:
        raise Refused(400, "BadRequest", str(error)) from error


def _offset(asked: int) -> int:
    if not 0 <= asked <= MAX_IMA_BYTES:
        raise Refused(400, "BadRequest", f"an offset into the IMA list is a number up to {MAX_IMA_BYTES}")
    return asked
