"""An in-memory world: objects, hosts, and an executor that does what each action of a plan promises.

It is the reference for the real executor: guards, idempotence and order are the same. Every write is checked against
the rules that must hold whatever happens; breaking one raises `Broken`, so no test can overlook it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

from chatelaine.appraisal.appraise import selection_of
from chatelaine.appraisal.explain import Boot
from chatelaine.appraisal.ima_history import ImaFindings
from chatelaine.model.claim import HsmClaim, HsmClaimStatus
from chatelaine.model.common import ObjectMeta
from chatelaine.model.hsm import Hsm, Mode
from chatelaine.model.identifiers import ANNOTATION_READMIT
from chatelaine.model.keys import KeyState
from chatelaine.model.policy import AttestationPolicy
from chatelaine.model.reasons import Reason
from chatelaine.model.verdict import Outcome, Verdict
from chatelaine.reconcile import claim as claims_room
from chatelaine.reconcile import hsm as hsms_room
from chatelaine.reconcile import plan as p
from chatelaine.reconcile import policy as policies_room
from chatelaine.reconcile.claim_snapshot import (
    BindingFacts,
    ClaimSnapshot,
    HsmView,
    KeyFault,
    KeyMadeFacts,
    NamespaceFacts,
    ObservedSecret,
    Presence,
)
from chatelaine.reconcile.network import gateway_policies
from chatelaine.reconcile.served import ClaimStanding, proofs, served
from chatelaine.reconcile.snapshot import (
    NOTHING_READ,
    AuthenticatedRefusal,
    BoundClaim,
    EvidenceRound,
    HostObservation,
    HsmSnapshot,
    ObservedPolicy,
    OperatorPods,
    PolicySnapshot,
    Reach,
    TrustedBoot,
)
from chatelaine.reconcile.standing import accounted_labels, judge
from support.world_hosts import WorldHost
from support.world_rules import Broken, Refused, check, check_settled
from support.world_writes import WRITES

START = 1_800_000_000.0


class Killed(Exception):
    """The operator died at this place."""


class World:
    """Objects by name, hosts by name of their Hsm, and the memory of one operator process."""

    def __init__(self) -> None:
        self.now = START
        self.version = 0
        self.writes = 0
        self.hsms: dict[str, Hsm] = {}
        self.claims: dict[tuple[str, str], HsmClaim] = {}
        self.policies: dict[str, AttestationPolicy] = {}
        self.namespaces: dict[str, NamespaceFacts] = {}
        self.network: dict[tuple[str, str], p.ApplyNetworkPolicy] = {}
        self.secrets: dict[tuple[str, str], tuple[str, str]] = {}
        self.events: list[p.EmitEvent] = []
        self.cuts: list[p.CutHsm] = []
        self.hosts: dict[str, WorldHost] = {}
        self.operator = OperatorPods("chatelaine-system", {"app": "chatelaine-operator"})
        self.foreign: tuple[str, ...] = ()
        self.key_faults: dict[str, KeyFault] = {}
        self.unbound_gateways: set[str] = set()
        """Hsms for whose gateway no quote of the enrolled host has vouched yet."""
        self.before_write: Callable[[p.Action], None] = lambda action: None
        self._forget()

    # --- the operator's memory --------------------------------------------------------------------------------

    def _forget(self) -> None:
        self.memory: dict[str, HostObservation] = {}
        self.inventories: dict[str, frozenset[str]] = {}
        self.made: dict[str, KeyMadeFacts] = {}
        self.asked: dict[str, tuple[str, float]] = {}
        self.watching_since = self.now

    def restart(self) -> None:
        """The operator dies and starts again: objects and hosts stay."""
        self._forget()

    def touch(self, hsm: str, *, identity: bool = False, policies: Iterable[str] = ()) -> None:
        """One exchange with the host: evidence, and with `identity` a proof of who it is first."""
        item, host = self.hsms[hsm], self.hosts[hsm]
        uid = item.metadata.uid
        seen = self.memory.get(uid, HostObservation())
        if not host.reachable:
            self.memory[uid] = replace(seen, reach=Reach(Outcome.REFUTED, Reason.UNREACHABLE, "no answer", self.now))
            return
        self.inventories[uid] = frozenset(host.labels)
        presented = host.presents() if identity else None
        enrolled = item.status.identity
        known = enrolled is not None and enrolled.ak_name == host.ak_name.hex()
        reach = Reach(Outcome.HOLDS, Reason.ANSWERS, "", self.now)
        last = seen.last_round
        if known or presented is not None:
            last = self._round(item, host, presented, policies)
        else:
            reach = Reach(Outcome.REFUTED, Reason.NOT_AUTHENTICATED, "another attestation key", self.now)
        self.memory[uid] = replace(
            seen,
            presented=presented or seen.presented,
            last_round=last,
            admission=last if presented is not None else seen.admission,
            reach=reach,
        )

    def _round(self, item: Hsm, host: WorldHost, presented: Any, extra: Iterable[str]) -> EvidenceRound | None:
        names = set(extra)
        for claim in self.claims.values():
            seat = claim.status.allocation
            if seat is not None and seat.hsm.uid == item.metadata.uid and claim.spec.policy_ref is not None:
                names.add(claim.spec.policy_ref.name)
        own = item.spec.attestation.policy_ref.name
        if own not in self.policies:
            return None
        named = [own, *sorted(names - {own})]
        selection = selection_of([self.policies[name].spec for name in named if name in self.policies])
        if selection is None:
            return None
        evidence = host.evidence(selection)
        accounted = accounted_labels(self.hsm_snapshot(item.metadata.name))
        keys = host.presents().keys
        ima = NOTHING_READ
        if host.what_ran is not None:
            digests = [policy.digest() for policy in self.policies.values()]
            ima = ImaFindings(dict.fromkeys(digests, host.what_ran), frozenset(digests if host.ran_since else ()))
        return EvidenceRound(evidence, evidence.evidence_digest, self.now, keys, presented, accounted, ima=ima)

    # --- snapshots --------------------------------------------------------------------------------------------

    def hsm_snapshot(self, name: str) -> HsmSnapshot:
        """As the controller would make it."""
        item = self.hsms[name]
        uid = item.metadata.uid
        labels = self.inventories.get(uid)
        key = (item.spec.gateway.service.namespace, item.spec.gateway.service.name) if item.spec.gateway.service else ()
        shared = any(
            other.metadata.uid != uid
            and other.spec.gateway.service
            and (other.spec.gateway.service.namespace, other.spec.gateway.service.name) == key
            for other in self.hsms.values()
        )
        ours = {rendered.key for rendered in gateway_policies(item, self.operator)}
        return HsmSnapshot(
            now=self.now,
            hsm=item,
            policy=self.policies.get(item.spec.attestation.policy_ref.name),
            host=self.memory.get(uid),
            watching_since=self.watching_since,
            claims=tuple(self._bound(item, labels)),
            token_labels=labels,
            operator=self.operator,
            network_policies={k: ObservedPolicy(v.digest) for k, v in self.network.items() if k in ours},
            gateway_shared=shared,
            readmission_asked_at=self._asked_at(item),
        )

    def _asked_at(self, item: Hsm) -> float:
        value = item.metadata.annotations.get(ANNOTATION_READMIT, "")
        seen, at = self.asked.get(item.metadata.uid, ("", 0.0))
        if seen != value:
            at = self.now
            self.asked[item.metadata.uid] = (value, at)
        return at

    def _bound(self, item: Hsm, labels: frozenset[str] | None) -> Iterable[BoundClaim]:
        uid = item.metadata.uid
        seats = {seat.claim_uid: seat for seat in item.status.allocations}
        in_token = {label.split("/")[1] for label in labels or () if label.startswith("chat/")}
        for claim in self.claims.values():
            meta = claim.metadata
            keyed = frozenset(
                version.label(meta.uid, key.name)
                for key in claim.status.keys
                for version in key.versions
                if version.hsm.uid == uid and version.state is not KeyState.DESTROYED
            )
            if keyed or meta.uid in seats or meta.uid in in_token:
                said = claim.status.allocation
                yield BoundClaim(
                    meta.uid, meta.namespace or "", meta.name, True, claim.spec.mode or Mode.SHARED, keyed,
                    said.hsm.uid if said else None, said.sequence if said else None,
                    said.epoch.generation if said else 0,
                )  # fmt: skip
        alive = {claim.metadata.uid for claim in self.claims.values()}
        for seat in seats.values():
            if seat.claim_uid not in alive:
                yield BoundClaim(seat.claim_uid, seat.namespace, seat.name, False, seat.mode)

    def view(self, name: str) -> HsmView:
        """As claims see it; a Trusted judgement is remembered, as the controller does."""
        snapshot = self.hsm_snapshot(name)
        standing = judge(snapshot)
        uid = snapshot.hsm.metadata.uid
        if standing.verdict is Verdict.TRUSTED and standing.fresh:
            self.memory[uid] = replace(
                self.memory[uid], proven_until=standing.valid_until, last_trusted=self._boot(snapshot)
            )
        view = HsmView(
            snapshot.hsm, standing, snapshot.policy, snapshot.host, accounted_labels(snapshot),
            {seat.claim_uid: seat.mode for seat in snapshot.hsm.status.allocations},
            gateway_bound=name not in self.unbound_gateways,
        )  # fmt: skip
        if standing.serves and standing.fresh:
            found = proofs(view, self.policies.values(), self.now)
            self.memory[uid] = replace(self.memory[uid], own_policies_until=found)
        return replace(view, host=self.memory.get(uid))

    def _boot(self, snapshot: HsmSnapshot) -> TrustedBoot | None:
        round_ = snapshot.host.round_of(snapshot.hsm.status.identity) if snapshot.host is not None else None
        if round_ is None or isinstance(round_.evidence, AuthenticatedRefusal):
            return None
        return TrustedBoot(round_.keys, Boot.of(round_.evidence.quote, None))

    def claim_snapshot(self, namespace: str, name: str) -> ClaimSnapshot:
        """As the controller would make it."""
        claim = self.claims[namespace, name]
        uid = claim.metadata.uid
        bound: dict[str, int] = {}
        for item in self.hsms.values():
            policy = item.spec.attestation.policy_ref.name
            others = sum(s.namespace == namespace and s.claim_uid != uid for s in item.status.allocations)
            bound[policy] = bound.get(policy, 0) + others
        wanted = claim.spec.binding.secret_name if claim.spec.binding else None
        held = self.secrets.get((namespace, wanted)) if wanted else None
        secret = ObservedSecret(Presence.PRESENT, *held) if held else ObservedSecret(Presence.ABSENT)
        return ClaimSnapshot(
            now=self.now,
            claim=claim,
            namespace=self.namespaces[namespace],
            hsms=tuple(self.view(item) for item in sorted(self.hsms)),
            policies=dict(self.policies),
            bound_in_namespace=bound,
            made_keys=dict(self.made),
            key_faults=dict(self.key_faults),
            secret=secret,
            network_policies={
                k: ObservedPolicy(v.digest)
                for k, v in self.network.items()
                if v.manifest["metadata"]["labels"].get("chatelaine.dev/claim-uid") == uid
            },
            foreign_allows=self.foreign,
            living=frozenset(other.metadata.uid for other in self.claims.values() if other.metadata.uid != uid),
            binding={item: BindingFacts(f"{item}.svc", 8443, "ca", ("sha256:" + "0" * 64,)) for item in self.hsms},
        )

    def served(self, namespace: str, name: str) -> ClaimStanding:
        """What the gateway's view is made from; REFUTED without an allocation."""
        claim = self.claims[namespace, name]
        said = claim.status.allocation
        for item in sorted(self.hsms):
            view = self.view(item)
            if said is not None and view.uid == said.hsm.uid:
                return served(claim, self.namespaces[namespace], view, self.policies, self.now)
        return ClaimStanding(Outcome.REFUTED, Reason.NO_SUITABLE_HSM, "not bound")

    # --- running ----------------------------------------------------------------------------------------------

    def plans(self) -> Iterable[p.Plan]:
        """One plan for each object, in a fixed order; each made from the world as the last one left it."""
        for name in sorted(self.policies):
            uses = [item for item in self.hsms.values() if item.spec.attestation.policy_ref.name == name]
            named = [
                c for c in self.claims.values() if c.spec.policy_ref is not None and c.spec.policy_ref.name == name
            ]
            yield policies_room.reconcile(PolicySnapshot(self.now, self.policies[name], len(uses), len(named)))
        for name in sorted(self.hsms):
            yield hsms_room.reconcile(self.hsm_snapshot(name))
        for key in sorted(self.claims):
            if key in self.claims:
                yield claims_room.reconcile(self.claim_snapshot(*key))

    def run(self, plan: p.Plan) -> None:
        """The executor: one action after the other; the first refusal ends the plan."""
        for action in plan.actions:
            self.before_write(action)
            try:
                self.apply(action)
            except Refused:
                return

    def settle(self, rounds: int = 40) -> None:
        """Reconcile everything until nothing is written any more.

        Raises:
            Broken: it does not come to rest.
        """
        quiet = 0
        for _ in range(rounds):
            before = self.writes
            for plan in self.plans():
                self.run(plan)
            quiet = quiet + 1 if self.writes == before else 0
            if quiet == 2:  # what a request brought in the first is acted on in the second
                return
        raise Broken("the world does not come to rest")

    def attest(self) -> None:
        """One round of evidence from every host, as the interval brings it."""
        for name in sorted(self.hsms):
            self.touch(name)

    def pass_time(self, seconds: float) -> None:
        """Time goes by."""
        self.now += seconds

    # --- objects ----------------------------------------------------------------------------------------------

    def apply(self, action: p.Action) -> None:
        """Do one action. Requests are no writes.

        Raises:
            Refused: a guard of the write does not hold.
            Broken: it breaks a rule.
        """
        if isinstance(action, p.RequestIdentity):
            self.touch(action.hsm, identity=True)
            return
        if isinstance(action, p.RequestEvidence):
            self.touch(action.hsm, policies=action.policies)
            return
        self.writes += 1
        WRITES[type(action)](self, action)
        check(self)

    def bump(self, meta: ObjectMeta, **changes: Any) -> ObjectMeta:
        """The next resourceVersion, and other metadata."""
        self.version += 1
        return meta.model_copy(update={"resource_version": str(self.version), **changes})

    def hsm(self, name: str, uid: str) -> Hsm:
        """The very object that was planned for.

        Raises:
            Refused: it is gone.
        """
        item = self.hsms.get(name)
        if item is None or item.metadata.uid != uid:
            raise Refused(f"Hsm {name} with uid {uid} is gone")
        return item

    def claim(self, ref: p.ObjectRef) -> HsmClaim:
        """The very object that was planned for.

        Raises:
            Refused: it is gone.
        """
        claim = self.claims.get((ref.namespace or "", ref.name))
        if claim is None or claim.metadata.uid != ref.uid:
            raise Refused("the claim is gone")
        return claim

    def put_hsm(self, item: Hsm, **status: Any) -> None:
        """Write fields of the status."""
        meta = self.bump(item.metadata)
        self.hsms[meta.name] = Hsm(metadata=meta, spec=item.spec, status=item.status.model_copy(update=status))

    def put_claim(self, claim: HsmClaim, status: HsmClaimStatus | None = None, **meta: Any) -> None:
        """Write status or metadata."""
        new = self.bump(claim.metadata, **meta)
        self.claims[new.namespace or "", new.name] = HsmClaim(
            metadata=new, spec=claim.spec, status=claim.status if status is None else status
        )

    def check_settled(self) -> None:
        """Once everything has come to rest, an HSM that is not trusted serves nobody, by no way."""
        check_settled(self)
