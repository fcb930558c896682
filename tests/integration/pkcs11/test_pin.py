"""A wrong PIN is tried once, a readable PIN file never, and a mended file clears the way."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable

import pytest
from tools.lab.softhsm import SoftHsmToken

from chatelaine.pkcs11.errors import PinBudgetSpent, PinFileRefused, PinLocked, PinRejected
from chatelaine.pkcs11.settings import EventKind, HsmEvent
from chatelaine.pkcs11.supervisor import Pkcs11Supervisor
from support.hsm_world import settings_for
from support.pkcs11_fault import FaultModule

DEADLINE_SECONDS = 60


async def condition(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(DEADLINE_SECONDS):
        while not holds():  # noqa: ASYNC110 - what is waited for is another process
            await asyncio.sleep(0.01)


def refusals(events: list[HsmEvent]) -> list[str]:
    return [event.code for event in events if event.kind is EventKind.REFUSED]


async def test_wrong_pin_is_tried_once_however_often_the_worker_starts(
    token: SoftHsmToken, faulty: FaultModule
) -> None:
    token.write_pin("wrong-pin")
    events: list[HsmEvent] = []
    supervisor = Pkcs11Supervisor(settings_for(token, **faulty.settings()), events.append)
    with pytest.raises(PinRejected):
        await supervisor.start()
    await condition(lambda: len(refusals(events)) >= 4)
    await supervisor.close()
    again = Pkcs11Supervisor(settings_for(token, **faulty.settings()), events.append)
    with pytest.raises(PinRejected):
        await again.start()
    await again.close()
    assert set(refusals(events)) == {"PinRejected"}
    assert faulty.logins() == 1


async def test_every_call_is_refused_at_once_after_a_wrong_pin(token: SoftHsmToken) -> None:
    token.write_pin("wrong-pin")
    supervisor = Pkcs11Supervisor(settings_for(token))
    with pytest.raises(PinRejected):
        await supervisor.start()
    with pytest.raises(PinRejected):
        await supervisor.random(8)
    await supervisor.close()


async def test_a_mended_pin_file_clears_the_way(token: SoftHsmToken, faulty: FaultModule) -> None:
    token.write_pin("wrong-pin")
    events: list[HsmEvent] = []
    settings = settings_for(token, **faulty.settings(), restart_max_seconds=3600.0)
    supervisor = Pkcs11Supervisor(settings, events.append)
    with pytest.raises(PinRejected):
        await supervisor.start()
    token.write_pin("another-wrong-pin")
    await condition(lambda: faulty.logins() == 2)
    token.write_pin("wrong-pin")  # refused before: not tried again
    seen = len(refusals(events))
    await condition(lambda: len(refusals(events)) > seen)
    assert faulty.logins() == 2
    token.write_pin(token.pin)
    await condition(lambda: supervisor.ready)
    assert len(await supervisor.random(8)) == 8
    await supervisor.close()
    assert faulty.logins() == 3


async def test_two_workers_of_one_state_directory_do_not_log_in_at_once(token: SoftHsmToken) -> None:
    first = Pkcs11Supervisor(settings_for(token))
    await first.start()
    second = Pkcs11Supervisor(settings_for(token, start_timeout_seconds=30.0))
    starting = asyncio.create_task(second.start())
    pending, _ = await asyncio.wait({starting}, timeout=1.0)
    assert not pending
    await first.close()
    async with asyncio.timeout(DEADLINE_SECONDS):
        await starting
    await second.close()


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604, 0o660, 0o700, 0o200])
async def test_pin_file_that_others_may_read_is_refused(token: SoftHsmToken, faulty: FaultModule, mode: int) -> None:
    token.write_pin(token.pin, mode)
    supervisor = Pkcs11Supervisor(settings_for(token, **faulty.settings()))
    with pytest.raises(PinFileRefused):
        await supervisor.start()
    await supervisor.close()
    assert faulty.logins() == 0


async def test_pin_file_may_be_read_only(token: SoftHsmToken) -> None:
    token.write_pin(token.pin, 0o400)
    async with Pkcs11Supervisor(settings_for(token)) as supervisor:
        assert len(await supervisor.random(8)) == 8


async def test_pin_file_behind_a_symbolic_link_or_pipe_is_refused(token: SoftHsmToken) -> None:
    real = token.pin_file.with_suffix(".real")
    token.pin_file.rename(real)
    token.pin_file.symlink_to(real)
    await refused_with(token, PinFileRefused)
    token.pin_file.unlink()
    os.mkfifo(token.pin_file, 0o600)
    await refused_with(token, PinFileRefused)
    token.pin_file.unlink()
    await refused_with(token, PinFileRefused)


async def refused_with(token: SoftHsmToken, error: type[Exception]) -> None:
    supervisor = Pkcs11Supervisor(settings_for(token))
    with pytest.raises(error):
        await supervisor.start()
    await supervisor.close()


@pytest.mark.parametrize(
    ("flags", "error"),
    [(0x10000, PinBudgetSpent), (0x20000, PinBudgetSpent), (0x40000, PinLocked)],
    ids=["COUNT_LOW", "FINAL_TRY", "LOCKED"],
)
async def test_no_login_is_tried_on_a_token_whose_pin_is_about_to_lock(
    token: SoftHsmToken, faulty: FaultModule, flags: int, error: type[Exception]
) -> None:
    faulty.set_flags(flags)
    supervisor = Pkcs11Supervisor(settings_for(token, **faulty.settings()))
    with pytest.raises(error):
        await supervisor.start()
    assert faulty.logins() == 0
    faulty.set_flags(0)  # a person logged in with the right PIN, or unlocked it
    await condition(lambda: supervisor.ready)
    await supervisor.close()
    assert faulty.logins() == 1


async def test_module_that_dies_at_login_spends_a_bounded_number_of_tries(
    token: SoftHsmToken, faulty: FaultModule
) -> None:
    faulty.turn_on("crash-login")
    events: list[HsmEvent] = []
    supervisor = Pkcs11Supervisor(settings_for(token, **faulty.settings()), events.append)
    with pytest.raises(Exception, match="died"):
        await supervisor.start()
    await condition(lambda: "PinBudgetSpent" in refusals(events))
    seen = faulty.logins()
    more = len(events)
    await condition(lambda: len(events) >= more + 2)
    await supervisor.close()
    assert faulty.logins() == seen <= 5
