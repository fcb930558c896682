"""Differences between bundles of reference values."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from chatelaine.appraisal.bundle_diff import diff_bundles
from chatelaine.appraisal.policy_diff import overall
from chatelaine.appraisal.policy_words import Effect
from chatelaine.evidence.reference_files import GoodFile
from chatelaine.evidence.reference_values import Predicate
from chatelaine.model.tpm_policy import Bank

A, B = "aa" * 32, "bb" * 32
BASE = Predicate(
    name="edge",
    version=3,
    issued_at="2026-01-31T12:00:00Z",
    pcrs={Bank.SHA256: {4: (A,)}},
    dbx_at_least=(A,),
    files=(GoodFile("/usr/bin/a", (f"sha256:{A}",)), GoodFile("/usr/bin/b", (f"sha256:{A}",), 1_800_000_000)),
)


def one(after: Predicate) -> tuple[str, Effect, str]:
    (change,) = diff_bundles(BASE, after)
    return change.path, change.effect, change.says


def test_same_bundle_issued_again_is_the_same():
    assert diff_bundles(BASE, replace(BASE, issued_at="2026-02-01T00:00:00Z", files=BASE.files[::-1])) == ()


def test_value_that_comes_lets_in_more_and_one_that_goes_refuses_more():
    path, effect, says = one(replace(BASE, pcrs={Bank.SHA256: {4: (A, B)}}))
    assert (path, effect, says) == ("pcrs.Sha256.4", Effect.LOOSER, f"PCR 4 (Sha256): {B} is good too")
    assert one(replace(BASE, pcrs={}))[1] is Effect.STRICTER


def test_dbx_works_the_other_way_round():
    assert one(replace(BASE, dbx_at_least=(A, B)))[1] is Effect.STRICTER
    assert one(replace(BASE, dbx_at_least=()))[1] is Effect.LOOSER


def test_longer_grace_lets_in_more_and_its_ends_are_named():
    path, effect, says = one(replace(BASE, files=(BASE.files[0], BASE.files[1]._replace(until=1_900_000_000))))
    assert (path, effect) == ("files[/usr/bin/b].until", Effect.LOOSER)
    assert "2030" in says
    assert "2027" in says
    assert one(replace(BASE, files=(BASE.files[0]._replace(until=5), BASE.files[1])))[1] is Effect.STRICTER


def test_bundle_that_goes_back_is_said_to_be_refused():
    assert "refused" in one(replace(BASE, version=2))[2]
    assert one(replace(BASE, name="other"))[1] is Effect.EITHER


def sha(character: str) -> str:
    return f"sha256:{character * 64}"


def file(name: str, until: int | None = None, digest: str = "a") -> GoodFile:
    return GoodFile(f"/{name}", (sha(digest),), until)


def test_each_difference_is_told_whole():
    before = replace(
        BASE,
        pcrs={Bank.SHA256: {4: (A,)}, Bank.SHA384: {7: ("cc" * 48,)}},
        files=(file("gone"), file("ending", 1_800_000_000), file("lasting"), file("shorter", 1_900_000_000)),
    )
    after = replace(
        before,
        name="other",
        version=4,
        pcrs={Bank.SHA256: {4: (B,)}, Bank.SHA384: {7: ("cc" * 48,)}},
        dbx_at_least=(B,),
        files=(file("new"), file("graced", 1_800_000_000), file("ending"), file("lasting", 0), file("shorter", 5)),
    )
    is_good = f"{sha('a')} is good"
    assert [tuple(change.as_dict().values()) for change in diff_bundles(before, after)] == [
        ("name", "Changed", "Either", "series edge becomes other: a policy that names one refuses the other",
         "edge", "other"),
        ("version", "Changed", "Nothing", "version 3 becomes 4", 3, 4),
        ("pcrs.Sha256.4", "Removed", "Stricter", f"PCR 4 (Sha256): {A} is not good by this bundle", A, None),
        ("pcrs.Sha256.4", "Added", "Looser", f"PCR 4 (Sha256): {B} is good too", None, B),
        ("dbxAtLeast", "Removed", "Looser", f"dbx need not hold {A} any more", A, None),
        ("dbxAtLeast", "Added", "Stricter", f"dbx must hold {B}", None, B),
        ("files[/ending].until", "Changed", "Looser",
         f"/ending: {is_good} without an end, formerly until 2027-01-15T08:00:00+00:00",
         "2027-01-15T08:00:00+00:00", None),
        ("files[/gone]", "Removed", "Stricter", f"/gone: {sha('a')} is not good any more", sha("a"), None),
        ("files[/graced]", "Added", "Looser", f"/graced: {is_good} too until 2027-01-15T08:00:00+00:00",
         None, sha("a")),
        ("files[/lasting].until", "Changed", "Stricter",
         f"/lasting: {is_good} until 1970-01-01T00:00:00+00:00, formerly without one",
         None, "1970-01-01T00:00:00+00:00"),
        ("files[/new]", "Added", "Looser", f"/new: {is_good} too", None, sha("a")),
        ("files[/shorter].until", "Changed", "Stricter",
         f"/shorter: {is_good} until 1970-01-01T00:00:05+00:00, formerly until 2030-03-17T17:46:40+00:00",
         "2030-03-17T17:46:40+00:00", "1970-01-01T00:00:05+00:00"),
    ]  # fmt: skip


def test_version_that_goes_back_is_told_with_both():
    (change,) = diff_bundles(BASE, replace(BASE, version=2))
    assert change.says == "version 3 becomes 2: it is refused wherever the higher one was used"


def test_last_end_of_a_content_counts():
    for ends in ((5, 9), (9, 5), (5, None), (None, 5)):
        files = tuple(file("x", end) for end in ends)
        wanted = None if None in ends else 9
        assert diff_bundles(replace(BASE, files=files), replace(BASE, files=(file("x", wanted),))) == ()


def test_hostile_path_reaches_no_terminal():
    says = one(replace(BASE, files=(*BASE.files, GoodFile("/tmp/\x1b[2J", (f"sha256:{B}",)))))[2]
    assert says.isprintable()


FILES = st.lists(
    st.builds(
        GoodFile,
        st.sampled_from(["/a", "/b", "/c"]),
        st.lists(st.sampled_from([A, B]), min_size=1, max_size=2).map(tuple),
        st.none() | st.integers(1, 3),
    ),
    max_size=4,
).map(tuple)


@given(FILES, FILES)
def test_forth_and_back_are_opposite(before, after):
    forth = diff_bundles(replace(BASE, files=before), replace(BASE, files=after))
    back = diff_bundles(replace(BASE, files=after), replace(BASE, files=before))
    assert [change.path for change in forth] == [change.path for change in back]
    opposite = {Effect.LOOSER: Effect.STRICTER, Effect.STRICTER: Effect.LOOSER}
    assert [opposite[change.effect] for change in forth] == [change.effect for change in back]
    if not forth:
        assert overall(forth) is Effect.NOTHING
