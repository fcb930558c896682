"""What is kept of other people's objects: a few fields each, never the body."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import msgspec

from chatelaine.kube.port import JsonObject, metadata_of
from chatelaine.model.identifiers import (
    GROUP,
    LABEL_CLAIM_NAME,
    LABEL_CLAIM_NAMESPACE,
    LABEL_CLAIM_UID,
    LABEL_HSM,
    LABEL_MANAGED_BY,
    MANAGED_BY,
    canonical_json,
    digest_of,
)
from chatelaine.reconcile.network import ANNOTATION_DIGEST

SERVICE_LABEL: Final = "kubernetes.io/service-name"
MAX_FOREIGN_SPEC_BYTES: Final = 64 * 1024
UNDECIDED: Final = b'{"ingress":[{}]}'

Labels = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class PodSummary:
    """A pod that may be a client's or a gateway's."""

    labels: Labels
    service_account: str
    deleting: bool


@dataclass(frozen=True, slots=True)
class NamespaceSummary:
    """A namespace."""

    labels: Labels
    deleting: bool


@dataclass(frozen=True, slots=True)
class SliceSummary:
    """Ready addresses of one Service's slice."""

    service: str
    addresses: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class PolicySummary:
    """A NetworkPolicy. `spec` is kept (packed) of other people's only, to see whom they let in.

    `digest` is our annotation, `drifted`: labels or spec are not those that it stands for.
    """

    ours: bool
    claim_uid: str
    claim: tuple[str, str] | None
    hsm: str
    digest: str
    drifted: bool
    spec: bytes


@dataclass(frozen=True, slots=True)
class SecretSummary:
    """A binding Secret of ours. `version`: its data is not watched, so any change of it is news."""

    owner_uid: str
    digest: str
    claim: tuple[str, str] | None
    version: str


def pod(body: JsonObject) -> PodSummary:
    """Of a Pod. One that has run to its end is no client any more."""
    ended = (body.get("status") or {}).get("phase") in ("Succeeded", "Failed")
    deleting = bool(metadata_of(body).get("deletionTimestamp")) or ended
    return PodSummary(_labels(body), str((body.get("spec") or {}).get("serviceAccountName") or "default"), deleting)


def namespace(body: JsonObject) -> NamespaceSummary:
    """Of a Namespace."""
    return NamespaceSummary(_labels(body), bool(metadata_of(body).get("deletionTimestamp")))


def endpoint_slice(body: JsonObject) -> SliceSummary:
    """Of an EndpointSlice: endpoints that are ready, or do not say (which means ready)."""
    service = (metadata_of(body).get("labels") or {}).get(SERVICE_LABEL, "")
    addresses = [
        str(address)
        for endpoint in body.get("endpoints") or ()
        if (endpoint.get("conditions") or {}).get("ready") is not False
        for address in (endpoint.get("addresses") or ())[:1]
    ]
    return SliceSummary(str(service), tuple(sorted(addresses)))


def network_policy(body: JsonObject) -> PolicySummary:
    """Of a NetworkPolicy, with the comparison between what stands there and what our annotation stands for."""
    meta = metadata_of(body)
    labels: dict[str, str] = meta.get("labels") or {}
    spec: dict[str, Any] = body.get("spec") or {}
    if labels.get(LABEL_MANAGED_BY) != MANAGED_BY:
        packed = msgspec.json.encode(spec)
        # Nobody writes such a policy by hand; not deciding over it counts as letting in.
        return PolicySummary(
            False, "", None, "", "", False, packed if len(packed) <= MAX_FOREIGN_SPEC_BYTES else UNDECIDED
        )
    digest = str((meta.get("annotations") or {}).get(ANNOTATION_DIGEST, ""))
    return PolicySummary(
        True,
        labels.get(LABEL_CLAIM_UID, ""),
        _claim(labels),
        labels.get(LABEL_HSM, ""),
        digest,
        _digest(labels, spec) != digest,
        b"",
    )


def _digest(labels: dict[str, str], spec: dict[str, Any]) -> str:
    """Digest as `reconcile.network` makes it. The server drops empty lists that policyTypes make meaningful."""
    ours = {k: v for k, v in labels.items() if k == LABEL_MANAGED_BY or k.startswith(f"{GROUP}/")}
    whole = dict(spec)
    for type_, field in (("Ingress", "ingress"), ("Egress", "egress")):
        if type_ in whole.get("policyTypes", ()):
            whole.setdefault(field, [])
    return digest_of(canonical_json({"labels": ours, "spec": whole}))


def secret(body: JsonObject) -> SecretSummary:
    """Of a Secret's metadata."""
    meta = metadata_of(body)
    annotations: dict[str, str] = meta.get("annotations") or {}
    claim, version = _claim(meta.get("labels") or {}), str(meta.get("resourceVersion", ""))
    return SecretSummary(owner_of(body), annotations.get(ANNOTATION_DIGEST, ""), claim, version)


def version(body: JsonObject) -> str:
    """Of any object whose content is not watched: any change of it is news."""
    return str(metadata_of(body).get("resourceVersion", ""))


def owner_of(body: JsonObject) -> str:
    """Uid of the HsmClaim that owns an object, empty if none does."""
    for owner in metadata_of(body).get("ownerReferences") or ():
        if owner.get("kind") == "HsmClaim" and str(owner.get("apiVersion", "")).startswith(f"{GROUP}/"):
            return str(owner.get("uid", ""))
    return ""


def _claim(labels: dict[str, str]) -> tuple[str, str] | None:
    namespace_, name = labels.get(LABEL_CLAIM_NAMESPACE), labels.get(LABEL_CLAIM_NAME)
    return (namespace_, name) if namespace_ and name else None


def _labels(body: JsonObject) -> Labels:
    return tuple(sorted((metadata_of(body).get("labels") or {}).items()))
