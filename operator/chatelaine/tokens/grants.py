"""What a gateway's live view says about its HSM, the claims bound there, and who may use which key for what.

Deadlines are seconds on the monotonic clock; `valid_until` are seconds since the epoch (UTC). The earlier one counts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from chatelaine.model.keys import KeyState, KeyType, Usage
from chatelaine.model.verdict import Verdict
from chatelaine.tokens.cache import Moment


@dataclass(frozen=True, slots=True)
class Deadline:
    """Until when something holds, on both clocks."""

    monotonic: float
    wall: float

    def passed(self, now: Moment) -> bool:
        """Has either clock reached it?"""
        return now.monotonic >= self.monotonic or now.wall >= self.wall

    def seconds_left(self, now: Moment) -> float:
        """Seconds until the earlier of the two; not below 0."""
        return max(0.0, min(self.monotonic - now.monotonic, self.wall - now.wall))


@dataclass(frozen=True, slots=True)
class HsmStanding:
    """The verdict over this gateway's HSM."""

    verdict: Verdict
    reason: str
    epoch: str
    policy_digest: str
    evidence_digest: str
    deadline: Deadline


@dataclass(frozen=True, slots=True)
class KeyVersion:
    """One version of a key, and its label in the token."""

    version: int
    state: KeyState
    label: str


@dataclass(frozen=True, slots=True)
class KeyGrant:
    """A key that may be served. `versions` in falling order."""

    name: str
    type: KeyType
    usages: frozenset[Usage]
    versions: tuple[KeyVersion, ...]


@dataclass(frozen=True, slots=True)
class SubjectGrant:
    """What one live pod may do: usages by key name. `epoch` changes when its tokens must die."""

    usages: Mapping[str, frozenset[Usage]]
    epoch: str


@dataclass(frozen=True, slots=True)
class ClaimGrant:
    """A claim that may be served here. `subjects` by (service account, pod uid); `accounts` are the named accounts.

    `owns`: its own uid and those of former claims whose keys it has taken over; labels of its keys begin with these.
    """

    uid: str
    namespace: str
    name: str
    sequence: int
    keys: Mapping[str, KeyGrant]
    accounts: frozenset[str]
    subjects: Mapping[tuple[str, str], SubjectGrant]
    policy_digests: tuple[str, ...]
    deadline: Deadline
    owns: frozenset[str] = frozenset()


class Live(Protocol):
    """What is true now, each in O(1)."""

    @property
    def standing(self) -> HsmStanding | None:
        """The last verdict that was told; None before the first."""
        ...

    def claim_named(self, namespace: str, name: str) -> ClaimGrant | None:
        """The claim served under that name."""
        ...

    def claim(self, uid: str) -> ClaimGrant | None:
        """The claim of that uid."""
        ...
