"""What a prober tells of itself: when its last round ended, so that one that hangs can be noticed."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import ssl
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

import pytest

from chatelaine.controller import attestation
from chatelaine.controller.attestation import Prober
from chatelaine.controller.hosts import HostMemory, Surroundings
from chatelaine.evidence.ima import IMA_PCR
from chatelaine.model.hsm import Hsm
from chatelaine.model.material import PolicyMaterial
from chatelaine.model.policy import AttestationPolicy
from chatelaine.telemetry.metrics import OperatorMetrics
from chatelaine.wire.messages import Change, ChangeKind
from chatelaine.wire.peer import PeerMalformed, PeerUnreachable
from support.paper_host import PaperHost

HSM = {
    "metadata": {"name": "hsm-a", "uid": "uid-a"},
    "spec": {
        "token": "pkcs11:token=a",
        "gateway": {"external": {"host": "127.0.0.1", "port": 1}},
        "agent": {"host": "127.0.0.1", "port": 1},
        "attestation": {"policyRef": {"name": "base"}, "intervalSeconds": 60},
    },
}


class Link:
    """A gateway that is away, or that never comes to an end."""

    def __init__(self) -> None:
        self.hangs = False
        self.breaks: Exception = PeerUnreachable("away")
        self.asked = asyncio.Semaphore(0)

    async def proven_key(self) -> bytes:
        self.asked.release()
        if self.hangs:
            await asyncio.Event().wait()
        raise self.breaks

    def doubt(self) -> None:
        pass


@contextlib.asynccontextmanager
async def prober(link: Any, *policies: AttestationPolicy) -> AsyncIterator[Prober]:
    ticks = itertools.count(100)
    hsm = Hsm.model_validate(HSM)
    context = ssl.create_default_context()

    async def renew(*_: object) -> None:
        pass

    around = Surroundings(
        hsm=lambda _: hsm, policies=lambda _: list(policies), accounted=lambda _: frozenset(), addresses=lambda _: (),
        observed=lambda *_: None, context=lambda: context, renew=renew, clock=lambda: float(next(ticks)),
        wall=lambda: 0.0, jitter=lambda: 0.5, metrics=OperatorMetrics(),
    )  # fmt: skip
    made = Prober(HostMemory("hsm-a", "uid-a", watching_since=0.0), link, around)
    running = asyncio.create_task(made.run())
    try:
        yield made
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


@pytest.mark.parametrize("rounds", [1, 3])
async def test_a_round_without_a_usable_answer_counts_as_ended(rounds: int) -> None:
    link = Link()
    async with prober(link) as made, asyncio.timeout(20):
        for _ in range(rounds):
            before = made.last_round_at
            made.ask()
            await link.asked.acquire()
            while made.last_round_at == before:  # noqa: ASYNC110 - nothing tells of it, that is the point
                await asyncio.sleep(0)
        assert made.last_round_at > before


async def test_a_round_that_hangs_does_not_count_as_ended() -> None:
    link = Link()
    link.hangs = True
    async with prober(link) as made, asyncio.timeout(20):
        assert made.last_round_at == 100.0
        await link.asked.acquire()
        assert made.last_round_at == 100.0


async def test_host_whose_answer_breaks_something_unforeseen_is_dropped_and_asked_again() -> None:
    link = Link()
    link.breaks = RecursionError("deep")
    async with prober(link) as made, asyncio.timeout(20):
        for _ in range(3):
            made.ask()
            await link.asked.acquire()


@pytest.mark.parametrize(("rest_seconds", "again"), [(0.0, True), (3600.0, False)])
async def test_host_that_cost_much_is_left_alone_however_it_cries(
    monkeypatch: pytest.MonkeyPatch, rest_seconds: float, again: bool
) -> None:
    monkeypatch.setattr(attestation, "Effort", lambda: SimpleNamespace(rest_seconds=rest_seconds))
    monkeypatch.setattr(attestation, "LEAST_GAP_SECONDS", 0.0)
    link = Link()
    async with prober(link) as made, asyncio.timeout(20):
        await link.asked.acquire()
        made.ask()
        for _ in range(200):
            await asyncio.sleep(0)
        assert link.asked.locked() is not again


@pytest.mark.parametrize("missing", [(), ("ConfigMap values does not exist",)])
async def test_a_list_is_not_read_by_rules_that_lack_a_part(missing: tuple[str, ...]) -> None:
    """It would be read for nothing. And what ran while the part was away would count as seen before the policy
    changed, so that no host could be said to have deviated.
    """
    pcrs = {"bank": "Sha256", "values": [{"index": 0, "anyOf": ["00" * 32]}]}
    spec = {"freshness": {"maxAgeSeconds": 30}, "tpm": {"pcrs": pcrs, "ima": {}}}
    bare = AttestationPolicy.model_validate({"metadata": {"name": "base", "uid": "u"}, "spec": spec})
    policy = bare.with_material(PolicyMaterial(missing=missing))
    async with prober(Link(), policy) as made:
        question = made._question(Hsm.model_validate(HSM), b"spki", PaperHost().identity, 0.0)
    assert question is not None
    assert IMA_PCR in question.selection.indices
    assert (question.ima.rules.keys() if question.ima is not None else set()) == (
        set() if missing else {policy.digest()}
    )


class Crying:
    """An agent whose change stream never ends, and always has another line."""

    def __init__(self, error: Exception) -> None:
        self.lines_read = 0
        self.called = asyncio.Semaphore(0)
        self._error = error

    async def lines(self, *_: object, **__: object) -> AsyncIterator[Change]:
        while self.lines_read < 10_000:
            self.lines_read += 1
            yield Change(kind=ChangeKind.ALIVE, counter=0)

    async def call(self, *_: object) -> None:
        self.called.release()
        raise self._error

    async def close(self) -> None:
        pass


class Answering(Link):
    """A gateway that proves its key."""

    async def proven_key(self) -> bytes:
        return b"spki"


async def test_host_that_cries_without_end_is_heard_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    agent = Crying(PeerUnreachable("away"))
    monkeypatch.setattr(attestation, "agent_client", lambda *_: agent)
    async with prober(Link()), asyncio.timeout(20):
        for _ in range(20):
            await asyncio.sleep(0)
        assert agent.lines_read < 20


@pytest.mark.parametrize(
    ("error", "rests"), [(PeerMalformed("no EvidenceResponse"), True), (PeerUnreachable("away"), False)]
)
async def test_host_whose_long_answers_are_none_is_rested_for(
    monkeypatch: pytest.MonkeyPatch, error: Exception, rests: bool
) -> None:
    agent = Crying(error)
    monkeypatch.setattr(attestation, "agent_client", lambda *_: agent)
    async with prober(Answering()) as made, asyncio.timeout(20):
        await agent.called.acquire()
        while made.last_round_at == 100.0:  # noqa: ASYNC110 - nothing tells of it
            await asyncio.sleep(0)
        assert (made._effort.rest_seconds > 0.1) == rests
