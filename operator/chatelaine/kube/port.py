"""The door to the API server: what the controllers ask of it, and the resources that they know.

`kube.adapter.KubeAdapter` implements it over the official client. Objects are JSON dicts here, at the edge;
`controller.cache` turns them into small summaries at once. Every call raises a `kube.errors.KubeError`.
"""

from __future__ import annotations

import enum
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any, Final, Protocol

from chatelaine.model.identifiers import GROUP, VERSION

JsonObject = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Resource:
    """A kind of object, as the API server's URLs name it."""

    group: str
    version: str
    plural: str
    kind: str
    namespaced: bool

    @property
    def api_version(self) -> str:
        """`apiVersion` of its objects."""
        return f"{self.group}/{self.version}" if self.group else self.version

    def path(self, namespace: str | None = None, name: str | None = None, subresource: str | None = None) -> str:
        """URL path of the collection, of one object, or of its subresource.

        Raises:
            ValueError: a name or namespace is not one path segment.
        """
        parts = ["apis", self.group, self.version] if self.group else ["api", self.version]
        if self.namespaced and namespace is not None:
            parts += ["namespaces", _segment(namespace)]
        parts.append(self.plural)
        if name is not None:
            parts.append(_segment(name))
        if subresource is not None:
            parts.append(subresource)
        return "/" + "/".join(parts)


def _segment(text: str) -> str:
    if not text or text in {".", ".."} or not all(c.isalnum() or c in "-._:" for c in text):
        raise ValueError(f"{text!r} is no name of a Kubernetes object")
    return text


HSMS: Final = Resource(GROUP, VERSION, "hsms", "Hsm", namespaced=False)
CLAIMS: Final = Resource(GROUP, VERSION, "hsmclaims", "HsmClaim", namespaced=True)
POLICIES: Final = Resource(GROUP, VERSION, "attestationpolicies", "AttestationPolicy", namespaced=False)
PODS: Final = Resource("", "v1", "pods", "Pod", namespaced=True)
NAMESPACES: Final = Resource("", "v1", "namespaces", "Namespace", namespaced=False)
SECRETS: Final = Resource("", "v1", "secrets", "Secret", namespaced=True)
CONFIG_MAPS: Final = Resource("", "v1", "configmaps", "ConfigMap", namespaced=True)
ENDPOINT_SLICES: Final = Resource("discovery.k8s.io", "v1", "endpointslices", "EndpointSlice", namespaced=True)
NETWORK_POLICIES: Final = Resource("networking.k8s.io", "v1", "networkpolicies", "NetworkPolicy", namespaced=True)
LEASES: Final = Resource("coordination.k8s.io", "v1", "leases", "Lease", namespaced=True)
EVENTS: Final = Resource("events.k8s.io", "v1", "events", "Event", namespaced=True)

OWN_KINDS: Final = {resource.kind: resource for resource in (HSMS, CLAIMS, POLICIES)}


class WatchKind(enum.StrEnum):
    """`type` of a watch event; the server's ERROR becomes an exception."""

    ADDED = "ADDED"
    MODIFIED = "MODIFIED"
    DELETED = "DELETED"
    BOOKMARK = "BOOKMARK"


@dataclass(frozen=True, slots=True)
class WatchEvent:
    """One change, with the object after it (before it, for DELETED)."""

    kind: WatchKind
    object: JsonObject


@dataclass(frozen=True, slots=True)
class Page:
    """A part of a list. `continue_token` is empty on the last page."""

    items: tuple[JsonObject, ...]
    resource_version: str
    continue_token: str


@dataclass(frozen=True, slots=True)
class Selection:
    """Which objects of a resource: one namespace or all, by labels, with whole bodies or metadata alone."""

    resource: Resource
    namespace: str | None = None
    label_selector: str = ""
    metadata_only: bool = False


@dataclass(frozen=True, slots=True)
class ClusterIdentity:
    """What is needed to check service-account tokens offline. `jwks` is JSON text (RFC 7517)."""

    issuer: str
    jwks: str


@dataclass(frozen=True, slots=True)
class Guard:
    """Preconditions of a deletion; an empty field is not asked for."""

    uid: str = ""
    resource_version: str = ""


NO_GUARD: Final = Guard()


class KubePort(Protocol):
    """The API server."""

    async def get(self, resource: Resource, name: str, namespace: str | None = None) -> JsonObject:
        """One object, read live."""
        ...

    async def get_metadata(self, resource: Resource, name: str, namespace: str | None = None) -> JsonObject:
        """One object's metadata (`PartialObjectMetadata`), read live."""
        ...

    async def list_page(self, selection: Selection, *, limit: int, continue_token: str = "") -> Page:
        """One page of a list."""
        ...

    def watch(self, selection: Selection, resource_version: str) -> AsyncIterator[WatchEvent]:
        """Changes after `resource_version`, until the server ends the stream.

        Raises:
            Gone: that version is no longer kept.
        """
        ...

    async def create(self, resource: Resource, body: JsonObject, namespace: str | None = None) -> JsonObject:
        """Create; the object as stored."""
        ...

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
        """Server-side apply, taking ownership of its fields; the object as stored.

        `body.metadata.resourceVersion`, where given, makes it conditional.
        """
        ...

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
        """JSON merge patch (RFC 7386); `body.metadata.resourceVersion`, where given, makes it conditional."""
        ...

    async def replace(self, resource: Resource, name: str, body: JsonObject, namespace: str | None) -> JsonObject:
        """Replace as a whole, guarded by the body's resourceVersion."""
        ...

    async def delete(
        self, resource: Resource, name: str, namespace: str | None = None, guard: Guard = NO_GUARD
    ) -> None:
        """Delete; the guard makes it conditional."""
        ...

    async def cluster_identity(self) -> ClusterIdentity:
        """The issuer and public keys of this cluster's service-account tokens."""
        ...


@dataclass(frozen=True, slots=True)
class ObjectKey:
    """Names one object; `namespace` is empty for cluster-scoped kinds."""

    kind: str
    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.kind} {self.namespace}/{self.name}" if self.namespace else f"{self.kind} {self.name}"


def metadata_of(body: JsonObject) -> JsonObject:
    """`metadata` of an object, empty if it has none."""
    meta = body.get("metadata")
    return meta if isinstance(meta, dict) else {}
