"""The picture of the cluster: our kinds, and summaries of what else matters, with the look-ups that controllers need.

It only remembers and tells what changed (`Listener`); what to do about it is decided elsewhere.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol

from chatelaine.controller import summaries
from chatelaine.controller.cache import Key, KindCache, Stored
from chatelaine.controller.census import SeatCensus
from chatelaine.kube.port import (
    CLAIMS,
    CONFIG_MAPS,
    ENDPOINT_SLICES,
    HSMS,
    NAMESPACES,
    NETWORK_POLICIES,
    PODS,
    POLICIES,
    SECRETS,
    KubePort,
    Selection,
)
from chatelaine.kube.watch import Changed, Kept, Watch
from chatelaine.model.claim import ClientSpec, HsmClaim
from chatelaine.model.common import LabelSelector
from chatelaine.model.conditions import is_true
from chatelaine.model.hsm import Adoption, Hsm, Mode
from chatelaine.model.identifiers import LABEL_MANAGED_BY, MANAGED_BY
from chatelaine.model.keys import KeyState
from chatelaine.model.policy import AttestationPolicy
from chatelaine.model.reasons import ConditionType
from chatelaine.reconcile.snapshot import BoundClaim

NO_LABELS: Final[frozenset[str]] = frozenset()
FEW: Final = 10_000
RECENT: Final = 512
"""Typed objects that are kept: of the kinds of which there are few all, of claims those that changed last."""


@dataclass(frozen=True, slots=True)
class ClaimIndex:
    """What other objects look up of a claim. `waits`: it is not bound (any more) and takes the next place it finds.

    `bound`: as its Hsm sees it, by uid of each Hsm on which it has versions or its allocation. `hsm` is the name and
    uid in `status.allocation`, `sequence` its number.
    """

    uid: str
    hsm: tuple[str, str] | None
    sequence: int | None
    mode: Mode
    bound: Mapping[str, BoundClaim]
    policy: str | None
    has_clients: bool
    waits: bool


@dataclass(frozen=True, slots=True)
class HsmIndex:
    """What other objects look up of an Hsm. `gateway`: namespace and Service of its gateway.

    `seats`: uid of each claim with a seat, and its namespace; `enrolled`: has an identity; `adoptions`: as in the spec.
    """

    policy: str
    gateway: tuple[str, str] | None
    seats: Mapping[str, str]
    enrolled: bool
    adoptions: tuple[Adoption, ...] = ()


class Listener(Protocol):
    """Told synchronously of every change. `None` on one side: appeared, or vanished."""

    def hsm_changed(self, key: Key, before: Stored[HsmIndex] | None, after: Stored[HsmIndex] | None) -> None:
        """An Hsm."""
        ...

    def claim_changed(self, key: Key, before: Stored[ClaimIndex] | None, after: Stored[ClaimIndex] | None) -> None:
        """A claim."""
        ...

    def policy_changed(self, key: Key, before: Stored[None] | None, after: Stored[None] | None) -> None:
        """A policy."""
        ...

    def pod_changed(self, change: Changed[summaries.PodSummary]) -> None:
        """A pod."""
        ...

    def namespace_changed(self, change: Changed[summaries.NamespaceSummary]) -> None:
        """A namespace."""
        ...

    def endpoints_changed(self, change: Changed[summaries.SliceSummary]) -> None:
        """An EndpointSlice."""
        ...

    def network_policy_changed(self, change: Changed[summaries.PolicySummary]) -> None:
        """A NetworkPolicy, ours or not."""
        ...

    def secret_changed(self, change: Changed[summaries.SecretSummary]) -> None:
        """A Secret of ours."""
        ...

    def config_map_changed(self, change: Changed[str]) -> None:
        """A ConfigMap in the operator's own namespace."""
        ...


class World:
    """All caches of one operator process. `namespace`: the operator's own."""

    def __init__(self, kube: KubePort, listener: Listener, clock: Callable[[], float], namespace: str) -> None:
        self.kube = kube
        self._listener = listener
        self.hsms = KindCache(HSMS, Hsm, index_hsm, self._hsm_changed, parsed=FEW)
        self.claims = KindCache(CLAIMS, HsmClaim, index_claim, self._claim_changed, parsed=RECENT)
        self.policies = KindCache(POLICIES, AttestationPolicy, lambda _: None, listener.policy_changed, parsed=FEW)
        self.pods = Watch(kube, Selection(PODS), summaries.pod, self._pod_changed, clock=clock)
        self.namespaces = Watch(
            kube,
            Selection(NAMESPACES, metadata_only=True),
            summaries.namespace,
            listener.namespace_changed,
            clock=clock,
        )
        self.slices = Watch(
            kube, Selection(ENDPOINT_SLICES), summaries.endpoint_slice, listener.endpoints_changed, clock=clock
        )
        self.network_policies = Watch(
            kube, Selection(NETWORK_POLICIES), summaries.network_policy, self._network_policy_changed, clock=clock
        )
        self.secrets = Watch(
            kube,
            Selection(SECRETS, label_selector=f"{LABEL_MANAGED_BY}={MANAGED_BY}", metadata_only=True),
            summaries.secret,
            listener.secret_changed,
            clock=clock,
        )
        self.config_maps = Watch(
            kube,
            # Contents are read when a policy names them, and never those of another namespace.
            Selection(CONFIG_MAPS, namespace=namespace, metadata_only=True),
            summaries.version,
            listener.config_map_changed,
            clock=clock,
        )
        self._claims_by_uid: dict[str, Key] = {}
        self._claims_by_hsm: dict[str, dict[str, BoundClaim]] = {}
        self._unbound: set[Key] = set()
        self._claims_by_namespace: dict[str, set[Key]] = {}
        self._pods: dict[str, dict[str, dict[str, summaries.PodSummary]]] = {}
        """By namespace, service account and uid."""
        self._foreign: dict[str, set[str]] = {}
        """Names of other people's NetworkPolicies, by namespace."""
        self.census = SeatCensus(self._judging)
        self._policies_by_claim: dict[str, set[tuple[str, str]]] = {}
        self._policies_by_hsm: dict[str, set[tuple[str, str]]] = {}
        self._hsms_at: dict[str, set[str]] = {}
        """Names of Hsms by the namespace of their gateway's Service."""
        self.claims_version: dict[str, int] = {}
        """By uid of an Hsm: grows when something of its claims changes that a judgement over it rests on."""
        self._admissions: dict[str, int] = {}
        """By uid of an Hsm: the highest number of admissions that a claim has named."""

    @property
    def watches(self) -> tuple[Watch[Any], ...]:
        """Of other people's kinds. Their summaries differ; those who ask look at none of them."""
        return self.pods, self.namespaces, self.slices, self.network_policies, self.secrets, self.config_maps

    @property
    def kinds(
        self,
    ) -> tuple[KindCache[Hsm, HsmIndex], KindCache[AttestationPolicy, None], KindCache[HsmClaim, ClaimIndex]]:
        """Of our own kinds, Hsms first."""
        return self.hsms, self.policies, self.claims

    @property
    def complete(self) -> bool:
        """Have all lists been complete since we lead? Before that nothing follows from absence."""
        return all(kind.complete.is_set() for kind in self.kinds) and all(w.synced.is_set() for w in self.watches)

    # --- claims

    def claim_by_uid(self, uid: str) -> HsmClaim | None:
        """A claim by uid."""
        key = self._claims_by_uid.get(uid)
        return self.claims.typed(key[1], key[0]) if key is not None else None

    def claim_stored(self, uid: str) -> Stored[ClaimIndex] | None:
        """What is looked up of a claim, by uid."""
        key = self._claims_by_uid.get(uid)
        return self.claims.find(key[1], key[0]) if key is not None else None

    def claim_key(self, uid: str) -> Key | None:
        """Namespace and name of a claim."""
        return self._claims_by_uid.get(uid)

    def claims_on(self, hsm_uid: str) -> Mapping[str, BoundClaim]:
        """Claims with an allocation or key versions on that Hsm, by uid."""
        return self._claims_by_hsm.get(hsm_uid, {})

    def unbound(self) -> tuple[Key, ...]:
        """Claims without a place."""
        return tuple(self._unbound)

    def claims_in(self, namespace: str) -> tuple[Key, ...]:
        """Claims of a namespace."""
        return tuple(self._claims_by_namespace.get(namespace, ()))

    def live_pods(self, namespace: str, client: ClientSpec) -> tuple[str, ...]:
        """Uids of the pods of a client that exist and are not being deleted, sorted."""
        pods = self._pods.get(namespace, {}).get(client.service_account, {})
        return tuple(
            sorted(
                uid for uid, pod in pods.items() if not pod.deleting and client.pod_selector.matches(dict(pod.labels))
            )
        )

    def pod_labels(self, namespace: str, selector: LabelSelector) -> list[dict[str, str]]:
        """Distinct labels of the pods that a selector finds."""
        found = {
            pod.labels
            for pods in self._pods.get(namespace, {}).values()
            for pod in pods.values()
            if selector.matches(dict(pod.labels))
        }
        return [dict(labels) for labels in sorted(found)]

    def foreign_policies(self, namespace: str) -> Iterable[Kept[summaries.PolicySummary]]:
        """Other people's NetworkPolicies of a namespace."""
        for name in sorted(self._foreign.get(namespace, ())):
            kept = self.network_policies.find(name, namespace)
            if kept is not None:
                yield kept

    def policies_of_claim(self, uid: str) -> Iterable[Kept[summaries.PolicySummary]]:
        """NetworkPolicies of ours that are labelled with a claim's uid."""
        for namespace, name in self._policies_by_claim.get(uid, ()):
            kept = self.network_policies.find(name, namespace)
            if kept is not None:
                yield kept

    def policies_of_hsm(self, name: str) -> Iterable[Kept[summaries.PolicySummary]]:
        """NetworkPolicies of ours that are labelled with an Hsm's name."""
        for namespace, policy in self._policies_by_hsm.get(name, ()):
            kept = self.network_policies.find(policy, namespace)
            if kept is not None:
                yield kept

    def hsms_at(self, namespace: str) -> tuple[str, ...]:
        """Names of the Hsms whose gateways stand in a namespace."""
        return tuple(self._hsms_at.get(namespace, ()))

    # --- keeping the look-ups

    def _hsm_changed(self, key: Key, before: Stored[HsmIndex] | None, after: Stored[HsmIndex] | None) -> None:
        new = after.index.seats if after is not None else {}
        self.census.moved(key[1], before.index.seats if before is not None else {}, new)
        if before is None or after is None or before.index.policy != after.index.policy:
            self.census.rejudged((namespace, uid) for uid, namespace in new.items())
        if before is not None and before.index.gateway is not None:
            self._hsms_at.get(before.index.gateway[0], set()).discard(key[1])
        if after is not None and after.index.gateway is not None:
            self._hsms_at.setdefault(after.index.gateway[0], set()).add(key[1])
        self._listener.hsm_changed(key, before, after)

    def _claim_changed(self, key: Key, before: Stored[ClaimIndex] | None, after: Stored[ClaimIndex] | None) -> None:
        if before is not None and (after is None or after.uid != before.uid):
            self._claims_by_uid.pop(before.uid, None)
        old = before.index.bound if before is not None else {}
        new = after.index.bound if after is not None else {}
        for hsm_uid in old.keys() | new.keys():
            if (
                before is not None
                and hsm_uid in old
                and (hsm_uid not in new or after is None or after.uid != before.uid)
            ):
                self._claims_by_hsm.get(hsm_uid, {}).pop(before.uid, None)
            if after is not None and hsm_uid in new:
                self._claims_by_hsm.setdefault(hsm_uid, {})[after.uid] = new[hsm_uid]
            self._judge_anew(hsm_uid, old.get(hsm_uid), new.get(hsm_uid))
        here = self._claims_by_namespace.setdefault(key[0], set())
        if after is None:
            here.discard(key)
            self._unbound.discard(key)
        else:
            here.add(key)
            self._claims_by_uid[after.uid] = key
            (self._unbound.add if after.index.waits else self._unbound.discard)(key)
        for stored, other in ((before, after), (after, before)):
            if stored is not None and (other is None or other.uid != stored.uid):
                self._came_or_went(key[0], stored.uid)
        if before is not None and after is not None and before.index.policy != after.index.policy:
            self.census.rejudged([(key[0], after.uid)])
        self._listener.claim_changed(key, before, after)

    def _judge_anew(self, hsm_uid: str, old: BoundClaim | None, new: BoundClaim | None) -> None:
        """Labels are weighed against the token's inventory; the number of admissions never falls."""
        admissions = new.allocation_generation if new is not None else 0
        more = admissions > self._admissions.get(hsm_uid, 0)
        if more:
            self._admissions[hsm_uid] = admissions
        if more or (old.key_labels if old is not None else NO_LABELS) != (new.key_labels if new else NO_LABELS):
            self.claims_version[hsm_uid] = self.claims_version.get(hsm_uid, 0) + 1

    def _came_or_went(self, namespace: str, uid: str) -> None:
        """A seat stands for a claim that is there, or has to be settled; and the claim may name a policy."""
        for hsm in self.hsms:
            if uid in hsm.index.seats:
                self.claims_version[hsm.uid] = self.claims_version.get(hsm.uid, 0) + 1
        self.census.rejudged([(namespace, uid)])

    def _judging(self, claim_uid: str, hsm_name: str) -> frozenset[str]:
        hsm, claim = self.hsms.find(hsm_name), self.claim_stored(claim_uid)
        names = (hsm.index.policy if hsm is not None else None, claim.index.policy if claim is not None else None)
        return frozenset(name for name in names if name is not None)

    def _pod_changed(self, change: Changed[summaries.PodSummary]) -> None:
        for kept, there in ((change.before, False), (change.after, True)):
            if kept is None:
                continue
            pods = self._pods.setdefault(kept.namespace, {}).setdefault(kept.summary.service_account, {})
            if there:
                pods[kept.uid] = kept.summary
            else:
                pods.pop(kept.uid, None)
        self._listener.pod_changed(change)

    def _network_policy_changed(self, change: Changed[summaries.PolicySummary]) -> None:
        if change.before is not None:
            self._policies_by_claim.get(change.before.summary.claim_uid, set()).discard(change.key)
            self._policies_by_hsm.get(change.before.summary.hsm, set()).discard(change.key)
        if change.after is not None and change.after.summary.claim_uid:
            self._policies_by_claim.setdefault(change.after.summary.claim_uid, set()).add(change.key)
        if change.after is not None and change.after.summary.hsm:
            self._policies_by_hsm.setdefault(change.after.summary.hsm, set()).add(change.key)
        foreign = self._foreign.setdefault(change.key[0], set())
        if change.after is not None and not change.after.summary.ours:
            foreign.add(change.key[1])
        else:
            foreign.discard(change.key[1])
        self._listener.network_policy_changed(change)


def index_hsm(hsm: Hsm) -> HsmIndex:
    """What is looked up of an Hsm."""
    service = hsm.spec.gateway.service
    return HsmIndex(
        hsm.spec.attestation.policy_ref.name,
        (service.namespace, service.name) if service is not None else None,
        {seat.claim_uid: seat.namespace for seat in hsm.status.allocations},
        hsm.status.identity is not None,
        tuple(hsm.spec.adoptions or ()),
    )


def index_claim(claim: HsmClaim) -> ClaimIndex:
    """What is looked up of a claim."""
    meta, allocation = claim.metadata, claim.status.allocation
    labels: dict[str, set[str]] = {allocation.hsm.uid: set()} if allocation is not None else {}
    for key in claim.status.keys:
        for version in key.versions:
            if version.state is not KeyState.DESTROYED:
                labels.setdefault(version.hsm.uid, set()).add(version.label(meta.uid, key.name))
    bound = {
        hsm_uid: BoundClaim(
            uid=meta.uid,
            namespace=meta.namespace or "",
            name=meta.name,
            exists=True,
            mode=claim.spec.mode or Mode.SHARED,
            key_labels=frozenset(found),
            allocated_to=allocation.hsm.uid if allocation is not None else None,
            sequence=allocation.sequence if allocation is not None else None,
            allocation_generation=allocation.epoch.generation if allocation is not None else 0,
        )
        for hsm_uid, found in labels.items()
    }
    return ClaimIndex(
        uid=meta.uid,
        hsm=(allocation.hsm.name, allocation.hsm.uid) if allocation is not None else None,
        sequence=allocation.sequence if allocation is not None else None,
        mode=claim.spec.mode or Mode.SHARED,
        bound=bound,
        policy=claim.spec.policy_ref.name if claim.spec.policy_ref is not None else None,
        has_clients=bool(claim.spec.clients),
        waits=not is_true(claim.status.conditions, ConditionType.BOUND.value),
    )
