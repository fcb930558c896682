"""What one write of seats makes of many actions: one that cannot be done spoils none of the others."""

from __future__ import annotations

from dataclasses import replace

import pytest

from chatelaine.controller.committer import SeatRefused, apply_all
from chatelaine.kube.errors import Invalid
from chatelaine.model.common import MAX_ALLOCATIONS
from chatelaine.model.hsm import MAX_RETAINED_KEYS, Hsm, Mode, Retained, RetainedKey
from chatelaine.model.keys import KeyState
from chatelaine.reconcile.plan import AllocateHsm, RetainKeys
from support.world_objects import put_hsm, stage

AT = "2026-01-01T00:00:00Z"
SEAT = AllocateHsm("hsm-a", "uid", "another", "payments", "another", Mode.SHARED, 100, 1)


def versions(count: int) -> tuple[RetainedKey, ...]:
    return tuple(
        RetainedKey(name="signing", version=number, state=KeyState.DEACTIVATED) for number in range(1, count + 1)
    )


def retains(uid: str, count: int) -> RetainKeys:
    return RetainKeys("hsm-a", "uid", uid, "payments", None, "checkout", versions(count))


def hsm_with(retained: list[Retained]) -> Hsm:
    world = stage("hsm-a")
    world.put_hsm(put_hsm(world, "hsm-a"), retained=retained)
    return world.hsms["hsm-a"]


def kept(uid: str, count: int) -> Retained:
    return Retained(claim_uid=uid, namespace="payments", name="checkout", keys=list(versions(count)), at=AT)


@pytest.mark.parametrize(
    ("before", "action"),
    [
        ([], retains("gone", MAX_RETAINED_KEYS + 1)),
        ([kept(f"gone-{number}", 1) for number in range(MAX_ALLOCATIONS)], retains("one-more", 1)),
    ],
    ids=["keys", "claims"],
)
def test_claim_with_more_keys_than_can_be_retained_takes_no_seats_from_others(
    before: list[Retained], action: RetainKeys
) -> None:
    seats, retained, written, refused = apply_all(hsm_with(before), [action, SEAT], 0.0)
    assert [seat.claim_uid for seat in seats] == ["another"]
    assert (retained, written) == (before, 1)
    # A try that is made again later, with pauses: not like a seat that somebody else was given.
    assert isinstance(refused[0], Invalid)
    assert refused[1] is None


def test_retaining_again_what_is_retained_is_no_refusal_where_everything_is_full() -> None:
    before = [kept(f"gone-{number}", MAX_RETAINED_KEYS) for number in range(MAX_ALLOCATIONS)]
    _, retained, written, refused = apply_all(hsm_with(before), [retains("gone-0", MAX_RETAINED_KEYS)], 0.0)
    assert (len(retained), written, refused) == (MAX_ALLOCATIONS, 0, [None])


def test_seat_and_taking_over_of_keys_are_one_write() -> None:
    before = [kept("gone", 2), kept("gone-too", 1)]
    seats, retained, written, refused = apply_all(hsm_with(before), [replace(SEAT, adopts=("gone",))], 0.0)
    assert ([seat.claim_uid for seat in seats], written, refused) == (["another"], 1, [None])
    assert [one.adopted_by for one in retained] == ["another", None]
    # Once more, by another operator: nothing to write. More keys of the former claim are still its.
    world_hsm = hsm_with(retained)
    world_hsm = world_hsm.model_copy(update={"status": world_hsm.status.model_copy(update={"allocations": seats})})
    again = apply_all(world_hsm, [replace(SEAT, adopts=("gone",)), retains("gone", 3)], 0.0)
    assert again[2] == 1
    assert [(one.adopted_by, len(one.keys)) for one in again[1]] == [("another", 3), (None, 1)]


@pytest.mark.parametrize("theirs", ["somebody-else", None])
def test_keys_that_another_claim_took_over_are_not_handed_over_again(theirs: str | None) -> None:
    held = [kept("gone", 1).model_copy(update={"adopted_by": theirs})] if theirs else []
    seats, retained, written, refused = apply_all(hsm_with(held), [replace(SEAT, adopts=("gone",))], 0.0)
    assert (seats, retained, written) == ([], held, 0)
    assert isinstance(refused[0], SeatRefused)


def test_of_two_claims_in_one_batch_only_the_first_takes_the_keys() -> None:
    first, second = replace(SEAT, adopts=("gone",)), replace(SEAT, claim_uid="second", adopts=("gone",))
    seats, retained, _, refused = apply_all(hsm_with([kept("gone", 1)]), [first, second], 0.0)
    assert ([seat.claim_uid for seat in seats], retained[0].adopted_by) == (["another"], "another")
    assert isinstance(refused[1], SeatRefused)
