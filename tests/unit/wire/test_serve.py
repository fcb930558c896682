"""Bodies from anybody's hand on the answering side: a version that is not understood is told apart from nonsense."""

from __future__ import annotations

from collections.abc import AsyncIterator

import aiohttp
import pytest
from aiohttp import web

from chatelaine.wire.messages import EvidenceRequest
from chatelaine.wire.serve import answer, problems, read

BOUND_BYTES = 8192
NONCE = "A" * 43 + "="


@pytest.fixture
async def url() -> AsyncIterator[str]:
    async def echo(request: web.Request) -> web.Response:
        return answer(await read(request, EvidenceRequest, max_bytes=BOUND_BYTES))

    app = web.Application(middlewares=[problems])
    app.add_routes([web.post("/", echo)])
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    yield f"http://127.0.0.1:{runner.addresses[0][1]}/"
    await runner.cleanup()


async def post(url: str, body: bytes, **headers: str) -> tuple[int, str]:
    async with aiohttp.ClientSession() as session, session.post(url, data=body, headers=headers) as response:
        return response.status, (await response.json(content_type=None)).get("code", "")


@pytest.mark.parametrize(
    "body",
    [
        f'{{"v":2,"nonce":"{NONCE}","subjectUid":"u","bank":"Sha256","indices":[0]}}',
        '{"v":2}',
        '{"v":3,"nonce":{"alg":"Sha512"},"subject":["u"]}',
    ],
)
async def test_a_newer_message_is_refused_for_its_version_whatever_its_shape(url: str, body: str) -> None:
    assert await post(url, body.encode()) == (400, "VersionNotSupported")


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"\xff", b'{"v":1}', b'{"x":' + b"[" * 5000, b'{"nonce":"\xff"}'])
async def test_a_malformed_body_is_a_bad_request(url: str, body: bytes) -> None:
    assert await post(url, body) == (400, "BadRequest")


async def test_an_oversized_body_is_refused_before_it_is_parsed(url: str) -> None:
    assert await post(url, b"[" * (BOUND_BYTES + 1)) == (413, "BodyTooLarge")


async def test_a_compressed_body_is_refused(url: str) -> None:
    assert await post(url, b"{}", **{"Content-Encoding": "gzip"}) == (415, "UnsupportedMediaType")
