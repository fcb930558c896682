"""Brings plans to the world: one action after the other, each on its port, stopping at the first that fails.

Own objects are written by guarded merge patches: the patch is the difference between the very version that the
snapshot held and what shall be, so nothing of another writer is ever overwritten and nothing foreign stays behind.
What we emit (NetworkPolicies, Secrets) is created, or applied with our field manager.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from chatelaine.controller.cache import KindCache, Stored
from chatelaine.controller.chronicle import Chronicle
from chatelaine.controller.committer import Committer
from chatelaine.controller.emitted import EmittedObjects
from chatelaine.controller.events import Recorder
from chatelaine.controller.merge import merge_diff
from chatelaine.controller.world import World
from chatelaine.kube.errors import Conflict, KubeError, NotFound
from chatelaine.kube.port import OWN_KINDS, JsonObject, KubePort, ObjectKey, metadata_of
from chatelaine.model.identifiers import FINALIZER
from chatelaine.model.keys import KeyType
from chatelaine.reconcile import plan as planned
from chatelaine.telemetry.metrics import OperatorMetrics
from chatelaine.wire.peer import PeerError

MANAGERS: Final = {"Hsm": "chatelaine-hsm", "HsmClaim": "chatelaine-claim", "AttestationPolicy": "chatelaine-policy"}
SEATS: Final = frozenset({"allocations", "retained"})
"""Fields of `Hsm.status` that belong to the committer."""
WRITERS: Final = 16
"""Plans that write to the API server at a time; more gain nothing there."""
UNHURRIED: Final = (planned.AllocateHsm, planned.ReleaseAllocation, planned.RetainKeys,
                    planned.EnsureKey, planned.DestroyKey)  # fmt: skip
"""These wait for a committer or a gateway. The more of them wait together, the more seats go into one write."""

AfterAction = Callable[[int, planned.Action], None]
"""Told of every action that was done, with its place in the plan. Crash tests end the process here."""


class SnapshotTooOld(Exception):
    """The world has moved on since the snapshot: look again at once."""


class HostPort(Protocol):
    """What actions ask of one host."""

    def ask(self, *, identity: bool) -> None:
        """Ask for evidence now, or for the identity too."""
        ...

    def cut(self) -> None:
        """The gateway must not serve any more."""
        ...

    async def ensure_key(self, label: str, key_type: KeyType, *, may_generate: bool) -> None:
        """Have a key made."""
        ...

    async def destroy_key(self, label: str) -> None:
        """Have a key destroyed."""
        ...


class Hosts(Protocol):
    """All hosts."""

    def host(self, name: str, uid: str) -> HostPort | None:
        """The host of that Hsm; None if it is gone."""
        ...

    def committer(self, name: str, uid: str) -> Committer:
        """The one committer of that Hsm."""
        ...

    def cover(self, name: str, policies: tuple[str, ...]) -> None:
        """Quotes of that Hsm must cover these policies, too."""
        ...


@dataclass(slots=True)
class _Run:
    """One plan under way: the versions of own objects that its writes rest on."""

    versions: dict[ObjectKey, int] = field(default_factory=dict)
    seats_written: bool = False


class Executor:
    """Runs plans. `may_write` is asked before every action that writes: a process that leads no more stops there."""

    def __init__(
        self,
        world: World,
        hosts: Hosts,
        recorder: Recorder,
        emitted: EmittedObjects,
        metrics: OperatorMetrics,
        *,
        may_write: Callable[[], bool],
        after_action: AfterAction = lambda _number, _action: None,
    ) -> None:
        self._world = world
        self._kube: KubePort = world.kube
        self._hosts = hosts
        self._metrics = metrics
        self._may_write = may_write
        self._after_action = after_action
        self._chronicle = Chronicle(world)
        self._writers = asyncio.Semaphore(WRITERS)
        self._caches: dict[str, KindCache[Any, Any]] = {
            "Hsm": world.hsms,
            "HsmClaim": world.claims,
            "AttestationPolicy": world.policies,
        }
        self._doors: Mapping[type[object], Callable[[Any, _Run], Awaitable[None]]] = {
            planned.RequestIdentity: self._request_identity,
            planned.RequestEvidence: self._request_evidence,
            planned.CutHsm: self._cut,
            planned.SetHsmStatus: self._set_hsm_status,
            planned.AllocateHsm: self._seat,
            planned.ReleaseAllocation: self._seat,
            planned.RetainKeys: self._seat,
            planned.SetClaimStatus: self._set_claim_status,
            planned.SetPolicyStatus: self._set_policy_status,
            planned.EnsureKey: self._ensure_key,
            planned.DestroyKey: self._destroy_key,
            planned.AddFinalizer: self._add_finalizer,
            planned.RemoveFinalizer: self._remove_finalizer,
            planned.ApplyNetworkPolicy: lambda action, _: emitted.apply_network_policy(action),
            planned.DeleteNetworkPolicy: lambda action, _: emitted.delete_network_policy(action),
            planned.ApplySecret: lambda action, _: emitted.apply_secret(action),
            planned.DeleteSecret: lambda action, _: emitted.delete_secret(action),
            planned.EmitEvent: lambda action, _: recorder.emit(action),
        }

    async def run(self, plan: planned.Plan, versions: Mapping[ObjectKey, int]) -> None:
        """Do all of it.

        Args:
            plan: what to do.
            versions: resourceVersion of each own object that the snapshot held and the plan may write.

        Raises:
            SnapshotTooOld: somebody else wrote first, or a step changed what the next ones rest on.
            KubeError, PeerError, SeatRefused: a port did not do it.
        """
        run = _Run(dict(versions))
        for number, action in enumerate(plan.actions):
            kind = type(action).__name__
            if not isinstance(action, planned.RequestIdentity | planned.RequestEvidence | planned.CutHsm):
                self._check(action, run)
            lines = self._chronicle.lines(action)
            try:
                if isinstance(action, UNHURRIED):
                    await self._doors[type(action)](action, run)
                else:
                    async with self._writers:
                        await self._doors[type(action)](action, run)
            except Conflict as conflict:
                self._metrics.actions.labels(kind, "conflict").inc()
                raise SnapshotTooOld(str(conflict)) from conflict
            except (KubeError, PeerError):
                self._metrics.actions.labels(kind, "failed").inc()
                raise
            self._metrics.actions.labels(kind, "done").inc()
            for line in lines:
                line.write()
            self._after_action(number, action)

    def _check(self, action: planned.Action, run: _Run) -> None:
        if not self._may_write():
            raise SnapshotTooOld("this process does not lead any more")
        if run.seats_written and isinstance(action, planned.SetHsmStatus):
            # The seats of this very object were just written; its status is decided over the new version.
            raise SnapshotTooOld("seats were written; look again")

    # --- hosts

    async def _request_identity(self, action: planned.RequestIdentity, _: _Run) -> None:
        host = self._hosts.host(action.hsm, action.hsm_uid)
        if host is not None:
            host.ask(identity=True)

    async def _request_evidence(self, action: planned.RequestEvidence, _: _Run) -> None:
        self._hosts.cover(action.hsm, action.policies)
        host = self._hosts.host(action.hsm, action.hsm_uid)
        if host is not None:
            host.ask(identity=False)

    async def _cut(self, action: planned.CutHsm, _: _Run) -> None:
        host = self._hosts.host(action.hsm, action.hsm_uid)
        if host is not None:
            host.cut()

    async def _ensure_key(self, action: planned.EnsureKey, _: _Run) -> None:
        await self._gateway(action.hsm, action.hsm_uid).ensure_key(
            action.label, action.type, may_generate=action.may_generate
        )

    async def _destroy_key(self, action: planned.DestroyKey, _: _Run) -> None:
        await self._gateway(action.hsm, action.hsm_uid).destroy_key(action.label)

    def _gateway(self, name: str, uid: str) -> HostPort:
        host = self._hosts.host(name, uid)
        if host is None:
            raise SnapshotTooOld(f"Hsm {name} is gone")
        return host

    # --- seats

    async def _seat(
        self, action: planned.AllocateHsm | planned.ReleaseAllocation | planned.RetainKeys, run: _Run
    ) -> None:
        await self._hosts.committer(action.hsm, action.hsm_uid).submit(action)
        run.seats_written = True

    # --- own objects

    async def _set_hsm_status(self, action: planned.SetHsmStatus, run: _Run) -> None:
        key = ObjectKey("Hsm", "", action.hsm)
        wanted = {k: v for k, v in action.status.dump().items() if k not in SEATS}
        await self._write_status(key, action.hsm_uid, wanted, run, keep=SEATS, version=action.resource_version)

    async def _set_claim_status(self, action: planned.SetClaimStatus, run: _Run) -> None:
        await self._write_status(_key(action.claim), action.claim.uid, action.status.dump(), run)

    async def _set_policy_status(self, action: planned.SetPolicyStatus, run: _Run) -> None:
        await self._write_status(_key(action.policy), action.policy.uid, action.status.dump(), run)

    async def _write_status(
        self,
        key: ObjectKey,
        uid: str,
        wanted: JsonObject,
        run: _Run,
        *,
        keep: frozenset[str] = frozenset(),
        version: str | None = None,
    ) -> None:
        stored = self._base(key, uid, run)
        before = {k: v for k, v in (stored.body().get("status") or {}).items() if k not in keep}
        patch = merge_diff(before, wanted)
        if not patch:
            return
        if version is not None and version != str(stored.resource_version):
            raise SnapshotTooOld(f"{key} has changed since it was read")
        await self._patch(key, uid, {"status": patch}, run, "status")

    async def _add_finalizer(self, action: planned.AddFinalizer, run: _Run) -> None:
        key = _key(action.object)
        have = _finalizers(self._base(key, action.object.uid, run))
        if FINALIZER not in have:
            await self._patch(key, action.object.uid, {"metadata": {"finalizers": [*have, FINALIZER]}}, run, None)

    async def _remove_finalizer(self, action: planned.RemoveFinalizer, run: _Run) -> None:
        key = _key(action.object)
        stored = self._caches[key.kind].find(key.name, key.namespace)
        if stored is None or stored.uid != action.object.uid:
            return
        left = [name for name in _finalizers(self._base(key, action.object.uid, run)) if name != FINALIZER]
        try:
            await self._patch(key, action.object.uid, {"metadata": {"finalizers": left}}, run, None)
        except NotFound:
            self._caches[key.kind].vanished((key.namespace, key.name))

    def _base(self, key: ObjectKey, uid: str, run: _Run) -> Stored[Any]:
        """The cached object, if it is still the version that this plan rests on."""
        stored: Stored[Any] | None = self._caches[key.kind].find(key.name, key.namespace)
        if stored is None or stored.uid != uid:
            raise SnapshotTooOld(f"{key} is gone")
        if key in run.versions and run.versions[key] != stored.resource_version:
            raise SnapshotTooOld(f"{key} has changed since it was read")
        return stored

    async def _patch(self, key: ObjectKey, uid: str, patch: JsonObject, run: _Run, subresource: str | None) -> None:
        stored = self._base(key, uid, run)
        guard = {"uid": uid, "resourceVersion": str(stored.resource_version)}
        body = {**patch, "metadata": {**patch.get("metadata", {}), **guard}}
        cache, resource, namespace = self._caches[key.kind], OWN_KINDS[key.kind], key.namespace or None
        try:
            after = await self._kube.merge(
                resource,
                key.name,
                body,
                field_manager=MANAGERS[key.kind],
                namespace=namespace,
                subresource=subresource,
            )
        except Conflict:
            # The event may still be under way; looking again at the same picture would meet the same conflict.
            cache.took(await self._kube.get(resource, key.name, namespace))
            raise
        run.versions[key] = int(str(metadata_of(after).get("resourceVersion", "0")))
        cache.took(after)


def _key(ref: planned.ObjectRef) -> ObjectKey:
    return ObjectKey(ref.kind, ref.namespace or "", ref.name)


def _finalizers(stored: Stored[Any]) -> list[str]:
    return [str(name) for name in metadata_of(stored.body()).get("finalizers") or ()]
