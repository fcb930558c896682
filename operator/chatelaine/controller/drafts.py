"""What to tell a gateway next: a pure comparison of what it holds with what holds now.

Two rules stand above the rest. Without a Trusted standing nothing is served, so all that is held goes. And while we
do not lead, nothing is widened: a Trusted standing that did not change is kept fresh, claims may go, none may come.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import msgspec

from chatelaine.controller.view import NO_DEADLINE
from chatelaine.model.verdict import Verdict
from chatelaine.wire.messages import ClaimView, ClusterKeys, Standing


@dataclass(frozen=True, slots=True)
class Held:
    """What a gateway holds. `claims`: uid and mark of what was sent."""

    claims: Mapping[str, int] = field(default_factory=dict)
    cluster: ClusterKeys | None = None
    standing: Standing | None = None


@dataclass(frozen=True, slots=True)
class Wanted:
    """What it should hold now.

    Attributes:
        standing: the verdict over its HSM.
        claims: for a full view all that may be served, else those that got dirty; None: it may not be served.
        cluster: keys for service-account tokens; None until they have been read.
    """

    standing: Standing
    claims: Mapping[str, ClaimView | None]
    cluster: ClusterKeys | None


@dataclass(frozen=True, slots=True)
class Draft:
    """An update: claims that come or change, claims that go, keys of the cluster if they are news.

    Attributes:
        after: what the gateway holds once it has taken this.
        timed: of the claims sent, those with a deadline of their own.
    """

    claims: tuple[ClaimView, ...]
    gone: tuple[str, ...]
    cluster: ClusterKeys | None
    after: Held
    timed: frozenset[str]


def draft(
    held: Held, wanted: Wanted, dirty: frozenset[str], *, full: bool, leads: bool
) -> tuple[Draft | None, frozenset[str]]:
    """The next update, and which claims stay dirty after it.

    Args:
        held: what the gateway holds, or held when it was last heard.
        wanted: what it should hold.
        dirty: claims that changed since.
        full: say everything, for what it holds now is not known.
        leads: do we lead?

    Returns:
        No update where nothing may or need be said.
    """
    trusted = wanted.standing.verdict == Verdict.TRUSTED
    if not leads and trusted and not _same_verdict(held.standing, wanted.standing):
        return None, dirty
    views = _views(held, wanted, full=full, leads=leads) if trusted else {}
    gone = _gone(held, wanted, full=full) if trusted else tuple(held.claims)
    left = frozenset() if leads else dirty.difference(gone)
    if not trusted:
        # Who was served, or changes meanwhile, is looked at when the HSM is trusted again: nobody tells of it twice.
        left = dirty.union(held.claims)
    news = wanted.cluster if full or wanted.cluster != held.cluster else None
    if not (full or views or gone or news is not None) and _told(held.standing, wanted.standing):
        return None, left
    kept = {} if full else {uid: mark for uid, mark in held.claims.items() if uid not in gone}
    after = Held(kept | {uid: mark_of(view) for uid, view in views.items()}, wanted.cluster, wanted.standing)
    timed = frozenset(uid for uid, view in views.items() if view.valid_until != NO_DEADLINE)
    return Draft(tuple(views.values()), gone, news, after, timed), left


def _views(held: Held, wanted: Wanted, *, full: bool, leads: bool) -> dict[str, ClaimView]:
    """Claims to be sent."""
    served = {uid: view for uid, view in wanted.claims.items() if view is not None}
    if full:
        return served if leads else {uid: view for uid, view in served.items() if uid in held.claims}
    return {uid: view for uid, view in served.items() if leads and held.claims.get(uid) != mark_of(view)}


def _gone(held: Held, wanted: Wanted, *, full: bool) -> tuple[str, ...]:
    """Claims that are held and may not be served any more."""
    asked = held.claims if full else wanted.claims.keys() & held.claims.keys()
    return tuple(uid for uid in asked if wanted.claims.get(uid) is None)


def _told(before: Standing | None, now: Standing) -> bool:
    """Said before, word by word; the seconds left count from another moment, that is all."""
    return before is not None and msgspec.structs.replace(before, valid_for_seconds=now.valid_for_seconds) == now


def _same_verdict(before: Standing | None, now: Standing) -> bool:
    return before is not None and (before.verdict, before.epoch, before.policy_digest) == (
        now.verdict,
        now.epoch,
        now.policy_digest,
    )


def mark_of(view: ClaimView) -> int:
    """What was sent, for comparing; `valid_for_seconds` says the same as `valid_until`."""
    return hash(msgspec.json.encode(msgspec.structs.replace(view, valid_for_seconds=0.0)))
