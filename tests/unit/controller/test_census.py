"""Seats counted as they come and go are the seats that a recount finds, whatever the order of events."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from chatelaine.controller.census import SeatCensus

HSMS = ("one", "two")
CLAIMS = tuple(f"uid-{number}" for number in range(4))
SPACE = {uid: "even" if number % 2 == 0 else "odd" for number, uid in enumerate(CLAIMS)}

seatings = st.tuples(st.just("seats"), st.sampled_from(HSMS), st.frozensets(st.sampled_from(CLAIMS)))
hsm_policies = st.tuples(st.just("hsm"), st.sampled_from(HSMS), st.sampled_from(("base", "strict")))
claim_policies = st.tuples(st.just("claim"), st.sampled_from(CLAIMS), st.sampled_from(("", "base", "own")))


class Cluster:
    """Hsms with seats, policies by name, and the census that is told of every change."""

    def __init__(self) -> None:
        self.of_hsm = dict.fromkeys(HSMS, "base")
        self.of_claim = dict.fromkeys(CLAIMS, "")
        self.seats: dict[str, dict[str, str]] = {name: {} for name in HSMS}
        self.census = SeatCensus(self.judging)

    def judging(self, uid: str, hsm: str) -> frozenset[str]:
        return frozenset(name for name in (self.of_hsm[hsm], self.of_claim[uid]) if name)

    def apply(self, change: tuple[str, str, object]) -> None:
        kind, name, value = change
        if kind == "seats":
            assert isinstance(value, frozenset)
            before, self.seats[name] = self.seats[name], {uid: SPACE[uid] for uid in value}
            self.census.moved(name, before, self.seats[name])
        elif kind == "hsm":
            self.of_hsm[name] = str(value)
            self.census.rejudged((space, uid) for uid, space in self.seats[name].items())
        else:
            self.of_claim[name] = str(value)
            self.census.rejudged([(SPACE[name], name)])

    def recounted(self, namespace: str, uid: str, pending: dict[str, str]) -> dict[str, int]:
        """From the Hsms' lists alone: a claim counts once under each policy that judges it anywhere."""
        seats = [(other, hsm) for hsm, seats in self.seats.items() for other in seats if SPACE[other] == namespace]
        judged = {(other, policy) for other, hsm in [*seats, *pending.items()] for policy in self.judging(other, hsm)}
        return dict(Counter(policy for other, policy in judged if other != uid))


@given(
    st.lists(st.one_of(seatings, hsm_policies, claim_policies), max_size=12),
    st.dictionaries(st.sampled_from(CLAIMS), st.sampled_from(HSMS)),
)
def test_counts_are_those_of_a_recount(changes: list[tuple[str, str, object]], pending: dict[str, str]) -> None:
    cluster = Cluster()
    for change in changes:
        cluster.apply(change)
    for namespace in ("even", "odd"):
        near = {uid: hsm for uid, hsm in pending.items() if SPACE[uid] == namespace}
        for uid in CLAIMS:
            counted = {name: n for name, n in cluster.census.others(namespace, uid, near).items() if n}
            assert counted == cluster.recounted(namespace, uid, near)


def test_a_claim_does_not_count_itself_and_pending_seats_count_once() -> None:
    cluster = Cluster()
    cluster.apply(("seats", "one", frozenset({"uid-0", "uid-2"})))
    assert cluster.census.others("even", "uid-0", {"uid-0": "one", "uid-2": "one"}) == {"base": 1}
    assert cluster.census.others("odd", "uid-1", {}) == {}


def test_a_claim_that_has_left_one_of_two_hsms_still_counts() -> None:
    """A tenant whose claim was about to move and did not gets no seat for nothing out of it."""
    cluster = Cluster()
    cluster.apply(("seats", "one", frozenset({"uid-0"})))
    cluster.apply(("seats", "two", frozenset({"uid-0"})))
    cluster.apply(("seats", "two", frozenset()))
    assert cluster.census.others("even", "uid-2", {}) == {"base": 1}
