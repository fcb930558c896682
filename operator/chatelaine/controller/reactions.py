"""What follows from a change: which keys are examined again, which views go out. Every rule of this kind is here."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from chatelaine.controller import summaries
from chatelaine.controller.cache import Key, Stored
from chatelaine.controller.hosts import HostMemory
from chatelaine.controller.policies import PolicyBook
from chatelaine.controller.queue import WorkQueue
from chatelaine.controller.registry import Host, HostRegistry
from chatelaine.controller.snapshots import Snapshots
from chatelaine.controller.world import ClaimIndex, HsmIndex, World
from chatelaine.kube.port import ObjectKey
from chatelaine.kube.watch import Changed
from chatelaine.model.keys import KeyState
from chatelaine.reconcile.judged import Standing
from chatelaine.telemetry.log import logger
from chatelaine.telemetry.metrics import OperatorMetrics

_log = logger(__name__)


Keep = Callable[[HostMemory, Standing], None]


def hsm_key(name: str) -> ObjectKey:
    """Key of an Hsm."""
    return ObjectKey("Hsm", "", name)


def claim_key(key: Key) -> ObjectKey:
    """Key of a claim."""
    return ObjectKey("HsmClaim", key[0], key[1])


def policy_key(name: str) -> ObjectKey:
    """Key of a policy."""
    return ObjectKey("AttestationPolicy", "", name)


class Reactions:
    """The listener of `World`, and of what hosts answer. `bind` completes it: the parts know each other."""

    def __init__(self, metrics: OperatorMetrics, clock: Callable[[], float]) -> None:
        self._metrics = metrics
        self._clock = clock
        self._queue: WorkQueue[ObjectKey]
        self._world: World
        self._book: PolicyBook
        self._hosts: HostRegistry
        self._snapshots: Snapshots
        self._keep: Keep

    def bind(
        self,
        queue: WorkQueue[ObjectKey],
        world: World,
        book: PolicyBook,
        hosts: HostRegistry,
        snapshots: Snapshots,
        keep: Keep = lambda _memory, _standing: None,
    ) -> None:
        """Make the parts known. `keep` is told of every judgement, and may store what it rests on."""
        self._queue, self._world, self._book, self._hosts, self._snapshots = queue, world, book, hosts, snapshots
        self._keep = keep
        book.bind(self.policy_in_force)

    # --- own kinds

    def hsm_changed(self, key: Key, before: Stored[HsmIndex] | None, after: Stored[HsmIndex] | None) -> None:
        """See `world.Listener`."""
        name = key[1]
        if after is None:
            self._hosts.vanished(name)
            self._queue.forget(hsm_key(name))
        else:
            self._hosts.appeared(name, after.uid)
            self._queue.add(hsm_key(name))
        for index in (before.index if before is not None else None, after.index if after is not None else None):
            if index is not None and (before is None or after is None or before.index.policy != after.index.policy):
                self._queue.add(policy_key(index.policy))
        old = set(before.index.seats) if before is not None else set()
        new = set(after.index.seats) if after is not None else set()
        self._claims(old ^ new)
        if after is None or (before is not None and before.uid != after.uid):
            self._claims(before.index.seats if before is not None else ())
        promised = [stored.index.adoptions if stored is not None else () for stored in (before, after)]
        if old - new or promised[0] != promised[1]:
            self._waiting()
        host = self._hosts.named(name)
        if host is not None:
            for uid in old ^ new:
                host.link.changed(uid)
            if after is not None and after.index.enrolled and (before is None or not before.index.enrolled):
                # Its gateway is believed after a quote of the identity that was enrolled, not before.
                host.ask(identity=False)
            self._look(host)

    def claim_changed(self, key: Key, before: Stored[ClaimIndex] | None, after: Stored[ClaimIndex] | None) -> None:
        """See `world.Listener`."""
        if after is None:
            self._queue.forget(claim_key(key))
        else:
            self._queue.add(claim_key(key))
            self._forget_made(key)
        for stored in (before, after):
            if stored is None:
                continue
            if stored.index.hsm is not None:
                self._touch_link(stored.index.hsm[0], stored.uid)
            if stored.index.policy is not None and (before is None or after is None):
                self._queue.add(policy_key(stored.index.policy))
        if after is None and before is not None:
            # Seats and keys that it left behind are for its Hsms to settle.
            self._hsms_of(before)

    def policy_changed(self, key: Key, _before: Stored[None] | None, _after: Stored[None] | None) -> None:
        """See `world.Listener`."""
        if self._book.examine(key[1]):
            self.policy_in_force(key[1])

    def policy_in_force(self, name: str) -> None:
        """A policy, or what it leans on, changed or vanished: everything under it is judged at once."""
        if self._book.typed(name) is not None:
            self._queue.add(policy_key(name))
        for stored in self._world.hsms:
            if stored.index.policy == name:
                host = self._hosts.named(stored.name)
                if host is not None:
                    # New PCRs may have to be quoted.
                    host.ask(identity=False)
                    self._look(host)
                self._queue.add(hsm_key(stored.name))
        for claim in self._world.claims:
            if claim.index.policy == name:
                self._queue.add(claim_key((claim.namespace, claim.name)))
                if claim.index.hsm is not None:
                    self._touch_link(claim.index.hsm[0], claim.uid)

    # --- other kinds

    def pod_changed(self, change: Changed[summaries.PodSummary]) -> None:
        """See `world.Listener`: views name the pods that live."""
        for key in self._world.claims_in(change.key[0]):
            stored = self._world.claims.find(key[1], key[0])
            if stored is not None and stored.index.has_clients and stored.index.hsm is not None:
                self._touch_link(stored.index.hsm[0], stored.uid)

    def namespace_changed(self, change: Changed[summaries.NamespaceSummary]) -> None:
        """See `world.Listener`: release rules look at labels, deletion must not hang."""
        for key in self._world.claims_in(change.key[1]):
            self._queue.add(claim_key(key))
            stored = self._world.claims.find(key[1], key[0])
            if stored is not None and stored.index.hsm is not None:
                self._touch_link(stored.index.hsm[0], stored.uid)

    def endpoints_changed(self, change: Changed[summaries.SliceSummary]) -> None:
        """See `world.Listener`: the gateway may answer elsewhere."""
        for name in self._world.hsms_at(change.key[0]):
            host = self._hosts.named(name)
            if host is not None:
                host.link.refresh()
                host.ask(identity=False)

    def network_policy_changed(self, change: Changed[summaries.PolicySummary]) -> None:
        """See `world.Listener`: drift of ours is repaired, foreign ones may let others in."""
        for kept in (change.before, change.after):
            if kept is None:
                continue
            if kept.summary.claim is not None:
                self._queue.add(claim_key(kept.summary.claim))
            elif kept.summary.hsm:
                self._queue.add(hsm_key(kept.summary.hsm))
            else:
                self._gateways_at(kept.namespace, with_claims=not kept.summary.ours)

    def secret_changed(self, change: Changed[summaries.SecretSummary]) -> None:
        """See `world.Listener`."""
        for kept in (change.before, change.after):
            if kept is not None and kept.summary.claim is not None:
                self._queue.add(claim_key(kept.summary.claim))

    def config_map_changed(self, change: Changed[str]) -> None:
        """See `world.Listener`: a policy may lean on it."""
        self._book.config_map_changed(change.key[1])

    # --- our own CA

    def bundle_changed(self) -> None:
        """Binding Secrets carry the CAs to trust."""
        for key in self._world.claims.names:
            self._queue.add(claim_key(key))

    # --- hosts

    def observed(self, name: str, since: float) -> None:
        """A host answered, or did not: judge at once, cut at once, and let the rest follow."""
        host = self._hosts.named(name)
        if host is not None:
            self._look(host, since)

    def _look(self, host: Host, since: float | None = None) -> None:
        name = host.memory.name
        view = self._snapshots.view(name)
        if view is None:
            return
        standing = view.standing
        self._keep(host.memory, standing)
        if standing.serves and standing.fresh and standing.valid_until is not None:
            self._snapshots.proven(name, standing.valid_until)
        if host.served and not standing.serves:
            # Before anything is written anywhere.
            host.link.cut(since if since is not None else self._clock())
            _log.warning("cut", hsm=name, reason=standing.reason.value, why=standing.message)
        else:
            host.link.refresh()
        signature = _signature(host, standing)
        before, host.last_signature = host.last_signature, signature
        stamped = standing.attestation == view.hsm.status.attestation
        if signature != before or not stamped:
            self._queue.add(hsm_key(name), fast=not standing.serves)
        if signature != before:
            # Also those without a seat there: who still has key versions there may wait with destroying them.
            self._standing_changed(host, standing, {*view.seats, *self._world.claims_on(view.uid)})
        host.served = standing.serves
        self._show(name, standing)

    def _standing_changed(self, host: Host, standing: Standing, claims: Iterable[str]) -> None:
        self._claims(claims, fast=not standing.serves)
        if standing.serves:
            for uid in claims:
                host.link.changed(uid)
        self._waiting()

    def _show(self, name: str, standing: Standing) -> None:
        for labels in [labels for labels in self._metrics.shown if labels[0] == name]:
            self._metrics.verdicts.remove(*labels)
            self._metrics.shown.discard(labels)
        labels = (name, standing.verdict.value, standing.reason.value)
        self._metrics.verdicts.labels(*labels).set(1)
        self._metrics.shown.add(labels)

    # --- helpers of the rules above

    def _claims(self, uids: Iterable[str], *, fast: bool = False) -> None:
        for uid in uids:
            key = self._world.claim_key(uid)
            if key is not None:
                self._queue.add(claim_key(key), fast=fast)

    def _waiting(self) -> None:
        """Claims without a place may find one now."""
        for key in self._world.unbound():
            self._queue.add(claim_key(key))

    def _hsms_of(self, claim: Stored[ClaimIndex]) -> None:
        uids = set(claim.index.bound)
        for stored in self._world.hsms:
            if stored.uid in uids or claim.uid in stored.index.seats:
                self._queue.add(hsm_key(stored.name))

    def _gateways_at(self, namespace: str, *, with_claims: bool) -> None:
        for name in self._world.hsms_at(namespace):
            self._queue.add(hsm_key(name))
            stored = self._world.hsms.find(name)
            if with_claims and stored is not None:
                self._claims(stored.index.seats)

    def _touch_link(self, hsm: str, claim_uid: str) -> None:
        host = self._hosts.named(hsm)
        if host is not None:
            host.link.changed(claim_uid)

    def _forget_made(self, key: Key) -> None:
        """A key whose version stands as Active in the status need not be remembered."""
        stored = self._world.claims.find(key[1], key[0])
        host = self._hosts.named(stored.index.hsm[0]) if stored is not None and stored.index.hsm is not None else None
        if stored is None or host is None or not host.memory.made_keys:
            return
        claim = self._world.claims.typed(key[1], key[0])
        for status in claim.status.keys if claim is not None else ():
            for version in status.versions:
                if version.state is not KeyState.PRE_ACTIVE:
                    host.memory.made_keys.pop(version.label(stored.uid, status.name), None)


def _signature(host: Host, standing: Standing) -> tuple[object, ...]:
    """What of a standing is news for others. Time and the number of the evidence are not."""
    observation = host.memory.observation
    reach = observation.reach
    return (
        standing.verdict,
        standing.reason,
        standing.serves,
        standing.fresh,
        standing.epoch,
        standing.message,
        tuple(standing.attestation.facts) if standing.attestation is not None else None,
        standing.stamps,
        (reach.status, reach.reason) if reach is not None else None,
        observation.presented,
        observation.activation_failed,
        host.memory.token_labels,
        host.memory.gateway_spkis,
    )
