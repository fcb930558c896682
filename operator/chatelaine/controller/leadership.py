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
from collections.abc import Callable
from typing import Any, Final, Protocol

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


class Duties(Protocol):
    """What a process does only while it leads."""

    async def gained(self) -> None:
        """Leading begins."""
        ...

    async def lost(self) -> None:
        """Leading ended. Returns quickly."""
        ...


class Lead(Protocol):
    """Whether this process leads, and in which term."""

    @property
    def leads(self) -> bool:
        """Do we lead now?"""
        ...

    @property
    def term(self) -> int | None:
        """Number of the time of leading that we are in, None where we do not lead."""
        ...

    def outranked(self, term: int) -> bool:
        """An attested gateway follows `term`, which is above ours: go above it.

        Returns:
            False where no honest count can have got that far; nothing is done then.
        """
        ...

    async def run(self, duties: Duties) -> None:
        """Lead whenever that is our turn, until cancelled."""
        ...


class Alone:
    """The lead where exactly one operator runs: from its start on, in term 1 or above what gateways have followed."""

    def __init__(self) -> None:
        self.leads = False
        self.term: int | None = None

    def outranked(self, term: int) -> bool:
        """See `Lead`."""
        if term > MAX_TOLD_TERM:
            return False
        self.term = max(self.term or 0, term + 1)
        return True

    async def run(self, duties: Duties) -> None:
        """See `Lead`."""
        self.leads, self.term = True, self.term or 1
        await duties.gained()


class Leadership:
    """One candidate for the Lease (`Lead`).

    Args:
        kube: the API server.
        namespace: where the Lease stands.
        identity: unique for this process.
        clock: monotonic seconds.
        wall: seconds since the epoch, for what people read in the Lease.
        jitter: random number in [0, 1).
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
    ) -> None:
        self._kube = kube
        self._namespace = namespace
        self._name = name
        self._identity = identity
        self._clock = clock
        self._wall = wall
        self._jitter = jitter
        self._seen: tuple[str, int] = ("", -1)
        self._seen_at = 0.0
        self._renewed_at = 0.0
        self._led = 0
        self._told = 0
        self.term: int | None = None

    @property
    def leads(self) -> bool:
        """Do we lead now, by our own clock?"""
        return self.term is not None and self._clock() - self._renewed_at < RENEW_DEADLINE_SECONDS

    def outranked(self, term: int) -> bool:
        """See `Lead`: the next renewal goes above it."""
        if term > MAX_TOLD_TERM:
            return False
        self._told = max(self._told, term)
        return True

    async def run(self, duties: Duties) -> None:
        """Stand for the Lease until cancelled, then give it back."""
        try:
            while True:
                await self._round(duties)
                pause = RENEW_SECONDS if self.term is not None else RETRY_SECONDS
                await asyncio.sleep(pause * (0.9 + 0.2 * self._jitter()))
        finally:
            await self._resign()

    async def _round(self, duties: Duties) -> None:
        started = self._clock()
        try:
            async with asyncio.timeout(CALL_SECONDS):
                lease = await self._try(duties)
        except (KubeError, TimeoutError) as error:
            _log.warning("lease not renewed", error=str(error) or type(error).__name__)
            lease = None
        if lease is not None:
            self._renewed_at = started
            number = int(lease["spec"].get("leaseTransitions") or 0)
            if self.term != number:
                began, self.term, self._led = self.term is None, number, max(self._led, number)
                _log.info("leading", term=number)
                if began:
                    await duties.gained()
        elif self.term is not None and not self.leads:
            await self._stop(duties)

    async def _stop(self, duties: Duties) -> None:
        self.term = None
        _log.info("not leading any more")
        await duties.lost()

    async def _try(self, duties: Duties) -> JsonObject | None:
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
                await self._stop(duties)
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
