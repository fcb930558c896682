"""What goes on to the gateway, what comes back, and when a request is sent a second time."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import pytest
from prometheus_client import generate_latest

from chatelaine.proxy import limits
from chatelaine.proxy.app import KeysApp, ProbesApp
from chatelaine.proxy.errors import GatewayMalformed, GatewayUnreachable, Refused
from chatelaine.proxy.line import Reply
from chatelaine.proxy.listener import Listener
from chatelaine.proxy.metrics import Metrics
from chatelaine.proxy.places import take
from chatelaine.proxy.session import Pass
from chatelaine.proxy.settings import LoopbackPlace
from support.waiting import until

SIGNED = Reply(200, "application/json", b'{"signature": "AA=="}')
STALE = Reply(403, "application/problem+json", b'{"code": "ERROR_INVALID_TOKEN", "status": 403}')


@dataclass
class Gateway:
    """Answers in turn; keeps what it was asked."""

    answers: list[Reply | Refused]
    asked: list[tuple[str, str, bytes, dict[str, str]]] = field(default_factory=list)
    open: asyncio.Event | None = None

    async def call(self, method: str, path: str, body: bytes, headers: dict[str, str]) -> Reply:
        self.asked.append((method, path, body, headers))
        if self.open is not None:
            await self.open.wait()
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Refused):
            raise answer
        return answer


class Standing:
    """A session whose tokens are numbered."""

    claim = "payments/checkout"

    def __init__(self, gateway: Gateway, failure: Refused | None = None) -> None:
        self.gateway, self.failure, self.issued = gateway, failure, 1

    def _pass(self) -> Pass:
        return Pass(self.gateway, f"token-{self.issued}", 1e9, 1e9)  # type: ignore[arg-type]  # as much of a Line as is used

    async def current(self) -> Pass:
        if self.failure is not None:
            raise self.failure
        return self._pass()

    async def another(self, used: Pass) -> Pass:
        assert used.bearer == f"token-{self.issued}"
        self.issued += 1
        return self._pass()

    def state(self) -> Refused | None:
        return self.failure


@asynccontextmanager
async def served(*answers: Reply | Refused, failure: Refused | None = None) -> AsyncIterator[Any]:
    gateway = Gateway(list(answers))
    session: Any = Standing(gateway, failure)
    metrics = Metrics(lambda: 0.0, lambda: 0)
    taken = take(LoopbackPlace("127.0.0.1", 0))
    where = f"127.0.0.1:{taken.socket.getsockname()[1]}"
    listener = Listener(KeysApp(session, metrics, frozenset({where})))
    await listener.start(taken.socket)
    async with aiohttp.ClientSession(f"http://{where}") as client:
        yield client, gateway, metrics
    await listener.stop()
    taken.leave()


async def test_nothing_of_the_callers_headers_goes_on_and_nothing_of_the_gateways_comes_back() -> None:
    async with served(SIGNED) as (client, gateway, _):
        stolen = {"Authorization": "Bearer stolen", "X-Forwarded-For": "10.0.0.1", "Cookie": "a=b", "TE": "trailers"}
        async with client.post("/v1/keys/signing/sign", data=b"body", headers=stolen) as answer:
            assert (answer.status, await answer.read()) == (200, SIGNED.body)
            assert set(answer.headers) == {"Content-Type", "Cache-Control", "Content-Length", "Date", "Server"}
        wanted = {"authorization": "Bearer token-1", "accept": "application/json", "content-type": "application/json"}
        assert gateway.asked == [("POST", "/v1/keys/payments/checkout/signing/sign", b"body", wanted)]


async def test_a_body_where_none_belongs_goes_no_further() -> None:
    async with served(SIGNED) as (client, gateway, _):
        await client.get("/v1/keys/signing", data=b"smuggled")
        assert gateway.asked[0][2] == b""


@pytest.mark.parametrize("first", [STALE, GatewayUnreachable("the connection broke")])
async def test_a_request_that_meets_an_ended_token_or_a_broken_line_is_sent_once_more(first: Reply | Refused) -> None:
    async with served(first, SIGNED) as (client, gateway, metrics):
        async with client.post("/v1/keys/signing/sign", data=b"body") as answer:
            assert answer.status == 200
        assert [headers["authorization"] for *_, headers in gateway.asked] == ["Bearer token-1", "Bearer token-2"]
        assert [body for _, _, body, _ in gateway.asked] == [b"body", b"body"]
        assert b"chatelaine_proxy_repeated_total 1.0" in generate_latest(metrics.registry)


async def test_a_second_refusal_comes_back_and_no_third_request_is_sent() -> None:
    async with served(STALE) as (client, gateway, _):
        async with client.post("/v1/keys/signing/sign", data=b"body") as answer:
            assert (answer.status, await answer.read()) == (403, STALE.body)
        assert len(gateway.asked) == 2


@pytest.mark.parametrize("code", ["ERROR_USAGE_NOT_ALLOWED", "ERROR_NOT_ATTESTED"])
async def test_any_other_refusal_comes_back_at_once(code: str) -> None:
    refused = Reply(403, "application/problem+json", json.dumps({"code": code}).encode())
    async with served(refused) as (client, gateway, _):
        async with client.post("/v1/keys/signing/sign", data=b"body") as answer:
            assert (answer.content_type, await answer.read()) == ("application/problem+json", refused.body)
        assert len(gateway.asked) == 1


async def test_media_type_that_a_browser_would_run_does_not_come_back() -> None:
    async with served(Reply(200, "text/html", b"<script>")) as (client, _, _), client.get("/v1/keys/signing") as answer:
        assert answer.content_type == "application/octet-stream"


async def test_an_answer_that_cannot_be_used_is_told() -> None:
    malformed = GatewayMalformed("the gateway's answer is over 1 bytes")
    async with served(malformed) as (client, gateway, _), client.get("/v1/keys/signing") as answer:
        assert (answer.status, (await answer.json(content_type=None))["code"]) == (502, "ERROR_GATEWAY_MALFORMED")
        assert len(gateway.asked) == 1


async def test_flood_of_requests_is_refused_above_the_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MAX_IN_FLIGHT", 2)
    async with served(SIGNED) as (client, gateway, _):
        gateway.open = asyncio.Event()
        waiting = [asyncio.create_task(client.get("/v1/keys/signing")) for _ in range(2)]
        await until("both are under way", lambda: len(gateway.asked) == 2)
        async with client.get("/v1/keys/signing") as answer:
            assert (answer.status, answer.headers["retry-after"]) == (503, "1")
            assert (await answer.json(content_type=None))["code"] == "ERROR_PROXY_BUSY"
        async with client.get("/healthz") as answer:
            assert answer.status == 200  # not one of them
        gateway.open.set()
        assert [(await one).status for one in waiting] == [200, 200]
        async with client.get("/v1/keys/signing") as answer:
            assert answer.status == 200


async def test_body_without_a_length_is_refused_at_the_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MAX_BODY_BYTES", 1000)

    async def endless() -> AsyncIterator[bytes]:
        for _ in range(100):
            yield b"x" * 100

    async with served(SIGNED) as (client, gateway, _):
        async with client.post("/v1/keys/signing/sign", data=endless()) as answer:
            assert answer.status == 413
        assert gateway.asked == []


async def test_compressed_body_is_refused_and_not_unpacked() -> None:
    async with served(SIGNED) as (client, gateway, _):
        headers = {"Content-Encoding": "gzip"}
        async with client.post("/v1/keys/signing/sign", data=b"\x1f\x8b", headers=headers) as answer:
            assert answer.status == 400
        assert gateway.asked == []


async def test_metrics_hold_nothing_that_a_caller_said() -> None:
    async with served(SIGNED) as (client, _, metrics):
        for path in ("/v1/keys/secret-name", "/v1/keys/payments/other/secret-name", "/secret-name"):
            await client.get(path)
        said = generate_latest(metrics.registry).decode()
        assert "secret-name" not in said
        assert 'operation="PublicKeys",result="Forwarded",status="2xx"' in said
        assert 'operation="None",result="ERROR_NOT_FOUND",status="4xx"' in said


async def test_readiness_says_what_is_missing_and_health_does_not_depend_on_it() -> None:
    async with served(SIGNED, failure=GatewayUnreachable("nobody answers")) as (client, gateway, _):
        async with client.get("/readyz") as answer:
            assert (answer.status, (await answer.json(content_type=None))["detail"]) == (503, "nobody answers")
        async with client.get("/healthz") as answer:
            assert (answer.status, (await answer.json())["ready"]) == (200, False)
        async with client.get("/v1/keys/signing") as answer:
            assert answer.status == 503
        assert gateway.asked == []


async def test_keys_are_not_reached_where_probes_are() -> None:
    gateway = Gateway([SIGNED])
    session: Any = Standing(gateway)
    taken = take(LoopbackPlace("127.0.0.1", 0))
    listener = Listener(ProbesApp(session, Metrics(lambda: 7.0, lambda: 0)))
    await listener.start(taken.socket)
    async with aiohttp.ClientSession(f"http://127.0.0.1:{taken.socket.getsockname()[1]}") as client:
        for method, path, status in (
            ("GET", "/v1/keys/signing", 404),
            ("POST", "/v1/keys/signing/sign", 405),
            ("GET", "/v1/random?bytes=1", 404),
            ("GET", "/readyz", 200),
        ):
            async with client.request(method, path) as answer:
                assert answer.status == status, path
        async with client.get("/metrics") as answer:
            assert "chatelaine_proxy_token_seconds_left 7.0" in await answer.text()
    await listener.stop()
    taken.leave()
    assert gateway.asked == []
