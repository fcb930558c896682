"""What the gateway's applications share while it runs: one object, built by `server`, read by everybody."""

from __future__ import annotations

import asyncio
import heapq
import time
from dataclasses import dataclass, field

from chatelaine.gateway import problems
from chatelaine.gateway.audit import AuditLog
from chatelaine.gateway.client_ca import ClientCa
from chatelaine.gateway.connections import Connection, Connections
from chatelaine.gateway.inventory_watch import InventoryWatch
from chatelaine.gateway.limits import CLOSE_GRACE_SECONDS, MAX_CLAIMS_LOGGED, MAX_VERIFIED_TOKENS
from chatelaine.gateway.metrics import Metrics
from chatelaine.gateway.operations import KeyOperations
from chatelaine.gateway.problems import Refusal
from chatelaine.gateway.service import Service
from chatelaine.gateway.tls import GatewayTls
from chatelaine.gateway.view import LiveView
from chatelaine.pkcs11.errors import HsmError, HsmUnavailable, LoginRefused
from chatelaine.pkcs11.port import HsmPort
from chatelaine.telemetry.log import logger
from chatelaine.tokens.cache import Moment, VerifiedTokens

log = logger(__name__)

_MAX_TIMER_SECONDS = 60.0


def moment() -> Moment:
    """Now, on both clocks."""
    return Moment(time.time(), time.monotonic())


@dataclass(slots=True)
class Runtime:
    """The parts. `service` is None until the token has answered for the first time."""

    hsm: HsmPort
    tls: GatewayTls
    client_ca: ClientCa
    view: LiveView
    audit: AuditLog
    connections: Connections
    metrics: Metrics
    inventory: InventoryWatch
    keys: KeyOperations
    service: Service | None = None
    verified: VerifiedTokens = field(default_factory=lambda: VerifiedTokens(MAX_VERIFIED_TOKENS))
    _deadline: asyncio.TimerHandle | None = None

    def require_service(self) -> Service:
        """The service keys.

        Raises:
            Refusal: `ERROR_HSM_UNAVAILABLE` before the token has answered for the first time.
        """
        if self.service is None:
            raise Refusal(problems.HSM_UNAVAILABLE, reason="ServiceKeysAbsent")
        return self.service

    def revoke(self, claim_uids: frozenset[str], why: str) -> None:
        """Tokens of these claims are refused already; end the connections that have used them, within a second."""
        if not claim_uids:
            return
        self.metrics.revocations.inc(len(claim_uids))
        doomed = self.connections.of_claims(claim_uids)
        log.info(
            "claims are not served any more",
            why=why,
            claims=len(claim_uids),
            claim_uids=heapq.nsmallest(MAX_CLAIMS_LOGGED, claim_uids),
            connections=len(doomed),
        )
        if doomed:
            asyncio.get_running_loop().call_later(CLOSE_GRACE_SECONDS, self._close, doomed)

    def watch_deadlines(self) -> None:
        """Arm the timer for the next deadline of the view. To be called after every change of the view."""
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
        now = moment()
        self.revoke(self.view.ended(now), "DeadlinePassed")
        seconds = self.view.next_deadline_seconds(now)
        if seconds is not None:
            # Bounded, so that a wall clock that is set forward is noticed as well.
            delay = min(seconds, _MAX_TIMER_SECONDS)
            self._deadline = asyncio.get_running_loop().call_later(delay, self.watch_deadlines)

    def _close(self, doomed: set[Connection]) -> None:
        for connection in self.connections.still_open(doomed):
            connection.line.close_when_idle()


def refusal_of(error: HsmError) -> Refusal:
    """What a client is told of an HSM's error: that it is one, not which."""
    unavailable = isinstance(error, HsmUnavailable | LoginRefused)
    return Refusal(problems.HSM_UNAVAILABLE if unavailable else problems.HSM_FAILED, reason=error.code)
