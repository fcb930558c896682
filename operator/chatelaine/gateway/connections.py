"""Which connections are open, whose they are, which claims they have used, and when they must end."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Protocol

from chatelaine.gateway.limits import (
    IDLE_SECONDS,
    MAX_CONNECTIONS,
    MAX_CONNECTIONS_PER_HOLDER,
    REQUEST_SECONDS,
    RESERVED_CONNECTIONS,
)
from chatelaine.gateway.peer import Peer, Role


class Line(Protocol):
    """The transport under a connection, as far as it can be ended."""

    def close_when_idle(self) -> None:
        """Close now if no answer is due, else after it."""
        ...

    def cut(self) -> None:
        """Close without waiting for anything."""
        ...


class Connection:
    """One open connection. Times are monotonic seconds; `request_since` is 0 between requests."""

    __slots__ = ("claims", "idle_since", "line", "peer", "request_since", "streams")

    def __init__(self, line: Line, peer: Peer, now: float) -> None:
        self.line = line
        self.peer = peer
        self.claims: set[str] = set()
        self.request_since = 0.0
        self.idle_since = now
        self.streams = False


class Connections:
    """All of them. One instance a gateway."""

    def __init__(self) -> None:
        self._all: set[Connection] = set()
        self._by_claim: dict[str, set[Connection]] = {}
        self._by_holder: Counter[str] = Counter()

    def __len__(self) -> int:
        return len(self._all)

    def admit(self, connection: Connection) -> bool:
        """Count it in, or tell that there is no room for it. Our own processes have room reserved."""
        peer = connection.peer
        trusted = peer.role in (Role.PROCESS, Role.LOCAL)
        room = MAX_CONNECTIONS + (RESERVED_CONNECTIONS if trusted else 0)
        if len(self._all) >= room or self._by_holder[peer.holder] >= MAX_CONNECTIONS_PER_HOLDER:
            return False
        self._all.add(connection)
        self._by_holder[peer.holder] += 1
        return True

    def forget(self, connection: Connection) -> None:
        """It is closed."""
        if connection not in self._all:
            return
        self._all.remove(connection)
        holder = connection.peer.holder
        self._by_holder[holder] -= 1
        if not self._by_holder[holder]:
            del self._by_holder[holder]
        for claim in connection.claims:
            users = self._by_claim[claim]
            users.discard(connection)
            if not users:
                del self._by_claim[claim]

    def used(self, connection: Connection, claim_uid: str) -> None:
        """It shows a token of this claim. Known before the token is judged, so a refused one counts as well."""
        if claim_uid not in connection.claims and connection in self._all:
            connection.claims.add(claim_uid)
            self._by_claim.setdefault(claim_uid, set()).add(connection)

    def of_claims(self, claim_uids: Iterable[str]) -> set[Connection]:
        """Those that have used any of these claims."""
        found: set[Connection] = set()
        for uid in claim_uids:
            found |= self._by_claim.get(uid, set())
        return found

    def still_open(self, connections: Iterable[Connection]) -> list[Connection]:
        """Those of `connections` that have not been closed since."""
        return [connection for connection in connections if connection in self._all]

    def sweep(self, now: float) -> int:
        """End what is too slow or idle for too long; returns how many were cut."""
        cut = 0
        for connection in tuple(self._all):
            since = connection.request_since
            if since and now - since > REQUEST_SECONDS and not connection.streams:
                connection.line.cut()
                cut += 1
            elif not since and now - connection.idle_since > IDLE_SECONDS:
                connection.line.close_when_idle()
        return cut

    def close_all(self) -> None:
        """Every connection, each after the answer that is due on it."""
        for connection in tuple(self._all):
            if connection.streams:
                connection.line.cut()
            else:
                connection.line.close_when_idle()
