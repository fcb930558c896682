"""An evidence round binds nonce, PCRs, statement and keys, and gives up rather than lie."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable
from dataclasses import replace

import pytest

from chatelaine.agent.attester import Quote
from chatelaine.agent.errors import EvidenceBusy, GatewayUnavailable, PcrsKeepMoving, StatementUnfit
from chatelaine.agent.evidence import MAX_ATTEMPTS, MAX_WAITING_ROUNDS, EvidenceRounds, Question
from chatelaine.agent.logs import ImaPiece, LogFiles
from chatelaine.agent.simulated import SimulatedAttester, SimulatedTpm
from chatelaine.evidence.bundle import EnrolledIdentity, QuoteEvidence, VerifiedEvidence, verify_evidence
from chatelaine.evidence.errors import ExtraDataMismatch
from chatelaine.evidence.hsm_statement import decode_statement
from chatelaine.evidence.tpm_public import parse_public
from chatelaine.evidence.tpm_types import Selection
from chatelaine.model.tpm_policy import Bank
from chatelaine.wire.messages import EvidenceResponse, StatementRequest, StatementResponse
from support.simulated_gateway import SERIAL, SimulatedGateway

NONCE = bytes(range(32))
UID = "5f0c1a9e-0000-4000-8000-000000000001"
ASKED = Question(NONCE, UID, Selection(Bank.SHA256, (0, 7)))
AGENT_SPKI = b"agent key"
DEADLINE_SECONDS = 10.0


class MovingAttester(SimulatedAttester):
    """A machine whose PCRs move between reading and quoting, `times` times."""

    def __init__(self, tpm: SimulatedTpm, times: int) -> None:
        super().__init__(tpm)
        self.left = times
        self.quotes = 0

    async def quote(self, extra_data: bytes, selection: Selection) -> Quote:
        self.quotes += 1
        if self.left:
            self.left -= 1
            self.tpm.extend(7, bytes(32))
        return await super().quote(extra_data, selection)


def verified(
    answer: EvidenceResponse,
    attester: SimulatedAttester,
    gateway: SimulatedGateway,
    *,
    nonce: bytes = NONCE,
    uid: str = UID,
    agent_spki: bytes = AGENT_SPKI,
    gateway_spki: bytes | None = None,
) -> VerifiedEvidence:
    evidence = QuoteEvidence(
        attest=answer.attest,
        signature=answer.signature,
        bank=answer.bank,
        pcrs={int(index): value for index, value in answer.pcrs.items()},
        ak_public=answer.ak_public,
        statement=answer.statement,
        statement_signature=answer.statement_signature,
        inventory=answer.inventory,
    )
    said = asyncio.run(gateway.identity())
    ak = asyncio.run(attester.identity()).ak_public
    identity = EnrolledIdentity(ak, parse_public(ak).name, said.attestation_key_spki, SERIAL)
    return verify_evidence(
        evidence,
        nonce=nonce,
        subject_uid=uid,
        identity=identity,
        agent_spki=agent_spki,
        gateway_spki=gateway_spki or said.gateway_spki,
        selection=ASKED.selection,
    )


def ask(attester: SimulatedAttester, gateway: SimulatedGateway, question: Question = ASKED) -> EvidenceResponse:
    return asyncio.run(EvidenceRounds(attester, gateway, AGENT_SPKI).answer(question))


@pytest.fixture
def attester() -> SimulatedAttester:
    return SimulatedAttester(SimulatedTpm())


@pytest.fixture
def gateway() -> SimulatedGateway:
    return SimulatedGateway()


def test_evidence_for_a_nonce_verifies(attester: SimulatedAttester, gateway: SimulatedGateway) -> None:
    found = verified(ask(attester, gateway), attester, gateway)
    assert found.quote.pcrs == {0: bytes(32), 7: bytes(32)}
    assert found.statement.nonce == NONCE


@pytest.mark.parametrize(
    "change",
    [{"nonce": bytes(32)}, {"uid": "another"}, {"agent_spki": b"relay"}, {"gateway_spki": b"relay"}],
    ids=["replayed", "another subject", "relayed by a stranger's agent", "relayed by a stranger's gateway"],
)
def test_evidence_made_for_something_else_is_refused(
    attester: SimulatedAttester, gateway: SimulatedGateway, change: dict[str, object]
) -> None:
    answer = ask(attester, gateway)
    with pytest.raises(ExtraDataMismatch):
        verified(answer, attester, gateway, **change)


@pytest.mark.parametrize("times", range(MAX_ATTEMPTS))
def test_pcrs_that_move_between_reading_and_quoting_start_the_round_again(
    gateway: SimulatedGateway, times: int
) -> None:
    attester = MovingAttester(SimulatedTpm(), times)
    verified(ask(attester, gateway), attester, gateway)
    assert attester.quotes == times + 1


def test_pcrs_that_keep_moving_end_the_round(gateway: SimulatedGateway) -> None:
    attester = MovingAttester(SimulatedTpm(), 100)
    with pytest.raises(PcrsKeepMoving):
        ask(attester, gateway)
    assert attester.quotes == MAX_ATTEMPTS


def altered(response: StatementResponse, **changes: bytes) -> StatementResponse:
    fields = {name: getattr(response, name) for name in response.__struct_fields__}
    return StatementResponse(**fields | changes)


class LyingGateway(SimulatedGateway):
    """A gateway that alters what it answers."""

    alter: Callable[[StatementResponse], StatementResponse]

    async def statement(self, request: StatementRequest) -> StatementResponse:
        return self.alter(await super().statement(request))


def test_a_statement_for_another_nonce_or_no_statement_is_refused(attester: SimulatedAttester) -> None:
    gateway = SimulatedGateway(nonce_override=bytes(32))
    with pytest.raises(StatementUnfit, match="nonce"):
        ask(attester, gateway)
    garbled = LyingGateway()
    garbled.alter = lambda response: altered(response, statement=b"\xff")
    with pytest.raises(StatementUnfit, match="read"):
        ask(attester, garbled)


def test_evidence_does_not_verify_with_a_gateway_key_that_the_gateway_swapped(attester: SimulatedAttester) -> None:
    gateway = LyingGateway()
    gateway.alter = lambda response: altered(response, gateway_spki=b"another")
    answer = ask(attester, gateway)
    with pytest.raises(ExtraDataMismatch):
        verified(answer, attester, gateway)


async def test_one_round_runs_at_a_time_and_few_wait(attester: SimulatedAttester) -> None:
    class SlowGateway(SimulatedGateway):
        running = most = 0
        go = asyncio.Event()

        async def statement(self, request: StatementRequest) -> StatementResponse:
            self.running += 1
            self.most = max(self.most, self.running)
            await self.go.wait()
            self.running -= 1
            return await super().statement(request)

    gateway = SlowGateway()
    rounds = EvidenceRounds(attester, gateway, AGENT_SPKI)
    waiting = [asyncio.create_task(rounds.answer(ASKED)) for _ in range(MAX_WAITING_ROUNDS)]
    await asyncio.sleep(0)
    with pytest.raises(EvidenceBusy):
        async with asyncio.timeout(DEADLINE_SECONDS):
            await rounds.answer(ASKED)
    gateway.go.set()
    assert len(await asyncio.gather(*waiting)) == MAX_WAITING_ROUNDS
    assert gateway.most == 1
    await rounds.answer(ASKED)


async def test_a_round_that_fails_leaves_its_place(attester: SimulatedAttester) -> None:
    class DeadGateway(SimulatedGateway):
        async def statement(self, request: StatementRequest) -> StatementResponse:
            raise GatewayUnavailable("dead")

    rounds = EvidenceRounds(attester, DeadGateway(), AGENT_SPKI)
    for _ in range(2 * MAX_WAITING_ROUNDS):
        with pytest.raises(GatewayUnavailable):
            await rounds.answer(ASKED)


# --- logs -----------------------------------------------------------------------------------------------------


class Kernel(LogFiles):
    """A host whose kernel shows `log` and `list`."""

    def __init__(self, log: bytes | None = b"log", ima_list: bytes | None = b"0123456789") -> None:
        super().__init__()
        self.log, self.list = log, ima_list

    async def event_log(self) -> bytes | None:
        return self.log

    async def ima(self, offset: int) -> ImaPiece | None:
        return ImaPiece(offset, self.list[offset:], more=False) if self.list is not None else None


def ask_with_logs(attester: SimulatedAttester, kernel: LogFiles, **wants: object) -> EvidenceResponse:
    rounds = EvidenceRounds(attester, SimulatedGateway(), AGENT_SPKI, kernel)
    return asyncio.run(rounds.answer(replace(ASKED, **wants)))


def test_logs_are_sent_to_nobody_who_does_not_ask(attester: SimulatedAttester) -> None:
    answer = ask_with_logs(attester, Kernel())
    assert (answer.event_log, answer.log_digest, answer.ima_list) == (None, None, None)
    assert decode_statement(answer.statement).log_digest is None


def test_the_token_signs_the_digest_of_the_log_that_is_sent(attester: SimulatedAttester) -> None:
    answer = ask_with_logs(attester, Kernel(), want_log=True)
    assert answer.event_log == b"log"
    assert answer.log_digest == decode_statement(answer.statement).log_digest == hashlib.sha256(b"log").digest()


def test_a_known_log_is_named_and_not_sent(attester: SimulatedAttester) -> None:
    digest = hashlib.sha256(b"log").digest()
    answer = ask_with_logs(attester, Kernel(), want_log=True, known_log=digest)
    assert (answer.event_log, answer.log_digest) == (None, digest)
    assert ask_with_logs(attester, Kernel(b"other"), want_log=True, known_log=digest).event_log == b"other"


def test_a_host_without_a_log_says_so_in_the_statement(attester: SimulatedAttester) -> None:
    answer = ask_with_logs(attester, Kernel(None), want_log=True, known_log=bytes(32))
    assert (answer.event_log, answer.log_digest) == (None, None)
    assert decode_statement(answer.statement).log_digest is None


def test_a_gateway_that_signs_for_another_log_is_named_where_it_happens(attester: SimulatedAttester) -> None:
    class ForgetfulGateway(SimulatedGateway):
        async def statement(self, request: StatementRequest) -> StatementResponse:
            return await super().statement(StatementRequest(pcr_digest=request.pcr_digest, nonce=request.nonce))

    rounds = EvidenceRounds(attester, ForgetfulGateway(), AGENT_SPKI, Kernel())
    with pytest.raises(StatementUnfit, match="log digest"):
        asyncio.run(rounds.answer(replace(ASKED, want_log=True)))


def test_the_list_is_read_after_the_quote_so_that_it_holds_what_was_quoted(attester: SimulatedAttester) -> None:
    kernel = Kernel(ima_list=b"")

    class MeasuringAttester(SimulatedAttester):
        async def quote(self, extra_data: bytes, selection: Selection) -> Quote:
            made = await super().quote(extra_data, selection)
            kernel.list = b"measured"
            return made

    answer = ask_with_logs(MeasuringAttester(attester.tpm), kernel, ima_from=0)
    assert answer.ima_list == b"measured"


def test_an_offset_of_another_boot_is_not_used(attester: SimulatedAttester) -> None:
    epoch = f"{attester.tpm.reset_count}.{attester.tpm.restart_count}"
    assert ask_with_logs(attester, Kernel(), ima_from=4, ima_epoch=epoch).ima_list == b"456789"
    answer = ask_with_logs(attester, Kernel(), ima_from=4, ima_epoch="99.0")
    assert (answer.ima_offset, answer.ima_list) == (0, b"0123456789")
