"""Finds our finalizers in the cluster, and takes them off where no operator will."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

from chatelaine.kube.adapter import KubeAdapter
from chatelaine.kube.errors import Conflict, NotFound
from chatelaine.kube.port import CLAIMS, HSMS, JsonObject, Resource, Selection, metadata_of
from chatelaine.model.identifiers import FINALIZER

PAGE: Final = 500
FIELD_MANAGER: Final = "chatelaine-uninstall"
ATTEMPTS: Final = 5


async def held_claims(kubeconfig: Path | None) -> list[str]:
    """`namespace/name` of every claim with our finalizer, sorted. None where the kind is not installed.

    Raises:
        KubeError: the API server did not answer.
    """
    async with await KubeAdapter.connect(kubeconfig, user_agent="chatelaine-uninstall") as kube:
        return sorted([f"{meta['namespace']}/{meta['name']}" async for meta in _held(kube, CLAIMS)])


async def abandon_all(kubeconfig: Path | None) -> int:
    """Take the finalizer off every claim and Hsm; how many there were.

    Raises:
        KubeError: the API server did not do it.
    """
    count = 0
    async with await KubeAdapter.connect(kubeconfig, user_agent="chatelaine-uninstall") as kube:
        for resource in (CLAIMS, HSMS):
            async for meta in _held(kube, resource):
                await _let_go(kube, resource, meta)
                count += 1
    return count


async def _held(kube: KubeAdapter, resource: Resource) -> AsyncIterator[JsonObject]:
    token = ""
    while True:
        try:
            page = await kube.list_page(Selection(resource, metadata_only=True), limit=PAGE, continue_token=token)
        except NotFound:
            return
        for item in page.items:
            if FINALIZER in (metadata_of(item).get("finalizers") or ()):
                yield metadata_of(item)
        token = page.continue_token
        if not token:
            return


async def _let_go(kube: KubeAdapter, resource: Resource, meta: JsonObject) -> None:
    """Others' finalizers stay; the resourceVersion guards what was read."""
    name, namespace = str(meta["name"]), meta.get("namespace")
    for attempt in range(ATTEMPTS):
        kept = [finalizer for finalizer in meta.get("finalizers") or () if finalizer != FINALIZER]
        body = {"metadata": {"finalizers": kept, "resourceVersion": meta["resourceVersion"]}}
        try:
            await kube.merge(resource, name, body, field_manager=FIELD_MANAGER, namespace=namespace)
        except NotFound:
            return
        except Conflict:
            if attempt == ATTEMPTS - 1:
                raise
            try:
                meta = metadata_of(await kube.get_metadata(resource, name, namespace))
            except NotFound:
                return
        else:
            return
