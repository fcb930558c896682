"""The leader's `/readyz` while what it hears of our own kinds stops: held, refused at every try, and well again."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

import aiohttp
import msgspec
import pytest
from aiohttp import web

from chatelaine.controller import health
from chatelaine.controller import operator as operator_module
from support.api_proxy import ApiProxy, Fault
from support.operator_cluster import OperatorCluster
from support.waiting import until

Ask = Callable[[], Coroutine[Any, Any, tuple[int, str]]]


def _watches_claims(request: web.Request) -> bool:
    return "/hsmclaims" in request.path and request.query.get("watch") == "true"


def _lists_claims(request: web.Request) -> bool:
    return request.path.endswith("/hsmclaims") and request.method == "GET" and "watch" not in request.query


class Holding(ApiProxy):
    """Watches of claims hang, as behind a load balancer that has forgotten the connection, while `held` is set."""

    held = False

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        if self.held and _watches_claims(request):
            self.seen["held"] += 1
            while self.held:  # noqa: ASYNC110 - nobody tells of the end of a test
                await asyncio.sleep(0.05)
        return await super()._handle(request)

    def hold(self) -> None:
        """From now on; streams that are open are cut."""
        self.held = True
        self.cut_watches()


@pytest.fixture
async def proxy(cluster: OperatorCluster) -> AsyncIterator[Holding]:
    pki = cluster.plane.pki
    proxy = Holding(cluster.kubeconfig, cluster.folder, pki / "apiserver.crt", pki / "apiserver.key")
    await proxy.start()
    yield proxy
    proxy.held = False
    await proxy.stop()


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is late is late after two seconds, and lists are compared every second."""
    monkeypatch.setattr(health, "ECHO_LATE_SECONDS", 2.0)
    monkeypatch.setattr(operator_module, "SWEEP_SECONDS", 1.0)


def options(cluster: OperatorCluster, proxy: ApiProxy) -> dict[str, Any]:
    return {
        "kubeconfig": proxy.kubeconfig,
        "metrics_listen": ("127.0.0.1", 0),
        "ready_file": cluster.folder / "ports.json",
    }


async def readiness(cluster: OperatorCluster) -> Ask:
    """`/readyz` of the operator that has just been started."""
    ports = cluster.folder / "ports.json"
    await until("it listens", ports.exists)
    url = f"http://127.0.0.1:{msgspec.json.decode(ports.read_bytes())['metrics']}/readyz"

    async def ask() -> tuple[int, str]:
        async with aiohttp.ClientSession() as session, session.get(url) as answer:
            return answer.status, await answer.text()

    return ask


async def becomes(ask: Ask, status: int, said: str = "") -> None:
    async def holds() -> bool:
        found, text = await ask()
        return found == status and said in text

    await until(f"/readyz says {status} {said}", holds)


async def test_held_watch_of_claims_is_noticed_by_what_we_wrote_ourselves(
    cluster: OperatorCluster, proxy: Holding, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(health, "ECHO_LATE_SECONDS", 2.0)
    async with cluster.operator(**options(cluster, proxy)) as operator:
        ask = await readiness(cluster)
        cluster.policy()
        host = await cluster.ready()
        cluster.claim()
        await cluster.claim_is("Ready", "True")
        await becomes(ask, 200)
        proxy.hold()
        await until("it is held", lambda: proxy.seen["held"])
        host.tamper()
        # The verdict comes from the host, so the claim's status is written without any word of its watch.
        await cluster.claim_is("Attested", "False")
        await becomes(ask, 503, "kinds: hsmclaims: what is known to have changed was not told for")
        proxy.held = False
        await becomes(ask, 200)
        assert operator.leads()


async def test_held_watch_of_claims_is_noticed_by_the_next_list(
    cluster: OperatorCluster, proxy: Holding, impatient: None
) -> None:
    async with cluster.operator(**options(cluster, proxy)):
        ask = await readiness(cluster)
        cluster.policy()
        await cluster.ready()
        await becomes(ask, 200)
        proxy.hold()
        await until("it is held", lambda: proxy.seen["held"])
        cluster.claim()
        await becomes(ask, 503, "kinds: hsmclaims: what is known to have changed was not told for")
        proxy.held = False
        await becomes(ask, 200)
        await cluster.claim_is("Ready", "True")


async def test_kopf_that_ends_at_every_try_is_not_ready(
    cluster: OperatorCluster, proxy: Holding, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(health, "KOPF_STEADY_SECONDS", 3.0)
    async with cluster.operator(**options(cluster, proxy)):
        ask = await readiness(cluster)
        await becomes(ask, 200)
        refused = 0

        def refuse(request: web.Request) -> Fault | None:
            nonlocal refused
            if not _watches_claims(request):
                return None
            refused += 1
            return Fault(500)

        def cut() -> bool:
            # Its watch may be under way while the others are cut.
            if not refused:
                proxy.cut_watches()
            return refused > 0

        proxy.rules.append(refuse)
        await until("kopf is refused its watch", cut)
        # kopf itself tries some seconds before it gives up.
        await becomes(ask, 503, "kinds: kopf ended")
        proxy.rules.clear()
        await becomes(ask, 200)
        cluster.policy()
        await cluster.ready()
        cluster.claim()
        await cluster.claim_is("Ready", "True")


async def test_picture_that_was_never_complete_is_not_ready(cluster: OperatorCluster, proxy: Holding) -> None:
    proxy.held = True
    cluster.claim()
    proxy.rules.append(lambda request: Fault(500) if _lists_claims(request) else None)
    async with cluster.operator(**options(cluster, proxy)):
        ask = await readiness(cluster)
        await becomes(ask, 503, "kinds: hsmclaims: no complete picture yet")
        proxy.held = False
        proxy.rules.clear()
        await becomes(ask, 200)


async def test_what_is_deleted_is_told_and_owes_nothing(
    cluster: OperatorCluster, proxy: Holding, impatient: None
) -> None:
    async with cluster.operator(**options(cluster, proxy)) as operator:
        ask = await readiness(cluster)
        cluster.policy()
        await cluster.ready()
        for name in ("c1", "c2"):
            cluster.claim(name)
            await cluster.claim_is("Ready", "True", name=name)
        for name in ("c1", "c2"):
            cluster.admin.delete(cluster.get_claim(name))
        await until("they are gone", lambda: not cluster.get_claim("c1") and not cluster.get_claim("c2"))
        await until("and told", lambda: len(operator.world.claims) == 0)
        assert (await ask()) == (200, "ok\n")


async def test_writes_are_counted_by_verb_and_resource(cluster: OperatorCluster, proxy: Holding) -> None:
    async with cluster.operator(**options(cluster, proxy)) as operator:
        cluster.policy()
        await cluster.ready()
        proxy.fail(409, 1, method="PATCH", path="/hsmclaims/")
        cluster.claim()
        await cluster.claim_is("Ready", "True")

        def written(verb: str, resource: str, result: str = "Done") -> float:
            found: float = operator.metrics.writes.labels(verb, resource, result)._value.get()
            return found

        def both(result: str) -> float:
            return written("merge", "hsmclaims", result) + written("merge", "hsmclaims/status", result)

        await operator.queue.settled()
        assert written("merge", "hsms/status") == proxy.seen["PATCH hsms/status"] > 0
        assert both("Conflict") == 1
        assert both("Done") == proxy.seen["PATCH hsmclaims"] + proxy.seen["PATCH hsmclaims/status"] - 1 > 1
        assert written("create", "secrets") == proxy.seen["POST secrets"] > 0
