"""An in-memory world: objects, hosts, and an executor that does what each action of a plan promises.

It is the reference for the real executor: guards, idempotence and order are the same. Every write is checked against
the rules that must hold whatever happens; breaking one raises `Broken`, so no test can overlook it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

from chatelaine.appraisal.appraise import selection_for
from chatelaine.appraisal.errors import BankConflict
from chatelaine.model.claim import HsmClaim, HsmClaimStatus
from chatelaine.model.common import ObjectMeta
from chatelaine.model.conditions import timestamp
from chatelaine.model.hsm import Allocation, Hsm, HsmStatus, Mode, Retained
from chatelaine.model.identifiers import ANNOTATION_READMIT, FINALIZER, key_label
from chatelaine.model.keys import KeyState
from chatelaine.model.policy import AttestationPolicy
from chatelaine.model.reasons import Reason
from chatelaine.model.verdict import Outcome, Verdict
from chatelaine.reconcile import claim as claims_room
from chatelaine.reconcile import hsm as hsms_room
from chatelaine.reconcile import plan as p
from chatelaine.reconcile import policy as policies_room
from chatelaine.reconcile.judged import is_sticky
from chatelaine.reconcile.served import ClaimStanding, served
from chatelaine.reconcile.snapshot import (
    BindingFacts,
    BoundClaim,
    ClaimSnapshot,
    EvidenceRound,
    HostObservation,
    HsmSnapshot,
    HsmView,
    KeyFault,
    KeyMadeFacts,
    NamespaceFacts,
    ObservedPolicy,
    ObservedSecret,
    OperatorPods,
    PolicySnapshot,
    Presence,
    Reach,
)
from chatelaine.reconcile.standing import accounted_labels, judge
from support.world_hosts import WorldHost

START = 1_800_000_000.0


class Broken(AssertionError):
    """A rule that must hold whatever happens does not."""


class Refused(Exception):
    """A guarded write was refused: another uid, another resourceVersion, no room. The plan ends here."""


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
        names = {item.spec.attestation.policy_ref.name, *extra}
        for claim in self.claims.values():
            seat = claim.status.allocation
            if seat is not None and seat.hsm.uid == item.metadata.uid and claim.spec.policy_ref is not None:
                names.add(claim.spec.policy_ref.name)
        specs = [self.policies[name].spec for name in sorted(names) if name in self.policies]
        try:
            selection = selection_for(specs) if specs else None
        except BankConflict:
            selection = selection_for(specs[:1])
        if selection is None:
            return None
        evidence = host.evidence(selection)
        accounted = accounted_labels(self.hsm_snapshot(item.metadata.name))
        keys = host.presents().keys
        return EvidenceRound(evidence, evidence.evidence_digest, self.now, keys, presented, accounted)

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
        ours = {rendered.key for rendered in hsms_room.gateway_policies(item, self.operator)}
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
                key_label(meta.uid, key.name, version.version)
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
            self.memory[uid] = replace(self.memory[uid], proven_until=standing.valid_until)
        return HsmView(
            snapshot.hsm, standing, snapshot.policy, snapshot.host, accounted_labels(snapshot),
            {seat.claim_uid: seat.mode for seat in snapshot.hsm.status.allocations},
            gateway_bound=name not in self.unbound_gateways,
        )  # fmt: skip

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

    # --- actions ----------------------------------------------------------------------------------------------

    def apply(self, action: p.Action) -> None:
        """Do one action. Requests are no writes."""
        if isinstance(action, p.RequestIdentity):
            self.touch(action.hsm, identity=True)
            return
        if isinstance(action, p.RequestEvidence):
            self.touch(action.hsm, policies=action.policies)
            return
        self.writes += 1
        getattr(self, "_" + type(action).__name__)(action)
        self.check()

    def _bump(self, meta: ObjectMeta, **changes: Any) -> ObjectMeta:
        self.version += 1
        return meta.model_copy(update={"resource_version": str(self.version), **changes})

    def _hsm(self, name: str, uid: str) -> Hsm:
        item = self.hsms.get(name)
        if item is None or item.metadata.uid != uid:
            raise Refused(f"Hsm {name} with uid {uid} is gone")
        return item

    def put_hsm(self, item: Hsm, **status: Any) -> None:
        """Write fields of the status."""
        meta = self._bump(item.metadata)
        self.hsms[meta.name] = Hsm(metadata=meta, spec=item.spec, status=item.status.model_copy(update=status))

    def put_claim(self, claim: HsmClaim, status: HsmClaimStatus | None = None, **meta: Any) -> None:
        """Write status or metadata."""
        new = self._bump(claim.metadata, **meta)
        self.claims[new.namespace or "", new.name] = HsmClaim(
            metadata=new, spec=claim.spec, status=claim.status if status is None else status
        )

    def _CutHsm(self, action: p.CutHsm) -> None:  # noqa: N802 - named by the action
        self.cuts.append(action)

    def _EmitEvent(self, action: p.EmitEvent) -> None:  # noqa: N802 - named by the action
        self.events.append(action)

    def _SetHsmStatus(self, action: p.SetHsmStatus) -> None:  # noqa: N802 - named by the action
        item = self._hsm(action.hsm, action.hsm_uid)
        if action.resource_version is not None and action.resource_version != item.metadata.resource_version:
            raise Refused("the Hsm has moved on")
        was, new = item.status.attestation, action.status.attestation
        if is_sticky(was) and not is_sticky(new):
            asked = item.metadata.annotations.get(ANNOTATION_READMIT)
            if was is None or asked != was.evidence_digest or action.resource_version is None:
                raise Broken("an Untrusted HSM came back without re-admission")
            if new is None or new.epoch.generation != was.epoch.generation + 1:
                raise Broken("a re-admission is a new epoch")
        before = item.status.identity
        if before is not None and action.status.identity != before and action.resource_version is None:
            raise Broken("an identity was overwritten")
        status = action.status.model_copy(
            update={"allocations": item.status.allocations, "retained": item.status.retained}
        )
        HsmStatus.model_validate(status.dump())
        self.put_hsm(item, **{name: getattr(status, name) for name in HsmStatus.model_fields})

    def _AllocateHsm(self, action: p.AllocateHsm) -> None:  # noqa: N802 - named by the action
        item = self._hsm(action.hsm, action.hsm_uid)
        seats = item.status.allocations
        if any(seat.claim_uid == action.claim_uid for seat in seats):
            return
        exclusive = any(seat.mode is Mode.EXCLUSIVE for seat in seats) or (action.mode is Mode.EXCLUSIVE and seats)
        if item.metadata.deletion_timestamp is not None or len(seats) >= action.limit or exclusive:
            raise Refused("no seat to be had")
        claim = self.claims.get((action.namespace, action.name))
        if claim is not None and claim.metadata.uid == action.claim_uid and FINALIZER not in claim.metadata.finalizers:
            raise Broken("a seat was taken before the finalizer was there")
        seat = Allocation(
            claim_uid=action.claim_uid, namespace=action.namespace, name=action.name, mode=action.mode,
            sequence=action.sequence, at=timestamp(self.now),
        )  # fmt: skip
        self.put_hsm(item, allocations=[*seats, seat])

    def _ReleaseAllocation(self, action: p.ReleaseAllocation) -> None:  # noqa: N802 - named by the action
        item = self.hsms.get(action.hsm)
        if item is None or item.metadata.uid != action.hsm_uid:
            return
        self.put_hsm(item, allocations=[s for s in item.status.allocations if s.claim_uid != action.claim_uid])

    def _RetainKeys(self, action: p.RetainKeys) -> None:  # noqa: N802 - named by the action
        item = self._hsm(action.hsm, action.hsm_uid)
        known = {kept.claim_uid: kept for kept in item.status.retained}
        before = known.get(action.claim_uid)
        keys = {(key.name, key.version): key for key in (before.keys if before else ())}
        keys.update({(key.name, key.version): key for key in action.keys})
        known[action.claim_uid] = Retained(
            claim_uid=action.claim_uid, namespace=action.namespace, namespace_uid=action.namespace_uid,
            name=action.name, keys=list(keys.values()), at=before.at if before else timestamp(self.now),
        )  # fmt: skip
        self.put_hsm(item, retained=list(known.values()))

    def _claim(self, ref: p.ObjectRef) -> HsmClaim:
        claim = self.claims.get((ref.namespace or "", ref.name))
        if claim is None or claim.metadata.uid != ref.uid:
            raise Refused("the claim is gone")
        return claim

    def _SetClaimStatus(self, action: p.SetClaimStatus) -> None:  # noqa: N802 - named by the action
        claim = self._claim(action.claim)
        HsmClaimStatus.model_validate(action.status.dump())
        before, after = claim.status.allocation, action.status.allocation
        if after != before:
            self._check_allocation(claim, before.sequence if before else 0, action.status)
        self.put_claim(claim, action.status)

    def _check_allocation(self, claim: HsmClaim, sequence: int, status: HsmClaimStatus) -> None:
        after = status.allocation
        if after is None or after.sequence != sequence + 1:
            raise Broken("an allocation changed other than by the next sequence")
        item = self.hsms.get(after.hsm.name)
        if item is None or item.metadata.uid != after.hsm.uid:
            raise Broken("bound to an Hsm that is not there")
        if claim.metadata.uid not in {seat.claim_uid for seat in item.status.allocations}:
            raise Broken("bound without a seat")
        if not self.view(after.hsm.name).standing.binds:
            raise Broken("bound to an HSM that has not just proven itself")

    def _SetPolicyStatus(self, action: p.SetPolicyStatus) -> None:  # noqa: N802 - named by the action
        item = self.policies[action.policy.name]
        self.policies[action.policy.name] = AttestationPolicy(
            metadata=self._bump(item.metadata), spec=item.spec, status=action.status
        )

    def _must_answer(self, hsm: str) -> None:
        """A call that finds nobody is noted like a round that finds nobody."""
        if not self.hosts[hsm].reachable:
            self.touch(hsm)
            raise Refused("the gateway does not answer")

    def _EnsureKey(self, action: p.EnsureKey) -> None:  # noqa: N802 - named by the action
        self._hsm(action.hsm, action.hsm_uid)
        _, uid, name, version = action.label.split("/")
        host = self.hosts[action.hsm]
        self._must_answer(action.hsm)
        if action.label not in host.labels:
            intents = {
                (claim.metadata.uid, key.name, str(v.version), v.hsm.uid)
                for claim in self.claims.values()
                for key in claim.status.keys
                for v in key.versions
                if v.state is KeyState.PRE_ACTIVE
            }
            if not action.may_generate:
                raise Refused("there is no such key")
            if (uid, name, version, action.hsm_uid) not in intents:
                raise Broken("a key was made without an intent")
            if not self.view(action.hsm).standing.binds:
                raise Broken("a key was made in an HSM that has not just proven itself")
            host.labels.add(action.label)
        self.made[action.label] = KeyMadeFacts("PEM", f"pkcs11:object={action.label}", self.now)

    def _DestroyKey(self, action: p.DestroyKey) -> None:  # noqa: N802 - named by the action
        self._hsm(action.hsm, action.hsm_uid)
        self._must_answer(action.hsm)
        self.hosts[action.hsm].labels.discard(action.label)
        self.made.pop(action.label, None)

    def _AddFinalizer(self, action: p.AddFinalizer) -> None:  # noqa: N802 - named by the action
        self._finalizers(action.object, lambda known: [*known, FINALIZER] if FINALIZER not in known else known)

    def _RemoveFinalizer(self, action: p.RemoveFinalizer) -> None:  # noqa: N802 - named by the action
        self._finalizers(action.object, lambda known: [item for item in known if item != FINALIZER])

    def _finalizers(self, ref: p.ObjectRef, change: Callable[[list[str]], list[str]]) -> None:
        if ref.kind == "Hsm":
            item = self._hsm(ref.name, ref.uid)
            meta = self._bump(item.metadata, finalizers=change(item.metadata.finalizers))
            self.hsms[ref.name] = Hsm(metadata=meta, spec=item.spec, status=item.status)
            if meta.deletion_timestamp is not None and not meta.finalizers:
                del self.hsms[ref.name]
            return
        claim = self._claim(ref)
        self.put_claim(claim, finalizers=change(claim.metadata.finalizers))
        meta = self.claims[ref.namespace or "", ref.name].metadata
        if meta.deletion_timestamp is not None and not meta.finalizers:
            self._collect(self.claims.pop((ref.namespace or "", ref.name)))

    def _collect(self, claim: HsmClaim) -> None:
        """What the garbage collector does with owned objects."""
        self.secrets = {key: held for key, held in self.secrets.items() if held[0] != claim.metadata.uid}

    def _ApplyNetworkPolicy(self, action: p.ApplyNetworkPolicy) -> None:  # noqa: N802 - named by the action
        self.network[action.namespace, action.name] = action

    def _DeleteNetworkPolicy(self, action: p.DeleteNetworkPolicy) -> None:  # noqa: N802 - named by the action
        self.network.pop((action.namespace, action.name), None)

    def _ApplySecret(self, action: p.ApplySecret) -> None:  # noqa: N802 - named by the action
        held = self.secrets.get((action.namespace, action.name))
        if held is not None and held[0] != action.owner_uid:
            raise Refused("somebody else's Secret")
        self.secrets[action.namespace, action.name] = (action.owner_uid, action.digest)

    def _DeleteSecret(self, action: p.DeleteSecret) -> None:  # noqa: N802 - named by the action
        held = self.secrets.get((action.namespace, action.name))
        if held is not None and held[0] == action.owner_uid:
            del self.secrets[action.namespace, action.name]

    # --- rules that hold after every write --------------------------------------------------------------------

    def check(self) -> None:
        """Never over capacity, never two claims beside an exclusive one."""
        for item in self.hsms.values():
            seats = item.status.allocations
            limit = item.spec.capacity.claims if item.spec.capacity is not None else 100
            if len(seats) > limit:
                raise Broken(f"{item.metadata.name} is over capacity")
            if len(seats) > 1 and any(seat.mode is Mode.EXCLUSIVE for seat in seats):
                raise Broken(f"{item.metadata.name}: somebody sits beside an exclusive claim")
            if len({seat.claim_uid for seat in seats}) != len(seats):
                raise Broken("a claim has two seats on one Hsm")

    def check_settled(self) -> None:
        """What must hold once everything has come to rest: an HSM that is not trusted serves nobody, by no way."""
        for (namespace, name), claim in self.claims.items():
            said = claim.status.allocation
            ingress = [key for key, policy in self.network.items() if _is_ingress(policy, claim)]
            standing = self.served(namespace, name)
            if ingress and not standing.serves:
                raise Broken(f"{name}: the network path is open although {standing.reason}")
            item = self.hsms.get(said.hsm.name) if said is not None else None
            if standing.serves and (item is None or is_sticky(item.status.attestation)):
                raise Broken(f"{name} is served by an Untrusted HSM")
            seated = [i.metadata.name for i in self.hsms.values() if _seated(i, claim.metadata.uid)]
            if len(seated) > 1:
                raise Broken(f"{name} holds seats on {seated}")


def _is_ingress(policy: p.ApplyNetworkPolicy, claim: HsmClaim) -> bool:
    labels = policy.manifest["metadata"]["labels"]
    own = labels.get("chatelaine.dev/claim-uid") == claim.metadata.uid
    return own and "Ingress" in policy.manifest["spec"]["policyTypes"]


def _seated(item: Hsm, uid: str) -> bool:
    return any(seat.claim_uid == uid for seat in item.status.allocations)
