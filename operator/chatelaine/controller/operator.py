"""The operator process: makes the parts, starts them, and ends when one of them fails by a fault of ours.

While this process leads, kopf watches our kinds and the queue works. Whether it leads or not, its other watches run,
hosts that it knows are asked, and gateways that follow it are kept fresh.
"""

from __future__ import annotations

import asyncio
import random
import secrets
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

import msgspec

from chatelaine.controller import health, probes
from chatelaine.controller.addresses import gateway_addresses
from chatelaine.controller.emitted import EmittedObjects
from chatelaine.controller.events import Recorder
from chatelaine.controller.executor import AfterAction, Executor
from chatelaine.controller.handlers import KopfWatch, quiet_kopf
from chatelaine.controller.hosts import Surroundings
from chatelaine.controller.join import JoinEndpoint
from chatelaine.controller.leadership import Leadership, Term
from chatelaine.controller.pki import ClusterPki, KubeInvitations
from chatelaine.controller.queue import WorkQueue
from chatelaine.controller.reactions import Reactions, claim_key, hsm_key, policy_key
from chatelaine.controller.reconciling import Reconciler
from chatelaine.controller.registry import HostRegistry
from chatelaine.controller.settings import OperatorSettings
from chatelaine.controller.snapshots import Snapshots
from chatelaine.controller.source import Views
from chatelaine.controller.world import World
from chatelaine.kube.adapter import KubeAdapter
from chatelaine.kube.errors import KubeError
from chatelaine.kube.port import JsonObject, ObjectKey
from chatelaine.model.policy import AttestationPolicy
from chatelaine.pki.errors import PkiError
from chatelaine.pki.files import write_whole
from chatelaine.reconcile.snapshot import OperatorPods
from chatelaine.telemetry.log import logger
from chatelaine.telemetry.metrics import OperatorMetrics
from chatelaine.wire.messages import ClusterKeys

KEYS_SECONDS: Final = 300.0
"""How often the cluster's token keys are read again."""
SWEEP_SECONDS: Final = 300.0
"""How often our kinds are compared with a list: kopf does not tell of what vanished while it was not watching."""
TRY_SECONDS: Final = 1.0

_log = logger(__name__)


class Operator:
    """One operator process."""

    def __init__(
        self, settings: OperatorSettings, kube: KubeAdapter, *, after_action: AfterAction = lambda _n, _a: None
    ) -> None:
        self._settings = settings
        self._kube = kube
        self._random = random.SystemRandom()
        self.metrics = OperatorMetrics()
        self._fault: asyncio.Future[BaseException] | None = None
        self._leading = asyncio.Event()
        self._resting = asyncio.Event()
        """The opposite of `_leading`."""
        state = settings.state_folder or Path(tempfile.mkdtemp(prefix="chatelaine-operator-"))
        self.reactions = Reactions(self.metrics, time.monotonic)
        self.world = World(kube, self.reactions, time.monotonic)
        self.pki = ClusterPki(
            kube, settings.namespace, state, settings.join_endpoint, leads=self.leads, changed=self._bundle_changed
        )
        self._emitted = EmittedObjects(self.world)
        self._leadership = self._candidate() if settings.leader_election else None
        around = Surroundings(
            hsm=lambda name: self.world.hsms.typed(name),
            policies=self._policies_of,
            accounted=self._accounted,
            addresses=lambda hsm: gateway_addresses(hsm, self.world.slices),
            observed=self.reactions.observed,
            context=self.pki.context,
            renew=self.pki.renew,
            clock=time.monotonic,
            wall=time.time,
            jitter=self._random.random,
            metrics=self.metrics,
        )
        self.hosts = HostRegistry(self.world, around, self._died)
        self.snapshots = Snapshots(
            self.world,
            self.hosts,
            self._emitted,
            operator=OperatorPods(settings.namespace, dict(settings.pod_labels)),
            bundle=lambda: self.pki.bundle_pem,
            wall=time.time,
        )
        self.views = Views(self.world, self.snapshots, lambda: self._leadership, time.time)
        self.hosts.bind(self.views)
        recorder = Recorder(kube, settings.identity, time.time)
        executor = Executor(
            self.world,
            self.hosts,
            recorder,
            self._emitted,
            self.metrics,
            may_write=self.leads,
            after_action=after_action,
        )
        self._reconciler = Reconciler(
            self.world,
            self.snapshots,
            executor,
            self._emitted,
            self.metrics,
            clock=time.monotonic,
            wall=time.time,
        )
        self.queue = WorkQueue(
            self._reconciler.work,
            failed=self._reconciler.failed,
            clock=time.monotonic,
            jitter=self._random.random,
            workers=settings.workers,
        )
        self._reconciler.queue = self.queue
        self.reactions.bind(self.queue, self.world, self.hosts, self.snapshots)
        self._kopf = KopfWatch(lambda: kube.configuration, self._delivered)
        self._join = JoinEndpoint(
            self.pki.authority,
            KubeInvitations(kube, settings.namespace),
            wall_clock=time.time,
            monotonic=time.monotonic,
            random_bytes=secrets.token_bytes,
        )
        self._probes = probes.Probes(*health.checks(self), self.metrics, lambda: health.refresh(self))

    # --- leading

    def leads(self) -> bool:
        """Do we lead now?"""
        return self._leadership.leads if self._leadership is not None else self._leading.is_set()

    @property
    def kopf_runs(self) -> bool:
        """Are our own kinds being watched?"""
        return self._kopf.runs

    @property
    def term(self) -> int:
        """Number of the time of leading that this process is, or was last, in."""
        return self.views.term()

    def _candidate(self) -> Leadership:
        settings = self._settings
        return Leadership(
            self._kube,
            settings.namespace,
            settings.lease_name,
            settings.identity,
            clock=time.monotonic,
            wall=time.time,
            jitter=self._random.random,
            gained=self._gained,
            lost=self._lost,
        )

    async def _gained(self, _: Term | None) -> None:
        for kind in self.world.kinds:
            kind.begin()
        self._kopf.start()
        self._resting.clear()
        self._leading.set()

    async def _lost(self) -> None:
        self._leading.clear()
        self._resting.set()
        await self._kopf.stop()
        self.queue.clear()

    def _delivered(self, kind: str, body: JsonObject, deleted: bool) -> None:
        """From kopf."""
        caches = {cache.resource.kind: cache for cache in self.world.kinds}
        if deleted:
            caches[kind].gone(body)
        else:
            caches[kind].took(body)

    # --- running

    async def run(self) -> None:
        """Run until cancelled.

        Raises:
            Exception: a fault of ours; the process should end and be started anew.
        """
        quiet_kopf()
        self._fault = asyncio.get_running_loop().create_future()
        try:
            async with asyncio.TaskGroup() as group:
                for watch in self.world.watches:
                    group.create_task(watch.run())
                group.create_task(self._look_after_pki())
                group.create_task(self._read_cluster_keys())
                group.create_task(self._sweep())
                group.create_task(self._work())
                group.create_task(self._resync())
                group.create_task(self._serve())
                group.create_task(self._until_fault())
                if self._leadership is not None:
                    group.create_task(self._leadership.run())
                else:
                    await self._gained(None)
        finally:
            await self._join.stop()
            await self._probes.stop()
            await self._kopf.stop()
            await self.hosts.close()

    async def _until_fault(self) -> None:
        assert self._fault is not None  # noqa: S101 - made by `run`
        raise await self._fault

    def _died(self, error: BaseException) -> None:
        if self._fault is not None and not self._fault.done():
            self._fault.set_result(error)

    async def _look_after_pki(self) -> None:
        await self._until(self.pki.look, "CA")
        await self.pki.run(asyncio.sleep)

    async def _until(self, step: Callable[[], Awaitable[None]], what: str) -> None:
        while True:
            try:
                await step()
            except (KubeError, PkiError) as error:
                _log.warning("not yet", what=what, error=str(error))
                await asyncio.sleep(TRY_SECONDS * (0.5 + self._random.random()))
            else:
                return

    async def _read_cluster_keys(self) -> None:
        while True:
            await self._until(self._read_keys, "keys of service-account tokens")
            await asyncio.sleep(KEYS_SECONDS)

    async def _read_keys(self) -> None:
        found = await self._kube.cluster_identity()
        keys = ClusterKeys(issuer=found.issuer, jwks=found.jwks)
        if keys != self.views.cluster_keys:
            self.views.cluster_keys = keys
            for host in self.hosts.all():
                host.link.refresh()

    async def _sweep(self) -> None:
        """Completeness of the picture, once after each gain of leadership, and again from time to time."""
        while True:
            await self._leading.wait()
            for kind in self.world.kinds:
                await self._until(lambda kind=kind: kind.sweep(self._kube), kind.resource.plural)  # type: ignore[misc]  # bound now
            try:
                async with asyncio.timeout(SWEEP_SECONDS):
                    await self._resting.wait()
            except TimeoutError:
                pass

    async def _work(self) -> None:
        """The queue runs once the picture is complete; nothing may be concluded from absence before."""
        while True:
            await self._leading.wait()
            async with asyncio.TaskGroup() as group:
                worker = group.create_task(self._work_when_complete())
                await self._resting.wait()
                worker.cancel()

    async def _work_when_complete(self) -> None:
        for kind in self.world.kinds:
            await kind.complete.wait()
        for watch in self.world.watches:
            await watch.synced.wait()
        self._everything()
        await self.queue.run()

    def _everything(self) -> None:
        for _, name in self.world.hsms.names:
            self.queue.add(hsm_key(name), fast=True)
        for _, name in self.world.policies.names:
            self.queue.add(policy_key(name))
        for key in self.world.claims.names:
            self.queue.add(claim_key(key))
        for host in self.hosts.all():
            host.link.refresh()

    async def _resync(self) -> None:
        while True:
            await asyncio.sleep(self._settings.resync_seconds * (0.8 + 0.4 * self._random.random()))
            if self.leads():
                for cache in self.world.kinds:
                    for namespace, name in cache.names:
                        spread = self._settings.resync_seconds / 4 * self._random.random()
                        self.queue.add_after(ObjectKey(cache.resource.kind, namespace, name), spread)

    async def _serve(self) -> None:
        """Probes at once; the join endpoint as soon as there is a leaf to show."""
        ports: dict[str, int] = {}
        settings = self._settings
        if settings.metrics_listen is not None:
            ports["metrics"] = await self._probes.start(*settings.metrics_listen)
        if settings.join_listen is not None:
            await self.pki.ready.wait()
            context = self.pki.leaf.server_context(client_certificates=False)
            ports["join"] = await self._join.start(context, *settings.join_listen)
        if settings.ready_file is not None:
            write_whole(settings.ready_file, msgspec.json.encode(ports))
        _log.info("listening", **ports)

    # --- what hosts ask

    def _policies_of(self, name: str) -> list[AttestationPolicy]:
        """The Hsm's own policy first, then those of claims that are, or want to be, bound there."""
        stored, host = self.world.hsms.find(name), self.hosts.named(name)
        if stored is None:
            return []
        names = [stored.index.policy, *sorted(host.extra_policies if host is not None else ())]
        for uid in stored.index.seats:
            key = self.world.claim_key(uid)
            claim = self.world.claims.find(key[1], key[0]) if key is not None else None
            if claim is not None and claim.index.policy is not None:
                names.append(claim.index.policy)
        found = (self.world.policies.typed(policy) for policy in dict.fromkeys(names))
        own = self.world.policies.typed(stored.index.policy)
        return [policy for policy in found if policy is not None] if own is not None else []

    def _accounted(self, name: str) -> frozenset[str]:
        view = self.snapshots.view(name)
        return view.accounted if view is not None else frozenset()

    def _bundle_changed(self) -> None:
        for key in self.world.claims.names:
            self.queue.add(claim_key(key))
