"""What this process knows of our own kinds: packed bodies, small indexes, and whether the picture is complete.

Fed by kopf's events and by the answers of our own writes, whichever is newer: an event with an older or equal
resourceVersion is nothing new. Bodies are kept as JSON bytes without `managedFields` and parsed when a key is
examined, which costs 0.2 ms and saves nine tenths of the memory; what changed last is kept parsed for the examination
that follows.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

import msgspec
from pydantic import ValidationError

from chatelaine.kube.port import JsonObject, KubePort, Resource, Selection, metadata_of
from chatelaine.kube.watch import version_of
from chatelaine.model.common import Model
from chatelaine.telemetry.log import logger

M = TypeVar("M", bound=Model)
I = TypeVar("I")  # noqa: E741 - the index of one object

PAGE: Final = 1000

_log = logger(__name__)
_decode = msgspec.json.Decoder(type=dict).decode


@dataclass(frozen=True, slots=True)
class Stored(Generic[I]):
    """One object: identity, version, packed body, and what other objects look up of it."""

    namespace: str
    name: str
    uid: str
    resource_version: int
    packed: bytes
    index: I

    def body(self) -> JsonObject:
        """The body, parsed anew."""
        parsed: JsonObject = _decode(self.packed)
        return parsed


Key = tuple[str, str]
"""Namespace (empty for cluster-scoped kinds) and name."""


class KindCache(Generic[M, I]):
    """All objects of one kind.

    Args:
        resource: the kind.
        model: its typed form.
        index_of: what to keep unpacked of an object.
        changed: told synchronously of key, entry before and entry after.
        parsed: most typed objects to keep besides the packed ones; those that changed last stay.
    """

    def __init__(
        self,
        resource: Resource,
        model: type[M],
        index_of: Callable[[M], I],
        changed: Callable[[Key, Stored[I] | None, Stored[I] | None], None],
        *,
        parsed: int,
    ) -> None:
        self.resource = resource
        self._model = model
        self._index_of = index_of
        self._changed = changed
        self._objects: dict[Key, Stored[I]] = {}
        self._most_parsed = parsed
        self._parsed: dict[Key, tuple[int, M]] = {}
        self._tombs: dict[Key, tuple[str, int]] = {}
        """Deleted objects: uid and version, until the next sweep: a late event must not bring them back."""
        self._awaited: dict[Key, str] | None = None
        self.complete = asyncio.Event()

    def __len__(self) -> int:
        return len(self._objects)

    def __iter__(self) -> Iterator[Stored[I]]:
        return iter(tuple(self._objects.values()))

    @property
    def names(self) -> tuple[Key, ...]:
        """Namespace and name of all objects."""
        return tuple(self._objects)

    def find(self, name: str, namespace: str = "") -> Stored[I] | None:
        """One object."""
        return self._objects.get((namespace, name))

    def typed(self, name: str, namespace: str = "") -> M | None:
        """One object, typed; None if it is not there."""
        key = (namespace, name)
        stored = self._objects.get(key)
        if stored is None:
            return None
        kept = self._parsed.get(key)
        if kept is not None and kept[0] == stored.resource_version:
            return kept[1]
        typed = self._model.model_validate(stored.body())
        self._keep(key, stored.resource_version, typed)
        return typed

    def _keep(self, key: Key, version: int, typed: M) -> None:
        self._parsed.pop(key, None)
        self._parsed[key] = (version, typed)
        if len(self._parsed) > self._most_parsed:
            del self._parsed[next(iter(self._parsed))]

    def took(self, body: JsonObject) -> None:
        """A newer body: from an event, or the answer of a write. Older ones are dropped."""
        meta = metadata_of(body)
        key = (str(meta.get("namespace") or ""), str(meta.get("name", "")))
        uid, version = str(meta.get("uid", "")), version_of(body)
        before = self._objects.get(key)
        if before is not None and version <= before.resource_version:
            self._arrived(key, before.uid)
            return
        tomb = self._tombs.get(key)
        if tomb is not None and version <= tomb[1]:
            return
        if meta.get("deletionTimestamp") and not meta.get("finalizers"):
            # The answer to taking the last finalizer away: the object is gone with this write.
            self.gone(body)
            return
        try:
            typed = self._model.model_validate(body)
        except ValidationError as error:
            # Only an API server with other definitions than ours lets such an object in.
            _log.error("object does not fit our definitions", kind=self.resource.kind, key=key, error=str(error))
            self._arrived(key, uid)
            return
        slim = {**body, "metadata": {k: v for k, v in meta.items() if k != "managedFields"}}
        after = Stored(key[0], key[1], uid, version, msgspec.json.encode(slim), self._index_of(typed))
        self._objects[key] = after
        self._keep(key, version, typed)
        self._changed(key, before, after)
        self._arrived(key, uid)

    def gone(self, body: JsonObject) -> None:
        """The object was deleted."""
        meta = metadata_of(body)
        key = (str(meta.get("namespace") or ""), str(meta.get("name", "")))
        self._remove(key, str(meta.get("uid", "")), version_of(body))

    def vanished(self, key: Key) -> None:
        """The API server says that there is no such object (a live read, or a list)."""
        before = self._objects.get(key)
        if before is not None:
            self._remove(key, before.uid, before.resource_version)

    def _remove(self, key: Key, uid: str, version: int) -> None:
        before = self._objects.get(key)
        self._arrived(key, uid)
        if before is None or (before.uid != uid and before.resource_version > version):
            return
        del self._objects[key]
        self._parsed.pop(key, None)
        self._tombs[key] = (uid, max(version, before.resource_version))
        self._changed(key, before, None)

    # --- completeness

    def begin(self) -> None:
        """Watching starts anew: what is here may be stale until `sweep` has compared it with a list."""
        self.complete.clear()
        self._awaited = None

    async def sweep(self, kube: KubePort) -> tuple[int, int]:
        """Compare with a list of names: forget what vanished unseen, wait for what has not arrived yet.

        Completeness is declared when every object of the list has arrived.

        Returns:
            resourceVersion of the newest object of the list (0: it is empty), and of the list.

        Raises:
            KubeError: the list could not be read.
        """
        token, newest, at = "", 0, 0
        listed: dict[Key, str] = {}
        selection = Selection(self.resource, metadata_only=True)
        while True:
            page = await kube.list_page(selection, limit=PAGE, continue_token=token)
            at = int(page.resource_version) if page.resource_version.isdigit() else at
            for item in page.items:
                meta = metadata_of(item)
                listed[(str(meta.get("namespace") or ""), str(meta["name"]))] = str(meta["uid"])
                newest = max(newest, version_of(item))
            token = page.continue_token
            if not token:
                break
        for key, stored in tuple(self._objects.items()):
            if listed.get(key) != stored.uid and stored.resource_version <= at:
                self._remove(key, stored.uid, at)
        self._tombs = {key: tomb for key, tomb in self._tombs.items() if tomb[1] > at}
        self._awaited = {
            key: uid for key, uid in listed.items() if key not in self._objects or self._objects[key].uid != uid
        }
        self._check()
        return newest, at

    def _arrived(self, key: Key, uid: str) -> None:
        if self._awaited is not None and self._awaited.get(key) == uid:
            del self._awaited[key]
            self._check()

    def _check(self) -> None:
        if self._awaited is not None and not self._awaited and not self.complete.is_set():
            _log.info("picture complete", kind=self.resource.kind, objects=len(self._objects))
            self.complete.set()
