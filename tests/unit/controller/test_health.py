"""Probes fail when the queue, a watch or the refresh of verdicts is stale, and say which."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from types import SimpleNamespace
from typing import Any

import aiohttp
import pytest

from chatelaine.controller.health import checks
from chatelaine.controller.probes import QUEUE_STUCK_SECONDS, WATCH_STALE_SECONDS, Probes
from chatelaine.model.verdict import Verdict
from chatelaine.telemetry.metrics import OperatorMetrics

Ask = Callable[[str], Any]


def operator() -> Any:
    """The parts of a healthy operator that the checks look at."""
    attestation = SimpleNamespace(verdict=Verdict.TRUSTED)
    view = SimpleNamespace(
        hsm=SimpleNamespace(status=SimpleNamespace(attestation=attestation)), standing=SimpleNamespace(serves=True)
    )
    host = SimpleNamespace(memory=SimpleNamespace(name="hsm-a"), tasks=[SimpleNamespace(done=lambda: False)])
    return SimpleNamespace(
        queue=SimpleNamespace(depth=lambda: SimpleNamespace(oldest_seconds=0.1)),
        kopf_runs=True,
        leads=lambda: True,
        hosts=SimpleNamespace(all=lambda: [host]),
        world=SimpleNamespace(watches=[SimpleNamespace(plural="pods", silent_seconds=1.0)]),
        snapshots=SimpleNamespace(view=lambda name: view),
        pki=SimpleNamespace(context=lambda: object()),
        view=view,
        host=host,
    )


@pytest.fixture
async def subject() -> AsyncIterator[tuple[Any, Ask]]:
    made = operator()
    health, readiness = checks(made)
    probes = Probes(health, readiness, OperatorMetrics(), lambda: None)
    port = await probes.start("127.0.0.1", 0)

    async def ask(path: str) -> tuple[int, str]:
        async with aiohttp.ClientSession() as session, session.get(f"http://127.0.0.1:{port}{path}") as answer:
            return answer.status, await answer.text()

    yield made, ask
    await probes.stop()


async def test_a_healthy_operator_is_healthy_and_ready(subject: tuple[Any, Ask]) -> None:
    _, ask = subject
    assert await ask("/healthz") == (200, "ok\n")
    assert await ask("/readyz") == (200, "ok\n")


async def test_a_stuck_queue_is_unhealthy(subject: tuple[Any, Ask]) -> None:
    made, ask = subject
    made.queue.depth = lambda: SimpleNamespace(oldest_seconds=QUEUE_STUCK_SECONDS + 1)
    status, said = await ask("/healthz")
    assert status == 503
    assert said.startswith("queue: a key waits for")


async def test_a_queue_is_nobodys_business_while_another_leads(subject: tuple[Any, Ask]) -> None:
    made, ask = subject
    made.queue.depth = lambda: SimpleNamespace(oldest_seconds=QUEUE_STUCK_SECONDS + 1)
    made.leads = lambda: False
    assert (await ask("/healthz"))[0] == 200


@pytest.mark.parametrize(
    ("silent", "said"), [(None, "no complete list yet"), (WATCH_STALE_SECONDS + 1, "not heard for")]
)
async def test_a_silent_watch_is_not_ready_but_never_unhealthy(
    subject: tuple[Any, Ask], silent: float | None, said: str
) -> None:
    made, ask = subject
    made.world.watches[0].silent_seconds = silent
    assert (await ask("/healthz"))[0] == 200
    status, text = await ask("/readyz")
    assert status == 503
    assert said in text


async def test_a_trusted_verdict_that_ran_out_unwritten_is_not_ready(subject: tuple[Any, Ask]) -> None:
    made, ask = subject
    made.view.standing.serves = False
    status, text = await ask("/readyz")
    assert status == 503
    assert "hsm-a" in text


async def test_a_host_that_is_not_asked_any_more_is_unhealthy(subject: tuple[Any, Ask]) -> None:
    made, ask = subject
    made.host.tasks.append(SimpleNamespace(done=lambda: True))
    status, text = await ask("/healthz")
    assert status == 503
    assert "not asked any more: hsm-a" in text


async def test_leading_without_a_watch_on_our_kinds_is_unhealthy(subject: tuple[Any, Ask]) -> None:
    made, ask = subject
    made.kopf_runs = False
    assert (await ask("/healthz"))[0] == 503


async def test_no_certificate_of_our_own_is_not_ready(subject: tuple[Any, Ask]) -> None:
    made, ask = subject
    made.pki.context = lambda: None
    status, text = await ask("/readyz")
    assert status == 503
    assert "certificate" in text
