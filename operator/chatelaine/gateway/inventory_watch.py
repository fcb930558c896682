"""Notices that the token holds other keys than before, whoever changed it.

Asked at a bounded rate, and after our own changes at once.
"""

from __future__ import annotations

import asyncio
import hashlib
import time

from chatelaine.evidence.errors import EvidenceError
from chatelaine.evidence.inventory import encode_inventory
from chatelaine.gateway.limits import INVENTORY_POLL_SECONDS, INVENTORY_POLL_SHARE
from chatelaine.pkcs11.errors import HsmError
from chatelaine.pkcs11.port import HsmPort
from chatelaine.telemetry.log import logger

log = logger(__name__)


class InventoryWatch:
    """`counter` rises with each change that was seen."""

    def __init__(self, hsm: HsmPort) -> None:
        self._hsm = hsm
        self._digest = b""
        self._changed = asyncio.Event()
        self._asked = asyncio.Event()
        self.counter = 0

    def poke(self) -> None:
        """We have just changed the token: look now."""
        self._asked.set()

    async def above(self, counter: int) -> int:
        """Wait until the counter is above `counter`; returns it."""
        while self.counter <= counter:
            await self._changed.wait()
        return self.counter

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            started = time.monotonic()
            try:
                self._saw(hashlib.sha256(encode_inventory(await self._hsm.inventory())).digest())
            except HsmError as error:
                log.debug("the inventory cannot be read now", code=error.code)
            except EvidenceError as error:
                log.warning("the inventory is over its bounds", error=str(error))
            took = time.monotonic() - started
            await self._pause(max(INVENTORY_POLL_SECONDS, took * INVENTORY_POLL_SHARE))

    async def _pause(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._asked.wait()
        except TimeoutError:
            return
        self._asked.clear()

    def _saw(self, digest: bytes) -> None:
        if digest == self._digest:
            return
        self._digest = digest
        self.counter += 1
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()
