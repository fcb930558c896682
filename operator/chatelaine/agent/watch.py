"""Notices change, and merges all kinds of it into one counter that listeners follow.

The TPM is asked for its marker (one PCR_Read without a PCR, one ReadClock) every tenth of a second; the gateway tells
of its inventory over the local socket. What cannot be watched counts as changed: whoever listens asks for evidence
and finds out.

Where IMA is at work, every file that is measured moves the marker. When it has moved, all PCRs but number 10 are read:
if none of them has changed, the change is told as IMA's own, and at a bounded rate.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Final

from chatelaine.agent.attester import Attester, TpmMarker
from chatelaine.agent.errors import AttesterError, BankAbsent
from chatelaine.evidence.tpm_types import MAX_PCRS, Selection
from chatelaine.model.tpm_policy import Bank
from chatelaine.telemetry.log import logger
from chatelaine.wire.messages import ALIVE_SECONDS, SILENCE_SECONDS, Change, ChangeKind
from chatelaine.wire.peer import PeerClient, PeerError

log = logger(__name__)

POLL_SECONDS: Final = 0.1
"""Default interval of asking the TPM: a tenth of the second in which an honest agent's change is acted on."""
MEASURED_SECONDS: Final = 0.5
"""Between two words of files that were measured."""
IMA_PCR: Final = 10
_OTHER_PCRS: Final = tuple(index for index in range(MAX_PCRS) if index != IMA_PCR)
_BACK_OFF_SECONDS: Final = (0.1, 0.2, 0.5, 1.0, 2.0)
_LOCAL_CHANGES: Final = "/local/v1/changes"


class ChangeCounter:
    """Counts changes and wakes listeners. A slow listener hears of the last change of each kind, never of a queue."""

    def __init__(self) -> None:
        self._value = 1
        self._last: dict[tuple[ChangeKind, bool], int] = {}
        self._moved = asyncio.Event()

    @property
    def value(self) -> int:
        """Number of the last change."""
        return self._value

    def announce(self, kind: ChangeKind, *, only_ima: bool = False) -> None:
        """Something of this kind has changed; `only_ima`: no PCR but number 10."""
        self._value += 1
        self._last[kind, only_ima] = self._value
        moved, self._moved = self._moved, asyncio.Event()
        moved.set()

    async def follow(self, *, alive_seconds: float = ALIVE_SECONDS) -> AsyncIterator[Change]:
        """`Alive` at once, then every change from here on; `Alive` again whenever nothing else was said."""
        heard = self._value
        yield Change(kind=ChangeKind.ALIVE, counter=heard)
        while True:
            moved = self._moved
            news = sorted((number, *what) for what, number in self._last.items() if number > heard)
            for number, kind, only_ima in news:
                heard = number
                yield Change(kind=kind, counter=number, only_ima=only_ima)
            if news:
                continue
            try:
                async with asyncio.timeout(alive_seconds):
                    await moved.wait()
            except TimeoutError:
                yield Change(kind=ChangeKind.ALIVE, counter=heard)


async def watch_tpm(
    attester: Attester,
    counter: ChangeCounter,
    *,
    poll_seconds: float = POLL_SECONDS,
    measured_seconds: float = MEASURED_SECONDS,
) -> None:
    """Announce `Pcr` when the TPM's marker moves, and once when the TPM stops or starts to answer. Never returns.

    `measured_seconds`: least time between two words of nothing but IMA's measurements.
    """
    clock = asyncio.get_running_loop().time
    seen = await _marker(attester)
    others = await _others(attester)
    if await _marker(attester) != seen:
        # They may be of either moment: the next look tells of a change, whatever it is.
        others = None
    measured, told_at = False, float("-inf")
    while True:
        await asyncio.sleep(poll_seconds)
        marker = await _marker(attester)
        if marker != seen:
            before, others = others, await _others(attester)
            if _same_boot(seen, marker) and others is not None and others == before:
                measured = True
            else:
                _log_move(seen, marker)
                counter.announce(ChangeKind.PCR)
            seen = marker
        if measured and clock() - told_at >= measured_seconds:
            measured, told_at = False, clock()
            counter.announce(ChangeKind.PCR, only_ima=True)


def _same_boot(before: TpmMarker | None, after: TpmMarker | None) -> bool:
    if before is None or after is None:
        return False
    return (before.reset_count, before.restart_count) == (after.reset_count, after.restart_count)


async def _others(attester: Attester) -> dict[int, bytes] | None:
    """All PCRs but IMA's, of the first bank that is there; None where they cannot be read."""
    for bank in Bank:
        try:
            return await attester.read_pcrs(Selection(bank, _OTHER_PCRS))
        except BankAbsent:
            continue
        except AttesterError as error:
            log.debug("the PCRs cannot be read", error=str(error))
            return None
    return None


async def _marker(attester: Attester) -> TpmMarker | None:
    try:
        return await attester.marker()
    except AttesterError as error:
        log.debug("the TPM does not answer", error=str(error))
        return None


def _log_move(before: TpmMarker | None, after: TpmMarker | None) -> None:
    if after is None:
        log.error("the TPM does not answer any more")
    elif before is None:
        log.info("the TPM answers again")
    else:
        log.info(
            "the TPM's state has changed",
            counter=after.pcr_update_counter,
            resets=after.reset_count,
            restarts=after.restart_count,
        )


async def watch_gateway(client: PeerClient, counter: ChangeCounter) -> None:
    """Announce `Inventory` when the gateway does, and `Gateway` when it goes or comes. Never returns."""
    failures = 0
    there = True
    while True:
        try:
            last: int | None = None
            async for change in client.lines(_LOCAL_CHANGES, Change, silence_seconds=SILENCE_SECONDS):
                if not there:
                    log.info("the gateway is back")
                    counter.announce(ChangeKind.GATEWAY)
                if last is not None and change.counter != last:
                    counter.announce(ChangeKind.INVENTORY)
                there, failures, last = True, 0, change.counter
        except PeerError as error:
            log.debug("the gateway's change stream broke", error=str(error))
        if there:
            log.warning("the gateway's change stream ended")
            counter.announce(ChangeKind.GATEWAY)
        there = False
        await asyncio.sleep(_BACK_OFF_SECONDS[min(failures, len(_BACK_OFF_SECONDS) - 1)])
        failures += 1
