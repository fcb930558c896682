"""Reads what a diagnosis looks at, with the caller's own rights. What cannot be read is noted, and nothing fails."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Final, TypeVar

from pydantic import ValidationError

from chatelaine.cli.explain_access import PersonAdapter
from chatelaine.diagnosis.sight import LeaseSight, Sight, Unread, Why
from chatelaine.kube.errors import Forbidden, KubeError, NotFound, Unauthenticated
from chatelaine.kube.port import (
    CLAIMS,
    HSMS,
    LEASES,
    NAMESPACES,
    POLICIES,
    JsonObject,
    Resource,
    Selection,
    metadata_of,
)
from chatelaine.model.claim import HsmClaim
from chatelaine.model.common import Model
from chatelaine.model.conditions import seconds_of
from chatelaine.model.hsm import Hsm
from chatelaine.model.policy import AttestationPolicy

PAGE: Final = 500
LEASE: Final = "chatelaine-operator"
Kind = TypeVar("Kind", bound=Model)
Found = TypeVar("Found")


class Missing(Exception):
    """The object asked about is not there."""


async def one(kube: PersonAdapter, resource: Resource, kind: type[Kind], name: str, namespace: str | None) -> Kind:
    """The object asked about.

    Raises:
        Missing: there is none.
        NotRead: it could not be read.
    """
    where = f" in namespace {namespace}" if namespace else ""
    try:
        return kind.model_validate(await kube.get(resource, name, namespace))
    except NotFound as error:
        if not await _installed(kube, resource, namespace):
            raise NotRead(Unread(f"read {resource.kind} {name}", Why.NOT_INSTALLED)) from error
        raise Missing(f"There is no {resource.kind} {name}{where}.") from error
    except (KubeError, ValidationError) as error:
        raise NotRead(_unread(f"get {resource.kind} {name}{where}", error)) from error


class NotRead(Exception):
    """The object asked about could not be read."""

    def __init__(self, unread: Unread) -> None:
        super().__init__(str(unread))
        self.unread = unread


async def sight_of_claim(kube: PersonAdapter, claim: HsmClaim, system: str) -> Sight:
    """All that a claim rests on."""
    namespace = claim.metadata.namespace or ""
    return Sight(
        now=time.time(),
        claims=await everything(kube, CLAIMS, HsmClaim, namespace),
        hsms=await everything(kube, HSMS, Hsm),
        policies=await everything(kube, POLICIES, AttestationPolicy),
        namespaces={namespace: await _labels(kube, namespace)},
        lease=await lease(kube, system),
        skew_seconds=await skew(kube),
    )


async def sight_of_host(kube: PersonAdapter, system: str) -> Sight:
    """All that an Hsm or a policy rests on."""
    return Sight(
        now=time.time(),
        hsms=await everything(kube, HSMS, Hsm),
        policies=await everything(kube, POLICIES, AttestationPolicy),
        lease=await lease(kube, system),
        skew_seconds=await skew(kube),
    )


async def everything(
    kube: PersonAdapter, resource: Resource, kind: type[Kind], namespace: str | None = None
) -> tuple[Kind, ...] | Unread:
    """All objects of a kind, of a namespace or of all."""
    where = f" in namespace {namespace}" if namespace else ""

    async def read() -> tuple[Kind, ...]:
        return tuple([kind.model_validate(body) async for body in bodies(kube, Selection(resource, namespace))])

    return await reading(f"list {resource.plural}{where}", read)


async def bodies(kube: PersonAdapter, selection: Selection) -> AsyncIterator[JsonObject]:
    """All objects of a selection, page by page.

    Raises:
        KubeError: the server did not answer.
    """
    token = ""
    while True:
        page = await kube.list_page(selection, limit=PAGE, continue_token=token)
        for body in page.items:
            yield body
        token = page.continue_token
        if not token:
            return


async def reading(what: str, read: Callable[[], Awaitable[Found]]) -> Found | Unread:
    """What `read` gives, or why it does not."""
    try:
        return await read()
    except (KubeError, ValidationError, ValueError) as error:
        return _unread(what, error)


async def lease(kube: PersonAdapter, system: str) -> LeaseSight | Unread | None:
    """Who leads; None where nobody ever has."""
    try:
        spec = (await kube.get(LEASES, LEASE, system)).get("spec") or {}
        renewed = spec.get("renewTime")
        return LeaseSight(
            holder=str(spec.get("holderIdentity") or ""),
            renewed_at=float(seconds_of(str(renewed))) if renewed else 0.0,
            term=int(spec.get("leaseTransitions") or 0),
        )
    except NotFound:
        return None
    except (KubeError, ValueError) as error:
        return _unread(f"get the Lease {LEASE} in namespace {system}", error)


async def skew(kube: PersonAdapter) -> float | None:
    """How far our clock is ahead of the API server's; None where it does not say."""
    try:
        return await kube.skew_seconds()
    except KubeError:
        return None


async def _labels(kube: PersonAdapter, namespace: str) -> dict[str, str] | Unread:
    async def read() -> dict[str, str]:
        found = metadata_of(await kube.get_metadata(NAMESPACES, namespace)).get("labels") or {}
        return {str(key): str(value) for key, value in found.items()}

    return await reading(f"get namespace {namespace}", read)


async def _installed(kube: PersonAdapter, resource: Resource, namespace: str | None) -> bool:
    """A kind that is not installed answers like an object that is not there."""
    try:
        await kube.list_page(Selection(resource, namespace, metadata_only=True), limit=1)
    except NotFound:
        return False
    except KubeError:
        return True
    return True


def _unread(what: str, error: Exception) -> Unread:
    if isinstance(error, Forbidden):
        return Unread(what, Why.FORBIDDEN)
    if isinstance(error, NotFound):
        return Unread(what, Why.NOT_INSTALLED)
    if isinstance(error, Unauthenticated):
        return Unread(what, Why.UNAVAILABLE, "your login is not accepted; log in again")
    if isinstance(error, KubeError):
        return Unread(what, Why.UNAVAILABLE, str(error))
    return Unread(what, Why.STRANGE, str(error).splitlines()[0][:200])
