"""What each action of a plan does to the in-memory world: guards, idempotence and order as in the real executor."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from chatelaine.model.claim import HsmClaim, HsmClaimStatus
from chatelaine.model.conditions import timestamp
from chatelaine.model.hsm import Allocation, Hsm, HsmStatus, Mode, Retained
from chatelaine.model.identifiers import ANNOTATION_READMIT, FINALIZER
from chatelaine.model.keys import KeyState
from chatelaine.model.policy import AttestationPolicy
from chatelaine.reconcile import plan as p
from chatelaine.reconcile.claim_snapshot import KeyMadeFacts
from chatelaine.reconcile.judged import is_sticky
from support.world_rules import Broken, Refused

if TYPE_CHECKING:
    from support.world import World


def cut_hsm(world: World, action: p.CutHsm) -> None:
    world.cuts.append(action)


def emit_event(world: World, action: p.EmitEvent) -> None:
    world.events.append(action)


def set_hsm_status(world: World, action: p.SetHsmStatus) -> None:
    item = world.hsm(action.hsm, action.hsm_uid)
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
    status = action.status.model_copy(update={"allocations": item.status.allocations, "retained": item.status.retained})
    HsmStatus.model_validate(status.dump())
    world.put_hsm(item, **{name: getattr(status, name) for name in HsmStatus.model_fields})


def allocate_hsm(world: World, action: p.AllocateHsm) -> None:
    item = world.hsm(action.hsm, action.hsm_uid)
    seats, retained = item.status.allocations, item.status.retained
    held = {kept.claim_uid: kept.adopted_by for kept in retained}
    if any(uid not in held or held[uid] not in (None, action.claim_uid) for uid in action.adopts):
        raise Refused("these keys are not to be had")
    if any(uid == claim.metadata.uid for claim in world.claims.values() for uid in action.adopts):
        raise Broken("keys of a claim that lives were handed over")
    mine = {"adopted_by": action.claim_uid}
    retained = [k.model_copy(update=mine) if k.claim_uid in action.adopts else k for k in retained]
    if any(seat.claim_uid == action.claim_uid for seat in seats):
        world.put_hsm(item, retained=retained)
        return
    exclusive = any(seat.mode is Mode.EXCLUSIVE for seat in seats) or (action.mode is Mode.EXCLUSIVE and seats)
    if item.metadata.deletion_timestamp is not None or len(seats) >= action.limit or exclusive:
        raise Refused("no seat to be had")
    claim = world.claims.get((action.namespace, action.name))
    if claim is not None and claim.metadata.uid == action.claim_uid and FINALIZER not in claim.metadata.finalizers:
        raise Broken("a seat was taken before the finalizer was there")
    seat = Allocation(
        claim_uid=action.claim_uid, namespace=action.namespace, name=action.name, mode=action.mode,
        sequence=action.sequence, at=timestamp(world.now),
    )  # fmt: skip
    world.put_hsm(item, allocations=[*seats, seat], retained=retained)


def release_allocation(world: World, action: p.ReleaseAllocation) -> None:
    item = world.hsms.get(action.hsm)
    if item is None or item.metadata.uid != action.hsm_uid:
        return
    world.put_hsm(item, allocations=[s for s in item.status.allocations if s.claim_uid != action.claim_uid])


def retain_keys(world: World, action: p.RetainKeys) -> None:
    item = world.hsm(action.hsm, action.hsm_uid)
    known = {kept.claim_uid: kept for kept in item.status.retained}
    before = known.get(action.claim_uid)
    keys = {(key.name, key.version): key for key in (before.keys if before else ())}
    keys.update({(key.name, key.version): key for key in action.keys})
    known[action.claim_uid] = Retained(
        claim_uid=action.claim_uid, namespace=action.namespace, namespace_uid=action.namespace_uid,
        name=action.name, keys=list(keys.values()), at=before.at if before else timestamp(world.now),
        adopted_by=before.adopted_by if before else None,
    )  # fmt: skip
    world.put_hsm(item, retained=list(known.values()))


def set_claim_status(world: World, action: p.SetClaimStatus) -> None:
    claim = world.claim(action.claim)
    HsmClaimStatus.model_validate(action.status.dump())
    before, after = claim.status.allocation, action.status.allocation
    if after != before:
        _check_allocation(world, claim, before.sequence if before else 0, action.status)
    world.put_claim(claim, action.status)


def _check_allocation(world: World, claim: HsmClaim, sequence: int, status: HsmClaimStatus) -> None:
    after = status.allocation
    if after is None or after.sequence != sequence + 1:
        raise Broken("an allocation changed other than by the next sequence")
    item = world.hsms.get(after.hsm.name)
    if item is None or item.metadata.uid != after.hsm.uid:
        raise Broken("bound to an Hsm that is not there")
    if claim.metadata.uid not in {seat.claim_uid for seat in item.status.allocations}:
        raise Broken("bound without a seat")
    standing = world.view(after.hsm.name).standing
    if not (standing.serves and standing.fresh):
        raise Broken("bound to an HSM that has not just proven itself")


def set_policy_status(world: World, action: p.SetPolicyStatus) -> None:
    item = world.policies[action.policy.name]
    written = AttestationPolicy(metadata=world.bump(item.metadata), spec=item.spec, status=action.status)
    world.policies[action.policy.name] = written.with_material(item.material)


def _must_answer(world: World, hsm: str) -> None:
    """A call that finds nobody is noted like a round that finds nobody."""
    if not world.hosts[hsm].reachable:
        world.touch(hsm)
        raise Refused("the gateway does not answer")


def ensure_key(world: World, action: p.EnsureKey) -> None:
    world.hsm(action.hsm, action.hsm_uid)
    _, uid, name, version = action.label.split("/")
    host = world.hosts[action.hsm]
    _must_answer(world, action.hsm)
    if action.label not in host.labels:
        intents = {
            (claim.metadata.uid, key.name, str(v.version), v.hsm.uid)
            for claim in world.claims.values()
            for key in claim.status.keys
            for v in key.versions
            if v.state is KeyState.PRE_ACTIVE
        }
        if not action.may_generate:
            raise Refused("there is no such key")
        if (uid, name, version, action.hsm_uid) not in intents:
            raise Broken("a key was made without an intent")
        standing = world.view(action.hsm).standing
        if not (standing.serves and standing.fresh):
            raise Broken("a key was made in an HSM that has not just proven itself")
        host.labels.add(action.label)
    world.made[action.label] = KeyMadeFacts("PEM", f"pkcs11:object={action.label}", world.now)


def destroy_key(world: World, action: p.DestroyKey) -> None:
    world.hsm(action.hsm, action.hsm_uid)
    _must_answer(world, action.hsm)
    world.hosts[action.hsm].labels.discard(action.label)
    world.made.pop(action.label, None)


def add_finalizer(world: World, action: p.AddFinalizer) -> None:
    _finalizers(world, action.object, lambda known: [*known, FINALIZER] if FINALIZER not in known else known)


def remove_finalizer(world: World, action: p.RemoveFinalizer) -> None:
    _finalizers(world, action.object, lambda known: [item for item in known if item != FINALIZER])


def _finalizers(world: World, ref: p.ObjectRef, change: Callable[[list[str]], list[str]]) -> None:
    if ref.kind == "Hsm":
        item = world.hsm(ref.name, ref.uid)
        meta = world.bump(item.metadata, finalizers=change(item.metadata.finalizers))
        world.hsms[ref.name] = Hsm(metadata=meta, spec=item.spec, status=item.status)
        if meta.deletion_timestamp is not None and not meta.finalizers:
            del world.hsms[ref.name]
        return
    claim = world.claim(ref)
    world.put_claim(claim, finalizers=change(claim.metadata.finalizers))
    meta = world.claims[ref.namespace or "", ref.name].metadata
    if meta.deletion_timestamp is not None and not meta.finalizers:
        _collect(world, world.claims.pop((ref.namespace or "", ref.name)))


def _collect(world: World, claim: HsmClaim) -> None:
    """What the garbage collector does with owned objects."""
    world.secrets = {key: held for key, held in world.secrets.items() if held[0] != claim.metadata.uid}


def apply_network_policy(world: World, action: p.ApplyNetworkPolicy) -> None:
    world.network[action.namespace, action.name] = action


def delete_network_policy(world: World, action: p.DeleteNetworkPolicy) -> None:
    world.network.pop((action.namespace, action.name), None)


def apply_secret(world: World, action: p.ApplySecret) -> None:
    held = world.secrets.get((action.namespace, action.name))
    if held is not None and held[0] != action.owner_uid:
        raise Refused("somebody else's Secret")
    world.secrets[action.namespace, action.name] = (action.owner_uid, action.digest)


def delete_secret(world: World, action: p.DeleteSecret) -> None:
    held = world.secrets.get((action.namespace, action.name))
    if held is not None and held[0] == action.owner_uid:
        del world.secrets[action.namespace, action.name]


WRITES: dict[type[p.Action], Callable[[World, Any], None]] = {
    p.CutHsm: cut_hsm,
    p.EmitEvent: emit_event,
    p.SetHsmStatus: set_hsm_status,
    p.AllocateHsm: allocate_hsm,
    p.ReleaseAllocation: release_allocation,
    p.RetainKeys: retain_keys,
    p.SetClaimStatus: set_claim_status,
    p.SetPolicyStatus: set_policy_status,
    p.EnsureKey: ensure_key,
    p.DestroyKey: destroy_key,
    p.AddFinalizer: add_finalizer,
    p.RemoveFinalizer: remove_finalizer,
    p.ApplyNetworkPolicy: apply_network_policy,
    p.DeleteNetworkPolicy: delete_network_policy,
    p.ApplySecret: apply_secret,
    p.DeleteSecret: delete_secret,
}
"""What is done, by the type of the action."""
