"""What Argo CD and Flux do to a cluster, in their own way: server-side apply under their name, diff, prune, health.

They mark what they apply and take their marks on something that is not in Git for a reason to delete it. Argo CD by a
label or an annotation (both are put on here), Flux by labels beside its inventory.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from tools.control_plane.access import ClusterAccess
from tools.control_plane.client import ApiError

Json = dict[str, Any]
Name = tuple[str, str, str]


@dataclass(frozen=True)
class GitOpsTool:
    """One of them. `marks`: labels and annotations that it puts on what it applies."""

    field_manager: str
    labels: Json
    annotations: Json

    def marked(self, obj: Json) -> Json:
        """As it is sent."""
        meta = obj["metadata"]
        labels, annotations = meta.get("labels", {}), meta.get("annotations", {})
        return obj | {
            "metadata": meta | {"labels": labels | self.labels, "annotations": annotations | self.annotations}
        }

    def carries_mark(self, obj: Json) -> bool:
        """Would it think that this is its own?"""
        meta = obj["metadata"]
        found = meta.get("labels", {}) | meta.get("annotations", {})
        return any(found.get(name) == value for name, value in (self.labels | self.annotations).items())


ARGO_CD: Final = GitOpsTool(
    "argocd-controller",
    {"app.kubernetes.io/instance": "keys"},
    {"argocd.argoproj.io/tracking-id": "keys:chatelaine.dev/Keys:test/keys"},
)
FLUX: Final = GitOpsTool(
    "kustomize-controller",
    {"kustomize.toolkit.fluxcd.io/name": "keys", "kustomize.toolkit.fluxcd.io/namespace": "flux-system"},
    {},
)


def name_of(obj: Json) -> Name:
    """Kind, namespace and name."""
    return obj["kind"], obj["metadata"].get("namespace", ""), obj["metadata"]["name"]


class Sync:
    """A tool at work in a cluster: `wanted` is what Git says."""

    def __init__(self, tool: GitOpsTool, cluster: ClusterAccess, wanted: Sequence[Json]) -> None:
        self.tool, self.cluster = tool, cluster
        self.wanted = [tool.marked(obj) for obj in wanted]

    async def apply(self) -> None:
        """Server-side apply of all, as both tools do it."""
        await self._kubectl("apply", self.wanted)

    async def diff(self) -> str:
        """What the tool would show as out of sync; empty: nothing."""
        try:
            return await self._kubectl("diff", self.wanted)
        except subprocess.CalledProcessError as error:
            if error.returncode == 1:
                return str(error.stdout)
            raise AssertionError(error.stderr) from error

    async def everything(self) -> list[Json]:
        """Every object in the cluster."""
        return await asyncio.to_thread(self._everything)

    async def prune(self) -> list[Name]:
        """Delete what carries the tool's marks and is not wanted; what that was."""
        kept = {name_of(obj) for obj in self.wanted}
        gone = [obj for obj in await self.everything() if self.tool.carries_mark(obj) and name_of(obj) not in kept]
        for obj in gone:
            self.cluster.admin.delete(obj)
        return sorted(map(name_of, gone))

    async def delete(self, objects: Iterable[Json]) -> None:
        """Delete, and wait until it is gone, with a deadline; a wave or a Kustomization at a time."""
        found = json.dumps({"apiVersion": "v1", "kind": "List", "items": list(objects)})
        await asyncio.to_thread(self.cluster.kubectl, "delete", "--wait", "--timeout=60s", "-f", "-", stdin=found)

    def versions(self) -> dict[Name, str]:
        """resourceVersion of each object that is wanted and there."""
        found = {}
        for obj in self.wanted:
            kind, namespace, name = name_of(obj)
            try:
                live = self.cluster.admin.read(obj["apiVersion"], kind, name, namespace or None)
            except ApiError as error:
                if error.status != 404:
                    raise
                continue
            found[kind, namespace, name] = live["metadata"]["resourceVersion"]
        return found

    async def _kubectl(self, verb: str, objects: Sequence[Json]) -> str:
        return await asyncio.to_thread(
            self.cluster.kubectl, verb, "--server-side", "--force-conflicts",
            f"--field-manager={self.tool.field_manager}", "-f", "-",
            stdin=json.dumps({"apiVersion": "v1", "kind": "List", "items": list(objects)}),
        )  # fmt: skip

    def _everything(self) -> list[Json]:
        kinds = self.cluster.kubectl("api-resources", "--verbs=list,delete", "-o", "name").split()
        listed = self.cluster.kubectl("get", ",".join(kinds), "--all-namespaces", "-o", "json")
        return list(json.loads(listed)["items"])
