"""Who leads: a Lease, for efficiency and not for safety (guarded writes are what keeps two leaders harmless).

The holder renews every two seconds. Others take a Lease that did not change for its duration on *their* clock, so
clocks need not agree. A holder that could not renew for `RENEW_DEADLINE_SECONDS` stops leading by itself, before
anybody else may take over. The term is `leaseTransitions`. A Lease that was deleted, or came back from a backup, would
count from below again, while gateways obey the highest term they have heard of: a holder goes above what it led in
itself, and above what an attested gateway tells it.
"""

from __future__ import annotations

import asyncio
import datetime
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final

from chatelaine.kube.errors import AlreadyExists, Conflict, KubeError, NotFound
from chatelaine.kube.port import LEASES, JsonObject, KubePort
from chatelaine.telemetry.log import logger

DURATION_SECONDS: Final = 8
RENEW_SECONDS: Final = 2.0
RENEW_DEADLINE_SECONDS: Final = 6.0
RETRY_SECONDS: Final = 1.0
CALL_SECONDS: Final = 2.0
MAX_TOLD_TERM: Final = 2**30
"""No gateway's word takes us further: half of what a Lease can count is left for changes of the leader."""

_log = logger(__name__)


@dataclass(frozen=True, slots=True)
class Term:
    """A time of leading. `number` grows with every change of the holder."""

    number: int


class Leadership:
    """One candidate.

    Args:
        kube: the API server.
        namespace: where the Lease stands.
        identity: unique for this process.
        clock: monotonic seconds.
        wall: seconds since the epoch, for what people read in the Lease.
        jitter: random number in [0, 1).
        gained, lost: called when leading begins and ends; `lost` must return quickly.
    """

    def __init__(
        self,
        kube: KubePort,
        namespace: str,
        name: str,
        identity: str,
        *,
        clock: Callable[[], float],
        wall: Callable[[], float],
        jitter: Callable[[], float],
        gained: Callable[[Term], Awaitable[None]],
        lost: Callable[[], Awaitable[None]],
    ) -> None:
        self._kube = kube
        self._namespace = namespace
        self._name = name
        self._identity = identity
        self._clock = clock
        self._wall = wall
        self._jitter = jitter
        self._gained = gained
        self._lost = lost
        self._seen: tuple[str, int] = ("", -1)
        self._seen_at = 0.0
        self._renewed_at = 0.0
        self._led = 0
        self._told = 0
        self.term: Term | None = None

    @property
    def leads(self) -> bool:
        """Do we lead now, by our own clock?"""
        return self.term is not None and self._clock() - self._renewed_at < RENEW_DEADLINE_SECONDS

    def outranked(self, term: int) -> bool:
        """An attested gateway follows `term`, which is above ours: the next renewal goes above it.

        Returns:
            False where no honest count can have got that far; nothing is done then.
        """
        if term > MAX_TOLD_TERM:
            return False
        self._told = max(self._told, term)
        return True

    async def run(self) -> None:
        """Stand for the Lease until cancelled, then give it back."""
        try:
            while True:
                await self._round()
                pause = RENEW_SECONDS if self.term is not None else RETRY_SECONDS
                await asyncio.sleep(pause * (0.9 + 0.2 * self._jitter()))
        finally:
            await self._resign()

    async def _round(self) -> None:
        started = self._clock()
        try:
            async with asyncio.timeout(CALL_SECONDS):
                lease = await self._try()
        except (KubeError, TimeoutError) as error:
            _log.warning("lease not renewed", error=str(error) or type(error).__name__)
            lease = None
        if lease is not None:
            self._renewed_at = started
            number = int(lease["spec"].get("leaseTransitions") or 0)
            if self.term is None or self.term.number != number:
                began, self.term, self._led = self.term is None, Term(number), max(self._led, number)
                _log.info("leading", term=number)
                if began:
                    await self._gained(self.term)
        elif self.term is not None and not self.leads:
            await self._stop()

    async def _stop(self) -> None:
        self.term = None
        _log.info("not leading any more")
        await self._lost()

    async def _try(self) -> JsonObject | None:
        """The Lease if it is ours now, None if it is another's."""
        try:
            lease = await self._kube.get(LEASES, self._name, self._namespace)
        except NotFound:
            try:
                return await self._kube.create(LEASES, self._body({}, self._above(0)), self._namespace)
            except AlreadyExists:
                return None
        spec: dict[str, Any] = lease.get("spec") or {}
        holder, transitions = str(spec.get("holderIdentity") or ""), int(spec.get("leaseTransitions") or 0)
        if holder != self._identity:
            if self.term is not None:
                await self._stop()
            if holder and not self._expired(lease, spec):
                return None
            transitions = self._above(transitions)
        elif transitions < self._led or transitions <= self._told:
            transitions = self._above(transitions)
        try:
            return await self._kube.replace(LEASES, self._name, self._body(lease, transitions), self._namespace)
        except (Conflict, NotFound):
            return None

    def _above(self, transitions: int) -> int:
        return max(transitions, self._led, self._told) + 1

    def _expired(self, lease: JsonObject, spec: dict[str, Any]) -> bool:
        version = (str(spec.get("holderIdentity")), int(lease["metadata"]["resourceVersion"]))
        if version != self._seen:
            self._seen, self._seen_at = version, self._clock()
            return False
        return self._clock() - self._seen_at >= int(spec.get("leaseDurationSeconds") or DURATION_SECONDS)

    def _body(self, lease: JsonObject, transitions: int) -> JsonObject:
        now = _micro_time(self._wall())
        before: dict[str, Any] = lease.get("spec") or {}
        same = before.get("holderIdentity") == self._identity
        meta: dict[str, Any] = {"name": self._name, "namespace": self._namespace}
        if lease:
            meta["resourceVersion"] = lease["metadata"]["resourceVersion"]
        return {
            "metadata": meta,
            "spec": {
                "holderIdentity": self._identity,
                "leaseDurationSeconds": DURATION_SECONDS,
                "acquireTime": before.get("acquireTime", now) if same else now,
                "renewTime": now,
                "leaseTransitions": transitions,
            },
        }

    async def _resign(self) -> None:
        if self.term is None:
            return
        self.term = None
        try:
            async with asyncio.timeout(CALL_SECONDS):
                lease = await self._kube.get(LEASES, self._name, self._namespace)
                if lease["spec"].get("holderIdentity") == self._identity:
                    lease["spec"]["holderIdentity"] = ""
                    await self._kube.replace(LEASES, self._name, lease, self._namespace)
        except (KubeError, TimeoutError) as error:
            _log.warning("lease not given back", error=str(error) or type(error).__name__)


def _micro_time(seconds: float) -> str:
    return datetime.datetime.fromtimestamp(seconds, tz=datetime.UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
