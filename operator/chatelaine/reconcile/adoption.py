"""Keys of a claim that is gone, and the one claim that takes them over: after a restore every object has a new uid.

An administrator names both in `Hsm.spec.adoptions`; nothing that a tenant may write leads here. In this order:

1. a claim that is named there and has no allocation is kept for that Hsm. It takes no other, and no key is made for it,
   until the keys can be handed over or the administrator takes the entry away;
2. keys of a claim that exists are handed to nobody;
3. the seat, and who took the keys over, are written in one guarded write: of two claims, or two operators, one wins.
   Keys are handed over once; who comes later under the same name is a stranger;
4. the versions stand in the claim's status as intents, and become usable once the token has shown that it has them.
   They are never made anew (`keys`).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from chatelaine.model.claim import ClaimAllocation, HsmClaim, HsmRefStatus, KeyVersionStatus
from chatelaine.model.common import MAX_KEY_VERSIONS
from chatelaine.model.hsm import Adoption, Hsm
from chatelaine.model.keys import KeyState
from chatelaine.model.reasons import Reason
from chatelaine.reconcile.claim_snapshot import ClaimSnapshot, HsmView

_NOT_IN_THE_TOKEN: Final = frozenset({KeyState.PRE_ACTIVE, KeyState.DESTROYED})
_Wait = tuple[Reason, str]
_READY: Final = None


@dataclass(frozen=True, slots=True)
class Reservation:
    """The Hsm that a claim is kept for.

    Attributes:
        view: the Hsm that holds the keys.
        claim_uids: of the former claims whose keys can be handed over now.
        waits: what is waited for; None: nothing.
    """

    view: HsmView
    claim_uids: tuple[str, ...] = ()
    waits: _Wait | None = None


def reservation(snapshot: ClaimSnapshot) -> Reservation | None:
    """Steps 1 and 2 for a claim without a place; None: no administrator keeps it for an Hsm."""
    meta = snapshot.claim.metadata
    if snapshot.claim.status.allocation is not None:
        return None
    for view in sorted(snapshot.hsms, key=lambda one: one.name):
        said = view.adoptions.get((meta.namespace or "", meta.name), ())
        open_ = [one for one in said if not _spent(view, one, meta.uid)]
        if not open_:
            continue
        waits = [wait for one in open_ if (wait := _waits(snapshot, view, one)) is not _READY]
        return Reservation(view, tuple(one.claim_uid for one in open_), waits[0] if waits else None)
    return None


def adoptions_of(hsm: Hsm, claims: Iterable[HsmClaim]) -> list[Adoption]:
    """What the Hsm's spec should say before its status is lost: with it a restore finds the keys of its claims.

    One for each claim with keys in force here, and for each former one whose keys such a claim has taken over; then
    those that stand in the spec and were not honoured yet.
    """
    seats = {seat.claim_uid for seat in hsm.status.allocations}
    found: dict[str, Adoption] = {}
    for claim in claims:
        meta, allocation = claim.metadata, claim.status.allocation
        if meta.uid not in seats or allocation is None or allocation.hsm.uid != hsm.metadata.uid:
            continue
        for version in (version for key in claim.status.keys for version in key.versions):
            if version.sequence != allocation.sequence or version.state in _NOT_IN_THE_TOKEN:
                continue
            maker = version.made_by or meta.uid
            before = found.get(maker)
            marks = [version.suspect_since, before.suspect_since if before is not None else None]
            found[maker] = Adoption(
                claim_uid=maker,
                namespace=meta.namespace or "",
                name=meta.name,
                suspect_since=min(filter(None, marks), default=None),
            )
    taken = {kept.claim_uid for kept in hsm.status.retained if kept.adopted_by is not None}
    open_ = [one for one in hsm.spec.adoptions or () if one.claim_uid not in taken and one.claim_uid not in found]
    return [*(found[uid] for uid in sorted(found)), *open_]


def adopted_versions(claim_uid: str, key: str, view: HsmView, allocation: ClaimAllocation) -> list[KeyVersionStatus]:
    """Step 4: the versions of `key` on that Hsm which the claim has taken over, as intents; the newest of them, oldest
    first.
    """
    suspect = {one.claim_uid: one.suspect_since for one in view.hsm.spec.adoptions or ()}
    found: dict[int, KeyVersionStatus] = {}
    for kept in view.hsm.status.retained:
        if kept.adopted_by != claim_uid:
            continue
        for version in kept.keys:
            if version.name == key and version.version not in found:
                found[version.version] = KeyVersionStatus(
                    version=version.version,
                    state=KeyState.PRE_ACTIVE,
                    sequence=allocation.sequence,
                    hsm=HsmRefStatus(name=view.name, uid=view.uid),
                    suspect_since=suspect.get(kept.claim_uid),
                    made_by=kept.claim_uid,
                )
    return [found[number] for number in sorted(found)][-MAX_KEY_VERSIONS:]


def _spent(view: HsmView, said: Adoption, claim_uid: str) -> bool:
    """Handed over to another claim already; or said of the very claim that made them, which needs no adoption."""
    taken = {kept.claim_uid: kept.adopted_by for kept in view.hsm.status.retained}
    return said.claim_uid == claim_uid or taken.get(said.claim_uid) not in (None, claim_uid)


def _waits(snapshot: ClaimSnapshot, view: HsmView, said: Adoption) -> _Wait | None:
    """Why these keys cannot be handed over now; `_READY`: they can."""
    if said.claim_uid in snapshot.living:
        message = f"Hsm {view.name}: claim {said.claim_uid} exists; its keys are not handed over."
        return Reason.ADOPTION_PENDING, message
    if view.hsm.status.identity is None:
        message = f"Its keys are on Hsm {view.name}, whose host must be enrolled or re-admitted first."
        waits_for_a_person = view.standing.reason is Reason.AWAITING_READMISSION
        return Reason.AWAITING_READMISSION if waits_for_a_person else Reason.ADOPTION_PENDING, message
    if said.claim_uid in view.seats:
        return Reason.ADOPTION_PENDING, f"Hsm {view.name}: the place of claim {said.claim_uid} is being given back."
    if all(kept.claim_uid != said.claim_uid for kept in view.hsm.status.retained):
        message = (
            f"Hsm {view.name}.spec.adoptions promises keys of claim {said.claim_uid}, and none are retained there;"
            " take the entry away to have new keys made."
        )
        return Reason.ADOPTION_PENDING, message
    return _READY
