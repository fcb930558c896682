"""A `KubePort` that tells what was written: of every write its verb, its resource, and how it ended."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Final, TypeVar

from chatelaine.kube.errors import KubeError
from chatelaine.kube.port import (
    NO_GUARD,
    ClusterIdentity,
    Guard,
    JsonObject,
    KubePort,
    Page,
    Resource,
    Selection,
    WatchEvent,
)

DONE: Final = "Done"

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Write:
    """One write. `result`: `Done`, or the class of the error; `answer`: the object as stored, where there is one."""

    verb: str
    resource: Resource
    subresource: str | None
    result: str
    answer: JsonObject | None


class ObservedKube:
    """`kube`, and `wrote` is told (synchronously) of every write that was answered or failed."""

    def __init__(self, kube: KubePort, wrote: Callable[[Write], None]) -> None:
        self._kube = kube
        self._wrote = wrote

    async def get(self, resource: Resource, name: str, namespace: str | None = None) -> JsonObject:
        """See `KubePort`."""
        return await self._kube.get(resource, name, namespace)

    async def get_metadata(self, resource: Resource, name: str, namespace: str | None = None) -> JsonObject:
        """See `KubePort`."""
        return await self._kube.get_metadata(resource, name, namespace)

    async def list_page(self, selection: Selection, *, limit: int, continue_token: str = "") -> Page:
        """See `KubePort`."""
        return await self._kube.list_page(selection, limit=limit, continue_token=continue_token)

    def watch(self, selection: Selection, resource_version: str) -> AsyncIterator[WatchEvent]:
        """See `KubePort`."""
        return self._kube.watch(selection, resource_version)

    async def cluster_identity(self) -> ClusterIdentity:
        """See `KubePort`."""
        return await self._kube.cluster_identity()

    async def create(self, resource: Resource, body: JsonObject, namespace: str | None = None) -> JsonObject:
        """See `KubePort`."""
        return await self._told("create", resource, None, self._kube.create(resource, body, namespace))

    async def apply(
        self,
        resource: Resource,
        name: str,
        body: JsonObject,
        *,
        field_manager: str,
        namespace: str | None = None,
        subresource: str | None = None,
    ) -> JsonObject:
        """See `KubePort`."""
        call = self._kube.apply(
            resource, name, body, field_manager=field_manager, namespace=namespace, subresource=subresource
        )
        return await self._told("apply", resource, subresource, call)

    async def merge(
        self,
        resource: Resource,
        name: str,
        body: JsonObject,
        *,
        field_manager: str,
        namespace: str | None = None,
        subresource: str | None = None,
    ) -> JsonObject:
        """See `KubePort`."""
        call = self._kube.merge(
            resource, name, body, field_manager=field_manager, namespace=namespace, subresource=subresource
        )
        return await self._told("merge", resource, subresource, call)

    async def replace(self, resource: Resource, name: str, body: JsonObject, namespace: str | None) -> JsonObject:
        """See `KubePort`."""
        return await self._told("replace", resource, None, self._kube.replace(resource, name, body, namespace))

    async def delete(
        self, resource: Resource, name: str, namespace: str | None = None, guard: Guard = NO_GUARD
    ) -> None:
        """See `KubePort`."""
        await self._told("delete", resource, None, self._kube.delete(resource, name, namespace, guard))

    async def _told(self, verb: str, resource: Resource, subresource: str | None, call: Awaitable[T]) -> T:
        try:
            answer = await call
        except KubeError as error:
            self._wrote(Write(verb, resource, subresource, type(error).__name__, None))
            raise
        self._wrote(Write(verb, resource, subresource, DONE, answer if isinstance(answer, dict) else None))
        return answer
