"""The compact allow-list answers exactly as a plain set of pairs would."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatelaine.evidence import errors
from chatelaine.evidence.reference_files import (
    MAX_DIGESTS_OF_A_ROW,
    MAX_PREFIX_CHARACTERS,
    CompactAllowList,
    GoodFile,
    check_file,
    combined,
    read_files,
    with_grace,
    write_files,
)
from chatelaine.model.material import FileAllowList

DIGESTS = tuple(f"sha256:{number:064x}" for number in range(8))
PATHS = ("a", "/a", "/a/b", "/a/b ", "/a/b\n", "/ä", "/a\udcff", "")

pairs = st.dictionaries(
    st.tuples(st.sampled_from(PATHS), st.sampled_from(DIGESTS)), st.none() | st.integers(1, 9), max_size=40
)


def compact(found: dict[tuple[str, str], int | None]) -> FileAllowList:
    return CompactAllowList(GoodFile(path, (digest,), until) for (path, digest), until in found.items())


@given(pairs, st.integers(0, 10))
def test_every_look_up_is_that_of_a_dictionary(found, at):
    listed = compact(found)
    assert len(listed) == len(found)
    for path in PATHS:
        for digest in DIGESTS:
            good = (path, digest) in found and ((end := found[path, digest]) is None or at < end)
            assert listed.allows(path, digest, at=at) == good


@pytest.mark.parametrize("count", [0, 1, 2, 3, 255, 256, 70_000])
def test_every_size_of_list_finds_its_own_and_nothing_else(count):
    listed = CompactAllowList(GoodFile(f"/{number}", (DIGESTS[0],)) for number in range(count))
    step = max(1, count // 500)
    assert len(listed) == count
    assert all(listed.allows(f"/{number}", DIGESTS[0], at=0) for number in range(0, count, step))
    assert not any(listed.allows(f"/{number}", DIGESTS[1], at=0) for number in range(0, count, step))
    assert not any(listed.allows(f"/{number}", DIGESTS[0], at=0) for number in range(count, count + 500))


def test_good_content_under_another_path_is_not_allowed():
    listed = CompactAllowList([GoodFile("/usr/bin/ls", (DIGESTS[1],)), GoodFile("/usr/bin/cat", (DIGESTS[2],))])
    assert not listed.allows("/usr/bin/cat", DIGESTS[1], at=0)


@pytest.mark.parametrize(("path", "digest"), [("xsha256:00", ""), ("", "sha256:00x"), ("x", "sha256:00")])
def test_path_and_digest_cannot_be_cut_elsewhere(path, digest):
    listed = CompactAllowList([GoodFile("0x", ("sha256:0",))])
    assert not listed.allows(path, digest, at=0)


def test_path_that_is_not_unicode_is_not_taken_for_one_that_is():
    assert not CompactAllowList([GoodFile("/a?", (DIGESTS[0],))]).allows("/a\udcff", DIGESTS[0], at=0)


@pytest.mark.parametrize(
    "file",
    [
        GoodFile("/" + "ä" * 2048, (DIGESTS[0],)),
        GoodFile("/a", tuple(f"sha256:{number:064x}" for number in range(MAX_DIGESTS_OF_A_ROW + 1))),
        GoodFile("/a", ()),
    ],
    ids=["path too long in bytes", "too many digests", "no digest"],
)
def test_row_beyond_its_bounds_is_refused(file):
    with pytest.raises(errors.ReferencePayloadRefused):
        check_file(file)


@pytest.mark.parametrize("until", [None, 5, 6])
def test_one_content_listed_twice_is_refused(until):
    with pytest.raises(errors.ReferencePayloadRefused, match="twice"):
        CompactAllowList([GoodFile("/a", (DIGESTS[0],), 5), GoodFile("/a", (DIGESTS[1], DIGESTS[0]), until)])


def test_rows_do_not_repeat_their_folder():
    files = [GoodFile(f"/usr/bin/{name}", (DIGESTS[0],)) for name in "cba"] + [GoodFile("init", (DIGESTS[1],), 9)]
    rows = write_files(files)
    assert rows == [
        ["", [["init", [DIGESTS[1]], 9]]],
        ["/usr/bin/", [["a", [DIGESTS[0]]], ["b", [DIGESTS[0]]], ["c", [DIGESTS[0]]]]],
    ]
    assert set(read_files(rows)) == set(files)


def test_a_file_that_a_bundle_may_hold_is_given_back():
    assert check_file(GoodFile("/a", DIGESTS, 9)) == GoodFile("/a", DIGESTS, 9)


# --- putting lists together ------------------------------------------------------------------------------------


def good_files(found: dict[tuple[str, str], int | None]) -> list[GoodFile]:
    return [GoodFile(path, (digest,), until) for (path, digest), until in found.items()]


def everything_allowed(files: tuple[GoodFile, ...], at: int) -> set[tuple[str, str]]:
    listed = CompactAllowList(files)
    return {(path, digest) for path in PATHS for digest in DIGESTS if listed.allows(path, digest, at=at)}


@given(pairs, pairs, st.integers(0, 10))
def test_lists_put_together_allow_what_one_of_them_allows(first, second, at):
    both = combined([*good_files(first), *good_files(second)])
    wanted = {pair for found in (first, second) for pair, until in found.items() if until is None or at < until}
    assert everything_allowed(both, at) == wanted


@given(pairs, pairs, st.integers(0, 10), st.integers(1, 10), st.integers(0, 10))
def test_grace_allows_the_old_until_its_end_and_never_longer_than_before(new, old, now, until, at):
    files = with_grace(good_files(new), good_files(old), now=now, until=until)
    wanted = {pair for pair, end in new.items() if end is None or at < end}
    wanted |= {pair for pair, end in old.items() if (end is None or (now < end and at < end)) and at < until}
    assert everything_allowed(files, at) == wanted


def test_more_digests_than_a_row_holds_take_several_rows():
    digests = tuple(f"sha256:{number:064x}" for number in range(MAX_DIGESTS_OF_A_ROW * 2 + 1))
    found = combined([GoodFile("/a", digests)])
    assert [len(file.digests) for file in found] == [MAX_DIGESTS_OF_A_ROW, MAX_DIGESTS_OF_A_ROW, 1]
    assert len(CompactAllowList(read_files(write_files(found)))) == len(digests)


@given(pairs, st.integers(0, 10), st.integers(0, 10))
def test_a_grace_has_ended_where_something_good_is_good_no_more(found, after, until):
    expected = any(end is not None and after < end <= until for end in found.values())
    assert compact(found).ended(after=after, until=until) == expected


def test_long_prefix_of_many_rows_does_not_fill_the_memory():
    """Eleven megabytes would have become six hundred."""
    rows = [[f"{number:x}", [DIGESTS[0]]] for number in range(MAX_PREFIX_CHARACTERS // 4000 + 1)]
    with pytest.raises(errors.ReferencePayloadRefused, match="too much"):
        read_files([["/" + "a" * 3999, rows]])
    assert len(read_files([["/" + "a" * 3999, rows[:100]], ["/", rows]])) == 100 + len(rows)
