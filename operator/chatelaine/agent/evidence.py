"""One round of evidence, in the order that binds everything to everything.

1. the nonce arrives; the boot event log is read, if it is asked for;
2. PCRs are read, and their digest is computed as the TPM will compute it;
3. the gateway has the HSM sign its statement over that digest, the log's digest and the nonce;
4. the TPM quotes, with the statement's digest and both TLS keys in the binding;
5. the quoted digest must be the one of step 2; PCRs that moved in between start the round again, three times at most;
6. the IMA list is read: whatever was measured before the quote stands in it by now.
"""

from __future__ import annotations

import asyncio
import hashlib
from dataclasses import dataclass
from typing import Final, Protocol

import msgspec

from chatelaine.agent.attester import Attester, Quote
from chatelaine.agent.errors import AttesterRefused, EvidenceBusy, GatewayUnavailable, PcrsKeepMoving, StatementUnfit
from chatelaine.agent.logs import ImaPiece, LogFiles
from chatelaine.evidence.binding import Binding, quote_extra_data
from chatelaine.evidence.errors import EvidenceError
from chatelaine.evidence.hsm_statement import decode_statement
from chatelaine.evidence.tpm_types import QuoteBody, Selection, parse_quote
from chatelaine.wire.messages import (
    MAX_EVIDENCE_BODY_BYTES,
    EvidenceResponse,
    GatewayIdentity,
    StatementRequest,
    StatementResponse,
)
from chatelaine.wire.peer import PeerClient, PeerError, Target

MAX_ATTEMPTS: Final = 3
MAX_WAITING_ROUNDS: Final = 4
GATEWAY_SECONDS: Final = 15.0


class Gateway(Protocol):
    """What the agent asks of the gateway beside it. Both raise `GatewayUnavailable`."""

    async def identity(self) -> GatewayIdentity:
        """Its TLS key, its HSM's attestation key, its token."""

    async def statement(self, request: StatementRequest) -> StatementResponse:
        """The HSM's signed statement over this round."""


class SocketGateway:
    """`Gateway` over the local Unix socket that only the same user may open."""

    def __init__(self, socket_path: str) -> None:
        self.client = PeerClient(
            Target("localhost", 80, None, unix_path=socket_path),
            None,
            timeout_seconds=GATEWAY_SECONDS,
            max_answer_bytes=MAX_EVIDENCE_BODY_BYTES,
        )

    async def identity(self) -> GatewayIdentity:
        """See `Gateway`."""
        try:
            return (await self.client.call("GET", "/local/v1/identity", None, GatewayIdentity)).message
        except PeerError as error:
            raise GatewayUnavailable(f"the gateway does not say who it is: {error}") from error

    async def statement(self, request: StatementRequest) -> StatementResponse:
        """See `Gateway`."""
        try:
            return (await self.client.call("POST", "/local/v1/statement", request, StatementResponse)).message
        except PeerError as error:
            raise GatewayUnavailable(f"the gateway gave no statement: {error}") from error

    async def close(self) -> None:
        """Close its connections."""
        await self.client.close()


@dataclass(frozen=True, slots=True)
class Question:
    """What the verifier asks: a nonce (32 bytes), for which subject, over which PCRs, with which logs.

    Attributes:
        want_log: the boot event log too, unless its SHA-256 is `known_log`.
        ima_from: the IMA list from this byte on; None: no list.
        ima_epoch: `<resets>.<restarts>` in which that offset counts.
    """

    nonce: bytes
    subject_uid: str
    selection: Selection
    want_log: bool = False
    known_log: bytes | None = None
    ima_from: int | None = None
    ima_epoch: str = ""


class EvidenceRounds:
    """Answers questions one after another; the TPM and the HSM behind it are asked by one round at a time.

    Args:
        attester: the TPM.
        gateway: the gateway on this host.
        agent_spki: SubjectPublicKeyInfo (DER) of the agent's TLS key, which the quote binds.
        logs: the kernel's logs; None on a host that has none.
    """

    def __init__(self, attester: Attester, gateway: Gateway, agent_spki: bytes, logs: LogFiles | None = None) -> None:
        self._attester = attester
        self._logs = logs or LogFiles()
        self._gateway = gateway
        self._agent_spki = agent_spki
        self._turn = asyncio.Lock()
        self._waiting = 0

    async def answer(self, question: Question) -> EvidenceResponse:
        """Evidence for one question.

        Raises:
            AgentError: no evidence; the subclass tells why. Asking again may help unless it is `AttesterRefused`.
        """
        if self._waiting >= MAX_WAITING_ROUNDS:
            raise EvidenceBusy("too many evidence rounds wait on this host")
        self._waiting += 1
        try:
            async with self._turn:
                return await self._round(question)
        finally:
            self._waiting -= 1

    async def _round(self, question: Question) -> EvidenceResponse:
        log = await self._logs.event_log() if question.want_log else None
        log_digest = hashlib.sha256(log).digest() if log is not None else None
        answer, body = await self._quoted(question, log_digest)
        piece = await self._ima(question, body) if question.ima_from is not None else None
        return msgspec.structs.replace(
            answer,
            event_log=log if log_digest != question.known_log else None,
            log_digest=log_digest,
            ima_list=piece.data if piece is not None else None,
            ima_offset=piece.offset if piece is not None else 0,
            ima_more=piece is not None and piece.more,
        )

    async def _ima(self, question: Question, body: QuoteBody) -> ImaPiece | None:
        """An offset of another boot is worth nothing: the verifier would have to ask again."""
        same = question.ima_epoch == f"{body.reset_count}.{body.restart_count}"
        return await self._logs.ima((question.ima_from or 0) if same else 0)

    async def _quoted(self, question: Question, log_digest: bytes | None) -> tuple[EvidenceResponse, QuoteBody]:
        for _ in range(MAX_ATTEMPTS):
            pcrs = await self._attester.read_pcrs(question.selection)
            asked = StatementRequest(
                pcr_digest=_pcr_digest(question.selection, pcrs), nonce=question.nonce, log_digest=log_digest
            )
            said = await self._gateway.statement(asked)
            _check_statement(said, asked)
            binding = Binding.of_hsm_host(
                subject_uid=question.subject_uid,
                agent_spki=self._agent_spki,
                gateway_spki=said.gateway_spki,
                statement=said.statement,
            )
            quote = await self._attester.quote(quote_extra_data(question.nonce, binding), question.selection)
            body = _body(quote)
            if body.pcr_digest == asked.pcr_digest:
                return EvidenceResponse(
                    attest=quote.attest,
                    signature=quote.signature,
                    ak_public=quote.ak_public,
                    bank=question.selection.bank.value,
                    pcrs={str(index): value for index, value in pcrs.items()},
                    statement=said.statement,
                    statement_signature=said.signature,
                    inventory=said.inventory,
                ), body
        raise PcrsKeepMoving(f"PCRs changed in each of {MAX_ATTEMPTS} attempts")


def _pcr_digest(selection: Selection, pcrs: dict[int, bytes]) -> bytes:
    """As TPM2_Quote does it: the values in rising order, under the key's hash, SHA-256 (Part 3 §18.4.1)."""
    return hashlib.sha256(b"".join(pcrs[index] for index in selection.indices)).digest()


def _body(quote: Quote) -> QuoteBody:
    try:
        return parse_quote(quote.attest)
    except EvidenceError as error:
        raise AttesterRefused(f"the TPM's quote cannot be read: {error}") from error


def _check_statement(said: StatementResponse, asked: StatementRequest) -> None:
    """An answer to another question would only be refused by the verifier; it is named here, where it happened."""
    try:
        statement = decode_statement(said.statement)
    except EvidenceError as error:
        raise StatementUnfit(f"the gateway's statement cannot be read: {error}") from error
    wanted = (asked.nonce, asked.pcr_digest, asked.log_digest)
    if (statement.nonce, statement.pcr_digest, statement.log_digest) != wanted:
        raise StatementUnfit("the gateway's statement is over another nonce, PCR digest or log digest")
