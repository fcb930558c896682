"""Objects that we emit into namespaces: NetworkPolicies and binding Secrets. Another's object is never touched."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from chatelaine.controller import summaries
from chatelaine.controller.world import World
from chatelaine.kube.errors import AlreadyExists, NotFound
from chatelaine.kube.port import NETWORK_POLICIES, SECRETS, Guard, JsonObject, metadata_of
from chatelaine.kube.watch import version_of
from chatelaine.model.identifiers import LABEL_MANAGED_BY, MANAGED_BY
from chatelaine.reconcile.plan import ApplyNetworkPolicy, ApplySecret, DeleteNetworkPolicy, DeleteSecret
from chatelaine.telemetry.log import logger

FIELD_MANAGER: Final = "chatelaine"

_log = logger(__name__)


class EmittedObjects:
    """Creates, applies and deletes what plans ask for, and feeds the answers back to the watches."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._kube = world.kube
        self.taken: dict[tuple[str, str], str] = {}
        """Secrets by namespace and name that are somebody else's: uid of the owning claim, or empty."""
        self.written: dict[tuple[str, str], int] = {}
        """resourceVersion of each Secret after our last write: another one means that somebody touched it."""

    # --- NetworkPolicies

    async def apply_network_policy(self, action: ApplyNetworkPolicy) -> None:
        """Create, or bring back to what it shall be.

        Raises:
            KubeError: the API server did not do it.
        """
        body, watch = _plain(action.manifest), self._world.network_policies
        if watch.find(action.name, action.namespace) is None:
            try:
                watch.took(await self._kube.create(NETWORK_POLICIES, body, action.namespace))
            except AlreadyExists:
                _log.debug("applying over what is there", namespace=action.namespace, name=action.name)
            else:
                return
        applied = await self._apply(action.namespace, action.name, body)
        if summaries.network_policy(applied).drifted:
            # Fields of other managers that an apply cannot take away: make it anew.
            meta = metadata_of(applied)
            await self._kube.delete(NETWORK_POLICIES, action.name, action.namespace, Guard(uid=str(meta["uid"])))
            applied = await self._kube.create(NETWORK_POLICIES, body, action.namespace)
        watch.took(applied)

    async def _apply(self, namespace: str, name: str, body: JsonObject) -> JsonObject:
        return await self._kube.apply(NETWORK_POLICIES, name, body, field_manager=FIELD_MANAGER, namespace=namespace)

    async def delete_network_policy(self, action: DeleteNetworkPolicy) -> None:
        """Delete one of ours; gone is as good.

        Raises:
            KubeError: the API server did not do it.
        """
        watch = self._world.network_policies
        kept = watch.find(action.name, action.namespace)
        if kept is not None and not kept.summary.ours:
            return
        try:
            guard = Guard(uid=kept.uid) if kept is not None else Guard()
            await self._kube.delete(NETWORK_POLICIES, action.name, action.namespace, guard)
        except NotFound:
            pass
        if kept is not None:
            watch.lost(kept)

    # --- Secrets

    async def apply_secret(self, action: ApplySecret) -> None:
        """Create or update the binding Secret. A Secret of another owner stays, and is remembered as taken.

        Raises:
            KubeError: the API server did not do it.
        """
        place, body = (action.namespace, action.name), _plain(action.manifest)
        kept = self._world.secrets.find(action.name, action.namespace)
        if kept is None:
            try:
                made = await self._kube.create(SECRETS, body, action.namespace)
            except AlreadyExists:
                there = await self._kube.get_metadata(SECRETS, action.name, action.namespace)
                owner = summaries.owner_of(there)
                if owner != action.owner_uid:
                    self.taken[place] = owner
                    return
                uid = str(metadata_of(there)["uid"])
            else:
                self._world.secrets.took(made)
                self.written[place] = version_of(made)
                return
        elif kept.summary.owner_uid != action.owner_uid:
            self.taken[place] = kept.summary.owner_uid
            return
        else:
            uid = kept.uid
        # The uid makes the server refuse (409) if somebody has put another Secret there since.
        guarded = {**body, "metadata": {**body["metadata"], "uid": uid}}
        applied = await self._kube.apply(
            SECRETS, action.name, guarded, field_manager=FIELD_MANAGER, namespace=action.namespace
        )
        self.written[place] = version_of(applied)
        self._world.secrets.took(applied)

    async def delete_secret(self, action: DeleteSecret) -> None:
        """Delete the binding Secret if this claim owns it.

        Raises:
            KubeError: the API server did not do it.
        """
        try:
            there = await self._kube.get_metadata(SECRETS, action.name, action.namespace)
            if summaries.owner_of(there) == action.owner_uid:
                await self._kube.delete(
                    SECRETS, action.name, action.namespace, Guard(uid=str(metadata_of(there)["uid"]))
                )
        except NotFound:
            pass
        # Nobody wants this name any more, or they will find out anew whose it is.
        self.taken.pop((action.namespace, action.name), None)
        kept = self._world.secrets.find(action.name, action.namespace)
        if kept is None or kept.summary.owner_uid == action.owner_uid:
            self.written.pop((action.namespace, action.name), None)
        if kept is not None and kept.summary.owner_uid == action.owner_uid:
            self._world.secrets.lost(kept)

    async def look_at_taken(self, namespace: str, name: str) -> None:
        """Is a name that was taken still taken? Forgets it when the Secret is gone.

        Raises:
            KubeError: the API server did not answer.
        """
        if (namespace, name) not in self.taken:
            return
        try:
            there = await self._kube.get_metadata(SECRETS, name, namespace)
        except NotFound:
            del self.taken[namespace, name]
            return
        labels: dict[str, str] = metadata_of(there).get("labels") or {}
        if labels.get(LABEL_MANAGED_BY) == MANAGED_BY and self._world.secrets.find(name, namespace) is not None:
            del self.taken[namespace, name]


def _plain(manifest: Mapping[str, Any]) -> JsonObject:
    return {key: value for key, value in manifest.items() if key not in ("apiVersion", "kind")}
