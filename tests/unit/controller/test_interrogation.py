"""A nonce is used up by the one round that it was made for: nothing that a host said before counts again."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatelaine.controller.interrogation import Question, interrogate
from chatelaine.evidence.bundle import QuoteEvidence
from chatelaine.evidence.errors import EvidenceError, ExtraDataMismatch, StatementNonceMismatch
from chatelaine.evidence.hsm_statement import decode_statement
from chatelaine.wire.messages import NONCE_BYTES, EvidenceRequest, EvidenceResponse
from chatelaine.wire.peer import Answer
from support.paper_host import AGENT_SPKI, GATEWAY_SPKI, PaperHost, response_of
from support.paper_tpm import PCRS, SELECTION

SUBJECTS = ("6f1c0e7a-8a51-4d58-9d3f-1f6f0c2c1a11", "6f1c0e7a-8a51-4d58-9d3f-1f6f0c2c1a12")
HOST = PaperHost()

steps = st.lists(
    st.tuples(
        st.sampled_from(SUBJECTS),
        st.sampled_from(["honest", "replays all", "replays its quote", "replays its statement"]),
        st.integers(min_value=0),
    ),
    min_size=2,
    max_size=12,
)


class RecordingAgent:
    """The enrolled host's agent, with a memory of all that it ever answered. Its TLS keys never change."""

    def __init__(self) -> None:
        self.asked: list[EvidenceRequest] = []
        self.said: list[QuoteEvidence] = []
        self.does = "honest"
        self.which = 0

    async def call(self, method: str, path: str, request: Any, kind: type[Any]) -> Answer[Any]:
        assert (method, path, kind) == ("POST", "/v1/evidence", EvidenceResponse)
        self.asked.append(request)
        evidence = self._evidence(request)
        return Answer(response_of(evidence), AGENT_SPKI, 0)

    def _evidence(self, request: EvidenceRequest) -> QuoteEvidence:
        honest = HOST.answer(request.nonce, subject=request.subject_uid)
        if self.does == "honest":
            self.said.append(honest)
            return honest
        earlier = self.said[self.which % len(self.said)]
        if self.does == "replays all":
            return earlier
        if self.does == "replays its quote":
            return replace(honest, attest=earlier.attest, signature=earlier.signature)
        # The TPM is asked again, over what the token said in the earlier round.
        nonce = decode_statement(earlier.statement).nonce
        return HOST.answer(request.nonce, subject=request.subject_uid, statement={"nonce": nonce})


def ask(agent: RecordingAgent, subject: str) -> Any:
    question = Question(subject, GATEWAY_SPKI, SELECTION)
    return asyncio.run(interrogate(agent, question, HOST.identity, now=0.0))  # its one method


@given(steps)
def test_whatever_was_answered_in_any_earlier_round_for_any_subject_is_refused(
    rounds: list[tuple[str, str, int]],
) -> None:
    agent = RecordingAgent()
    for subject, does, which in rounds:
        agent.does, agent.which = (does, which) if agent.said else ("honest", 0)
        if agent.does == "honest":
            told = ask(agent, subject)
            assert told.verified is not None
            assert told.verified.quote.pcrs == PCRS
            continue
        with pytest.raises(EvidenceError) as refusal:
            ask(agent, subject)
        wanted = StatementNonceMismatch if agent.does == "replays its statement" else ExtraDataMismatch
        assert refusal.type is wanted
        # Dropped, never counted against the subject: a recording can be anybody's.
        assert not refusal.value.authenticated
    nonces = [request.nonce for request in agent.asked]
    assert len(set(nonces)) == len(nonces)
    assert {len(nonce) for nonce in nonces} == {NONCE_BYTES}
