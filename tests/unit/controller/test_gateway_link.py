"""What a gateway is told is what holds when it is told, not what held before something was waited for."""

from __future__ import annotations

import asyncio
import ssl
from typing import Any

import pytest

from chatelaine.controller import gateways
from chatelaine.controller.gateways import GatewayLink
from chatelaine.controller.hosts import HostMemory, Surroundings
from chatelaine.telemetry.metrics import OperatorMetrics
from chatelaine.wire.messages import GatewayHello, GatewayIdentity, Standing, TokenFacts, ViewAck, ViewUpdate
from chatelaine.wire.peer import Answer

SPKI = b"key of the gateway"


def standing(verdict: str) -> Standing:
    return Standing(
        verdict=verdict, reason="", epoch="1.0.1", policy_digest="", evidence_digest="", valid_for_seconds=9.0,
        valid_until=9,
    )  # fmt: skip


class Source:
    """What the operator holds true; `verdict` changes under the link's feet."""

    verdict = "Trusted"

    def standing(self, _: str) -> Standing:
        return standing(self.verdict)

    def claims(self, _: str) -> dict[str, Any]:
        return {}

    def cluster(self) -> None:
        return None

    def term(self) -> int:
        return 1

    def leads(self) -> bool:
        return True


class Client:
    """A gateway that takes every view. While it is greeted, its host is refuted by a quote that binds its key."""

    def __init__(self, source: Source, memory: HostMemory, *, greets_late: bool) -> None:
        self._source, self._memory, self._greets_late = source, memory, greets_late
        self.told: list[ViewUpdate] = []
        self.taken = asyncio.Event()

    async def call(self, method: str, _path: str, body: Any, _kind: Any) -> Answer[Any]:
        if method == "GET":
            if self._greets_late:
                self._memory.gateway_spkis = (SPKI,)
                self._source.verdict = "Untrusted"
            token = TokenFacts(
                serial="", manufacturer="", model="", firmware="", hardware_version="", mechanisms_digest=""
            )
            identity = GatewayIdentity(gateway_spki=SPKI, attestation_key_spki=b"", token=token)
            return Answer(GatewayHello(instance="i", term=0, number=0, identity=identity), SPKI, 0)
        self.told.append(body)
        self.taken.set()
        return Answer(ViewAck(instance="i", term=body.term, number=body.number), SPKI, 0)

    async def close(self) -> None:
        pass


@pytest.mark.parametrize(("refuted_meanwhile", "said"), [(False, "Trusted"), (True, "Untrusted")])
async def test_host_refuted_while_its_gateway_is_greeted_is_not_told_that_it_is_trusted(
    monkeypatch: pytest.MonkeyPatch, *, refuted_meanwhile: bool, said: str
) -> None:
    source, memory = Source(), HostMemory("hsm-a", "uid-a", watching_since=0.0)
    memory.gateway_spkis = (SPKI,)
    client = Client(source, memory, greets_late=refuted_meanwhile)
    monkeypatch.setattr(gateways, "gateway_client", lambda *_, **__: client)
    context = ssl.create_default_context()

    async def renew(*_: object) -> None:
        pass

    hsm: Any = object()
    around = Surroundings(
        hsm=lambda _: hsm, policies=lambda _: (), accounted=lambda _: frozenset(),
        addresses=lambda _: (("127.0.0.1", 1),), observed=lambda *_: None, context=lambda: context, renew=renew,
        clock=lambda: 0.0, wall=lambda: 0.0, jitter=lambda: 0.5, metrics=OperatorMetrics(),
    )  # fmt: skip
    link = GatewayLink(memory, source, around)  # never outranked, asked for single claims
    running = asyncio.create_task(link.run())
    try:
        link.refresh()
        await asyncio.wait_for(client.taken.wait(), 10)
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
    assert [update.standing.verdict for update in client.told if update.standing is not None] == [said]
