"""An API server that has nothing, says nothing and takes nothing (`kube.port.KubePort`)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from chatelaine.kube.errors import Unavailable
from chatelaine.kube.port import (
    NO_GUARD,
    ClusterIdentity,
    Guard,
    JsonObject,
    Page,
    Resource,
    Selection,
    WatchEvent,
)


class QuietServer:
    """Lists are empty and complete, watches stay silent, everything else is refused."""

    async def list_page(self, selection: Selection, *, limit: int, continue_token: str = "") -> Page:
        """See `KubePort`."""
        return Page((), "1", "")

    async def watch(self, selection: Selection, resource_version: str) -> AsyncIterator[WatchEvent]:
        """See `KubePort`."""
        await asyncio.Event().wait()
        nothing: tuple[WatchEvent, ...] = ()
        for event in nothing:
            yield event

    async def get(self, resource: Resource, name: str, namespace: str | None = None) -> JsonObject:
        """See `KubePort`."""
        raise Unavailable("quiet")

    async def get_metadata(self, resource: Resource, name: str, namespace: str | None = None) -> JsonObject:
        """See `KubePort`."""
        raise Unavailable("quiet")

    async def create(self, resource: Resource, body: JsonObject, namespace: str | None = None) -> JsonObject:
        """See `KubePort`."""
        raise Unavailable("quiet")

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
        raise Unavailable("quiet")

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
        raise Unavailable("quiet")

    async def replace(self, resource: Resource, name: str, body: JsonObject, namespace: str | None) -> JsonObject:
        """See `KubePort`."""
        raise Unavailable("quiet")

    async def delete(
        self, resource: Resource, name: str, namespace: str | None = None, guard: Guard = NO_GUARD
    ) -> None:
        """See `KubePort`."""
        raise Unavailable("quiet")

    async def cluster_identity(self) -> ClusterIdentity:
        """See `KubePort`."""
        raise Unavailable("quiet")
