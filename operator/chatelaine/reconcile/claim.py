"""HsmClaim: from one snapshot to a plan, by the steps below, one after the other.

Each step looks at the snapshot and at what the steps before it found, and leaves on the scratch pad what it wants
done. None of them reads anything else. Order of what is done: give way (network, keys on record), take, write the
status, and only then what needs the status to stand (making keys, giving a seat back).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from chatelaine.model.claim import HsmClaimStatus
from chatelaine.model.conditions import find
from chatelaine.model.reasons import ConditionType, Reason
from chatelaine.model.verdict import Outcome
from chatelaine.reconcile import access, farewell, keys, seats
from chatelaine.reconcile.claim_snapshot import ClaimSnapshot
from chatelaine.reconcile.conditions import events
from chatelaine.reconcile.plan import Plan, SetClaimStatus
from chatelaine.reconcile.served import served
from chatelaine.reconcile.work import Next, Work

ORDER: Final = (
    ConditionType.BOUND,
    ConditionType.ATTESTED,
    ConditionType.KEYS_READY,
    ConditionType.NETWORK_READY,
    ConditionType.READY,
    ConditionType.STALLED,
    ConditionType.PAUSED,
)
"""Conditions of a claim, as they are listed."""
NO_RETRY_HELPS: Final = frozenset(
    {
        Reason.RELEASE_REFUSED,
        Reason.HSM_GONE,
        Reason.EVIDENCE_REFUTED,
        Reason.AWAITING_READMISSION,
        Reason.IDENTITY_CONFLICT,
        Reason.POLICY_CHANGED,
        Reason.POLICY_INVALID,
        Reason.KEY_TYPE_CHANGED,
        Reason.KEY_DAMAGED,
        Reason.SECRET_NAME_TAKEN,
    }
)


def paused(work: Work) -> Next:
    """Show the pause; the later steps keep still by themselves, and revocation goes on."""
    if work.paused:
        work.conditions.put(
            ConditionType.PAUSED, Outcome.HOLDS, Reason.PAUSED, "Changes are stopped; revocation still acts."
        )
    else:
        work.conditions.put(ConditionType.PAUSED, Outcome.REFUTED, Reason.RUNNING, "")
    return Next.GO_ON


def attested(work: Work) -> Next:
    """May the claim use its HSM? Asked as the gateway's view asks it."""
    if work.view is None:
        seats.show(work)
        work.conditions.put(ConditionType.ATTESTED, Outcome.CANNOT_TELL, Reason.PENDING, "The claim is not bound.")
        return Next.GO_ON
    claim, snapshot = work.snapshot.claim, work.snapshot
    if work.allocation is not claim.status.allocation:
        claim = claim.model_copy(update={"status": claim.status.model_copy(update={"allocation": work.allocation})})
    work.standing = served(claim, snapshot.namespace, work.view, snapshot.policies, snapshot.now)
    found = work.standing
    if work.moving:
        seats.show(work)
    elif found.seated:
        work.conditions.put(ConditionType.BOUND, Outcome.HOLDS, Reason.BOUND, f"Bound to Hsm {work.view.name}.")
    else:
        work.conditions.put(ConditionType.BOUND, Outcome.REFUTED, found.reason, found.message)
    shown = Outcome.REFUTED if found.reason is Reason.AUDIT_ONLY else found.outcome
    work.conditions.put(ConditionType.ATTESTED, shown, found.reason, found.message)
    if found.outcome is Outcome.CANNOT_TELL:
        work.actions.append(seats.ask(work, work.view))
    return Next.GO_ON


def summary(work: Work) -> Next:
    """Ready sums up, Stalled says whether waiting helps, and the status is written if it says anything new."""
    reason, message = _blocking(work)
    if reason is None:
        work.conditions.put(ConditionType.READY, Outcome.HOLDS, Reason.ALL_READY, "")
    else:
        work.conditions.put(ConditionType.READY, Outcome.REFUTED, reason, message)
    if reason in NO_RETRY_HELPS:
        work.conditions.put(ConditionType.STALLED, Outcome.HOLDS, reason, message)
    else:
        idle = Reason.ALL_READY if reason is None else Reason.PROGRESSING
        work.conditions.put(ConditionType.STALLED, Outcome.REFUTED, idle, "")
    return Next.GO_ON


def _blocking(work: Work) -> tuple[Reason | None, str]:
    """The first thing that keeps the claim from being ready."""
    if work.problem is not None:
        return work.problem
    drafted = work.conditions.result(ORDER)
    for type_ in (ConditionType.BOUND, ConditionType.ATTESTED, ConditionType.KEYS_READY, ConditionType.NETWORK_READY):
        condition = find(drafted, type_.value)
        if condition is None or condition.status == "True":
            continue
        if condition.reason in (Reason.AUDIT_ONLY.value, Reason.NOT_ENFORCEABLE.value):
            continue
        return Reason(condition.reason), f"{type_}: {condition.message or condition.reason}"
    return None, ""


STEPS: Final[tuple[tuple[str, Callable[[Work], Next]], ...]] = (
    ("paused", paused),
    ("deleting", farewell.deleting),
    ("finalizer", seats.finalizer),
    ("validity", seats.validity),
    ("allocation", seats.allocation),
    ("failover", seats.failover),
    ("choose", seats.choose),
    ("allocate", seats.allocate),
    ("strays", seats.strays),
    ("attested", attested),
    ("keys", keys.keys),
    ("network", access.network),
    ("secret", access.secret),
    ("summary", summary),
)
KEPT_STILL_WHILE_PAUSED: Final = frozenset({"finalizer", "failover", "choose", "allocate", "strays"})


def reconcile(snapshot: ClaimSnapshot) -> Plan:
    """What to do about this claim now."""
    work = Work.of(snapshot)
    for name, step in STEPS:
        if work.paused and name in KEPT_STILL_WHILE_PAUSED:
            continue
        follows = step(work)
        if follows is Next.END:
            return Plan(tuple(work.actions))
        if follows is Next.SUMMED_UP:
            break
    return _written(work)


def _written(work: Work) -> Plan:
    claim = work.snapshot.claim
    before = claim.status
    after = HsmClaimStatus(
        observed_generation=claim.metadata.generation,
        allocation=work.allocation,
        binding=work.binding,
        keys=work.keys,
        network_policies=work.policies,
        conditions=work.conditions.result(ORDER),
    )
    actions = list(work.actions)
    if after != before:
        actions.append(SetClaimStatus(work.ref, after))
    actions += work.after
    if after != before:
        actions += events(work.ref, before.conditions, after.conditions)
    wake = work.standing.valid_until if work.standing is not None else None
    return Plan(tuple(actions), wake_at=wake)
