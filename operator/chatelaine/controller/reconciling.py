"""One examination of one key: picture, plan, actions."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from chatelaine.controller.committer import SeatRefused
from chatelaine.controller.emitted import EmittedObjects
from chatelaine.controller.executor import Executor, SnapshotTooOld
from chatelaine.controller.queue import WorkQueue
from chatelaine.controller.snapshots import Snapshots
from chatelaine.controller.world import World
from chatelaine.kube.errors import KubeError
from chatelaine.kube.port import ObjectKey
from chatelaine.model.conditions import is_true, seconds_of
from chatelaine.model.reasons import ConditionType
from chatelaine.reconcile import claim as claims
from chatelaine.reconcile import hsm as hsms
from chatelaine.reconcile import policy as policies
from chatelaine.reconcile.claim_snapshot import ClaimSnapshot
from chatelaine.reconcile.plan import AllocateHsm, DestroyKey, EnsureKey, Plan, SetClaimStatus
from chatelaine.telemetry.log import logger
from chatelaine.telemetry.metrics import OperatorMetrics
from chatelaine.wire.peer import PeerError

_log = logger(__name__)

Planned = tuple[Plan, Mapping[ObjectKey, int]]


class Reconciler:
    """The work of the queue."""

    def __init__(
        self,
        world: World,
        snapshots: Snapshots,
        executor: Executor,
        emitted: EmittedObjects,
        metrics: OperatorMetrics,
        *,
        clock: Callable[[], float],
        wall: Callable[[], float],
    ) -> None:
        self._world = world
        self._snapshots = snapshots
        self._executor = executor
        self._emitted = emitted
        self._metrics = metrics
        self._clock = clock
        self._wall = wall
        self.queue: WorkQueue[ObjectKey] | None = None

    async def work(self, key: ObjectKey) -> None:
        """Examine one key.

        Raises:
            Exception: whatever keeps the plan from being done; the queue comes back to it.
        """
        started = self._clock()
        planned = await self._plan(key)
        if planned is None:
            return
        plan, versions = planned
        try:
            await self._executor.run(plan, versions)
        except SnapshotTooOld as old:
            _log.debug("looking again", key=str(key), why=str(old))
            self._metrics.reconciles.labels(key.kind, "again").inc()
            self._again(key)
            return
        except SeatRefused as refused:
            _log.info("no seat", key=str(key), why=str(refused))
            self._metrics.reconciles.labels(key.kind, "again").inc()
            self._again(key)
            return
        self._metrics.reconciles.labels(key.kind, "done").inc()
        self._metrics.reconcile_seconds.labels(key.kind).observe(self._clock() - started)
        if any(isinstance(action, AllocateHsm | EnsureKey | DestroyKey) for action in plan.actions):
            # What came of these stands in memory or on another object; the next picture has it.
            self._again(key)
        if plan.wake_at is not None and self.queue is not None:
            self.queue.add_after(key, max(0.0, plan.wake_at - self._wall()))

    async def _plan(self, key: ObjectKey) -> Planned | None:
        if key.kind == "Hsm":
            return self._plan_hsm(key)
        if key.kind == "HsmClaim":
            return await self._plan_claim(key)
        snapshot = self._snapshots.policy(key.name)
        if snapshot is None:
            return None
        return policies.reconcile(snapshot), {key: _version(snapshot.policy.metadata.resource_version)}

    def _plan_hsm(self, key: ObjectKey) -> Planned | None:
        snapshot, view = self._snapshots.hsm(key.name), self._snapshots.view(key.name)
        if snapshot is None or view is None:
            return None
        return hsms.reconcile(snapshot), {key: _version(snapshot.hsm.metadata.resource_version)}

    async def _plan_claim(self, key: ObjectKey) -> Planned | None:
        snapshot = self._snapshots.claim(key.namespace, key.name)
        if snapshot is None:
            return None
        binding = snapshot.claim.spec.binding
        if binding is not None and (key.namespace, binding.secret_name) in self._emitted.taken:
            await self._emitted.look_at_taken(key.namespace, binding.secret_name)
            snapshot = self._snapshots.claim(key.namespace, key.name)
            if snapshot is None:
                return None
        plan = claims.reconcile(snapshot)
        self._measure(snapshot, plan)
        return plan, {key: _version(snapshot.claim.metadata.resource_version)}

    def _measure(self, snapshot: ClaimSnapshot, plan: Plan) -> None:
        created = snapshot.claim.metadata.creation_timestamp
        for action in plan.actions:
            if not isinstance(action, SetClaimStatus) or created is None:
                continue
            for type_, seconds in (
                (ConditionType.BOUND, self._metrics.bind_seconds),
                (ConditionType.READY, self._metrics.ready_seconds),
            ):
                was = is_true(snapshot.claim.status.conditions, type_.value)
                if not was and is_true(action.status.conditions, type_.value):
                    seconds.observe(max(0.0, self._wall() - seconds_of(created)))

    def _again(self, key: ObjectKey) -> None:
        if self.queue is not None:
            self.queue.add(key)

    def failed(self, key: ObjectKey, error: Exception, pause: float) -> None:
        """Told by the queue of a run that ended by an exception."""
        expected = isinstance(error, KubeError | PeerError)
        self._metrics.reconciles.labels(key.kind, "failed" if expected else "fault").inc()
        if expected:
            _log.warning(
                "tried again later", key=str(key), error=str(error), seconds=round(pause, 3), **self._about(key)
            )
        else:
            _log.exception("fault while examining", error, key=str(key), seconds=round(pause, 3), **self._about(key))

    def _about(self, key: ObjectKey) -> dict[str, str]:
        stored = self._world.claims.find(key.name, key.namespace) if key.kind == "HsmClaim" else None
        return {"claim_uid": stored.uid} if stored is not None else {}


def _version(text: str) -> int:
    return int(text) if text.isdigit() else 0
