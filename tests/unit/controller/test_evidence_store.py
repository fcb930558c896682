"""The store of evidence: what must stay stays, what is damaged is told, and killing it at any step loses nothing."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatelaine.appraisal.stored import RoundKind
from chatelaine.controller.evidence_folder import (
    EvidenceFolder,
    ObjectDamaged,
    ObjectMissing,
    StoreUnusable,
)
from chatelaine.controller.evidence_store import (
    BLOCK_BYTES,
    MAX_ROUNDS_OF_HSM,
    Entry,
    EvidenceStore,
    StoreFull,
    entry_of,
)

ROOM = 64 * BLOCK_BYTES
LOG = b"a boot log" * 600


class Killed(BaseException):
    """What kill -9 looks like from inside."""


def sha(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


def round_(number: int, *parts: bytes) -> bytes:
    """Bytes that name their parts, as a stored round does."""
    return b"round %06d" % number + b"".join(sha(part) for part in parts)


def parts_of(data: bytes) -> tuple[bytes, ...]:
    if not data.startswith(b"round "):
        raise ValueError("no round")
    rest = data[12:]
    return tuple(rest[at : at + 32] for at in range(0, len(rest), 32))


def store(path: Path, *, room: int = ROOM, after_step=lambda _: None) -> EvidenceStore:
    return EvidenceStore(EvidenceFolder(path, after_step), room, parts_of=parts_of)


def entry(number: int, kind: RoundKind = RoundKind.TRUSTED, *, uid: str = "uid-a", group: int = 1, data=None) -> Entry:
    return Entry(number, uid, kind, f"{group:016x}", sha(data if data is not None else round_(number)))


def keep(target: EvidenceStore, number: int, kind=RoundKind.TRUSTED, *parts: bytes, living=None, **about) -> Entry:
    data = round_(number, *parts)
    made = entry(number, kind, data=data, **about)
    target.keep(made, data, parts, living=living)
    return made


def object_of(path: Path, digest: bytes) -> Path:
    return path / "sha256" / digest.hex()[:2] / digest.hex()[2:]


def reopened(path: Path, **options) -> EvidenceStore:
    """As a fresh process finds it."""
    fresh = store(path, **options)
    fresh.open()
    return fresh


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "evidence"


@pytest.fixture
def opened(path: Path):
    found = store(path)
    found.open()
    yield found
    found.close()


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
    assert list(opened.folder_objects()) == []


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


# --- damage ---------------------------------------------------------------------------------------------------


def truncate(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-1])


def replace_content(file: Path) -> None:
    file.write_bytes(b"\0" * file.stat().st_size)


def link_elsewhere(file: Path) -> None:
    copy = file.with_name("elsewhere")
    copy.write_bytes(file.read_bytes())
    file.unlink()
    file.symlink_to(copy)


def make_pipe(file: Path) -> None:
    file.unlink()
    os.mkfifo(file)


def make_folder(file: Path) -> None:
    file.unlink()
    file.mkdir()


def grow(file: Path) -> None:
    with file.open("ab") as end:
        end.truncate(40 * 1024 * 1024)


DAMAGES = [truncate, replace_content, link_elsewhere, make_pipe, make_folder, grow]


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_object_is_told_and_never_read(path, opened, damage):
    keep(opened, 1, RoundKind.REFUTED, LOG)
    damage(object_of(path, sha(LOG)))
    with pytest.raises(ObjectDamaged):
        opened.read(sha(LOG))


@pytest.mark.parametrize("damage", [*DAMAGES, Path.unlink])
def test_damaged_round_is_given_up_and_told_at_the_next_start(path, opened, damage):
    made, other = keep(opened, 1, RoundKind.REFUTED, LOG), keep(opened, 2)
    opened.close()
    damage(object_of(path, made.digest))
    fresh = store(path)
    (told,) = fresh.open().damaged
    assert made.mark in told
    assert fresh.entries() == (other,)
    assert fresh.objects == 1
    assert list(fresh.folder_objects()) == [(other.digest, len(round_(2)))]


def test_missing_part_is_told_at_the_next_start(path, opened):
    keep(opened, 1, RoundKind.REFUTED, LOG)
    opened.close()
    object_of(path, sha(LOG)).unlink()
    fresh = store(path)
    assert "a part is missing" in fresh.open().damaged[0]
    assert list(fresh.folder_objects()) == []


def test_damaged_part_is_mended_by_the_next_round_that_has_it(path, opened):
    keep(opened, 1, RoundKind.REFUTED, LOG)
    replace_content(object_of(path, sha(LOG)))
    keep(opened, 2, RoundKind.REFUTED, LOG)
    assert opened.read(sha(LOG)) == LOG


def test_folder_that_is_a_link_is_not_followed(path, opened, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    data = round_(1)
    place = path / "sha256" / sha(data).hex()[:2]
    place.parent.mkdir()
    place.symlink_to(elsewhere)
    with pytest.raises(StoreUnusable):
        keep(opened, 1)
    assert list(elsewhere.iterdir()) == []


@pytest.mark.parametrize(
    "name", ["x", "000000000000001-Trusted-0", "000000000000001-Loved-" + "0" * 16 + "-" + "0" * 64]
)
def test_marks_that_are_none_are_cleared_and_told(path, opened, name):
    opened.close()
    folder = path / "rounds" / "uid-a"
    folder.mkdir(parents=True)
    (folder / name).touch()
    fresh = store(path)
    assert len(fresh.open().damaged) == 1
    assert not folder.exists()


def test_mark_that_goes_while_others_are_listed_hides_none_of_them(path, opened, monkeypatch):
    """A person reads the folder while the operator makes room in it."""
    gone, kept = keep(opened, 1, RoundKind.BLOCKED), keep(opened, 2, RoundKind.REFUTED)
    scan = os.scandir

    @contextlib.contextmanager
    def slow(folder):
        with scan(folder) as found:
            entries = list(found)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(gone.mark, dir_fd=folder)
        yield iter(entries)

    monkeypatch.setattr(os, "scandir", slow)
    assert list(EvidenceFolder(path).marks()) == [(kept.hsm_uid, kept.mark)]


def test_marks_say_what_entries_are():
    made = entry(5, RoundKind.BLOCKED)
    assert entry_of("uid-a", made.mark) == made


def test_folder_that_cannot_be_made_is_told(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(StoreUnusable):
        store(tmp_path / "file" / "evidence").open()


# --- killed anywhere ------------------------------------------------------------------------------------------


def story(target: EvidenceStore, committed: list[Entry]) -> None:
    """Fills a small store until rounds have to go; what `keep` returned from is committed."""
    target.open()
    committed.append(keep(target, 1, RoundKind.REFUTED, LOG))
    committed.extend(keep(target, n, RoundKind.TRUSTED, LOG, b"list %d" % n) for n in range(2, 6))
    committed.extend(keep(target, n, RoundKind.BLOCKED, LOG, b"list %d" % n, group=n) for n in range(6, 10))


def steps_of_story(path: Path) -> int:
    count = 0

    def counted(_: str) -> None:
        nonlocal count
        count += 1

    target = store(path, room=16 * BLOCK_BYTES, after_step=counted)
    story(target, [])
    target.close()
    assert target.pruned > 0
    return count


def test_killed_between_any_two_steps_loses_nothing_that_was_stored(tmp_path):
    for stop in range(1, steps_of_story(tmp_path / "whole") + 1):
        path = tmp_path / f"killed-{stop}"
        left = stop

        def kill(_: str) -> None:
            nonlocal left
            left -= 1
            if not left:
                raise Killed

        target = store(path, room=16 * BLOCK_BYTES, after_step=kill)
        committed: list[Entry] = []
        with pytest.raises(Killed):
            story(target, committed)
        target.close()
        fresh = store(path, room=16 * BLOCK_BYTES)
        assert fresh.open().damaged == (), stop
        stored = set(fresh.entries())
        assert all(one in stored for one in committed if one.kind is RoundKind.REFUTED), stop
        newest = [max((e for e in some if e.kind is RoundKind.TRUSTED), default=None) for some in (committed, stored)]
        assert newest[0] is None or (newest[1] is not None and newest[0] <= newest[1]), stop
        for one in stored:
            assert all(fresh.read(part) for part in parts_of(fresh.read(one.digest))), stop
        reachable = {part for one in stored for part in (one.digest, *parts_of(fresh.read(one.digest)))}
        assert {digest for digest, _ in fresh.folder_objects()} == reachable, stop
        assert not list(path.rglob(".unfinished-*")), stop
        fresh.close()
