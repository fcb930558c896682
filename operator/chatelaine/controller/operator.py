"""The operator process: runs its parts, and ends when one of them fails by a fault of ours.

While this process leads, kopf watches our kinds and the queue works. Whether it leads or not, its other watches run,
hosts that it knows are asked, and gateways that follow it are kept fresh.
"""

from __future__ import annotations

import asyncio
import functools
import random
from collections.abc import Awaitable, Callable
from typing import Any, Final

from chatelaine.controller.assembly import assemble
from chatelaine.controller.cache import KindCache
from chatelaine.controller.executor import AfterAction
from chatelaine.controller.handlers import quiet_kopf
from chatelaine.controller.reactions import claim_key, hsm_key, policy_key
from chatelaine.controller.settings import OperatorSettings
from chatelaine.kube.adapter import KubeAdapter
from chatelaine.kube.errors import KubeError
from chatelaine.kube.port import ObjectKey
from chatelaine.pki.errors import PkiError
from chatelaine.pki.files import tell_ready
from chatelaine.telemetry.log import logger
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
        parts = assemble(settings, kube, after_action)
        self._settings = settings
        self._kube = parts.kube
        self._lead = parts.lead
        self._pki = parts.pki
        self._views = parts.views
        self._echoes = parts.echoes
        self._join = parts.join
        self._probes = parts.probes
        self.keeper = parts.keeper
        self._random = random.SystemRandom()
        self._leading = asyncio.Event()
        self._resting = asyncio.Event()
        """The opposite of `_leading`."""
        self.metrics = parts.metrics
        self.world = parts.world
        self._book = parts.book
        self.hosts = parts.hosts
        self.snapshots = parts.snapshots
        self.queue = parts.queue
        self.kopf = parts.kopf

    # --- leading

    def leads(self) -> bool:
        """Do we lead now?"""
        return self._lead.leads

    @property
    def term(self) -> int:
        """Number of the time of leading that this process is, or was last, in."""
        return self._views.term()

    async def gained(self) -> None:
        """See `leadership.Duties`."""
        for kind in self.world.kinds:
            kind.begin()
        self._echoes.begin()
        self._pki.hasten()
        self.kopf.start()
        self._resting.clear()
        self._leading.set()

    async def lost(self) -> None:
        """See `leadership.Duties`."""
        self._leading.clear()
        self._resting.set()
        await self.kopf.stop()
        self.queue.clear()

    # --- running

    async def run(self) -> None:
        """Run until cancelled.

        Raises:
            Exception: a fault of ours; the process should end and be started anew.
        """
        quiet_kopf()
        try:
            async with asyncio.TaskGroup() as group:
                for watch in self.world.watches:
                    group.create_task(watch.run())
                group.create_task(self._book.run())
                group.create_task(self._look_after_pki())
                group.create_task(self._read_cluster_keys())
                group.create_task(self._sweep())
                group.create_task(self._work())
                group.create_task(self._resync())
                group.create_task(self._serve())
                group.create_task(self.keeper.run())
                group.create_task(self.hosts.fault())
                group.create_task(self._lead.run(self))
        finally:
            await self._join.stop()
            await self._probes.stop()
            await self.kopf.stop()
            await self.hosts.close()

    async def _look_after_pki(self) -> None:
        await self._until(self._pki.look, "CA")
        await self._pki.run()

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
        if keys != self._views.cluster_keys:
            self._views.cluster_keys = keys
            for host in self.hosts.all():
                host.link.refresh()

    async def _sweep(self) -> None:
        """Completeness of the picture, once after each gain of leadership, and again from time to time."""
        while True:
            await self._leading.wait()
            for kind in self.world.kinds:
                await self._until(functools.partial(self._sweep_one, kind), kind.resource.plural)
            try:
                async with asyncio.timeout(SWEEP_SECONDS):
                    await self._resting.wait()
            except TimeoutError:
                pass

    async def _sweep_one(self, kind: KindCache[Any, Any]) -> None:
        newest, at = await kind.sweep(self._kube)
        self._echoes.listed(kind.resource.kind, newest, at)

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
        await self._book.quiet.wait()
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
            await self._pki.ready.wait()
            context = self._pki.leaf.server_context(client_certificates=False)
            ports["join"] = await self._join.start(context, *settings.join_listen)
        tell_ready(settings.ready_file, **ports)
        _log.info("listening", **ports)
