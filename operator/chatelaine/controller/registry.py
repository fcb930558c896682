"""All hosts of this process: for each Hsm object a memory, a prober, a link to the gateway, a committer of seats."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from chatelaine.controller.attestation import Prober
from chatelaine.controller.committer import Committer
from chatelaine.controller.gateway_keys import GatewayKeys
from chatelaine.controller.gateways import GatewayLink, ViewSource
from chatelaine.controller.hosts import HostMemory, Surroundings
from chatelaine.controller.world import World
from chatelaine.model.hsm import Mode
from chatelaine.model.keys import KeyType


@dataclass(slots=True)
class Host:
    """One host under way (`executor.HostPort`)."""

    memory: HostMemory
    prober: Prober
    link: GatewayLink
    keys: GatewayKeys
    clock: Callable[[], float]
    tasks: list[asyncio.Task[None]] = field(default_factory=list)
    extra_policies: set[str] = field(default_factory=set)
    """Policies of claims that wait, whose PCRs quotes must cover besides the Hsm's own."""
    last_signature: object = None
    served: bool = False

    def ask(self, *, identity: bool) -> None:
        """See `HostPort`."""
        self.prober.ask(identity=identity)

    def cut(self) -> None:
        """See `HostPort`."""
        self.link.cut(self.clock())

    async def ensure_key(self, label: str, key_type: KeyType, *, may_generate: bool) -> None:
        """See `HostPort`."""
        await self.keys.ensure(label, key_type, may_generate=may_generate)

    async def destroy_key(self, label: str) -> None:
        """See `HostPort`."""
        await self.keys.destroy(label)


class HostRegistry:
    """Hosts by name of their Hsm. A new Hsm object of the same name is a new host.

    `bind` completes it, before the first host appears.
    """

    def __init__(self, world: World) -> None:
        self._world = world
        self._around: Surroundings
        self._source: ViewSource
        self._died = asyncio.Event()
        self._error: BaseException | None = None
        self._hosts: dict[str, Host] = {}
        self._committers: dict[tuple[str, str], Committer] = {}

    def bind(self, around: Surroundings, source: ViewSource) -> None:
        """Make known what hosts need of the operator, and what gateways may be told."""
        self._around, self._source = around, source

    def appeared(self, name: str, uid: str) -> None:
        """An Hsm object is there: begin to ask its host."""
        host = self._hosts.get(name)
        if host is not None and host.memory.uid == uid:
            return
        self.vanished(name)
        memory = HostMemory(name, uid, watching_since=self._around.wall())
        link = GatewayLink(memory, self._source, self._around)
        prober = Prober(memory, link, self._around)
        host = Host(memory, prober, link, GatewayKeys(memory, link, self._around), self._around.clock)
        self._hosts[name] = host
        for run in (prober.run, link.run):
            task = asyncio.get_running_loop().create_task(run())
            task.add_done_callback(self._ended)
            host.tasks.append(task)

    def vanished(self, name: str) -> None:
        """The Hsm object is gone: forget the host."""
        host = self._hosts.pop(name, None)
        if host is not None:
            for task in host.tasks:
                task.cancel()
            self._committers.pop((name, host.memory.uid), None)

    async def close(self) -> None:
        """End all tasks."""
        tasks = [task for host in self._hosts.values() for task in host.tasks]
        for name in tuple(self._hosts):
            self.vanished(name)
        await asyncio.gather(*tasks, return_exceptions=True)

    async def fault(self) -> None:
        """Wait until a task of a host ends by a fault of ours.

        Raises:
            BaseException: that fault.
        """
        await self._died.wait()
        if self._error is not None:
            raise self._error

    def all(self) -> tuple[Host, ...]:
        """Every host."""
        return tuple(self._hosts.values())

    def named(self, name: str) -> Host | None:
        """The host of the Hsm of that name."""
        return self._hosts.get(name)

    # --- what the executor asks

    def host(self, name: str, uid: str) -> Host | None:
        """See `executor.Hosts`."""
        found = self._hosts.get(name)
        return found if found is not None and found.memory.uid == uid else None

    def committer(self, name: str, uid: str) -> Committer:
        """See `executor.Hosts`."""
        key = (name, uid)
        if key not in self._committers:
            self._committers[key] = Committer(
                name,
                uid,
                self._world.kube,
                self._world.hsms,
                self._around.metrics,
                self._around.wall,
            )
        return self._committers[key]

    def cover(self, name: str, policies: tuple[str, ...]) -> None:
        """See `executor.Hosts`."""
        host = self._hosts.get(name)
        if host is not None:
            host.extra_policies.update(policies)

    # --- what snapshots ask

    def memory(self, name: str) -> HostMemory | None:
        """See `snapshots.Memories`."""
        host = self._hosts.get(name)
        return host.memory if host is not None else None

    def pending(self, name: str) -> Mapping[str, tuple[Mode, str]]:
        """See `snapshots.Memories`."""
        host = self._hosts.get(name)
        committer = self._committers.get((name, host.memory.uid)) if host is not None else None
        return committer.pending if committer is not None else {}

    def pending_in(self, namespace: str) -> Mapping[str, str]:
        """See `snapshots.Memories`."""
        return {
            uid: name
            for (name, _), committer in self._committers.items()
            for uid, (_, where) in committer.pending.items()
            if where == namespace
        }

    def _ended(self, task: asyncio.Task[None]) -> None:
        if task.cancelled():
            return
        error = task.exception()
        if error is not None:
            self._error = self._error or error
            self._died.set()
