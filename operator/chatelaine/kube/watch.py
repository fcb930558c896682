"""A list that keeps itself up to date: pages, then watch, resumed after a clean end, listed anew on 410.

What is kept of each object is decided by `summarise`: small summaries, never bodies. The list is complete once
`synced` is set; before that nothing may be concluded from absence. After a new list, objects that vanished unseen
are reported as deleted.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final, Generic, Protocol, TypeVar

from chatelaine.kube.errors import Gone, KubeError, TooMany
from chatelaine.kube.port import JsonObject, KubePort, Selection, WatchKind, metadata_of
from chatelaine.model.backoff import backoff_seconds
from chatelaine.telemetry.log import logger

PAGE: Final = 500
FIRST_PAUSE_SECONDS: Final = 0.2
LONGEST_PAUSE_SECONDS: Final = 5.0

S = TypeVar("S")

_log = logger(__name__)


class Clock(Protocol):
    """Monotonic seconds."""

    def __call__(self) -> float:
        """Now."""
        ...


@dataclass(frozen=True, slots=True)
class Kept(Generic[S]):
    """What is remembered of one object."""

    namespace: str
    name: str
    uid: str
    resource_version: int
    summary: S


@dataclass(frozen=True, slots=True)
class Changed(Generic[S]):
    """One object changed: `before` or `after` is None when it appeared or vanished."""

    before: Kept[S] | None
    after: Kept[S] | None

    @property
    def key(self) -> tuple[str, str]:
        """Namespace and name."""
        kept = self.after if self.after is not None else self.before
        return (kept.namespace, kept.name) if kept is not None else ("", "")


def version_of(body: JsonObject) -> int:
    """`resourceVersion` as the number that it is (comparable since Kubernetes 1.35, always so with etcd)."""
    text = str(metadata_of(body).get("resourceVersion", ""))
    return int(text) if text.isdigit() else 0


class Watch(Generic[S]):
    """One selection of objects, kept current while `run` runs.

    Args:
        kube: the API server.
        selection: what to watch.
        summarise: body to summary; it must not keep references into the body.
        changed: called (synchronously) for every change, after the memory was changed.
        clock: monotonic seconds, for staleness.
        jitter: random number in [0, 1), for pauses.
    """

    def __init__(
        self,
        kube: KubePort,
        selection: Selection,
        summarise: Callable[[JsonObject], S],
        changed: Callable[[Changed[S]], None],
        *,
        clock: Clock,
        jitter: Callable[[], float] = random.random,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._kube = kube
        self._selection = selection
        self._summarise = summarise
        self._changed = changed
        self._clock = clock
        self._jitter = jitter
        self._sleep = sleep
        self._objects: dict[tuple[str, str], Kept[S]] = {}
        self._version = ""
        self._heard_at: float | None = None
        self.synced = asyncio.Event()

    @property
    def objects(self) -> Mapping[tuple[str, str], Kept[S]]:
        """By (namespace, name)."""
        return self._objects

    @property
    def plural(self) -> str:
        """For metrics."""
        return self._selection.resource.plural

    @property
    def silent_seconds(self) -> float | None:
        """Since when the server was not heard; None before the first complete list."""
        return None if self._heard_at is None else self._clock() - self._heard_at

    def __iter__(self) -> Iterator[Kept[S]]:
        return iter(tuple(self._objects.values()))

    def find(self, name: str, namespace: str = "") -> Kept[S] | None:
        """One object, if it is there."""
        return self._objects.get((namespace, name))

    def took(self, body: JsonObject) -> None:
        """Remember the answer of a write of ours: its watch event will then be nothing new."""
        self._store(body)

    def lost(self, kept: Kept[S]) -> None:
        """We deleted it: do not wait for the event."""
        key = (kept.namespace, kept.name)
        if self._objects.get(key) == kept:
            del self._objects[key]
            self._changed(Changed(kept, None))

    async def run(self) -> None:
        """List and watch until cancelled."""
        failures = 0
        while True:
            try:
                if not self._version:
                    await self._list()
                failures = 0
                await self._follow()
            except Gone:
                self._version = ""
            except KubeError as error:
                failures += 1
                _log.warning("watch interrupted", resource=self.plural, error=str(error))
                await self._sleep(self._pause(error, failures))

    def _pause(self, error: KubeError, failures: int) -> float:
        if isinstance(error, TooMany):
            return error.retry_after_seconds * (1 + self._jitter())
        return backoff_seconds(
            failures, first_seconds=FIRST_PAUSE_SECONDS, longest_seconds=LONGEST_PAUSE_SECONDS, jitter=self._jitter()
        )

    async def _list(self) -> None:
        seen: set[tuple[str, str]] = set()
        token, version = "", ""
        while True:
            page = await self._kube.list_page(self._selection, limit=PAGE, continue_token=token)
            version = page.resource_version
            for body in page.items:
                seen.add(self._store(body))
            token = page.continue_token
            if not token:
                break
        at = int(version) if version.isdigit() else 0
        for key, kept in tuple(self._objects.items()):
            # What we wrote after the list was taken is not in it, and yet is there.
            if key not in seen and kept.resource_version <= at:
                del self._objects[key]
                self._changed(Changed(kept, None))
        self._version = version
        self._heard_at = self._clock()
        self.synced.set()

    async def _follow(self) -> None:
        async for event in self._kube.watch(self._selection, self._version):
            self._heard_at = self._clock()
            version = str(metadata_of(event.object).get("resourceVersion", ""))
            if event.kind is WatchKind.DELETED:
                self._drop(event.object)
            elif event.kind is not WatchKind.BOOKMARK:
                self._store(event.object)
            if version:
                self._version = version
        self._heard_at = self._clock()

    def _store(self, body: JsonObject) -> tuple[str, str]:
        meta = metadata_of(body)
        key = (str(meta.get("namespace") or ""), str(meta.get("name", "")))
        version = version_of(body)
        before = self._objects.get(key)
        uid = str(meta.get("uid", ""))
        if before is not None and before.uid == uid and version <= before.resource_version:
            return key
        after = Kept(key[0], key[1], uid, version, self._summarise(body))
        self._objects[key] = after
        if before is None or before.uid != uid or before.summary != after.summary:
            self._changed(Changed(before, after))
        return key

    def _drop(self, body: JsonObject) -> None:
        meta = metadata_of(body)
        key = (str(meta.get("namespace") or ""), str(meta.get("name", "")))
        before = self._objects.get(key)
        # A deletion that is older than what a write of ours told us belongs to an earlier object of that name.
        if before is not None and (before.uid == meta.get("uid") or before.resource_version <= version_of(body)):
            del self._objects[key]
            self._changed(Changed(before, None))
