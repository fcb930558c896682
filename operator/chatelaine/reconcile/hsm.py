"""Hsm: from one snapshot to a plan.

In this order: judge; cut at once what may not serve any more; write the status, if it says anything new; settle what
claims that are gone left behind; repair the gateway's NetworkPolicies; ask the host for what is missing.
"""

from __future__ import annotations

from collections.abc import Iterable

from chatelaine.model.common import MAX_ALLOCATIONS
from chatelaine.model.hsm import MAX_RETAINED_KEYS, AttestationStatus, HsmStatus, RetainedKey, TokenStatus
from chatelaine.model.identifiers import ANNOTATION_PAUSED, FINALIZER, parse_key_label
from chatelaine.model.keys import KeyState
from chatelaine.model.reasons import ConditionType, Reason
from chatelaine.model.verdict import Outcome, Verdict
from chatelaine.reconcile.conditions import ConditionDraft, events
from chatelaine.reconcile.endorsed import certificate_to_keep
from chatelaine.reconcile.network import Rendered, gateway_policies
from chatelaine.reconcile.plan import (
    Action,
    AddFinalizer,
    AllocateHsm,
    ApplyNetworkPolicy,
    CutHsm,
    DeleteNetworkPolicy,
    EmitEvent,
    EventType,
    ObjectRef,
    Plan,
    ReleaseAllocation,
    RemoveFinalizer,
    RequestEvidence,
    RequestIdentity,
    RetainKeys,
    SetHsmStatus,
)
from chatelaine.reconcile.snapshot import BoundClaim, HostKeys, HsmSnapshot, PresentedIdentity
from chatelaine.reconcile.standing import Standing, judge

ORDER = (
    ConditionType.ENROLLED,
    ConditionType.REACHABLE,
    ConditionType.ATTESTED,
    ConditionType.READY,
    ConditionType.STALLED,
    ConditionType.PAUSED,
)
NO_RETRY_HELPS = frozenset(
    {
        Reason.IDENTITY_CONFLICT,
        Reason.ENDORSEMENT_REFUSED,
        Reason.AWAITING_READMISSION,
        Reason.EVIDENCE_REFUTED,
        Reason.POLICY_CHANGED,
        Reason.POLICY_INVALID,
        Reason.DEADLINES_CONTRADICT,
    }
)
READMISSION_PAUSE_SECONDS = 2.0
"""Between two requests for the identity of a host that a person wants re-admitted."""
UNKNOWN_OWNER = "unknown"
"""Namespace and name of retained keys whose claim nobody remembers after a lost status."""


def reconcile(snapshot: HsmSnapshot, standing: Standing | None = None) -> Plan:
    """What to do about this Hsm now. `standing`: the judgement over the very same snapshot, if there is one."""
    standing = standing or judge(snapshot)
    if _may_go(snapshot):
        return Plan(tuple(_farewell(snapshot)))
    paused = _paused(snapshot)
    # Cut and status rest on nothing that follows: whatever cannot be settled or repaired, a refutation is written.
    actions: list[Action] = [*_cut(snapshot, standing), *_status(snapshot, standing, paused=paused)]
    if not paused:
        actions += _settle(snapshot, standing)
        actions += _network(snapshot)
        actions += _finalizer(snapshot, standing)
    actions += _requests(snapshot, standing)
    # A proof that came too early, in the second of the refutation, changes nothing: it is asked for again.
    wake_at = snapshot.now + READMISSION_PAUSE_SECONDS if standing.readmitting else standing.valid_until
    return Plan(tuple(actions), wake_at=wake_at)


def was_serving(before: AttestationStatus | None) -> bool:
    """Does the status say that claims may use this HSM?"""
    return before is not None and (before.verdict is Verdict.TRUSTED or before.reason == Reason.AUDIT_ONLY.value)


def deadlines_contradict(snapshot: HsmSnapshot) -> bool:
    """A host that is asked less often than its proof may grow old would be cut off again and again."""
    policy, asked = snapshot.policy, snapshot.hsm.spec.attestation.interval_seconds
    return policy is not None and asked >= policy.spec.freshness.max_age_seconds


def _ref(snapshot: HsmSnapshot) -> ObjectRef:
    return ObjectRef("Hsm", snapshot.hsm.metadata.name, snapshot.hsm.metadata.uid)


def _paused(snapshot: HsmSnapshot) -> bool:
    return snapshot.hsm.metadata.annotations.get(ANNOTATION_PAUSED) == "true"


def _cut(snapshot: HsmSnapshot, standing: Standing) -> Iterable[Action]:
    if not standing.serves and was_serving(snapshot.hsm.status.attestation):
        yield CutHsm(snapshot.hsm.metadata.name, snapshot.hsm.metadata.uid, standing.reason)


# --- deletion -------------------------------------------------------------------------------------------------


def _may_go(snapshot: HsmSnapshot) -> bool:
    meta = snapshot.hsm.metadata
    waits = any(claim.exists for claim in snapshot.claims if _has_seat(snapshot, claim))
    return meta.deletion_timestamp is not None and not waits


def _has_seat(snapshot: HsmSnapshot, claim: BoundClaim) -> bool:
    return any(seat.claim_uid == claim.uid for seat in snapshot.hsm.status.allocations)


def _farewell(snapshot: HsmSnapshot) -> Iterable[Action]:
    if FINALIZER not in snapshot.hsm.metadata.finalizers:
        return
    shared = {policy.key for policy in _wanted(snapshot)[:1]} if snapshot.gateway_shared else set()
    for namespace, name in sorted(snapshot.network_policies):
        if (namespace, name) not in shared:
            yield DeleteNetworkPolicy(namespace, name)
    if snapshot.hsm.status.retained:
        count = sum(len(kept.keys) for kept in snapshot.hsm.status.retained)
        message = f"{count} key versions of former claims stay in the token; nothing lists them any more."
        yield EmitEvent(_ref(snapshot), EventType.WARNING, Reason.KEYS_RETAINED, message)
    yield RemoveFinalizer(_ref(snapshot))


def _finalizer(snapshot: HsmSnapshot, standing: Standing) -> Iterable[Action]:
    meta = snapshot.hsm.metadata
    if standing.identity is not None and FINALIZER not in meta.finalizers and meta.deletion_timestamp is None:
        yield AddFinalizer(_ref(snapshot))


# --- what claims left behind ----------------------------------------------------------------------------------


_Kept = dict[str, set[tuple[str, int]]]
"""Names and versions that are retained, by uid of their claim."""


def _left(labels: Iterable[str]) -> dict[str, list[RetainedKey]]:
    """Keys in the token by uid of the claim that made them. Labels that are not exactly ours are no keys of claims."""
    found: dict[str, list[RetainedKey]] = {}
    for key in sorted(filter(None, map(parse_key_label, labels))):
        kept = RetainedKey(name=key.key, version=key.version, state=KeyState.DEACTIVATED)
        found.setdefault(key.claim_uid, []).append(kept)
    return found


def _settle(snapshot: HsmSnapshot, standing: Standing) -> Iterable[Action]:
    """Orphans are settled before the inventory is judged: retained first, then the seat is free. Where there is no
    room to retain all of them the seat stays: without it nobody would account for the rest.
    """
    if snapshot.token_labels is None:
        return
    left = _left(snapshot.token_labels)
    retained: _Kept = {
        kept.claim_uid: {(k.name, k.version) for k in kept.keys} for kept in snapshot.hsm.status.retained
    }
    claims = {claim.uid: claim for claim in snapshot.claims}
    hsm = snapshot.hsm.metadata
    for seat in snapshot.hsm.status.allocations:
        claim = claims.get(seat.claim_uid)
        if claim is None or claim.exists:
            continue
        keys = left.get(seat.claim_uid, [])
        fitting = _fitting(seat.claim_uid, keys, retained)
        if fitting:
            yield RetainKeys(hsm.name, hsm.uid, seat.claim_uid, seat.namespace, None, seat.name, fitting)
        if {(key.name, key.version) for key in keys} <= retained.get(seat.claim_uid, set()):
            yield ReleaseAllocation(hsm.name, hsm.uid, seat.claim_uid)
    if standing.reason is Reason.AWAITING_READMISSION and snapshot.hsm.status.identity is None:
        seats = {seat.claim_uid for seat in snapshot.hsm.status.allocations}
        adopters = _adopters(snapshot)
        for uid, keys in left.items():
            if uid in adopters:
                yield from _rebuild_adopted(snapshot, uid, keys, retained, adopters[uid])
            elif uid not in seats:
                yield from _rebuild(snapshot, uid, keys, retained, claims.get(uid))


def _fitting(uid: str, keys: Iterable[RetainedKey], retained: _Kept) -> tuple[RetainedKey, ...]:
    """Those of `keys` that are not retained yet and for which the status has room; noted in `retained`."""
    if uid not in retained and len(retained) >= MAX_ALLOCATIONS:
        return ()
    known = retained.get(uid, set())
    missing = [key for key in keys if (key.name, key.version) not in known]
    fitting = tuple(missing[: MAX_RETAINED_KEYS - len(known)])
    if fitting:
        retained[uid] = known | {(key.name, key.version) for key in fitting}
    return fitting


def _rebuild(
    snapshot: HsmSnapshot, uid: str, keys: Iterable[RetainedKey], retained: _Kept, claim: BoundClaim | None
) -> Iterable[Action]:
    """After a lost status: a seat for a claim that lives and does not say that it belongs to another Hsm object
    (which one of the same name is, too); everything else is retained.
    """
    hsm = snapshot.hsm.metadata
    if claim is not None and claim.exists and claim.allocated_to in (None, hsm.uid):
        yield AllocateHsm(
            hsm.name, hsm.uid, uid, claim.namespace, claim.name, claim.mode, MAX_ALLOCATIONS, claim.sequence
        )
    elif fitting := _fitting(uid, keys, retained):
        said = next((one for one in snapshot.hsm.spec.adoptions or () if one.claim_uid == uid), None)
        owner = claim or said
        namespace, name = (owner.namespace, owner.name) if owner is not None else (UNKNOWN_OWNER, UNKNOWN_OWNER)
        yield RetainKeys(hsm.name, hsm.uid, uid, namespace, None, name, fitting)


def _adopters(snapshot: HsmSnapshot) -> dict[str, BoundClaim]:
    """Claims that live here with keys which they have taken over, by the uid of the claim that made those."""
    found = {}
    for claim in snapshot.claims:
        if claim.exists and claim.allocated_to == snapshot.hsm.metadata.uid:
            makers = {key.claim_uid for key in map(parse_key_label, claim.key_labels) if key is not None}
            found.update(dict.fromkeys(makers - {claim.uid}, claim))
    return found


def _rebuild_adopted(
    snapshot: HsmSnapshot, uid: str, keys: Iterable[RetainedKey], retained: _Kept, claim: BoundClaim
) -> Iterable[Action]:
    """The same for keys that a claim had taken over: retained again, and its again, with its seat."""
    hsm, status = snapshot.hsm.metadata, snapshot.hsm.status
    if fitting := _fitting(uid, keys, retained):
        yield RetainKeys(hsm.name, hsm.uid, uid, claim.namespace, None, claim.name, fitting)
    adopted = any((kept.claim_uid, kept.adopted_by) == (uid, claim.uid) for kept in status.retained)
    if not adopted or not _has_seat(snapshot, claim):
        yield AllocateHsm(
            hsm.name, hsm.uid, claim.uid, claim.namespace, claim.name, claim.mode, MAX_ALLOCATIONS, claim.sequence,
            (uid,),
        )  # fmt: skip


# --- network and requests -------------------------------------------------------------------------------------


def _wanted(snapshot: HsmSnapshot) -> tuple[Rendered, ...]:
    return gateway_policies(snapshot.hsm, snapshot.operator) if snapshot.operator is not None else ()


def _network(snapshot: HsmSnapshot) -> Iterable[Action]:
    wanted = {policy.key: policy for policy in _wanted(snapshot)}
    for key, policy in wanted.items():
        seen = snapshot.network_policies.get(key)
        if seen is None or seen.drifted or seen.digest != policy.digest:
            yield ApplyNetworkPolicy(policy.namespace, policy.name, policy.digest, policy.manifest)
    for namespace, name in sorted(set(snapshot.network_policies) - set(wanted)):
        yield DeleteNetworkPolicy(namespace, name)


def _requests(snapshot: HsmSnapshot, standing: Standing) -> Iterable[Action]:
    hsm = snapshot.hsm.metadata
    if standing.ask_identity:
        yield RequestIdentity(hsm.name, hsm.uid)
    elif standing.ask_evidence:
        yield RequestEvidence(hsm.name, hsm.uid, urgent=True)


# --- status ---------------------------------------------------------------------------------------------------


def _status(snapshot: HsmSnapshot, standing: Standing, *, paused: bool) -> Iterable[Action]:
    hsm, before = snapshot.hsm, snapshot.hsm.status
    # The finalizer moves the resourceVersion on that a guarded write rests on: that write waits for the next look.
    unfinished = bool(list(_finalizer(snapshot, standing)))
    held_back = standing.guarded and (paused or unfinished)
    draft = ConditionDraft(before.conditions, generation=hsm.metadata.generation, now=snapshot.now)
    if not held_back:
        _put_standing(snapshot, standing, draft)
    _put_pause(draft, paused=paused)
    presented = snapshot.host.presented if snapshot.host else None
    token = before.token
    proven = snapshot.host is not None and presented is not None and snapshot.host.proof_of(presented) is not None
    if proven and presented is not None and standing.identity is not None and not held_back:
        token = _token(presented, standing, before.token)
    after = HsmStatus(
        observed_generation=hsm.metadata.generation,
        identity=before.identity if held_back else standing.identity,
        ek_certificate=before.ek_certificate if held_back else certificate_to_keep(snapshot, standing.identity),
        token=token,
        attestation=before.attestation if held_back else standing.attestation,
        conditions=draft.result(ORDER),
    )
    ours = before.model_copy(update={"allocations": [], "retained": []})
    if after == ours:
        return
    guard = hsm.metadata.resource_version if standing.guarded and not held_back else None
    yield SetHsmStatus(hsm.metadata.name, hsm.metadata.uid, after, guard)
    if standing.readmitted and not held_back:
        yield EmitEvent(_ref(snapshot), EventType.NORMAL, Reason.READMITTED, "A person re-admitted the host.")
    yield from events(_ref(snapshot), before.conditions, after.conditions)


def _token(presented: PresentedIdentity, standing: Standing, before: TokenStatus | None) -> TokenStatus | None:
    """Shown once it belongs to the enrolled identity. Its serial is pinned: only an admission may change it."""
    identity = standing.identity
    if identity is None or presented.keys != HostKeys.enrolled(identity):
        return before
    if before is not None and presented.token.serial != before.serial and not standing.guarded:
        return before
    return presented.token


def _put_standing(snapshot: HsmSnapshot, standing: Standing, draft: ConditionDraft) -> None:
    enrolment = standing.enrolment
    draft.put(ConditionType.ENROLLED, enrolment.outcome, enrolment.reason, enrolment.message)
    reach = snapshot.host.reach if snapshot.host else None
    if reach is not None:
        draft.put(ConditionType.REACHABLE, reach.status, reach.reason, reach.message)
    draft.put(ConditionType.ATTESTED, _attested(standing), standing.reason, standing.message)
    _put_summary(snapshot, standing, draft)


def _attested(standing: Standing) -> Outcome:
    if standing.verdict is Verdict.TRUSTED:
        return Outcome.HOLDS
    if standing.verdict is Verdict.UNTRUSTED or standing.blocked_by_policy:
        return Outcome.REFUTED
    return Outcome.CANNOT_TELL if standing.reason is Reason.NOT_ENROLLED else Outcome.REFUTED


def _put_summary(snapshot: HsmSnapshot, standing: Standing, draft: ConditionDraft) -> None:
    reason, message = standing.reason, standing.message
    ready = standing.serves
    if standing.reason is Reason.NOT_ENROLLED:
        reason, message = standing.enrolment.reason, standing.enrolment.message
    if deadlines_contradict(snapshot):
        ready, reason = False, Reason.DEADLINES_CONTRADICT
        message = (
            f"intervalSeconds {snapshot.hsm.spec.attestation.interval_seconds} must be shorter than maxAgeSeconds of"
            f" AttestationPolicy {snapshot.hsm.spec.attestation.policy_ref.name}."
        )
    if snapshot.hsm.metadata.deletion_timestamp is not None:
        ready, reason = False, Reason.ALLOCATIONS_REMAIN
        bound = sorted(f"{seat.namespace}/{seat.name}" for seat in snapshot.hsm.status.allocations)
        message = f"Deletion waits for {len(bound)} claims: {', '.join(bound[:8])}"
    if ready:
        why = Reason.AUDIT_ONLY if reason is Reason.AUDIT_ONLY else Reason.ALL_READY
        draft.put(ConditionType.READY, Outcome.HOLDS, why, message if why is Reason.AUDIT_ONLY else "")
    else:
        draft.put(ConditionType.READY, Outcome.REFUTED, reason, message)
    stalled = not ready and reason in NO_RETRY_HELPS
    if stalled:
        draft.put(ConditionType.STALLED, Outcome.HOLDS, reason, message)
    else:
        draft.put(ConditionType.STALLED, Outcome.REFUTED, Reason.PROGRESSING if not ready else Reason.ALL_READY, "")


def _put_pause(draft: ConditionDraft, *, paused: bool) -> None:
    if paused:
        draft.put(ConditionType.PAUSED, Outcome.HOLDS, Reason.PAUSED, "Changes are stopped; revocation still acts.")
    else:
        draft.put(ConditionType.PAUSED, Outcome.REFUTED, Reason.RUNNING, "")
