"""The store of evidence: what must stay stays, and the rest goes in the right order."""

from __future__ import annotations

import shutil

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatelaine.appraisal.stored import RoundKind
from chatelaine.controller.evidence_folder import (
    ObjectMissing,
    StoreUnusable,
)
from chatelaine.controller.evidence_store import (
    BLOCK_BYTES,
    MAX_ROUNDS_OF_HSM,
    Entry,
    StoreFull,
)
from support.stored_evidence import LOG, entry, keep, lying_in, object_of, reopened, round_, sha, store

# --- keeping and reading --------------------------------------------------------------------------------------


def test_round_and_its_parts_come_back_after_a_restart(path, opened):
    made = keep(opened, 1, RoundKind.REFUTED, LOG)
    opened.close()
    fresh = reopened(path)
    assert fresh.entries() == (made,)
    assert fresh.read(made.digest) == round_(1, LOG)
    assert fresh.read(sha(LOG)) == LOG
    assert fresh.used_bytes == opened.used_bytes


def test_part_of_many_rounds_is_stored_once_and_goes_with_the_last(opened):
    first, second = (keep(opened, n, RoundKind.BLOCKED, LOG, group=n) for n in (1, 2))
    assert opened.objects == 3
    opened.forget(first)
    assert opened.read(sha(LOG)) == LOG
    opened.forget(second)
    assert (opened.objects, opened.used_bytes) == (0, 0)
    with pytest.raises(ObjectMissing):
        opened.read(sha(LOG))


def test_same_round_is_stored_once(opened):
    keep(opened, 1)
    before = opened.used_bytes
    keep(opened, 1)
    assert (len(opened), opened.used_bytes) == (1, before)


def test_of_one_boot_under_one_policy_the_first_and_the_newest_trusted_round_stay(opened):
    for number in range(1, 6):
        keep(opened, number)
    keep(opened, 6, group=2)
    assert [found.received_ms for found in opened.entries()] == [1, 5, 6]
    assert opened.newest("uid-a", RoundKind.TRUSTED) == entry(6, group=2)


def test_folder_is_for_its_owner_alone(path, opened):
    made = keep(opened, 1)
    assert path.stat().st_mode & 0o077 == 0
    assert object_of(path, made.digest).stat().st_mode & 0o077 == 0


def test_two_processes_do_not_write_one_folder(path, opened):
    with pytest.raises(StoreUnusable, match="another process"):
        reopened(path)


@pytest.mark.parametrize("uid", ["../../etc", "", "a/b", ".", "u" * 65])
def test_uid_that_leads_out_of_the_folder_is_refused(path, opened, uid):
    with pytest.raises(StoreUnusable):
        keep(opened, 1, uid=uid)
    assert len(opened) == 0
    assert lying_in(path) == {}


# --- room -----------------------------------------------------------------------------------------------------


def test_oldest_goes_first(path):
    small = reopened(path, room=6 * BLOCK_BYTES)
    for number in range(1, 5):
        keep(small, number, RoundKind.BLOCKED, group=number)
    assert [found.received_ms for found in small.entries()] == [2, 3, 4]
    assert small.pruned == 1


def test_refutation_and_newest_trusted_round_of_a_living_hsm_are_never_pruned(path):
    small = reopened(path, room=8 * BLOCK_BYTES)
    refuted = keep(small, 1, RoundKind.REFUTED)
    trusted = keep(small, 2, group=2)
    for number in range(3, 20):
        keep(small, number, RoundKind.AUDITED, group=number, uid="uid-b")
    assert {refuted, trusted} <= set(small.entries())


def test_full_store_says_so_and_keeps_what_it_has(path):
    small = reopened(path, room=4 * BLOCK_BYTES)
    kept = [keep(small, number, RoundKind.REFUTED, group=number) for number in (1, 2)]
    with pytest.raises(StoreFull, match="refutations of living Hsms"):
        keep(small, 3)
    assert list(small.entries()) == kept


def test_round_that_can_never_fit_drives_nothing_out(path):
    small = reopened(path, room=4 * BLOCK_BYTES)
    kept = keep(small, 1, RoundKind.BLOCKED)
    with pytest.raises(StoreFull, match="does not fit"):
        keep(small, 2, RoundKind.REFUTED, b"x" * 8 * BLOCK_BYTES)
    assert small.entries() == (kept,)


def test_round_that_does_not_fit_beside_what_must_stay_drives_nothing_out(path):
    small = reopened(path, room=10 * BLOCK_BYTES)
    kept = [keep(small, 1, RoundKind.REFUTED), keep(small, 2, RoundKind.BLOCKED, uid="uid-b", group=2)]
    with pytest.raises(StoreFull, match="the evidence store is full"):
        keep(small, 3, RoundKind.REFUTED, b"x" * 7 * BLOCK_BYTES, uid="uid-c")
    assert list(small.entries()) == kept


def test_what_belongs_to_hsms_that_are_gone_goes_before_anything_else(path):
    small = reopened(path, room=6 * BLOCK_BYTES)
    keep(small, 1, RoundKind.BLOCKED, uid="uid-a")
    keep(small, 2, RoundKind.REFUTED, uid="uid-b")
    keep(small, 3, RoundKind.REFUTED, uid="uid-a")
    keep(small, 4, RoundKind.BLOCKED, uid="uid-a", group=4, living={"uid-a"})
    assert [found.received_ms for found in small.entries()] == [1, 3, 4]


def test_host_that_changes_with_every_round_does_not_drive_out_others(path):
    big = reopened(path, room=4 * MAX_ROUNDS_OF_HSM * BLOCK_BYTES)
    mine = keep(big, 1, RoundKind.BLOCKED, uid="uid-b")
    for number in range(2, 2 * MAX_ROUNDS_OF_HSM):
        keep(big, number, RoundKind.AUDITED, group=number)
    assert len(big.entries("uid-a")) == MAX_ROUNDS_OF_HSM
    assert big.entries("uid-b") == (mine,)


def test_host_whose_rounds_are_long_does_not_drive_out_those_of_others(path):
    """A list of what ran has up to 32 MiB, and a host writes its own."""
    small = reopened(path, room=40 * BLOCK_BYTES)
    others = [keep(small, number, RoundKind.BLOCKED, uid=f"uid-{number}") for number in range(1, 6)]
    for number in range(6, 26):
        keep(small, number, RoundKind.AUDITED, b"%d" % number * 5 * BLOCK_BYTES, group=number)
    assert set(others) <= set(small.entries())
    assert small.newest("uid-a", RoundKind.AUDITED).received_ms == 25


KINDS = st.sampled_from(list(RoundKind))
STEPS = st.lists(st.tuples(KINDS, st.sampled_from(["a", "b", "c"]), st.integers(1, 3), st.integers(0, 3)), max_size=24)


@given(STEPS, st.sets(st.sampled_from(["a", "b", "c"])), st.integers(4, 24))
def test_pruning_never_drops_what_must_stay_and_never_exceeds_the_bound(tmp_path_factory, steps, living, blocks):
    path = tmp_path_factory.mktemp("store")
    target = store(path, room=blocks * BLOCK_BYTES)
    target.open()
    must_stay: dict[tuple[str, RoundKind], list[Entry]] = {}
    for number, (kind, uid, group, size) in enumerate(steps):
        try:
            made = keep(target, number, kind, b"part" * 1024 * size, uid=uid, group=group, living=living)
        except StoreFull:
            pass
        else:
            if kind is RoundKind.REFUTED:
                must_stay.setdefault((uid, kind), []).append(made)
            elif kind is RoundKind.TRUSTED:
                must_stay[uid, kind] = [made]
        assert target.used_bytes <= blocks * BLOCK_BYTES
        stored = set(target.entries())
        assert all(one in stored for (uid, _), kept in must_stay.items() if uid in living for one in kept)
    target.close()
    fresh = store(path, room=blocks * BLOCK_BYTES)
    assert fresh.open().damaged == ()
    assert (fresh.entries(), fresh.used_bytes, fresh.objects) == (target.entries(), target.used_bytes, target.objects)
    fresh.close()
    shutil.rmtree(path)
