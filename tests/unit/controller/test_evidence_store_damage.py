"""The store of evidence: what is damaged is told, and killing it at any step loses nothing that must stay."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import pytest

from chatelaine.appraisal.stored import RoundKind
from chatelaine.controller.evidence_folder import (
    EvidenceFolder,
    ObjectDamaged,
    StoreUnusable,
)
from chatelaine.controller.evidence_store import (
    BLOCK_BYTES,
    Entry,
    EvidenceStore,
    entry_of,
)
from support.stored_evidence import LOG, entry, keep, lying_in, object_of, parts_of, round_, sha, store


class Killed(BaseException):
    """What kill -9 looks like from inside."""


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
    assert lying_in(path) == {other.digest: len(round_(2))}


def test_missing_part_is_told_at_the_next_start(path, opened):
    keep(opened, 1, RoundKind.REFUTED, LOG)
    opened.close()
    object_of(path, sha(LOG)).unlink()
    fresh = store(path)
    assert "a part is missing" in fresh.open().damaged[0]
    assert lying_in(path) == {}


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
        assert lying_in(path).keys() == reachable, stop
        assert not list(path.rglob(".unfinished-*")), stop
        fresh.close()
