"""Manifests that bring our objects back: without status, uids and what a server wrote, with what a restore must know.

What a status alone knows, and a restore cannot do without, is whose keys each token holds: labels of keys carry uids,
and restored claims have other ones. It goes into `Hsm.spec.adoptions`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml

from chatelaine.kube.port import CLAIMS, HSMS, POLICIES, JsonObject, KubePort, Resource, Selection
from chatelaine.model.claim import HsmClaim
from chatelaine.model.hsm import Hsm
from chatelaine.model.identifiers import ANNOTATION_DESTROY, ANNOTATION_READMIT
from chatelaine.model.policy import AttestationPolicy
from chatelaine.reconcile.adoption import adoptions_of

PAGE: Final = 500
MAX_BACKUP_BYTES: Final = 64 * 1024 * 1024
NOT_KEPT: Final = frozenset(
    {"kubectl.kubernetes.io/last-applied-configuration", ANNOTATION_READMIT, ANNOTATION_DESTROY}
)
"""Annotations. Orders to re-admit a host or to destroy a key were given once, for one state of the world."""


class BackupUnusable(Exception):
    """The file is no backup of ours; the message says why."""


@dataclass(frozen=True, slots=True)
class Installation:
    """Our objects, as the API server has them."""

    policies: tuple[JsonObject, ...]
    hsms: tuple[JsonObject, ...]
    claims: tuple[JsonObject, ...]


async def read_installation(kube: KubePort) -> Installation:
    """All of it.

    Raises:
        KubeError: the API server did not answer.
    """
    found = [await _all(kube, resource) for resource in (POLICIES, HSMS, CLAIMS)]
    return Installation(*found)


def manifests(found: Installation) -> list[JsonObject]:
    """In the order in which they are applied: whom a claim is kept for is known before the claim."""
    claims = [HsmClaim.model_validate(body) for body in found.claims]
    out = [_manifest(POLICIES, body) for body in found.policies]
    for body in found.hsms:
        made = _manifest(HSMS, body)
        promised = adoptions_of(Hsm.model_validate(body), claims)
        made["spec"].pop("adoptions", None)
        if promised:
            made["spec"]["adoptions"] = [one.dump() for one in promised]
        out.append(made)
    return out + [_manifest(CLAIMS, body) for body in found.claims]


def needed_besides(found: Installation) -> list[str]:
    """What such a file does not hold, and a restore needs, as lines for people."""
    namespaces = sorted({str(body["metadata"]["namespace"]) for body in found.claims})
    maps: set[str] = set()
    for body in found.policies:
        maps |= set(_config_maps(AttestationPolicy.model_validate(body).spec.dump()))
    lines = [
        "the Secret chatelaine-ca of the operator's namespace (not in here): without it all hosts must join again",
        "the chart's release, with the same values",
        "on each HSM host: the token itself, the folders of gateway and agent; a TPM's identity cannot be moved",
    ]
    if maps:
        lines.insert(1, f"ConfigMaps of the operator's namespace: {', '.join(sorted(maps))}")
    if namespaces:
        lines.insert(1, f"the namespaces of claims, with their labels: {', '.join(namespaces)}")
    return lines


def written(bodies: Sequence[JsonObject], head: Iterable[str]) -> str:
    """One YAML stream, with `head` as a comment above it."""
    comment = "".join(f"# {line}\n" for line in head)
    return comment + yaml.safe_dump_all(bodies, sort_keys=False, explicit_start=True, width=110)


def read_backup(path: Path) -> list[JsonObject]:
    """The objects of a file that `written` made.

    Raises:
        BackupUnusable: it cannot be read, or is none.
    """
    try:
        if path.stat().st_size > MAX_BACKUP_BYTES:
            raise BackupUnusable(f"{path} is longer than {MAX_BACKUP_BYTES} bytes")
        bodies = [body for body in yaml.safe_load_all(path.read_bytes()) if body is not None]
    except (OSError, yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise BackupUnusable(f"{path} cannot be read: {error}") from error
    kinds = {resource.kind: resource.api_version for resource in (POLICIES, HSMS, CLAIMS)}
    for body in bodies:
        if not isinstance(body, dict) or kinds.get(str(body.get("kind"))) != body.get("apiVersion"):
            raise BackupUnusable(f"{path} holds something else than Hsms, HsmClaims and AttestationPolicies")
        meta = body.get("metadata")
        if not isinstance(meta, dict) or not isinstance(meta.get("name"), str):
            raise BackupUnusable(f"{path} holds an object without a name")
    return bodies


def _manifest(resource: Resource, body: JsonObject) -> JsonObject:
    meta = body["metadata"]
    kept: JsonObject = {"name": meta["name"]}
    if "namespace" in meta:
        kept["namespace"] = meta["namespace"]
    if meta.get("labels"):
        kept["labels"] = meta["labels"]
    notes = {name: value for name, value in (meta.get("annotations") or {}).items() if name not in NOT_KEPT}
    if notes:
        kept["annotations"] = notes
    return {"apiVersion": resource.api_version, "kind": resource.kind, "metadata": kept, "spec": dict(body["spec"])}


def _config_maps(value: Any) -> Iterable[str]:
    """Names under `configMapRef`, wherever they stand."""
    if isinstance(value, dict):
        for key, item in value.items():
            if key == "configMapRef" and isinstance(item, dict):
                yield str(item.get("name"))
            else:
                yield from _config_maps(item)
    elif isinstance(value, list):
        for item in value:
            yield from _config_maps(item)


async def _all(kube: KubePort, resource: Resource) -> tuple[JsonObject, ...]:
    found: list[JsonObject] = []
    token = ""
    while True:
        page = await kube.list_page(Selection(resource), limit=PAGE, continue_token=token)
        found += page.items
        token = page.continue_token
        if not token:
            return tuple(
                sorted(found, key=lambda body: (body["metadata"].get("namespace", ""), body["metadata"]["name"]))
            )
