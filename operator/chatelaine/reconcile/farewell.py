"""How a claim leaves an HSM: its keys are kept track of first, the seat is given back second.

Retain: key versions are listed in `Hsm.status.retained` before the seat goes. Destroy: each version is destroyed
before. Where that cannot be done (the HSM is gone, or silent or not trusted while the namespace goes), retaining
takes its place, with an Event: no namespace may hang on an HSM. A claim that is merely deleted waits for its HSM,
and says so.
"""

from __future__ import annotations

from chatelaine.model.claim import KeyVersionStatus, ReclaimPolicy
from chatelaine.model.hsm import RetainedKey
from chatelaine.model.identifiers import FINALIZER
from chatelaine.model.keys import KeyState
from chatelaine.model.reasons import ConditionType, Reason
from chatelaine.model.verdict import Outcome
from chatelaine.reconcile.claim_snapshot import HsmView
from chatelaine.reconcile.plan import (
    Action,
    DeleteNetworkPolicy,
    DestroyKey,
    EmitEvent,
    EventType,
    ReleaseAllocation,
    RemoveFinalizer,
    RetainKeys,
)
from chatelaine.reconcile.work import Next, Work


def deleting(work: Work) -> Next:
    """Close the network path, leave every HSM, let the object go."""
    claim = work.snapshot.claim
    if claim.metadata.deletion_timestamp is None:
        return Next.GO_ON
    if FINALIZER not in claim.metadata.finalizers:
        return Next.END
    work.actions += [DeleteNetworkPolicy(*key) for key in sorted(work.snapshot.network_policies)]
    work.policies = []
    waiting = [message for uid in _places(work) if (message := _leave_for_good(work, uid))]
    if waiting:
        work.conditions.put(ConditionType.READY, Outcome.REFUTED, Reason.DELETING, " ".join(waiting))
        work.conditions.put(ConditionType.STALLED, Outcome.REFUTED, Reason.PROGRESSING, "")
        return Next.SUMMED_UP
    work.actions.append(RemoveFinalizer(work.ref))
    return Next.END


def leave(work: Work, view: HsmView) -> tuple[list[Action], list[Action]]:
    """Keep track of the keys (first list), then give the seat back (second list)."""
    keys: dict[str, tuple[RetainedKey, ...]] = {}
    for name, version in _alive(work, view.uid):
        maker = version.made_by or work.uid
        if not _retained(view, maker, name, version.version):
            kept = RetainedKey(name=name, version=version.version, state=version.state)
            keys[maker] = (*keys.get(maker, ()), kept)
    claim, namespace = work.snapshot.claim.metadata, work.snapshot.namespace
    keep: list[Action] = [
        RetainKeys(view.name, view.uid, maker, claim.namespace or "", namespace.uid, claim.name, made)
        for maker, made in keys.items()
    ]
    give = [ReleaseAllocation(view.name, view.uid, claim.uid)] if claim.uid in view.seats else []
    return keep, [*give]


def _places(work: Work) -> list[str]:
    """UIDs of all Hsms with a seat or living key versions of this claim."""
    keyed = {
        version.hsm.uid for key in work.keys for version in key.versions if version.state is not KeyState.DESTROYED
    }
    return sorted(keyed | {view.uid for view in work.seats()})


def _alive(work: Work, hsm_uid: str) -> list[tuple[str, KeyVersionStatus]]:
    """Versions that are, or after a crash may be, in that token: intents count."""
    return [
        (key.name, version)
        for key in work.keys
        for version in key.versions
        if version.hsm.uid == hsm_uid and version.state is not KeyState.DESTROYED
    ]


def _retained(view: HsmView, maker: str, name: str, version: int) -> bool:
    return any(
        kept.claim_uid == maker and any((key.name, key.version) == (name, version) for key in kept.keys)
        for kept in view.hsm.status.retained
    )


def _leave_for_good(work: Work, uid: str) -> str | None:
    """Returns what is waited for, as a sentence; None when nothing is."""
    view, alive = work.find(uid), _alive(work, uid)
    destroy = work.snapshot.claim.spec.reclaim_policy is ReclaimPolicy.DESTROY and bool(alive)
    if view is None:
        if destroy:
            _tell(work, f"The Hsm with uid {uid} is gone: {len(alive)} key versions could not be destroyed.")
        return None
    why = "does not answer" if view.standing.serves else f"is not trusted ({view.standing.reason})"
    if destroy and view.standing.serves and not view.silent:
        for name, version in alive:
            work.actions.append(DestroyKey(view.name, view.uid, version.label(work.uid, name)))
        if work.uid in view.seats:
            work.actions.append(ReleaseAllocation(view.name, view.uid, work.uid))
        return None
    if destroy and not work.snapshot.namespace.deleting:
        return (
            f"{len(alive)} key versions are to be destroyed, but Hsm {view.name} {why} now;"
            " set reclaimPolicy to Retain to let the claim go without."
        )
    keep, give = leave(work, view)
    work.actions += [*keep, *give]
    if destroy and keep:
        _tell(work, f"Hsm {view.name} {why} now: {len(alive)} key versions are retained, not destroyed.")
    return None


def _tell(work: Work, message: str) -> None:
    work.actions.append(EmitEvent(work.ref, EventType.WARNING, Reason.KEYS_RETAINED, message))
