"""The agent of a host with an IMA list, on paper, and one round of questions to it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from chatelaine.appraisal.ima_history import ImaHistory
from chatelaine.appraisal.ima_rules import ima_rule
from chatelaine.controller.ima_reading import ImaQuestion
from chatelaine.controller.interrogation import Question, Told, interrogate
from chatelaine.evidence.ima import MAX_IMA_CHUNK_BYTES
from chatelaine.evidence.tpm_types import Selection
from chatelaine.model.tpm_policy import Bank, ImaRules
from chatelaine.model.verdict import Finding
from chatelaine.wire.messages import EvidenceRequest, EvidenceResponse, ImaRequest, ImaResponse
from chatelaine.wire.peer import Answer, PeerClient
from support.paper_host import AGENT_SPKI, GATEWAY_SPKI, SUBJECT, PaperHost, response_of
from support.paper_ima import PaperIma, sha256

HOST = PaperHost()
POLICY = "sha256:" + "a" * 64
GOOD, BAD = ("/usr/bin/sh", b"shell"), ("/tmp/.x", b"malware")
SELECTION = Selection(Bank.SHA256, (0, 7, 10))


@dataclass
class PaperAgent(PeerClient):
    """The agent of a host with a list. `alter` bends its answers; `happens` comes to pass before each of them."""

    ima: PaperIma
    resets: int = 5
    limit_bytes: int = MAX_IMA_CHUNK_BYTES
    asked: list[tuple[str, int]] = field(default_factory=list)
    happens: Callable[[PaperAgent], None] = lambda _: None
    alter: Callable[[Any], Any] = lambda message: message

    def __hash__(self) -> int:
        return id(self)

    async def call(self, method: str, path: str, request: Any, answer: type[Any]) -> Answer[Any]:
        """See `PeerClient`."""
        self.happens(self)
        message = self._evidence(request) if answer is EvidenceResponse else self._piece(request)
        return Answer(self.alter(message), AGENT_SPKI, 0)

    def _evidence(self, request: EvidenceRequest) -> EvidenceResponse:
        assert request.ima_from is not None
        offset = request.ima_from if request.ima_epoch == f"{self.resets}.1" else 0
        self.asked.append(("evidence", offset))
        data = self.ima.data[offset:]
        pcrs = {0: b"\x11" * 32, 7: b"\x77" * 32, 10: self.ima.pcr10}
        quote = {"resets": self.resets}
        evidence = HOST.answer(request.nonce, pcrs=pcrs, quote=quote, ima=(offset, data[: self.limit_bytes]))
        response = response_of(evidence)
        answer: EvidenceResponse = replaced(response, ima_more=len(data) > self.limit_bytes)
        return answer

    def _piece(self, request: ImaRequest) -> ImaResponse:
        self.asked.append(("piece", request.offset))
        data = self.ima.data[request.offset :]
        return ImaResponse(offset=request.offset, piece=data[: self.limit_bytes], more=len(data) > self.limit_bytes)


def replaced(message: Any, **changed: Any) -> Any:
    """A message with other fields."""
    values = {name: getattr(message, name) for name in message.__struct_fields__}
    return type(message)(**values | changed)


def booted() -> PaperIma:
    """A list with its boot aggregate and one good file."""
    return PaperIma.booted().ran(*GOOD)


def rule(*allowed: tuple[str, bytes]) -> Any:
    """Allows these files and no other."""
    allow = [{"path": path, "digests": [sha256(content)]} for path, content in allowed or (GOOD,)]
    return ima_rule(ImaRules.model_validate({"allow": allow}), None, at=0)


def read(agent: PaperAgent, history: ImaHistory | None = None, *, policy: str = POLICY, **rules: Any) -> Told:
    """One round."""
    question = Question(SUBJECT, GATEWAY_SPKI, SELECTION, ima=ImaQuestion(rules or {policy: rule()}, history))
    return asyncio.run(interrogate(agent, question, HOST.identity, now=0.0))


def finding(told: Told, policy: str = POLICY) -> Finding:
    """What the list showed."""
    return told.round.ima.by_policy[policy]
