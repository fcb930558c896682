"""What this gateway may do now, as the operator last said. Pure: clocks are arguments.

An update is taken whole or not at all:

1. `instance` is this very process's: an update made for an earlier life is refused.
2. `(term, number)` is above the last one taken: a deposed leader, or a replay, extends and overrides nothing.
3. A change builds on the view that is held: same term, and `base` is its number. Otherwise a whole view is needed.
4. Bounds and cross-references hold; each key version's label is the one that belongs to its claim, or to a former one
   whose keys only this claim has taken over. So no view can lead an operation to a key of another claim that is served,
   or to the token's own service keys.
5. What is both granted and revoked in one update is revoked.

A deadline is `valid_for_seconds` after receipt on the monotonic clock or `valid_until` on the wall clock, whichever
comes first.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from chatelaine.gateway.errors import ViewOutdated, ViewRefused
from chatelaine.gateway.limits import (
    MAX_ADOPTED_PER_CLAIM,
    MAX_CLAIMS,
    MAX_CLIENTS_PER_CLAIM,
    MAX_DEADLINE_SECONDS,
    MAX_KEYS_PER_CLAIM,
    MAX_POLICIES_PER_CLAIM,
    MAX_VERSIONS_PER_KEY,
)
from chatelaine.model.identifiers import CLAIM_UID, parse_key_label
from chatelaine.model.keys import KeyState, KeyType, Usage
from chatelaine.model.verdict import Verdict
from chatelaine.tokens.cache import Moment
from chatelaine.tokens.errors import KeySetRefused
from chatelaine.tokens.grants import ClaimGrant, Deadline, HsmStanding, KeyGrant, KeyVersion, SubjectGrant
from chatelaine.tokens.service_account import ClusterKeySet, parse_key_set
from chatelaine.wire.messages import ClaimView, ClientView, KeyView, Standing, ViewUpdate

_NAME: Final = re.compile(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?", re.ASCII)
_SHORT_NAME: Final = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?", re.ASCII)
_KEY_TYPES: Final = {item.value: item for item in KeyType}
_USAGES: Final = {item.value: item for item in Usage}
_STATES: Final = {item.value: item for item in KeyState}
_VERDICTS: Final = {item.value: item for item in Verdict}


@dataclass(frozen=True, slots=True)
class Applied:
    """The update is in force. `revoked` are claims that were served before and whose tokens are worthless now."""

    revoked: frozenset[str]


class LiveView:
    """Implements `tokens.grants.Live`. `revision` rises with every change."""

    def __init__(self, instance: str) -> None:
        self.instance = instance
        self.term = 0
        self.number = 0
        self.revision = 0
        self.cluster: ClusterKeySet | None = None
        self._standing: HsmStanding | None = None
        self._claims: dict[str, ClaimGrant] = {}
        self._by_name: dict[tuple[str, str], ClaimGrant] = {}
        self._held = False
        self._ended: frozenset[str] = frozenset()

    @property
    def standing(self) -> HsmStanding | None:
        """See `Live`."""
        return self._standing

    @property
    def claims(self) -> Mapping[str, ClaimGrant]:
        """All claims served, by uid."""
        return self._claims

    def claim(self, uid: str) -> ClaimGrant | None:
        """See `Live`."""
        return self._claims.get(uid)

    def claim_named(self, namespace: str, name: str) -> ClaimGrant | None:
        """See `Live`."""
        return self._by_name.get((namespace, name))

    def serving(self, now: Moment) -> bool:
        """Is the HSM Trusted, and its deadline ahead?"""
        standing = self._standing
        return standing is not None and standing.verdict is Verdict.TRUSTED and not standing.deadline.passed(now)

    def seconds_left(self, now: Moment) -> float:
        """Until the standing's deadline; 0 when nothing may be served."""
        standing = self._standing
        return standing.deadline.seconds_left(now) if standing is not None and self.serving(now) else 0.0

    def apply(self, update: ViewUpdate, now: Moment) -> Applied:
        """Take an update whole, or leave everything as it is.

        Raises:
            ViewOutdated: steps 1 to 3.
            ViewRefused: step 4.
        """
        self._follows(update)
        whole = update.base is None
        cluster = _cluster(update) if update.cluster is not None else (None if whole else self.cluster)
        standing = (
            _standing(update.standing, now) if update.standing is not None else (None if whole else self._standing)
        )
        claims = {} if whole else dict(self._claims)
        for said in update.claims:
            claims[said.uid] = _claim(said, now)
        for uid in update.gone:
            claims.pop(uid, None)
        if len(claims) > MAX_CLAIMS or len({item.uid for item in update.claims}) != len(update.claims):
            raise ViewRefused(f"more than {MAX_CLAIMS} claims, or one twice")
        by_name = {(claim.namespace, claim.name): claim for claim in claims.values()}
        if len(by_name) != len(claims):
            raise ViewRefused("two claims of one name")
        if _handed_out_twice(claims):
            raise ViewRefused("keys of one claim for two")
        before, self._claims = self._claims, claims
        standing_before, self._standing = self._standing, standing
        self._by_name, self.cluster = by_name, cluster
        self.term, self.number, self._held = update.term, update.number, True
        self.revision += 1
        # Without trust nothing is served whose deadline could still come; `Applied` tells what was cut.
        trusted = standing is not None and standing.verdict is Verdict.TRUSTED
        self._ended = frozenset() if trusted else frozenset(claims)
        if _cut(standing_before, standing):
            return Applied(frozenset(before))
        return Applied(frozenset(uid for uid, old in before.items() if _lost(old, claims.get(uid))))

    def ended(self, now: Moment) -> frozenset[str]:
        """Claims whose deadline, or the HSM's, has come since the last time; each is told once."""
        whole = not self.serving(now)
        over = frozenset(uid for uid, claim in self._claims.items() if whole or claim.deadline.passed(now))
        fresh = over - self._ended
        if fresh:
            self._ended |= fresh
            self.revision += 1
        return fresh

    def next_deadline_seconds(self, now: Moment) -> float | None:
        """Seconds until the next deadline that is still ahead; None when there is none."""
        if not self.serving(now):
            return None
        ahead = [claim.deadline.seconds_left(now) for uid, claim in self._claims.items() if uid not in self._ended]
        return min([self.seconds_left(now), *ahead])

    def _follows(self, update: ViewUpdate) -> None:
        if update.instance != self.instance:
            raise ViewOutdated("for another instance")
        if (update.term, update.number) <= (self.term, self.number):
            raise ViewOutdated("not above the last view taken")
        if update.base is not None and (not self._held or update.term != self.term or update.base != self.number):
            raise ViewOutdated("a change of a view that is not held")


def _handed_out_twice(claims: Mapping[str, ClaimGrant]) -> bool:
    """Has a claim taken over keys of one that is served, or two of them those of the same?"""
    adopted = [uid for claim in claims.values() for uid in claim.owns if uid != claim.uid]
    return len(set(adopted)) != len(adopted) or any(uid in claims for uid in adopted)


def _cut(before: HsmStanding | None, after: HsmStanding | None) -> bool:
    """Does every token die with this change of the HSM's standing?"""
    if before is None or before.verdict is not Verdict.TRUSTED:
        return False
    return after is None or after.verdict is not Verdict.TRUSTED or after.epoch != before.epoch


def _lost(before: ClaimGrant, after: ClaimGrant | None) -> bool:
    return after is None or after.sequence != before.sequence


def _deadline(valid_for_seconds: float, valid_until: int, now: Moment) -> Deadline:
    bounded = min(max(valid_for_seconds, 0.0), MAX_DEADLINE_SECONDS)
    return Deadline(now.monotonic + bounded, min(float(valid_until), now.wall + MAX_DEADLINE_SECONDS))


def _cluster(update: ViewUpdate) -> ClusterKeySet | None:
    if update.cluster is None:
        return None
    try:
        return parse_key_set(update.cluster.issuer, update.cluster.jwks)
    except KeySetRefused as error:
        raise ViewRefused(f"cluster keys: {error}") from error


def _standing(said: Standing, now: Moment) -> HsmStanding:
    return HsmStanding(
        # A verdict of a later release that we do not know is none that we may serve under.
        _VERDICTS.get(said.verdict, Verdict.UNKNOWN),
        said.reason,
        said.epoch,
        said.policy_digest,
        said.evidence_digest,
        _deadline(said.valid_for_seconds, said.valid_until, now),
    )


def _claim(said: ClaimView, now: Moment) -> ClaimGrant:
    if not CLAIM_UID.fullmatch(said.uid):
        raise ViewRefused("a claim's uid is none")
    if not _SHORT_NAME.fullmatch(said.namespace) or not _NAME.fullmatch(said.name):
        raise ViewRefused(f"claim {said.uid}: namespace or name is none")
    if len(said.keys) > MAX_KEYS_PER_CLAIM or len(said.clients) > MAX_CLIENTS_PER_CLAIM:
        raise ViewRefused(f"claim {said.uid}: too many keys or clients")
    if len(said.policy_digests) > MAX_POLICIES_PER_CLAIM or max(map(len, said.policy_digests), default=0) > 128:
        raise ViewRefused(f"claim {said.uid}: too many policy digests, or one too long")
    if len(said.adopted) > MAX_ADOPTED_PER_CLAIM or not all(map(CLAIM_UID.fullmatch, said.adopted)):
        raise ViewRefused(f"claim {said.uid}: too many former claims, or a uid that is none")
    owns = frozenset({said.uid, *said.adopted})
    keys = {key.name: _key(said.uid, owns, key) for key in said.keys if key.type in _KEY_TYPES}
    if len({key.name for key in said.keys}) != len(said.keys):
        raise ViewRefused(f"claim {said.uid}: two keys of one name")
    return ClaimGrant(
        uid=said.uid,
        namespace=said.namespace,
        name=said.name,
        sequence=said.sequence,
        keys=keys,
        accounts=frozenset(client.service_account for client in said.clients),
        subjects=_subjects(said.clients),
        policy_digests=said.policy_digests,
        deadline=_deadline(said.valid_for_seconds, said.valid_until, now),
        owns=owns,
    )


def _key(claim_uid: str, owns: frozenset[str], said: KeyView) -> KeyGrant:
    if not _SHORT_NAME.fullmatch(said.name):
        raise ViewRefused(f"claim {claim_uid}: a key's name is none")
    if len(said.versions) > MAX_VERSIONS_PER_KEY or len({item.version for item in said.versions}) != len(said.versions):
        raise ViewRefused(f"claim {claim_uid}, key {said.name}: too many versions, or one twice")
    for item in said.versions:
        label = parse_key_label(item.label)
        if label is None or label.claim_uid not in owns or label[1:] != (said.name, item.version):
            raise ViewRefused(f"claim {claim_uid}, key {said.name}: a label that is another key's")
    versions = (
        KeyVersion(item.version, _STATES[item.state], item.label) for item in said.versions if item.state in _STATES
    )
    return KeyGrant(
        said.name,
        _KEY_TYPES[said.type],
        _known_usages(said.usages),
        tuple(sorted(versions, key=lambda item: item.version, reverse=True)),
    )


def _known_usages(said: Iterable[str]) -> frozenset[Usage]:
    return frozenset(_USAGES[usage] for usage in said if usage in _USAGES)


def _subjects(clients: tuple[ClientView, ...]) -> dict[tuple[str, str], SubjectGrant]:
    """By service account and pod; a pod that several rows name may do what any of them grants."""
    rows: dict[tuple[str, str], list[ClientView]] = {}
    for client in clients:
        for pod_uid in client.pod_uids:
            rows.setdefault((client.service_account, pod_uid), []).append(client)
    made: dict[tuple[int, ...], SubjectGrant] = {}
    subjects: dict[tuple[str, str], SubjectGrant] = {}
    for subject, granting in rows.items():
        which = tuple(map(id, granting))
        if which not in made:
            made[which] = _merged(granting)
        subjects[subject] = made[which]
    return subjects


def _merged(rows: list[ClientView]) -> SubjectGrant:
    usages: dict[str, frozenset[Usage]] = {}
    for row in rows:
        for key in row.keys:
            usages[key] = usages.get(key, frozenset()) | _known_usages(row.usages)
    return SubjectGrant(usages, ",".join(sorted({row.epoch for row in rows if row.epoch})))
