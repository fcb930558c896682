"""`/healthz`, `/readyz` and `/metrics` of the operator.

Health asks what a restart would mend: a stuck queue, a dead thread. Readiness asks whether what this process knows is
current: watches and verdicts. An API server that is away makes it not ready, and never unhealthy: killing the process
that keeps gateways fresh would turn an outage of one into an outage of both.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from aiohttp import web

from chatelaine.telemetry.metrics import OperatorMetrics

QUEUE_STUCK_SECONDS: Final = 120.0
UNWRITTEN_SECONDS: Final = 15.0
"""A verdict that ended may stand in the status for so long: the API server may be slow."""
WATCH_STALE_SECONDS: Final = 180.0
"""Bookmarks come every minute."""
ECHO_LATE_SECONDS: Final = 60.0
"""What we wrote ourselves comes back within a second; in the worst storm of events, within some ten."""
KOPF_STEADY_SECONDS: Final = 30.0
"""kopf is believed again when it has not ended for so long."""

ROUNDS_MISSED: Final = 3
ROUND_SECONDS: Final = 60.0
"""A host's rounds are late when none ended for so many of its intervals and the longest that one round can take."""

Check = Callable[[], str | None]
"""None, or what is wrong."""


class Probes:
    """A small HTTP server, without TLS, for the kubelet and Prometheus."""

    def __init__(
        self,
        health: Mapping[str, Check],
        readiness: Mapping[str, Check],
        metrics: OperatorMetrics,
        refresh: Callable[[], None],
    ) -> None:
        self._health = health
        self._readiness = readiness
        self._metrics = metrics
        self._refresh = refresh
        self._runner: web.AppRunner | None = None

    async def start(self, host: str, port: int) -> int:
        """Listen; gives the port.

        Raises:
            OSError: the address cannot be had.
        """
        app = web.Application()
        app.add_routes(
            [web.get("/healthz", self._healthz), web.get("/readyz", self._readyz), web.get("/metrics", self._render)]
        )
        self._runner = web.AppRunner(app, access_log=None)
        await self._runner.setup()
        site = web.TCPSite(self._runner, host, port)
        await site.start()
        found: int = self._runner.addresses[0][1]
        return found

    async def stop(self) -> None:
        """Stop listening."""
        if self._runner is not None:
            runner, self._runner = self._runner, None
            await runner.cleanup()

    async def _healthz(self, _: web.Request) -> web.Response:
        return _answer(self._health)

    async def _readyz(self, _: web.Request) -> web.Response:
        return _answer({**self._health, **self._readiness})

    async def _render(self, _: web.Request) -> web.Response:
        self._refresh()
        return web.Response(body=self._metrics.render(), content_type="text/plain", charset="utf-8")


def _answer(checks: Mapping[str, Check]) -> web.Response:
    wrong = {name: why for name, check in checks.items() if (why := check()) is not None}
    lines = [f"{name}: {why}" for name, why in sorted(wrong.items())] or ["ok"]
    return web.Response(text="\n".join(lines) + "\n", status=503 if wrong else 200)
