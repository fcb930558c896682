"""Every change is told once to everybody who listens, and silence is never mistaken for peace."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from chatelaine.agent.attester import TpmMarker
from chatelaine.agent.errors import AttesterTimeout
from chatelaine.agent.evidence import SocketGateway
from chatelaine.agent.simulated import SimulatedAttester, SimulatedTpm
from chatelaine.agent.watch import ChangeCounter, watch_gateway, watch_tpm
from chatelaine.wire.messages import Change, ChangeKind
from support.simulated_gateway import SimulatedGateway

DEADLINE_SECONDS = 10.0
NEVER = 3600.0


async def heard(stream: AsyncIterator[Change]) -> Change:
    async with asyncio.timeout(DEADLINE_SECONDS):
        return await anext(stream)


async def test_a_listener_hears_alive_first_and_then_each_change() -> None:
    counter = ChangeCounter()
    stream = counter.follow(alive_seconds=NEVER)
    assert await heard(stream) == Change(kind=ChangeKind.ALIVE, counter=1)
    counter.announce(ChangeKind.PCR)
    counter.announce(ChangeKind.INVENTORY)
    assert await heard(stream) == Change(kind=ChangeKind.PCR, counter=2)
    assert await heard(stream) == Change(kind=ChangeKind.INVENTORY, counter=3)


async def test_a_slow_listener_hears_the_last_change_of_each_kind() -> None:
    counter = ChangeCounter()
    stream = counter.follow(alive_seconds=NEVER)
    await heard(stream)
    for _ in range(1000):
        counter.announce(ChangeKind.PCR)
    assert await heard(stream) == Change(kind=ChangeKind.PCR, counter=1001)


async def test_silence_is_filled_with_alive() -> None:
    stream = ChangeCounter().follow(alive_seconds=0.001)
    assert [(await heard(stream)).kind for _ in range(3)] == [ChangeKind.ALIVE] * 3


async def test_two_listeners_hear_the_same() -> None:
    counter = ChangeCounter()
    streams = [counter.follow(alive_seconds=NEVER) for _ in range(2)]
    for stream in streams:
        await heard(stream)
    counter.announce(ChangeKind.GATEWAY)
    assert [(await heard(stream)).kind for stream in streams] == [ChangeKind.GATEWAY] * 2


class FadingAttester(SimulatedAttester):
    """A TPM that stops answering while `silent`."""

    silent = False

    def __init__(self, tpm: SimulatedTpm) -> None:
        super().__init__(tpm)
        self.asked = asyncio.Event()

    async def polls(self, count: int) -> None:
        """Return once the TPM has been asked `count` more times."""
        for _ in range(count):
            self.asked.clear()
            async with asyncio.timeout(DEADLINE_SECONDS):
                await self.asked.wait()

    async def marker(self) -> TpmMarker:
        self.asked.set()
        if self.silent:
            raise AttesterTimeout("silent")
        return await super().marker()


@pytest.fixture
async def watched() -> AsyncIterator[tuple[FadingAttester, AsyncIterator[Change]]]:
    attester, counter = FadingAttester(SimulatedTpm()), ChangeCounter()
    stream = counter.follow(alive_seconds=NEVER)
    await anext(stream)
    task = asyncio.create_task(watch_tpm(attester, counter, poll_seconds=0.001))
    await attester.polls(2)
    yield attester, stream
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_extending_a_pcr_is_told(watched: tuple[FadingAttester, AsyncIterator[Change]]) -> None:
    attester, stream = watched
    attester.tpm.extend(7, bytes(32))
    assert await heard(stream) == Change(kind=ChangeKind.PCR, counter=2)


@pytest.fixture
async def measuring() -> AsyncIterator[tuple[FadingAttester, AsyncIterator[Change]]]:
    """A host that may speak of measured files as often as it likes."""
    attester, counter = FadingAttester(SimulatedTpm()), ChangeCounter()
    stream = counter.follow(alive_seconds=NEVER)
    await anext(stream)
    task = asyncio.create_task(watch_tpm(attester, counter, poll_seconds=0.001, measured_seconds=0.0))
    await attester.polls(2)
    yield attester, stream
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_a_file_that_ima_measures_is_told_as_such(
    measuring: tuple[FadingAttester, AsyncIterator[Change]],
) -> None:
    attester, stream = measuring
    attester.tpm.extend(10, bytes(32))
    assert await heard(stream) == Change(kind=ChangeKind.PCR, counter=2, only_ima=True)


async def test_a_pcr_that_moves_behind_the_measurements_of_files_is_told_for_itself(
    measuring: tuple[FadingAttester, AsyncIterator[Change]],
) -> None:
    attester, stream = measuring
    for number in range(3):
        attester.tpm.extend(10, bytes([number]) * 32)
        assert (await heard(stream)).only_ima
    attester.tpm.extend(10, bytes(32))
    attester.tpm.extend(4, bytes(32))
    assert not (await heard(stream)).only_ima


async def test_a_reboot_is_never_taken_for_a_measured_file(
    measuring: tuple[FadingAttester, AsyncIterator[Change]],
) -> None:
    attester, stream = measuring
    attester.tpm.reset()
    attester.tpm.extend(10, bytes(32))
    assert not (await heard(stream)).only_ima


async def test_a_busy_host_does_not_flood_its_listeners() -> None:
    """However many files are measured while the first word is out, there is one more word, and not before its time."""
    attester, counter = FadingAttester(SimulatedTpm()), ChangeCounter()
    task = asyncio.create_task(watch_tpm(attester, counter, poll_seconds=0.001, measured_seconds=NEVER))
    stream = counter.follow(alive_seconds=NEVER)
    await anext(stream)
    await attester.polls(2)
    attester.tpm.extend(10, bytes(32))
    assert (await heard(stream)).only_ima
    for number in range(20):
        attester.tpm.extend(10, bytes([number]) * 32)
        await attester.polls(2)
    assert counter.value == 2
    attester.tpm.extend(7, bytes(32))
    assert not (await heard(stream)).only_ima
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_a_reset_that_hides_behind_an_equal_counter_is_told(
    watched: tuple[FadingAttester, AsyncIterator[Change]],
) -> None:
    attester, stream = watched
    assert attester.tpm.pcr_update_counter == 0
    attester.tpm.reset()
    assert attester.tpm.pcr_update_counter == 0
    assert (await heard(stream)).kind is ChangeKind.PCR


async def test_a_tpm_that_falls_silent_is_told_once_and_again_when_it_answers(
    watched: tuple[FadingAttester, AsyncIterator[Change]],
) -> None:
    attester, stream = watched
    attester.silent = True
    assert (await heard(stream)).counter == 2
    await attester.polls(5)
    attester.silent = False
    assert (await heard(stream)).counter == 3


async def test_the_gateways_inventory_and_its_absence_are_told(tmp_path: Path) -> None:
    gateway, counter = SimulatedGateway(), ChangeCounter()
    socket = tmp_path / "gw.sock"
    await gateway.start(socket)
    client = SocketGateway(str(socket))
    stream = counter.follow(alive_seconds=NEVER)
    await heard(stream)
    task = asyncio.create_task(watch_gateway(client.client, counter))
    try:
        async with asyncio.timeout(DEADLINE_SECONDS):
            await gateway.listening.wait()
        gateway.tell()
        assert await heard(stream) == Change(kind=ChangeKind.INVENTORY, counter=2)
        await gateway.stop()
        assert await heard(stream) == Change(kind=ChangeKind.GATEWAY, counter=3)
        await gateway.start(socket)
        assert await heard(stream) == Change(kind=ChangeKind.GATEWAY, counter=4)
        gateway.tell()
        assert await heard(stream) == Change(kind=ChangeKind.INVENTORY, counter=5)
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await client.close()
        await gateway.stop()
