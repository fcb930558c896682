"""A claim's seat: is it still true, must it move, which HSM, and the binding itself.

The scarce side, the Hsm's list of seats, is written first; the claim's allocation follows, whole, with the next
sequence number. Any state in between is completed from the seats, or rolled back.
"""

from __future__ import annotations

from chatelaine.appraisal.endorsement import UNKNOWN
from chatelaine.model.claim import ClaimAllocation, Failover, HsmRefStatus
from chatelaine.model.conditions import timestamp
from chatelaine.model.hsm import EpochStatus
from chatelaine.model.identifiers import FINALIZER
from chatelaine.model.reasons import ConditionType, Reason
from chatelaine.model.verdict import Outcome
from chatelaine.reconcile.adoption import Reservation, reservation
from chatelaine.reconcile.candidates import (
    Candidate,
    asked_hosts,
    best_now,
    candidates,
    examine,
    explain,
    limit_of,
    mode_of,
)
from chatelaine.reconcile.claim_snapshot import HsmView
from chatelaine.reconcile.endorsed import finding_of_enrolled
from chatelaine.reconcile.farewell import leave
from chatelaine.reconcile.judged import policy_ref
from chatelaine.reconcile.plan import AddFinalizer, AllocateHsm, ReleaseAllocation, RequestEvidence, RequestIdentity
from chatelaine.reconcile.policy import faults
from chatelaine.reconcile.served import attested_for, seat_sequence, stands_for
from chatelaine.reconcile.work import Next, Work


def finalizer(work: Work) -> Next:
    """Something real must be undone as long as there is a seat."""
    if work.seats() and FINALIZER not in work.snapshot.claim.metadata.finalizers:
        work.actions.append(AddFinalizer(work.ref))
    return Next.GO_ON


def validity(work: Work) -> Next:
    """The policy that the claim names must exist and be enforceable."""
    ref = work.snapshot.claim.spec.policy_ref
    if ref is None:
        return Next.GO_ON
    policy = work.snapshot.policies.get(ref.name)
    if policy is None:
        work.problem = (Reason.POLICY_NOT_FOUND, f"AttestationPolicy {ref.name} does not exist.")
    elif wrong := faults(policy):
        work.problem = (Reason.POLICY_INVALID, f"AttestationPolicy {ref.name}: {wrong[0]}")
    return Next.GO_ON


def allocation(work: Work) -> Next:
    """Is what the status says of the seat true? Only the Hsm's own list counts."""
    said = work.allocation
    seated = [view for view in work.seats() if work.uid not in view.pending]
    if said is not None:
        view = work.find(said.hsm.uid)
        if view is not None and view.name == said.hsm.name and view in seated and stands_for(view, work.uid, said):
            work.view = view
            return Next.GO_ON
        if view is not None and view.hsm.status.identity is None and not seated:
            work.waits = (Reason.AWAITING_READMISSION, f"Hsm {view.name} has lost its status and must be re-admitted.")
            return Next.GO_ON
    work.target = seated[0] if seated else None
    if work.target is None and said is not None and work.find(said.hsm.uid) is None:
        work.gone = True
    return Next.GO_ON


def failover(work: Work) -> Next:
    """A claim whose HSM is cut moves on, if it says Rebind; else it waits for the same HSM."""
    rebind = work.snapshot.claim.spec.failover is Failover.REBIND
    if work.gone and not rebind:
        said = work.allocation
        name = said.hsm.name if said is not None else ""
        work.problem = (Reason.HSM_GONE, f"Hsm {name} with the uid of this allocation does not exist any more.")
        work.waits = work.problem
    if work.view is None or not rebind or work.view.standing.serves:
        return Next.GO_ON
    work.moving = True
    others = [view for view in work.seats() if view.uid != work.view.uid]
    work.target = next((view for view in others if work.uid not in view.pending), None)
    return Next.GO_ON


def choose(work: Work) -> Next:
    """The best HSM that can be bound now; else ask those that only have to prove themselves; else say why not."""
    if work.waits is not None or work.target is not None or (work.view is not None and not work.moving):
        return Next.GO_ON
    if any(work.uid in view.pending for view in work.seats()):
        return Next.GO_ON if work.moving else Next.END
    left = work.view.uid if work.view is not None else None
    kept = reservation(work.snapshot)
    if kept is not None:
        _keep_for(work, kept)
        return Next.GO_ON
    work.picked = best_now(work.snapshot, without=left)
    if work.picked is not None:
        return Next.GO_ON
    found = candidates(work.snapshot, without=left)
    best = found[0] if found else None
    waiting = best is not None and best.outcome is Outcome.CANNOT_TELL
    for view in asked_hosts(found):
        work.actions.append(ask(work, view))
    if waiting:
        work.waits = (Reason.WAITING_FOR_ATTESTATION, explain(found))
    else:
        released = best is not None and best.deciding.check == "release"
        work.waits = (Reason.RELEASE_REFUSED if released else Reason.NO_SUITABLE_HSM, explain(found))
    return Next.GO_ON


def _keep_for(work: Work, kept: Reservation) -> None:
    """A claim that takes over keys is bound where they are, and nowhere else."""
    if kept.waits is not None:
        work.waits = kept.waits
        return
    found = examine(work.snapshot, kept.view)
    if found.outcome is Outcome.HOLDS:
        work.picked, work.adopts = kept.view, kept.claim_uids
        return
    if found.outcome is Outcome.CANNOT_TELL:
        work.actions.append(ask(work, kept.view))
    work.waits = (Reason.ADOPTION_PENDING, f"Its keys are on Hsm {kept.view.name}. {explain([found])}")


def allocate(work: Work) -> Next:
    """Take a seat, or complete one that is taken: then, and only then, the claim's allocation is written."""
    if work.picked is not None:
        claim, view = work.snapshot.claim, work.picked
        if FINALIZER not in claim.metadata.finalizers:
            work.actions.append(AddFinalizer(work.ref))
        meta = claim.metadata
        work.actions.append(
            AllocateHsm(
                view.name,
                view.uid,
                meta.uid,
                meta.namespace or "",
                meta.name,
                mode_of(claim),
                limit_of(view),
                _next(work),
                work.adopts,
            )
        )
        return Next.GO_ON if work.moving else Next.END
    if work.target is None:
        return Next.GO_ON
    if seat_sequence(work.target, work.uid) not in (None, _next(work)):
        # Given for another allocation than the one that would follow what the status says: it is taken anew.
        keep, give = leave(work, work.target)
        work.actions += [*keep, *give]
        work.waits = (Reason.PROGRESSING, f"The seat on Hsm {work.target.name} is taken anew.")
        return Next.GO_ON
    found = examine(work.snapshot, work.target)
    if found.outcome is Outcome.HOLDS:
        _bind(work, work.target)
    elif found.outcome is Outcome.CANNOT_TELL:
        work.actions.append(ask(work, work.target))
        work.waits = (Reason.WAITING_FOR_ATTESTATION, explain([found]))
    else:
        _roll_back(work, found)
    return Next.GO_ON


def strays(work: Work) -> Next:
    """Seats that no allocation stands for: left behind by a crash, or by a race that was lost."""
    for view in work.seats():
        if view is not work.view and view is not work.target and work.uid not in view.pending:
            keep, give = leave(work, view)
            work.actions += keep
            work.after += give
    return Next.GO_ON


def ask(work: Work, view: HsmView) -> RequestEvidence | RequestIdentity:
    """What would help to decide: fresh evidence that covers the claim's own policy; or, where that leaves the TPM to
    its vendor and nobody has seen its certificate yet, its identity.
    """
    ref = work.snapshot.claim.spec.policy_ref
    policy = work.snapshot.policies.get(ref.name) if ref is not None else None
    if policy is not None and view.hsm.status.identity is not None:
        endorsed = finding_of_enrolled(view.hsm, view.host, policy, at=work.snapshot.now)
        if endorsed.reason == UNKNOWN:
            return RequestIdentity(view.name, view.uid)
    return RequestEvidence(view.name, view.uid, urgent=True, policies=(ref.name,) if ref is not None else ())


def _bind(work: Work, view: HsmView) -> None:
    """The whole allocation, with the next sequence. The HSM that is left keeps its keys on record first."""
    proof = attested_for(work.snapshot.claim, view, work.snapshot.policies, work.snapshot.now)
    epoch, evidence = view.standing.epoch, view.standing.evidence_digest
    if epoch is None or evidence is None:
        return
    if work.view is not None:
        keep, give = leave(work, work.view)
        work.actions += keep
        work.after += give
    work.allocation = ClaimAllocation(
        sequence=_next(work),
        hsm=HsmRefStatus(name=view.name, uid=view.uid),
        at=timestamp(work.snapshot.now),
        policies=[policy_ref(stamp) for stamp in proof.stamps][:2],
        evidence_digest=evidence,
        epoch=EpochStatus(
            reset_count=epoch.reset_count, restart_count=epoch.restart_count, generation=epoch.generation
        ),
    )
    work.view, work.target, work.moving, work.gone = view, None, False, False


def _next(work: Work) -> int:
    return work.allocation.sequence + 1 if work.allocation is not None else 1


def _roll_back(work: Work, found: Candidate) -> None:
    """A seat that cannot be completed is given back; one that was rebuilt from the token waits for re-admission."""
    view = found.view
    rebuilt = view.hsm.status.identity is None or view.standing.reason is Reason.AWAITING_READMISSION
    if rebuilt:
        work.waits = (Reason.AWAITING_READMISSION, explain([found]))
        return
    work.actions.append(ReleaseAllocation(view.name, view.uid, work.uid))
    work.waits = (Reason.PROGRESSING, explain([found]))


def show(work: Work) -> None:
    """The condition Bound, where there is no allocation in force or the claim is about to move."""
    if work.moving and work.view is not None:
        why = work.waits[1] if work.waits is not None else "Another one is being bound."
        message = f"Hsm {work.view.name} was cut ({work.view.standing.reason}). {why}"
        work.conditions.put(ConditionType.BOUND, Outcome.REFUTED, Reason.REBINDING, message)
    elif work.view is None and work.waits is not None:
        work.conditions.put(ConditionType.BOUND, Outcome.REFUTED, *work.waits)
