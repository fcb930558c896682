"""The only module that imports kopf: it watches our three kinds and hands each event over, nothing more.

kopf cancels every task that was started in its loop since it began, ours included, so it gets a loop (and a
thread) of its own; events cross by `call_soon_threadsafe`, all that wait at once. It runs only while we lead and is
started anew each time.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections import deque
from collections.abc import Callable
from typing import Any, Final

import kopf
import uvloop

from chatelaine.kube.port import OWN_KINDS, JsonObject
from chatelaine.telemetry.log import logger

Deliver = Callable[[str, JsonObject, bool], None]
"""Called in our loop with kind, body, and whether the object was deleted."""

STOP_SECONDS: Final = 10.0
RESTART_SECONDS: Final = 1.0
CLOSE_SECONDS: Final = 0.1
EVENTS_A_TURN: Final = 64
"""Others in our loop wait no longer than these take, however many objects a first list brings."""

_log = logger(__name__)


def connection_of(configuration: Any) -> kopf.ConnectionInfo:
    """Kopf's view of the official client's configuration."""
    scheme, _, token = str(configuration.api_key.get("BearerToken") or "").partition(" ")
    return kopf.ConnectionInfo(
        server=configuration.host,
        ca_path=configuration.ssl_ca_cert,
        insecure=not configuration.verify_ssl,
        scheme=scheme.capitalize() or None,
        token=token or None,
        certificate_path=configuration.cert_file,
        private_key_path=configuration.key_file,
    )


def settings() -> kopf.OperatorSettings:
    """Kopf without anything that writes: no Events, no finalizers, no progress, no peering."""
    chosen = kopf.OperatorSettings()
    chosen.posting.enabled = False
    chosen.posting.loggers = False
    chosen.peering.standalone = True
    # The kinds are there before we are: no watching of CRDs, so no right to read them is needed.
    chosen.scanning.disabled = True
    chosen.process.ultimate_exiting_timeout = None
    # A worker a watched object idles this long; each costs memory.
    chosen.queueing.idle_timeout = 1.0
    chosen.queueing.exit_timeout = 0.5
    chosen.watching.reconnect_backoff = 0.1
    chosen.watching.server_timeout = 290
    chosen.networking.error_backoffs = (0.2, 0.5, 1, 2)
    chosen.networking.connect_timeout = 5
    # kopf would copy and compare every body to find out what changed; nobody here asks it that.
    chosen.persistence.diffbase_storage = _NoEssence()
    chosen.persistence.progress_storage = _NoProgress()
    return chosen


class _NoEssence(kopf.DiffBaseStorage):
    """Keeps nothing and finds no difference: raw events need none."""

    def build(self, **_: Any) -> kopf.BodyEssence:
        """Nothing of the body."""
        return kopf.BodyEssence()

    def fetch(self, **_: Any) -> kopf.BodyEssence | None:
        """Nothing was stored."""
        return None

    def store(self, **_: Any) -> None:
        """Nothing is stored."""


class _NoProgress(kopf.ProgressStorage):
    """Handlers of raw events have no progress."""

    def fetch(self, **_: Any) -> None:
        """None is stored."""

    def store(self, **_: Any) -> None:
        """None is stored."""

    def purge(self, **_: Any) -> None:
        """There is nothing."""

    def touch(self, **_: Any) -> None:
        """Nothing is written to an object."""

    def clear(self, *, essence: kopf.BodyEssence) -> kopf.BodyEssence:
        """As it is, uncopied."""
        return essence


class _Stop:
    """A stop that kopf can wait for without a thread of its own: one that waits would outlive a kopf that fails, and
    keep its loop from ending for ever.
    """

    def __init__(self) -> None:
        self._set = threading.Event()
        self._inner: tuple[asyncio.AbstractEventLoop, asyncio.Event] | None = None

    def is_set(self) -> bool:
        """Was it said?"""
        return self._set.is_set()

    def wait(self, seconds: float) -> None:
        """Wait for it, but no longer than that."""
        self._set.wait(seconds)

    def set(self) -> None:
        """Say it, from any thread."""
        self._set.set()
        inner = self._inner
        if inner is not None:
            try:
                inner[0].call_soon_threadsafe(inner[1].set)
            except RuntimeError:
                logging.getLogger(__name__).debug("kopf's loop has ended")

    def flag(self) -> asyncio.Event:
        """For the loop that runs now."""
        event = asyncio.Event()
        self._inner = (asyncio.get_running_loop(), event)
        if self._set.is_set():
            event.set()
        return event


class _Crossing:
    """Events on their way from kopf's thread to our loop. A loop is woken once for all that wait, in their order."""

    def __init__(self, loop: asyncio.AbstractEventLoop, stop: _Stop, deliver: Deliver) -> None:
        self._loop = loop
        self._stop = stop
        self._deliver = deliver
        self._waiting: deque[tuple[str, JsonObject, bool]] = deque()
        self._woken = False

    def put(self, kind: str, body: JsonObject, deleted: bool) -> None:
        """In kopf's thread."""
        self._waiting.append((kind, body, deleted))
        if not self._woken:
            self._woken = True
            try:
                self._loop.call_soon_threadsafe(self._take)
            except RuntimeError:
                logging.getLogger(__name__).debug("the loop has ended")

    def _take(self) -> None:
        """In our loop. The mark goes first: what is put after it wakes the loop again, what was put before is here."""
        self._woken = False
        try:
            for _ in range(min(len(self._waiting), EVENTS_A_TURN)):
                event = self._waiting.popleft()
                if not self._stop.is_set():
                    self._deliver(*event)
        finally:
            if self._waiting:
                self._woken = True
                self._loop.call_soon(self._take)


class KopfWatch:
    """kopf in a thread of its own.

    Args:
        configuration: gives the official client's current configuration; asked at every login.
        deliver: gets the events, in the loop that calls `start`.
        clock: monotonic seconds.
    """

    def __init__(self, configuration: Callable[[], Any], deliver: Deliver, clock: Callable[[], float]) -> None:
        self._configuration = configuration
        self._deliver = deliver
        self._clock = clock
        self.ended_at: float | None = None
        """When kopf last ended although nobody stopped it; it is started anew each time."""
        self._stop = _Stop()
        self._thread: threading.Thread | None = None

    @property
    def runs(self) -> bool:
        """Is the thread alive?"""
        return self._thread is not None and self._thread.is_alive()

    def start(self) -> None:
        """Begin to watch, with a first event for every object there is. Call in the running loop."""
        if self.runs:
            return
        self._stop = _Stop()
        loop, stop = asyncio.get_running_loop(), self._stop
        self._thread = threading.Thread(target=self._run, args=(loop, stop), name="kopf", daemon=True)
        self._thread.start()

    async def stop(self) -> None:
        """End watching; events under way are dropped."""
        thread, self._thread = self._thread, None
        self._stop.set()
        if thread is not None:
            await asyncio.to_thread(thread.join, STOP_SECONDS)

    def _run(self, loop: asyncio.AbstractEventLoop, stop: _Stop) -> None:
        while not stop.is_set():
            registry = self._registry(loop, stop)
            try:
                uvloop.run(_operate(registry, stop))
            except Exception as error:  # noqa: BLE001 - whatever ends kopf, watching must go on
                _log.exception("kopf ended", error)
            if not stop.is_set():
                self.ended_at = self._clock()
            stop.wait(RESTART_SECONDS)

    def _registry(self, loop: asyncio.AbstractEventLoop, stop: _Stop) -> kopf.OperatorRegistry:
        registry = kopf.OperatorRegistry()

        @kopf.on.login(registry=registry)
        def login(**_: Any) -> kopf.ConnectionInfo:
            return connection_of(self._configuration())

        crossing = _Crossing(loop, stop, self._deliver)
        for kind, resource in OWN_KINDS.items():
            self._handle(registry, crossing, kind, (resource.group, resource.version, resource.plural))
        return registry

    @staticmethod
    def _handle(registry: kopf.OperatorRegistry, crossing: _Crossing, kind: str, where: tuple[str, str, str]) -> None:
        @kopf.on.event(*where, registry=registry)
        async def changed(event: Any, **_: Any) -> None:
            crossing.put(kind, dict(event["object"]), event["type"] == "DELETED")


async def _operate(registry: kopf.OperatorRegistry, stop: _Stop) -> None:
    try:
        await kopf.operator(
            registry=registry, settings=settings(), standalone=True, clusterwide=True, stop_flag=stop.flag()
        )
    finally:
        # Its connections close in later turns of the loop, which would end with this coroutine.
        await asyncio.sleep(CLOSE_SECONDS)


def quiet_kopf() -> None:
    """Kopf logs a line a handler call; we log what we decide instead."""
    for name in ("kopf", "kopf.objects"):
        logging.getLogger(name).setLevel(logging.WARNING)
