"""What gateways may know, taken from the same pictures that reconcilers look at.

Nothing is opened before the API server has it: a standing that serves is shown as Unknown until `Hsm.status` says so
too, with the same number of admissions. Only then can no restart and no second operator remember less.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from chatelaine.controller.leadership import Lead
from chatelaine.controller.policies import PolicyBook
from chatelaine.controller.snapshots import Snapshots
from chatelaine.controller.view import claim_view, standing_view
from chatelaine.controller.world import World
from chatelaine.model.reasons import Reason
from chatelaine.model.verdict import Verdict
from chatelaine.reconcile.claim_snapshot import HsmView
from chatelaine.reconcile.hsm import was_serving
from chatelaine.reconcile.served import served
from chatelaine.wire.messages import ClaimView, ClusterKeys, Standing


class Views:
    """`gateways.ViewSource` over the operator's pictures.

    Args:
        world: the caches.
        book: policies in force.
        snapshots: makes pictures.
        lead: whether this process leads.
        wall: seconds since the epoch.
    """

    def __init__(
        self, world: World, book: PolicyBook, snapshots: Snapshots, lead: Lead, wall: Callable[[], float]
    ) -> None:
        self._world = world
        self._book = book
        self._snapshots = snapshots
        self._lead = lead
        self._wall = wall
        self._was_complete = False
        self._last_term = 1
        self.cluster_keys: ClusterKeys | None = None

    def standing(self, hsm: str) -> Standing | None:
        """See `ViewSource`."""
        view = self._snapshots.view(hsm)
        if view is None:
            return None
        shown = standing_view(view.standing, self._wall())
        if view.standing.reason is Reason.POLICY_NOT_FOUND and not self._world.policies.complete.is_set():
            # It may be there: nobody is cut for what has not been read yet, and the gateway has its deadline.
            return None
        if shown.verdict != Verdict.TRUSTED:
            return shown
        if not self._ready():
            # A view with half of the claims would take the other half's access away.
            return None
        return shown if _written(view) else _closed(shown)

    def claims(self, hsm: str) -> Mapping[str, ClaimView]:
        """See `ViewSource`."""
        view = self._snapshots.view(hsm)
        found = ((uid, self.claim(hsm, uid)) for uid in (view.seats if view is not None else ()))
        return {uid: claim for uid, claim in found if claim is not None}

    def claim(self, hsm: str, uid: str) -> ClaimView | None:
        """See `ViewSource`."""
        view, claim = self._snapshots.view(hsm), self._world.claim_by_uid(uid)
        if view is None or claim is None or not _written(view):
            return None
        now = self._wall()
        policies = self._snapshots.policies()
        namespace = self._snapshots.namespace(claim.metadata.namespace or "")
        standing = served(claim, namespace, view, policies, now)
        return claim_view(claim, view, standing, self._world.live_pods, now)

    def cluster(self) -> ClusterKeys | None:
        """See `ViewSource`."""
        return self.cluster_keys

    def term(self) -> int:
        """See `ViewSource`."""
        if self._lead.term is not None:
            self._last_term = self._lead.term
        return self._last_term

    def leads(self) -> bool:
        """See `ViewSource`."""
        return self._lead.leads

    def outranked(self, term: int) -> bool:
        """See `ViewSource`."""
        return self._lead.outranked(term)

    def _ready(self) -> bool:
        """Has there been a complete picture in this process?"""
        self._was_complete = self._was_complete or (self._world.complete and self._book.quiet.is_set())
        return self._was_complete


def _written(view: HsmView) -> bool:
    """Does the status in the API server say that this HSM serves, since the same admission?"""
    before, after = view.hsm.status.attestation, view.standing.attestation
    if not was_serving(before) or before is None or after is None:
        return False
    return before.epoch.generation == after.epoch.generation


def _closed(shown: Standing) -> Standing:
    return Standing(
        verdict=Verdict.UNKNOWN.value,
        reason=shown.reason,
        epoch=shown.epoch,
        policy_digest=shown.policy_digest,
        evidence_digest=shown.evidence_digest,
        valid_for_seconds=0.0,
        valid_until=0,
    )
