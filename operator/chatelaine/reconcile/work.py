"""The scratch pad of one look at one claim: what the steps have found and want done so far."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field

from chatelaine.model.claim import BindingStatus, ClaimAllocation, KeyStatus, NetworkPolicyRef
from chatelaine.model.identifiers import ANNOTATION_PAUSED
from chatelaine.model.reasons import Reason
from chatelaine.reconcile.claim_snapshot import ClaimSnapshot, HsmView
from chatelaine.reconcile.conditions import ConditionDraft
from chatelaine.reconcile.plan import Action, ObjectRef
from chatelaine.reconcile.served import ClaimStanding


class Next(enum.Enum):
    """What follows a step: the next one; the writing of the status, which the step has summed up itself; or nothing.

    END leaves the status as it is: what was asked for comes back with the next snapshot.
    """

    GO_ON = "GoOn"
    SUMMED_UP = "SummedUp"
    END = "End"


@dataclass(slots=True)
class Work:
    """Lives for one call of `claim.reconcile`.

    Attributes:
        snapshot: the input; never changed.
        conditions: conditions to be written.
        allocation, keys, binding, policies: the status to be written.
        view: the HSM that the claim is bound to.
        target: an HSM where it has a seat that its allocation does not name yet.
        picked: an HSM where it should take a seat.
        adopts: uids of former claims whose keys it takes over with that seat.
        waits: why it is not bound, or does not move on.
        moving: its HSM is cut and it wants another one.
        gone: the Hsm object of its allocation does not exist.
        standing: whether it may use it.
        problem: why `Ready` is False although no condition of its own says so; with it the claim is Stalled.
        actions: what to do, in order, before the status is written.
        after: what to do once it is written.
    """

    snapshot: ClaimSnapshot
    conditions: ConditionDraft
    allocation: ClaimAllocation | None
    keys: list[KeyStatus]
    binding: BindingStatus | None
    policies: list[NetworkPolicyRef]
    view: HsmView | None = None
    target: HsmView | None = None
    picked: HsmView | None = None
    adopts: tuple[str, ...] = ()
    standing: ClaimStanding | None = None
    waits: tuple[Reason, str] | None = None
    moving: bool = False
    gone: bool = False
    problem: tuple[Reason, str] | None = None
    actions: list[Action] = field(default_factory=list)
    after: list[Action] = field(default_factory=list)

    @classmethod
    def of(cls, snapshot: ClaimSnapshot) -> Work:
        """Starts from what stands in the status."""
        claim = snapshot.claim
        draft = ConditionDraft(claim.status.conditions, generation=claim.metadata.generation, now=snapshot.now)
        status = claim.status
        return cls(snapshot, draft, status.allocation, list(status.keys), status.binding, list(status.network_policies))

    @property
    def ref(self) -> ObjectRef:
        """The claim."""
        meta = self.snapshot.claim.metadata
        return ObjectRef("HsmClaim", meta.name, meta.uid, meta.namespace)

    @property
    def uid(self) -> str:
        """UID of the claim."""
        return self.snapshot.claim.metadata.uid

    @property
    def paused(self) -> bool:
        """A person stopped changes; revocation and deletion still act."""
        return self.snapshot.claim.metadata.annotations.get(ANNOTATION_PAUSED) == "true"

    @property
    def serves(self) -> bool:
        """The claim may use its HSM."""
        return self.view is not None and self.standing is not None and self.standing.serves

    def find(self, uid: str) -> HsmView | None:
        """The HSM with that uid."""
        return next((view for view in self.snapshot.hsms if view.uid == uid), None)

    def seats(self) -> list[HsmView]:
        """All HSMs with a seat for this claim, committed or about to be, by name."""
        return sorted((view for view in self.snapshot.hsms if self.uid in view.seats), key=lambda view: view.name)
