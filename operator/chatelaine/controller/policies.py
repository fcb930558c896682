"""Policies in force: each together with what it leans on, looked up and verified.

A policy that names nothing is in force at once. One that names ConfigMaps or a file is in force as soon as these have
been looked up, well or ill; until then the version of it before stands, as it stood while the change was on its way.
ConfigMaps are read live and in the operator's own namespace only, files in its own folder. A failure of the API server
changes nothing of what was looked up: it is asked again. A policy of which nothing is known yet trusts nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

from chatelaine.controller.material import NOT_LOOKED_UP, Contents, Looked, Named, entries_of, look, named_by
from chatelaine.controller.reference_folder import NO_FILE, Mark, ReferenceFolder
from chatelaine.controller.world import World
from chatelaine.kube.errors import KubeError, NotFound
from chatelaine.kube.port import CONFIG_MAPS
from chatelaine.model.material import NO_MATERIAL, PolicyMaterial
from chatelaine.model.policy import AttestationPolicy, ReferenceValuesStatus
from chatelaine.reconcile.policy import used_of
from chatelaine.telemetry.log import logger

RETRY_SECONDS: Final = 2.0
PATIENCE: Final = 4
"""So often what could not be read is asked for before the rest goes on without it. Whoever takes over while the API
server stumbles must not judge by what it failed to read; what never can be read holds nobody up for long."""
FILES_SECONDS: Final = 2.0
"""How often files are looked at: nothing tells of a change in a mounted volume."""

_log = logger(__name__)


@dataclass(slots=True)
class _Entry:
    """One policy. `named` and `material`: of `policy`, which is the one in force. `revision` grows with each change.

    `newest`: of each series of reference values the newest that was used; its status may not say so yet.
    """

    policy: AttestationPolicy
    named: Named
    looked: Looked
    revision: int = 0
    mark: Mark = NO_FILE
    newest: Mapping[str, ReferenceValuesStatus] = field(default_factory=dict)


class PolicyBook:
    """All policies.

    Args:
        world: the caches.
        namespace: of the operator; ConfigMaps are read there and nowhere else.
        folder: of files of reference values.
    """

    def __init__(self, world: World, namespace: str, folder: ReferenceFolder) -> None:
        self._world = world
        self._namespace = namespace
        self._folder = folder
        self._entries: dict[str, _Entry] = {}
        self._due: dict[str, None] = {}
        self._wake = asyncio.Event()
        self._in_force: Callable[[str], None] = lambda _: None
        self.quiet = asyncio.Event()
        """Everything that is known to be named has been looked up at least once, or could not be for some time."""
        self.quiet.set()

    def bind(self, in_force: Callable[[str], None]) -> None:
        """Whom to tell, by name, that another policy, or another material, is in force."""
        self._in_force = in_force

    # --- what is in force

    def typed(self, name: str) -> AttestationPolicy | None:
        """The policy in force; None if there is no such policy."""
        entry = self._entries.get(name)
        return entry.policy if entry is not None else None

    def all(self) -> Iterator[tuple[str, AttestationPolicy]]:
        """By name."""
        for name, entry in tuple(self._entries.items()):
            yield name, entry.policy

    def revision(self, name: str) -> int:
        """Grows whenever another policy or another material is in force; -1 without one."""
        entry = self._entries.get(name)
        return entry.revision if entry is not None else -1

    def settled(self, name: str) -> bool:
        """Is the policy in force the newest one that is known, with all that it names looked up?"""
        entry, stored = self._entries.get(name), self._world.policies.find(name)
        if entry is None or stored is None or entry.looked.material is NOT_LOOKED_UP:
            return False
        return _version(entry.policy) == stored.resource_version

    def envelope(self, name: str) -> bytes | None:
        """The signed bytes behind the reference values in force."""
        entry = self._entries.get(name)
        return entry.looked.envelope if entry is not None else None

    # --- what changes

    def examine(self, name: str) -> bool:
        """The policy changed, or vanished. Tells whether that is in force now; else it is told of later."""
        policy, before = self._world.policies.typed(name), self._entries.get(name)
        if policy is None:
            self._entries.pop(name, None)
            self._due.pop(name, None)
            return True
        named = named_by(policy.spec)
        if before is not None and before.policy.metadata.uid != policy.metadata.uid:
            before = None
        if not named:
            self._put(name, policy, named, Looked(NO_MATERIAL, None), before)
            return True
        if before is not None and before.named == named and before.looked.material is not NOT_LOOKED_UP:
            self._put(name, policy, named, before.looked, before, mark=before.mark)
            if _passed_by(policy.status.reference_values, before.looked.material):
                self._look_up(name)
            return True
        if before is None:
            self._put(name, policy, named, Looked(NOT_LOOKED_UP, None), None)
        self._look_up(name)
        return False

    def config_map_changed(self, config_map: str) -> None:
        """A ConfigMap of the operator's namespace changed, appeared or vanished."""
        for stored in self._world.policies:
            policy = self._world.policies.typed(stored.name)
            if policy is not None and config_map in named_by(policy.spec).config_maps:
                self._look_up(stored.name)

    def _look_up(self, name: str) -> None:
        self._due[name] = None
        self.quiet.clear()
        self._wake.set()

    def _put(
        self, name: str, policy: AttestationPolicy, named: Named, looked: Looked, before: _Entry | None, *,
        mark: Mark = NO_FILE,
    ) -> None:  # fmt: skip
        known = before.newest if before is not None else {}
        newest = _with(_with(known, used_of(looked.material.reference)), policy.status.reference_values)
        revision = before.revision + 1 if before is not None else 0
        in_force = policy.with_material(looked.material)
        self._entries[name] = _Entry(in_force, named, looked, revision, mark, newest)

    # --- looking up

    async def run(self) -> None:
        """Look up what is due, until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._look_ups())
            group.create_task(self._files())

    async def _look_ups(self) -> None:
        failed: dict[str, int] = {}
        while True:
            attempts, failed = failed, {}
            while self._due:
                name = next(iter(self._due))
                # Before reading: what changes meanwhile is due again.
                del self._due[name]
                if not await self._attempt(name):
                    failed[name] = attempts.get(name, 0) + 1
            if all(count >= PATIENCE for count in failed.values()):
                self.quiet.set()
            self._wake.clear()
            try:
                async with asyncio.timeout(RETRY_SECONDS if failed else None):
                    await self._wake.wait()
            except TimeoutError:
                pass
            self._due.update(dict.fromkeys(failed))

    async def _attempt(self, name: str) -> bool:
        try:
            return await self._looked_up(name)
        except Exception as error:  # noqa: BLE001 - whatever one policy's material breaks, the others are looked after
            _log.exception("fault while looking up what a policy names", error, policy=name)
            policy = self._world.policies.typed(name)
            if policy is not None:
                said = (
                    f"what the policy names could not be handled ({type(error).__name__}); the operator's log says more"
                )
                self._take(name, named_by(policy.spec), Looked(PolicyMaterial(missing=(said,)), None), NO_FILE)
            return False

    async def _looked_up(self, name: str) -> bool:
        """One policy. False: a part could not be read now, and has to be asked for again."""
        policy = self._world.policies.typed(name)
        if policy is None:
            return True
        named = named_by(policy.spec)
        config_maps, complete = await self._read(named)
        before = self._entries.get(name)
        known = before is not None and before.named == named and before.policy.metadata.uid == policy.metadata.uid
        if not complete and known and before is not None and before.looked.material is not NOT_LOOKED_UP:
            return False
        mark, file = NO_FILE, b"" if named.file is None else ""
        if named.file is not None:
            mark, file = await asyncio.to_thread(self._folder.read, named.file)
        same = before is not None and before.policy.metadata.uid == policy.metadata.uid
        newest = _with(before.newest if before is not None and same else {}, policy.status.reference_values)
        used = newest.get(named.source.series) if named.source is not None else None
        # A bundle of sixteen megabytes is a second of work.
        found = await asyncio.to_thread(look, named, Contents(config_maps, file), used)
        self._take(name, named, found, mark)
        return complete

    async def _read(self, named: Named) -> tuple[Mapping[str, Mapping[str, bytes] | str], bool]:
        found: dict[str, Mapping[str, bytes] | str] = {}
        complete = True
        for name in sorted(named.config_maps):
            try:
                found[name] = entries_of(await self._world.kube.get(CONFIG_MAPS, name, self._namespace))
            except NotFound:
                found[name] = f"does not exist in namespace {self._namespace}"
            except KubeError as error:
                _log.warning("ConfigMap could not be read", name=name, error=str(error))
                found[name], complete = f"of namespace {self._namespace} cannot be read now", False
        return found, complete

    def _take(self, name: str, named: Named, found: Looked, mark: Mark) -> None:
        """Put it in force, unless the policy has come to name something else meanwhile (which then is due)."""
        policy, before = self._world.policies.typed(name), self._entries.get(name)
        if policy is None or named_by(policy.spec) != named:
            return
        if before is not None and before.policy.metadata.uid != policy.metadata.uid:
            before = None
        if before is not None and before.named == named and _same(before.looked.material, found.material):
            before.mark = mark
            if self.settled(name):
                return
            found = before.looked
        self._put(name, policy, named, found, before, mark=mark)
        material, version = found.material, found.material.reference.version if found.material.reference else None
        _log.info(
            "policy leans on",
            policy=name,
            certificates=len(material.endorsement_roots),
            version=version,
            missing=list(material.missing),
        )
        self._in_force(name)

    async def _files(self) -> None:
        while True:
            await asyncio.sleep(FILES_SECONDS)
            for name, entry in tuple(self._entries.items()):
                file = entry.named.file
                if file is not None and await asyncio.to_thread(self._folder.mark, file) != entry.mark:
                    self._look_up(name)


def _version(policy: AttestationPolicy) -> int:
    text = policy.metadata.resource_version
    return int(text) if text.isdigit() else 0


def _same(one: PolicyMaterial, other: PolicyMaterial) -> bool:
    """By digests: comparing lists of a hundred thousand files would cost."""
    return one.missing == other.missing and one.digests() == other.digests()


def _with(
    newest: Mapping[str, ReferenceValuesStatus], other: ReferenceValuesStatus | None
) -> Mapping[str, ReferenceValuesStatus]:
    """With `other`, unless a newer version of its series is known. Of one version, the content that was told of last
    counts: what the status says goes before what this process has seen.
    """
    known = newest.get(other.name) if other is not None else None
    if other is None or (known is not None and known.version > other.version):
        return newest
    return {**newest, other.name: other}


def _passed_by(used: ReferenceValuesStatus | None, material: PolicyMaterial) -> bool:
    """Does the status know of a newer version than the one in force, or of another content of it? Another process may
    have used that.
    """
    reference = material.reference
    if used is None or reference is None or used.name != reference.name:
        return False
    return used.version > reference.version or (used.version == reference.version and used.digest != reference.digest)
