"""What a reconcile wants done: frozen, idempotent actions in the order in which they must happen.

The executor runs a plan's actions one after the other, stops at the first that fails, and reconciles again. What an
action brings (a key made, a status written) comes back through cache and memory with the next snapshot. Every action
may be run twice. Those in `Request` write nothing anywhere and may stand in every plan of a world that waits.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from chatelaine.model.claim import HsmClaimStatus
from chatelaine.model.hsm import HsmStatus, Mode, RetainedKey
from chatelaine.model.keys import KeyType
from chatelaine.model.policy import AttestationPolicyStatus
from chatelaine.model.reasons import Reason


@dataclass(frozen=True, slots=True)
class ObjectRef:
    """One object. Writes must fail when the object of that name has another uid."""

    kind: str
    name: str
    uid: str
    namespace: str | None = None


class EventType(enum.StrEnum):
    """Types of Kubernetes Events."""

    NORMAL = "Normal"
    WARNING = "Warning"


# --- requests: nothing is written -----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class RequestIdentity:
    """Ask the host for its identity and prove it by credential activation; the answer comes as `presented`,
    and with it a round of evidence verified under the AK presented there (`EvidenceRound.presented`).

    Repeated while the answer is awaited; the controller asks once at a time, with back-off.
    """

    hsm: str
    hsm_uid: str


@dataclass(frozen=True, slots=True)
class RequestEvidence:
    """Ask for fresh evidence. `policies`: names whose PCR selection the quote must cover, besides the Hsm's own.

    `urgent`: do not wait for the interval. One round at a time a host.
    """

    hsm: str
    hsm_uid: str
    urgent: bool = False
    policies: tuple[str, ...] = ()


# --- hsm ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class CutHsm:
    """Fast lane, before anything is written: the gateway's standing and claims are revoked, its connections closed,
    and the claims of this Hsm are reconciled at once.
    """

    hsm: str
    hsm_uid: str
    reason: Reason


@dataclass(frozen=True, slots=True)
class SetHsmStatus:
    """Apply all of `Hsm.status` but `allocations` and `retained`, which belong to the committer of seats.

    `resource_version`: when set, the write must be refused (409) if the object has moved on: identity is written
    once, a re-admission is honoured once.
    """

    hsm: str
    hsm_uid: str
    status: HsmStatus
    resource_version: str | None = None


# --- seats: written by the one committer of each Hsm, guarded by resourceVersion ------------------------------


@dataclass(frozen=True, slots=True)
class AllocateHsm:
    """Give the claim a seat in `Hsm.status.allocations`.

    The committer checks against the object it writes: not being deleted, uid as here, fewer than `limit` seats, no
    Exclusive seat of another claim, and for mode Exclusive no seat at all. A seat that is there already is success.
    `sequence` goes into the seat: the claim's allocation is believed only if it carries the same number.
    `adopts`: uids of former claims whose retained keys this one takes over, noted (`adoptedBy`) in the same write; it
    is refused where one of them is not retained here, or belongs to another claim already.
    """

    hsm: str
    hsm_uid: str
    claim_uid: str
    namespace: str
    name: str
    mode: Mode
    limit: int
    sequence: int | None = None
    adopts: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ReleaseAllocation:
    """Take the claim's seat away. A seat that is not there is success, and so is an Hsm that is gone."""

    hsm: str
    hsm_uid: str
    claim_uid: str


@dataclass(frozen=True, slots=True)
class RetainKeys:
    """Merge key versions into `Hsm.status.retained` (by claim uid, then name and version)."""

    hsm: str
    hsm_uid: str
    claim_uid: str
    namespace: str
    namespace_uid: str | None
    name: str
    keys: tuple[RetainedKey, ...]


# --- claims ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class SetClaimStatus:
    """Apply the whole of `HsmClaim.status`."""

    claim: ObjectRef
    status: HsmClaimStatus


@dataclass(frozen=True, slots=True)
class EnsureKey:
    """Have the gateway make sure that a key version exists. `may_generate` only after its intent stands in status.

    A gateway that does not answer, here and in `DestroyKey`, is noted in `HostObservation.reach`: plans then wait.
    """

    hsm: str
    hsm_uid: str
    label: str
    type: KeyType
    may_generate: bool


@dataclass(frozen=True, slots=True)
class DestroyKey:
    """Have the gateway destroy both halves. A key that is not there is success."""

    hsm: str
    hsm_uid: str
    label: str


# --- policies -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class SetPolicyStatus:
    """Apply the whole of `AttestationPolicy.status`."""

    policy: ObjectRef
    status: AttestationPolicyStatus


# --- any object -----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class AddFinalizer:
    """Put our finalizer on the object."""

    object: ObjectRef


@dataclass(frozen=True, slots=True)
class RemoveFinalizer:
    """Take our finalizer off; an object that is gone is success."""

    object: ObjectRef


@dataclass(frozen=True, slots=True)
class ApplyNetworkPolicy:
    """Server-side apply of a whole NetworkPolicy. `digest` also stands in its annotation."""

    namespace: str
    name: str
    digest: str
    manifest: Mapping[str, Any]

    def __hash__(self) -> int:
        """The digest stands for the manifest."""
        return hash((self.namespace, self.name, self.digest))


@dataclass(frozen=True, slots=True)
class DeleteNetworkPolicy:
    """Delete a NetworkPolicy of ours; one that is gone is success."""

    namespace: str
    name: str


@dataclass(frozen=True, slots=True)
class ApplySecret:
    """Create or update the binding Secret. It must be refused when a Secret of that name has another owner uid."""

    namespace: str
    name: str
    owner_uid: str
    digest: str
    manifest: Mapping[str, Any]

    def __hash__(self) -> int:
        """The digest stands for the manifest."""
        return hash((self.namespace, self.name, self.digest))


@dataclass(frozen=True, slots=True)
class DeleteSecret:
    """Delete the Secret if `owner_uid` owns it; another's is left alone."""

    namespace: str
    name: str
    owner_uid: str


@dataclass(frozen=True, slots=True)
class EmitEvent:
    """A Kubernetes Event about a transition."""

    object: ObjectRef
    type: EventType
    reason: Reason
    message: str


Request = RequestIdentity | RequestEvidence
Write = (
    CutHsm
    | SetHsmStatus
    | AllocateHsm
    | ReleaseAllocation
    | RetainKeys
    | SetClaimStatus
    | EnsureKey
    | DestroyKey
    | SetPolicyStatus
    | AddFinalizer
    | RemoveFinalizer
    | ApplyNetworkPolicy
    | DeleteNetworkPolicy
    | ApplySecret
    | DeleteSecret
    | EmitEvent
)
Action = Request | Write


@dataclass(frozen=True, slots=True)
class Plan:
    """What to do now, and when time alone will change the answer.

    `wake_at`: seconds since the epoch at which to reconcile again even if nothing happens; None: never.
    """

    actions: tuple[Action, ...] = ()
    wake_at: float | None = None

    @property
    def writes(self) -> tuple[Write, ...]:
        """Without the requests. Empty for a settled world."""
        return tuple(action for action in self.actions if not isinstance(action, RequestIdentity | RequestEvidence))
