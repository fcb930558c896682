"""Builds the frozen pictures that reconcilers look at, from cache and memory. No I/O.

One `HsmView` is kept for each Hsm and made anew only when something that it rests on changed: the object, its policy,
what was heard from the host, what its claims keep there, seats under way, or the passing of its deadline.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import msgspec

from chatelaine.controller.cache import Stored
from chatelaine.controller.emitted import EmittedObjects
from chatelaine.controller.hosts import HostMemory
from chatelaine.controller.policies import PolicyBook
from chatelaine.controller.world import ClaimIndex, World
from chatelaine.model.claim import HsmClaim
from chatelaine.model.hsm import Hsm, Mode
from chatelaine.model.identifiers import claim_prefix, digest_of, parse_key_label
from chatelaine.model.policy import AttestationPolicy
from chatelaine.model.verdict import Verdict
from chatelaine.reconcile.claim_snapshot import (
    BindingFacts,
    ClaimSnapshot,
    HsmView,
    NamespaceFacts,
    ObservedSecret,
    Presence,
)
from chatelaine.reconcile.network import deny_name, lets_in
from chatelaine.reconcile.served import proofs
from chatelaine.reconcile.snapshot import (
    BoundClaim,
    HsmSnapshot,
    ObservedPolicy,
    OperatorPods,
    PolicySnapshot,
)
from chatelaine.reconcile.standing import accounted_labels, judge


class Memories(Protocol):
    """What is known of hosts."""

    def memory(self, name: str) -> HostMemory | None:
        """Of one host; None if it is not asked yet."""
        ...

    def pending(self, name: str) -> Mapping[str, tuple[Mode, str]]:
        """Seats about to be written on that Hsm: claim uid to mode and namespace."""
        ...

    def pending_in(self, namespace: str) -> Mapping[str, str]:
        """Seats about to be written for claims of a namespace: claim uid to the name of the Hsm."""
        ...


@dataclass(frozen=True, slots=True)
class _Remembered:
    """A judgement, and the last picture made with it. `given`: seats as they are written."""

    inputs: tuple[Any, ...]
    until: float | None
    given: Mapping[str, Mode]
    pending: Mapping[str, Mode]
    view: HsmView


class Snapshots:
    """Makes pictures.

    Args:
        world: the caches.
        book: policies in force.
        memories: what is known of hosts.
        emitted: what is known of Secrets whose names are taken.
        operator: where the operator's own pods run; None outside a cluster.
        bundle: CAs to trust, PEM.
        wall: seconds since the epoch.
    """

    def __init__(
        self,
        world: World,
        book: PolicyBook,
        memories: Memories,
        emitted: EmittedObjects,
        *,
        operator: OperatorPods | None,
        bundle: Callable[[], str],
        wall: Callable[[], float],
    ) -> None:
        self._world = world
        self._book = book
        self._memories = memories
        self._emitted = emitted
        self._operator = operator
        self._bundle = bundle
        self._wall = wall
        self._views: dict[str, _Remembered] = {}

    # --- hsm

    def hsm(self, name: str) -> HsmSnapshot | None:
        """Everything about one Hsm; None if it is not there."""
        hsm = self._world.hsms.typed(name)
        if hsm is None:
            return None
        memory = self._memories.memory(name)
        return HsmSnapshot(
            now=self._wall(),
            hsm=hsm,
            policy=self._policy_of(hsm),
            host=memory.observation if memory is not None else None,
            watching_since=memory.watching_since if memory is not None else self._wall(),
            claims=self._claims_of(hsm, memory.token_labels if memory is not None else None),
            token_labels=memory.token_labels if memory is not None else None,
            operator=self._operator,
            network_policies=self._policies_of_gateway(hsm),
            gateway_shared=self._shared(hsm),
            readmission_asked_at=memory.readmission_asked_at(hsm, self._wall()) if memory is not None else self._wall(),
            claims_read=self._world.claims.complete.is_set(),
        )

    def view(self, name: str) -> HsmView | None:
        """An Hsm as claims and its gateway see it, judged now."""
        stored = self._world.hsms.find(name)
        if stored is None:
            self._views.pop(name, None)
            return None
        memory = self._memories.memory(name)
        inputs = (
            stored.uid,
            stored.resource_version,
            (stored.index.policy, self._book.revision(stored.index.policy), self._uid_of(stored.index.policy)),
            memory.observation if memory is not None else None,
            self._world.claims_version.get(stored.uid, 0),
            self._world.claims.complete.is_set(),
            memory is not None and bool(memory.gateway_spkis),
        )
        pending = {uid: mode for uid, (mode, _) in self._memories.pending(name).items()}
        kept, now = self._views.get(name), self._wall()
        if kept is None or not _same(kept.inputs, inputs) or (kept.until is not None and now >= kept.until):
            kept = self._judged(name, inputs, pending)
        elif kept.pending != pending:
            kept = replace(kept, pending=pending, view=_seated(kept.view, kept.given, pending))
        if kept is None:
            return None
        self._views[name] = kept
        return kept.view

    def proven(self, name: str, until: float) -> None:
        """Note in a host's observation how long its proof holds, also under its claims' own policies, and what is worth
        remembering of a trusted one, without judging anew.
        """
        memory, kept = self._memories.memory(name), self._views.get(name)
        if memory is None:
            return
        own = proofs(kept.view, self._own_policies(kept.view), self._wall()) if kept is not None else {}
        if (memory.observation.proven_until, memory.observation.own_policies_until) == (until, own):
            return
        trusted = kept is not None and kept.view.standing.verdict is Verdict.TRUSTED
        boot = memory.trusted_boot() if trusted else memory.observation.last_trusted
        memory.observation = replace(memory.observation, proven_until=until, own_policies_until=own, last_trusted=boot)
        if kept is not None:
            inputs = (*kept.inputs[:3], memory.observation, *kept.inputs[4:])
            self._views[name] = replace(kept, inputs=inputs, view=replace(kept.view, host=memory.observation))

    def _judged(self, name: str, inputs: tuple[Any, ...], pending: Mapping[str, Mode]) -> _Remembered | None:
        snapshot = self.hsm(name)
        if snapshot is None:
            return None
        standing = judge(snapshot)
        given = {seat.claim_uid: seat.mode for seat in snapshot.hsm.status.allocations}
        view = HsmView(
            hsm=snapshot.hsm,
            standing=standing,
            policy=snapshot.policy,
            host=snapshot.host,
            accounted=accounted_labels(snapshot),
            gateway_bound=bool(inputs[-1]),
        )
        return _Remembered(inputs, standing.valid_until, given, pending, _seated(view, given, pending))

    def _own_policies(self, view: HsmView) -> list[AttestationPolicy]:
        """Of the claims that have a seat there."""
        claims = (self._world.claim_stored(uid) for uid in view.seats)
        names = {claim.index.policy for claim in claims if claim is not None and claim.index.policy is not None}
        found = (self._book.typed(name) for name in sorted(names))
        return [policy for policy in found if policy is not None]

    def _policy_of(self, hsm: Hsm) -> AttestationPolicy | None:
        return self._book.typed(hsm.spec.attestation.policy_ref.name)

    def _uid_of(self, policy: str) -> str:
        """A policy that was made anew begins to count anew."""
        found = self._book.typed(policy)
        return found.metadata.uid if found is not None else ""

    def _claims_of(self, hsm: Hsm, labels: frozenset[str] | None) -> tuple[BoundClaim, ...]:
        found = dict(self._world.claims_on(hsm.metadata.uid))
        known = self._world.claims.complete.is_set()
        for seat in hsm.status.allocations:
            if seat.claim_uid in found:
                continue
            claim = self._world.claim_stored(seat.claim_uid)
            found[seat.claim_uid] = BoundClaim(
                uid=seat.claim_uid,
                namespace=seat.namespace,
                name=seat.name,
                exists=claim is not None or not known,
                mode=seat.mode,
                allocated_to=_allocated_to(claim),
                sequence=claim.index.sequence if claim is not None else None,
            )
        for uid in {key.claim_uid for key in map(parse_key_label, labels or ()) if key is not None} - found.keys():
            claim = self._world.claim_stored(uid)
            if claim is not None:
                found[uid] = BoundClaim(
                    uid=uid,
                    namespace=claim.namespace,
                    name=claim.name,
                    exists=True,
                    mode=claim.index.mode,
                    allocated_to=_allocated_to(claim),
                    sequence=claim.index.sequence,
                )
        return tuple(found[uid] for uid in sorted(found))

    def _policies_of_gateway(self, hsm: Hsm) -> dict[tuple[str, str], ObservedPolicy]:
        found = {
            (kept.namespace, kept.name): ObservedPolicy(kept.summary.digest, kept.summary.drifted)
            for kept in self._world.policies_of_hsm(hsm.metadata.name)
        }
        service = hsm.spec.gateway.service
        if service is not None:
            place = (service.namespace, deny_name(service))
            deny = self._world.network_policies.find(place[1], place[0])
            if deny is not None and deny.summary.ours:
                found[place] = ObservedPolicy(deny.summary.digest, deny.summary.drifted)
        return found

    def _shared(self, hsm: Hsm) -> bool:
        service = hsm.spec.gateway.service
        if service is None:
            return False
        name = deny_name(service)
        for other in self._world.hsms_at(service.namespace):
            typed = self._world.hsms.typed(other) if other != hsm.metadata.name else None
            theirs = typed.spec.gateway.service if typed is not None else None
            if theirs is not None and deny_name(theirs) == name:
                return True
        return False

    # --- claims

    def views(self) -> tuple[HsmView, ...]:
        """All Hsms."""
        found = (self.view(name) for _, name in self._world.hsms.names)
        return tuple(view for view in found if view is not None)

    def policies(self) -> dict[str, AttestationPolicy]:
        """All policies by name."""
        return dict(self._book.all())

    def namespace(self, name: str) -> NamespaceFacts:
        """Facts of a namespace."""
        kept = self._world.namespaces.find(name)
        if kept is None:
            return NamespaceFacts("", {})
        return NamespaceFacts(kept.uid, dict(kept.summary.labels), kept.summary.deleting)

    def claim(self, namespace: str, name: str) -> ClaimSnapshot | None:
        """Everything about one claim; None if it is not there."""
        claim = self._world.claims.typed(name, namespace)
        if claim is None:
            return None
        uid, views = claim.metadata.uid, self.views()
        near = [view for view in views if uid in view.seats]
        memory = self._memory_of(claim)
        makers = {version.made_by or uid for key in claim.status.keys for version in key.versions}
        prefixes = tuple(map(claim_prefix, {uid, *makers}))
        formers = {one.claim_uid for view in views for one in view.adoptions.get((namespace, name), ())}
        return ClaimSnapshot(
            now=self._wall(),
            claim=claim,
            namespace=self.namespace(namespace),
            hsms=views,
            policies=self.policies(),
            bound_in_namespace=self._world.census.others(namespace, uid, self._memories.pending_in(namespace)),
            made_keys=_with_prefix(memory.made_keys, prefixes) if memory is not None else {},
            key_faults=_with_prefix(memory.key_faults, prefixes) if memory is not None else {},
            secret=self._secret(claim),
            network_policies={
                (kept.namespace, kept.name): ObservedPolicy(kept.summary.digest, kept.summary.drifted)
                for kept in self._world.policies_of_claim(uid)
            },
            foreign_allows=self._foreign_allows(near),
            binding={view.name: facts for view in near if (facts := self._binding(view.hsm)) is not None},
            living=frozenset(former for former in formers if self._world.claim_key(former) is not None),
        )

    def _memory_of(self, claim: HsmClaim) -> HostMemory | None:
        allocation = claim.status.allocation
        memory = self._memories.memory(allocation.hsm.name) if allocation is not None else None
        return memory if memory is not None and allocation is not None and memory.uid == allocation.hsm.uid else None

    def _secret(self, claim: HsmClaim) -> ObservedSecret:
        wanted = claim.spec.binding.secret_name if claim.spec.binding is not None else None
        if wanted is None or not self._world.secrets.synced.is_set():
            return ObservedSecret(Presence.UNKNOWN)
        place = (claim.metadata.namespace or "", wanted)
        kept = self._world.secrets.find(wanted, place[0])
        if kept is not None:
            touched = self._emitted.written.get(place, kept.resource_version) != kept.resource_version
            digest = None if touched else kept.summary.digest
            return ObservedSecret(Presence.PRESENT, kept.summary.owner_uid or None, digest)
        if place in self._emitted.taken:
            return ObservedSecret(Presence.PRESENT, self._emitted.taken[place] or None)
        return ObservedSecret(Presence.ABSENT)

    def _foreign_allows(self, near: Sequence[HsmView]) -> tuple[str, ...]:
        found: list[str] = []
        for view in near:
            service = view.hsm.spec.gateway.service
            if service is None:
                continue
            pods = self._world.pod_labels(service.namespace, service.pod_selector)
            found += [
                f"{kept.namespace}/{kept.name}"
                for kept in self._world.foreign_policies(service.namespace)
                if lets_in(msgspec.json.decode(kept.summary.spec, type=dict[str, Any]), service, pods)
            ]
        return tuple(sorted(found))

    def _binding(self, hsm: Hsm) -> BindingFacts | None:
        memory, bundle = self._memories.memory(hsm.metadata.name), self._bundle()
        if memory is None or not memory.gateway_spkis or not bundle:
            return None
        service, external = hsm.spec.gateway.service, hsm.spec.gateway.external
        if service is not None:
            host, port = f"{service.name}.{service.namespace}.svc", service.pod_port
        elif external is not None:
            host, port = external.host, external.port
        else:
            return None
        return BindingFacts(host, port, bundle, tuple(digest_of(spki) for spki in memory.gateway_spkis))

    # --- policies

    def policy(self, name: str) -> PolicySnapshot | None:
        """One policy and who leans on it; None if it is not there, or what it names is still being looked up."""
        policy = self._book.typed(name)
        if policy is None or not self._book.settled(name):
            return None
        return PolicySnapshot(
            now=self._wall(),
            policy=policy,
            hsms=sum(1 for stored in self._world.hsms if stored.index.policy == name),
            claims=sum(1 for stored in self._world.claims if stored.index.policy == name),
        )


def _same(one: tuple[Any, ...], other: tuple[Any, ...]) -> bool:
    """Observations by identity: they are frozen, and comparing their evidence would cost."""
    return one[3] is other[3] and one[:3] == other[:3] and one[4:] == other[4:]


def _with_prefix(values: Mapping[str, Any], prefixes: tuple[str, ...]) -> dict[str, Any]:
    return {label: value for label, value in values.items() if label.startswith(prefixes)}


def _seated(view: HsmView, given: Mapping[str, Mode], pending: Mapping[str, Mode]) -> HsmView:
    """With seats that are written, and those about to be."""
    unconfirmed = frozenset(uid for uid in pending if uid not in given)
    return replace(view, seats={**pending, **given}, pending=unconfirmed)


def _allocated_to(claim: Stored[ClaimIndex] | None) -> str | None:
    return claim.index.hsm[1] if claim is not None and claim.index.hsm is not None else None
