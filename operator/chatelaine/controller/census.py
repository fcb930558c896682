"""How many claims of a namespace have seats, by the policies that judge them. Counted as seats come and go.

Release rules limit seats by namespace, so every claim asks; counting all others each time would cost as much as there
are claims.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping


class SeatCensus:
    """Seats of all namespaces.

    Args:
        policies: claim uid and name of its Hsm to the names of the policies that judge the two, as they stand now.
    """

    def __init__(self, policies: Callable[[str, str], frozenset[str]]) -> None:
        self._policies = policies
        self._hsms: dict[str, dict[str, set[str]]] = {}
        """By namespace and claim uid: names of the Hsms that give it a seat; two while it moves."""
        self._counted: dict[tuple[str, str], frozenset[str]] = {}
        """By namespace and claim uid: the policies under which the seat is counted."""
        self._counts: dict[str, Counter[str]] = {}

    def moved(self, hsm: str, before: Mapping[str, str], after: Mapping[str, str]) -> None:
        """The seats of an Hsm changed: claim uid to namespace."""
        for uid, namespace in before.items():
            if after.get(uid) != namespace:
                self._hsms.get(namespace, {}).get(uid, set()).discard(hsm)
                self._count(namespace, uid)
        for uid, namespace in after.items():
            if before.get(uid) != namespace:
                self._hsms.setdefault(namespace, {}).setdefault(uid, set()).add(hsm)
                self._count(namespace, uid)

    def rejudged(self, seats: Iterable[tuple[str, str]]) -> None:
        """Other policies may judge these seats now: namespace and claim uid."""
        for namespace, uid in seats:
            self._count(namespace, uid)

    def others(self, namespace: str, uid: str, pending: Mapping[str, str]) -> dict[str, int]:
        """Seats of a namespace by policy, without that of one claim.

        Args:
            namespace: whose seats.
            uid: the claim that asks.
            pending: seats about to be written there: claim uid to the name of the Hsm.
        """
        counts = dict(self._counts.get(namespace, ()))
        for policy in self._counted.get((namespace, uid), ()):
            counts[policy] -= 1
        for other, hsm in pending.items():
            if other != uid:
                for policy in self._policies(other, hsm) - self._counted.get((namespace, other), frozenset()):
                    counts[policy] = counts.get(policy, 0) + 1
        return counts

    def _count(self, namespace: str, uid: str) -> None:
        """Once under each policy, on however many Hsms it has a seat."""
        seats = self._hsms.get(namespace, {})
        hsms = seats.get(uid, set())
        if not hsms:
            seats.pop(uid, None)
        after = frozenset[str]().union(*(self._policies(uid, hsm) for hsm in hsms))
        before = self._counted.get((namespace, uid), frozenset())
        if after == before:
            return
        counts = self._counts.setdefault(namespace, Counter())
        counts.subtract(before)
        counts.update(after)
        for policy in before:
            if not counts[policy]:
                del counts[policy]
        if after:
            self._counted[namespace, uid] = after
        else:
            del self._counted[namespace, uid]
