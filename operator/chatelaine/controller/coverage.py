"""What a quote of a host has to cover, and which keys rightly are in its token, as far as is known now."""

from __future__ import annotations

from chatelaine.controller.policies import PolicyBook
from chatelaine.controller.registry import HostRegistry
from chatelaine.controller.snapshots import Snapshots
from chatelaine.controller.world import World
from chatelaine.model.policy import AttestationPolicy


class Coverage:
    """`hosts.Surroundings.policies` and `.accounted` over the operator's pictures."""

    def __init__(self, world: World, book: PolicyBook, hosts: HostRegistry, snapshots: Snapshots) -> None:
        self._world = world
        self._book = book
        self._hosts = hosts
        self._snapshots = snapshots

    def policies(self, name: str) -> list[AttestationPolicy]:
        """The Hsm's own policy first, then those of claims that are, or want to be, bound there."""
        stored, host = self._world.hsms.find(name), self._hosts.named(name)
        if stored is None:
            return []
        names = [stored.index.policy]
        if host is not None:
            host.extra_policies = {policy for policy in host.extra_policies if self._wanted(policy)}
            names += sorted(host.extra_policies)
        for uid in stored.index.seats:
            claim = self._world.claim_stored(uid)
            if claim is not None and claim.index.policy is not None:
                names.append(claim.index.policy)
        found = (self._book.typed(policy) for policy in dict.fromkeys(names))
        own = self._book.typed(stored.index.policy)
        return [policy for policy in found if policy is not None] if own is not None else []

    def _wanted(self, policy: str) -> bool:
        """Does a claim without a place still name it? One with a seat is looked at through its seat."""
        waiting = (self._world.claims.find(name, namespace) for namespace, name in self._world.unbound())
        return any(claim is not None and claim.index.policy == policy for claim in waiting)

    def accounted(self, name: str) -> frozenset[str]:
        """Labels of keys."""
        view = self._snapshots.view(name)
        return view.accounted if view is not None else frozenset()
