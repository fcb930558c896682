"""What a gateway is told next, of everything that it may hold and that may hold now."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatelaine.controller.drafts import Draft, Held, Wanted, draft, mark_of
from chatelaine.controller.view import NO_DEADLINE
from chatelaine.wire.messages import ClaimView, ClusterKeys, Standing

CLUSTER = ClusterKeys(issuer="https://cluster", jwks="{}")
UIDS = ("a", "b", "c")


def standing(verdict: str = "Trusted", **fields: Any) -> Standing:
    made = Standing(
        verdict=verdict, reason="", epoch="1.0.1", policy_digest="sha256:p", evidence_digest="sha256:e",
        valid_for_seconds=9.0, valid_until=1000,
    )  # fmt: skip
    return msgspec.structs.replace(made, **fields)


def claim(uid: str, sequence: int = 1, **fields: Any) -> ClaimView:
    made = ClaimView(
        uid=uid, namespace="n", name=uid, sequence=sequence, keys=(), clients=(), policy_digests=(),
        valid_for_seconds=1.0, valid_until=NO_DEADLINE,
    )  # fmt: skip
    return msgspec.structs.replace(made, **fields)


def holding(*views: ClaimView, **fields: Any) -> Held:
    values = {"cluster": CLUSTER, "standing": standing(), **fields}
    return Held({view.uid: mark_of(view) for view in views}, **values)


def change(
    held: Held, claims: dict[str, ClaimView | None], *, leads: bool = True, now: Standing | None = None
) -> tuple[Draft | None, frozenset[str]]:
    wanted = Wanted(now or standing(), claims, CLUSTER)
    return draft(held, wanted, frozenset(claims), full=False, leads=leads)


def whole(
    held: Held, *views: ClaimView, leads: bool = True, now: Standing | None = None
) -> tuple[Draft | None, frozenset[str]]:
    wanted = Wanted(now or standing(), {view.uid: view for view in views}, CLUSTER)
    return draft(held, wanted, frozenset(), full=True, leads=leads)


def test_nothing_is_said_where_nothing_is_news() -> None:
    held = holding(claim("a"))
    assert change(held, {"a": claim("a", valid_for_seconds=5.0)}) == (None, frozenset())
    assert change(held, {}, now=standing(valid_for_seconds=3.0)) == (None, frozenset())


def test_a_fresh_standing_is_told_without_any_claim() -> None:
    said, _ = change(holding(claim("a")), {}, now=standing(valid_until=2000))
    assert said is not None
    assert (said.claims, said.gone, said.cluster) == ((), (), None)
    assert said.after == holding(claim("a"), standing=standing(valid_until=2000))


def test_a_claim_that_comes_changes_or_goes_is_told() -> None:
    held = holding(claim("a"), claim("b"))
    said, left = change(held, {"a": claim("a", 2), "b": None, "c": claim("c", valid_until=50)})
    assert said is not None
    assert {view.uid: view.sequence for view in said.claims} == {"a": 2, "c": 1}
    assert (said.gone, said.timed, left) == (("b",), {"c"}, frozenset())
    assert said.after.claims == holding(claim("a", 2), claim("c", valid_until=50)).claims


def test_a_claim_that_was_never_held_needs_no_word_to_go() -> None:
    assert change(holding(claim("a")), {"z": None}) == (None, frozenset())


def test_new_keys_of_the_cluster_are_told_once() -> None:
    said, _ = change(holding(cluster=None), {})
    assert said is not None
    assert said.cluster == CLUSTER
    assert change(said.after, {}) == (None, frozenset())


def test_a_whole_view_says_everything_and_that_nothing_else_is_held() -> None:
    said, _ = whole(holding(claim("a"), claim("b")), claim("a"), claim("c"))
    assert said is not None
    assert [view.uid for view in said.claims] == ["a", "c"]
    assert said.cluster == CLUSTER
    assert set(said.after.claims) == {"a", "c"}


@pytest.mark.parametrize("verdict", ["Untrusted", "Unknown"])
@pytest.mark.parametrize("leads", [True, False])
def test_a_cut_takes_every_claim_whoever_leads(verdict: str, leads: bool) -> None:
    said, _ = change(holding(claim("a"), claim("b")), {"c": claim("c")}, leads=leads, now=standing(verdict))
    assert said is not None
    assert (said.claims, set(said.gone), said.after.claims) == ((), {"a", "b"}, {})


def test_claim_that_changed_while_its_hsm_was_cut_is_served_when_trust_returns() -> None:
    cut, left = change(holding(claim("a")), {"b": claim("b")}, now=standing("Untrusted"))
    assert cut is not None
    assert left == {"a", "b"}
    # Told again while nothing has changed: nothing is forgotten by that.
    again, left = draft(cut.after, Wanted(standing("Untrusted"), {}, CLUSTER), left, full=False, leads=True)
    assert (again, left) == (None, {"a", "b"})
    served = {uid: claim(uid) for uid in left}
    back, left = draft(cut.after, Wanted(standing(), served, CLUSTER), left, full=False, leads=True)
    assert back is not None
    assert ({view.uid for view in back.claims}, left) == ({"a", "b"}, frozenset())


def test_who_does_not_lead_opens_and_changes_no_claim() -> None:
    said, left = change(holding(claim("a"), claim("b")), {"a": claim("a", 2), "b": None, "c": claim("c")}, leads=False)
    assert said is not None
    assert (said.claims, said.gone) == ((), ("b",))
    assert left == {"a", "c"}


def test_who_does_not_lead_repeats_a_whole_view_of_what_was_held_only() -> None:
    said, _ = whole(holding(claim("a")), claim("a"), claim("c"), leads=False)
    assert said is not None
    assert [view.uid for view in said.claims] == ["a"]


@pytest.mark.parametrize("news", [{"epoch": "2.0.1"}, {"policy_digest": "sha256:q"}])
@pytest.mark.parametrize("before", [None, standing(), standing("Unknown")])
def test_who_does_not_lead_tells_no_other_trust(news: dict[str, str], before: Standing | None) -> None:
    held = holding(claim("a"), standing=before)
    assert change(held, {"a": None}, leads=False, now=standing(**news)) == (None, {"a"})
    assert whole(held, claim("a"), leads=False, now=standing(**news)) == (None, frozenset())


sequences = st.dictionaries(st.sampled_from(UIDS), st.integers(1, 3))


@given(
    sequences, sequences, st.sets(st.sampled_from(UIDS)), st.booleans(), st.booleans(),
    st.sampled_from(["Trusted", "Untrusted", "Unknown"]), st.sampled_from(["1.0.1", "2.0.1"]),
)  # fmt: skip
def test_nothing_is_widened_without_trust_or_without_leading(
    before: dict[str, int], after: dict[str, int], dirty: set[str], full: bool, leads: bool, verdict: str, epoch: str
) -> None:
    held = holding(*(claim(uid, number) for uid, number in before.items()))
    served = {uid: claim(uid, number) for uid, number in after.items()}
    claims = dict(served) if full else {uid: served.get(uid) for uid in dirty}
    wanted = Wanted(standing(verdict, epoch=epoch), claims, CLUSTER)
    said, left = draft(held, wanted, frozenset(dirty), full=full, leads=leads)
    # Without trust nothing is forgotten: what was served or has changed is looked at when trust comes back.
    assert left == dirty | before.keys() if verdict != "Trusted" else left <= dirty
    if said is None:
        return
    if verdict != "Trusted":
        assert said.after.claims == {}
        return
    if leads:
        expected = {uid: served.get(uid) for uid in (after if full else dirty)}
        assert {uid: said.after.claims.get(uid) for uid in expected} == {
            uid: mark_of(view) if view is not None else None for uid, view in expected.items()
        }
    else:
        assert said.after.claims.keys() <= held.claims.keys()
        assert epoch == "1.0.1"
    # What goes may not be served, and what may not be served and was looked at goes.
    assert not set(said.gone) & served.keys()
    assert set(said.gone) == {uid for uid in (before if full else dirty & before.keys()) if uid not in served}
