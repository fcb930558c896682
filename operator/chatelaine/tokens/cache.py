"""Tokens that were verified already, by the SHA-256 of their bytes, so that a signature is checked once a minute.

A hit says only that these very bytes were verified before and have not expired since; everything that can change
in between (`tokens.decide`) is checked on every use.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from chatelaine.tokens.trust_token import TrustToken


@dataclass(frozen=True, slots=True)
class Moment:
    """Now, on both clocks, in seconds. Deadlines hold on either: setting one clock back extends nothing."""

    wall: float
    monotonic: float


class VerifiedTokens:
    """Bounded cache; the oldest entry makes room. Use does not extend an entry's deadline.

    Args:
        max_entries: how many tokens are kept.
    """

    def __init__(self, max_entries: int) -> None:
        if max_entries < 1:
            raise ValueError("a cache holds at least one entry")
        self._max_entries = max_entries
        self._entries: dict[bytes, tuple[TrustToken, float]] = {}

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, token: bytes, now: Moment) -> TrustToken | None:
        """The verified token, or None when these bytes must be verified (again)."""
        digest = hashlib.sha256(token).digest()
        entry = self._entries.get(digest)
        if entry is None:
            return None
        verified, deadline = entry
        if now.monotonic >= deadline or now.wall >= verified.claims.exp:
            del self._entries[digest]
            return None
        return verified

    def put(self, token: bytes, verified: TrustToken, now: Moment) -> None:
        """Keep `verified` until its `exp`, counted from `now` on the monotonic clock."""
        if len(self._entries) >= self._max_entries:
            del self._entries[next(iter(self._entries))]
        deadline = now.monotonic + (verified.claims.exp - now.wall)
        self._entries[hashlib.sha256(token).digest()] = (verified, deadline)

    def clear(self) -> None:
        """Forget all."""
        self._entries.clear()
