"""A proxy before the API server that misbehaves on order: 409, 410, 429, cut watches, slowness, silence.

It listens with the API server's own TLS and hands the caller's bearer token through, so the caller has its own rights
and no others. `start` writes a kubeconfig for the process under test.
"""

from __future__ import annotations

import asyncio
import base64
import ssl
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
import yaml
from aiohttp import web

HOP_HEADERS = frozenset({"connection", "transfer-encoding", "content-length", "content-encoding", "host", "keep-alive"})
Rule = Callable[[web.Request], "Fault | None"]


@dataclass(frozen=True, slots=True)
class Fault:
    """What to answer instead: a status with a reason, or (status 0) a closed connection.

    `in_stream`: as the first event of a watch, the way the API server says that a version is too old.
    """

    status: int
    reason: str = ""
    retry_after_seconds: int | None = None
    in_stream: bool = False


@dataclass
class ApiProxy:
    """Between whoever logs in by `source` (a kubeconfig with a token) and the server that it names.

    Args:
        source: the caller's kubeconfig.
        folder: where the kubeconfig goes that leads here instead.
        certificate, key: of the API server.
    """

    source: Path
    folder: Path
    certificate: Path
    key: Path
    rules: list[Rule] = field(default_factory=list)
    delay_seconds: float = 0.0
    withheld: str = ""
    """Requests whose path ends in this wait until `give_out`."""
    seen: Counter[str] = field(default_factory=Counter)
    """Requests by `VERB resource`."""
    faults: Counter[int] = field(default_factory=Counter)
    delayed: Counter[str] = field(default_factory=Counter)
    """Requests that were held up, by `VERB resource`."""
    _streams: set[asyncio.Task[object]] = field(default_factory=set)
    _given_out: asyncio.Event = field(default_factory=asyncio.Event)
    _session: aiohttp.ClientSession | None = None
    _runner: web.AppRunner | None = None
    port: int = 0

    async def start(self) -> Path:
        """Listen (on the same port as before); gives the kubeconfig to use."""
        config = yaml.safe_load(self.source.read_text())
        cluster = config["clusters"][0]["cluster"]
        assert "token" in config["users"][0]["user"], "only a token can be handed through"
        self._target = cluster["server"]
        authority = base64.b64decode(cluster["certificate-authority-data"]).decode()
        context = ssl.create_default_context(cadata=authority)
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(ssl=context, limit=0), auto_decompress=True, trust_env=False
        )
        app = web.Application(client_max_size=64 * 1024 * 1024)
        app.router.add_route("*", "/{tail:.*}", self._handle)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        server.load_cert_chain(self.certificate, self.key)
        site = web.TCPSite(self._runner, "127.0.0.1", self.port, ssl_context=server)
        await site.start()
        self.port = self._runner.addresses[0][1]
        cluster["server"] = f"https://127.0.0.1:{self.port}"
        self.kubeconfig.write_text(yaml.safe_dump(config))
        return self.kubeconfig

    @property
    def kubeconfig(self) -> Path:
        """Leads to the proxy."""
        return self.folder / "proxy.kubeconfig"

    async def stop(self) -> None:
        """The API server is away: connections are refused."""
        runner, self._runner = self._runner, None
        self.cut_watches()
        if runner is not None:
            await runner.cleanup()
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    def cut_watches(self) -> int:
        """Close every open watch; gives how many there were."""
        streams = [task for task in self._streams if not task.done()]
        for task in streams:
            task.cancel()
        return len(streams)

    def give_out(self) -> None:
        """Let through what waits, and all that comes."""
        self.withheld = ""
        self._given_out.set()

    def fail(
        self,
        status: int,
        times: int,
        *,
        method: str = "",
        path: str = "",
        watches: bool = False,
        retry_after_seconds: int | None = None,
    ) -> None:
        """The next `times` requests of that method whose path holds `path` get that status."""
        left = [times]

        def rule(request: web.Request) -> Fault | None:
            if left[0] <= 0 or (method and request.method != method) or path not in request.path:
                return None
            if watches and request.query.get("watch") != "true":
                return None
            left[0] -= 1
            return Fault(status, retry_after_seconds=retry_after_seconds, in_stream=watches)

        self.rules.append(rule)

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        asked = f"{request.method} {_resource(request.path)}"
        self.seen[asked] += 1
        for rule in self.rules:
            fault = rule(request)
            if fault is not None:
                self.faults[fault.status] += 1
                return _refusal(request, fault)
        if self.withheld and request.path.endswith(self.withheld):
            await self._given_out.wait()
        if self.delay_seconds:
            await asyncio.sleep(self.delay_seconds)
            self.delayed[asked] += 1
        assert self._session is not None
        headers = {k: v for k, v in request.headers.items() if k.lower() not in HOP_HEADERS}
        async with self._session.request(
            request.method,
            self._target + request.path_qs,
            data=await request.read() or None,
            headers=headers,
            timeout=aiohttp.ClientTimeout(total=None),
        ) as upstream:
            return await self._pass_on(request, upstream)

    async def _pass_on(self, request: web.Request, upstream: aiohttp.ClientResponse) -> web.StreamResponse:
        kept = {name: value for name, value in upstream.headers.items() if name.lower() not in HOP_HEADERS}
        response = web.StreamResponse(status=upstream.status, headers=kept)
        await response.prepare(request)
        task = asyncio.current_task()
        assert task is not None
        if request.query.get("watch") == "true":
            self._streams.add(task)
        try:
            async for chunk in upstream.content.iter_any():
                await response.write(chunk)
        except asyncio.CancelledError:
            if request.transport is not None:
                request.transport.abort()
            raise
        finally:
            self._streams.discard(task)
        return response


def _resource(path: str) -> str:
    parts = [part for part in path.split("/") if part]
    for name in ("hsms", "hsmclaims", "attestationpolicies", "networkpolicies", "secrets", "pods", "leases", "events"):
        if name in parts:
            return name + ("/status" if parts[-1] == "status" else "")
    return parts[-1] if parts else ""


def _refusal(request: web.Request, fault: Fault) -> web.Response:
    if fault.status == 0:
        if request.transport is not None:
            request.transport.abort()
        return web.Response(status=500)
    headers = {} if fault.retry_after_seconds is None else {"Retry-After": str(fault.retry_after_seconds)}
    reason = fault.reason or {409: "Conflict", 410: "Expired", 429: "TooManyRequests"}.get(
        fault.status, "InternalError"
    )
    body = {
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": f"the proxy says {reason}", "reason": reason, "code": fault.status,
    }  # fmt: skip
    if fault.in_stream:
        return web.json_response({"type": "ERROR", "object": body})
    return web.json_response(body, status=fault.status, headers=headers)
