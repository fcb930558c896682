"""The sidecar's life: its key, its place, its session with the gateway, an orderly end."""

from __future__ import annotations

import asyncio
import signal
import socket

from chatelaine.pki.files import tell_ready
from chatelaine.proxy.app import KeysApp, ProbesApp
from chatelaine.proxy.caller import CallerKey, keep_memory_private
from chatelaine.proxy.listener import Listener
from chatelaine.proxy.metrics import Metrics
from chatelaine.proxy.places import BACKLOG, Taken, take
from chatelaine.proxy.session import Session
from chatelaine.proxy.settings import UNIX, LoopbackPlace, ProxySettings, UnixPlace
from chatelaine.telemetry.log import logger

log = logger(__name__)


class Proxy:
    """One sidecar. `run` returns after SIGTERM or SIGINT.

    Raises:
        PlaceTaken: the socket cannot be had.
        OSError: the kernel refuses.
    """

    def __init__(self, settings: ProxySettings) -> None:
        keep_memory_private()
        self._settings = settings
        self._metrics = Metrics(lambda: self._session.seconds_left(), lambda: len(self._keys))
        self._session = Session(settings.binding, settings.token_file, CallerKey(), self._metrics)
        self._taken = take(settings.listen)
        self._keys = Listener(KeysApp(self._session, self._metrics, _hosts(settings, self._taken)))
        self._probes = Listener(ProbesApp(self._session, self._metrics))

    async def run(self) -> None:
        """Listen, keep a token, and end in order when asked to."""
        loop = asyncio.get_running_loop()
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)
        keeping = asyncio.create_task(self._session.run())
        waiting = asyncio.create_task(stop.wait())
        try:
            await self._listen()
            # A token that nobody keeps any more is a fault: better to end with its error than to serve without it.
            await asyncio.wait({keeping, waiting}, return_when=asyncio.FIRST_COMPLETED)
            log.info("stopping")
        finally:
            await self._stop(keeping, waiting)

    async def _listen(self) -> None:
        where = _shown(self._settings.listen, self._taken)
        await self._keys.start(self._taken.socket)
        facts: dict[str, str | int] = {"listen": where}
        if self._settings.metrics_listen is not None:
            host, port = self._settings.metrics_listen
            family = socket.AF_INET6 if ":" in host else socket.AF_INET
            probes = socket.create_server((host, port), family=family, backlog=BACKLOG)
            facts["metrics_port"] = probes.getsockname()[1]
            await self._probes.start(probes)
        log.info("listening", address=where, binding=str(self._settings.binding))
        tell_ready(self._settings.ready_file, **facts)

    async def _stop(self, keeping: asyncio.Task[None], waiting: asyncio.Task[bool]) -> None:
        # The token is kept until the last answer is out.
        await self._keys.stop()
        await self._probes.stop()
        self._taken.leave()
        for task in (keeping, waiting):
            task.cancel()
        ended = await asyncio.gather(keeping, waiting, return_exceptions=True)
        await self._session.close()
        log.info("stopped")
        for outcome in ended:
            if isinstance(outcome, Exception):
                raise outcome


def _shown(place: UnixPlace | LoopbackPlace, taken: Taken) -> str:
    if isinstance(place, UnixPlace):
        return f"{UNIX}{place.path}"
    host = f"[{place.host}]" if ":" in place.host else place.host
    return f"{host}:{taken.socket.getsockname()[1]}"


def _hosts(settings: ProxySettings, taken: Taken) -> frozenset[str] | None:
    """What `Host` may say; None where no browser leads."""
    if not isinstance(settings.listen, LoopbackPlace):
        return None
    shown = _shown(settings.listen, taken)
    return frozenset({shown, f"localhost:{shown.rpartition(':')[2]}"})
