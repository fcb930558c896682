"""A worker that dies, hangs or is too slow: nothing hangs, nothing is half done for good."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import resource
import signal
from pathlib import Path

import pytest
from tools.lab.softhsm import SoftHsmToken

from chatelaine.model.identifiers import key_id, key_label
from chatelaine.model.keys import KeyType
from chatelaine.pkcs11.errors import DeadlineExceeded, HsmError, HsmUnavailable, ModuleUnusable, QueueFull, WorkerDown
from chatelaine.pkcs11.port import PublicKey, SignMechanism
from chatelaine.pkcs11.settings import EventKind, HsmEvent
from chatelaine.pkcs11.supervisor import Pkcs11Supervisor
from support.hsm_world import SoftHsmWorld, settings_for, soft_hsm_world
from support.pkcs11_fault import FaultModule

LABEL = key_label("claim", "signing", 1)
DIGEST = hashlib.sha256(b"x").digest()
DEADLINE_SECONDS = 180


async def ready(world: SoftHsmWorld, other_than: int | None = None) -> int:
    """The pid of a serving worker, another one than `other_than`."""
    async with asyncio.timeout(DEADLINE_SECONDS):
        while (pid := world.supervisor.worker_pid) is None or pid == other_than:  # noqa: ASYNC110 - another process
            await asyncio.sleep(0.005)
    return pid


async def until_answered(world: SoftHsmWorld, key_type: KeyType) -> None:
    """Ensure again and again, as a reconcile does."""
    async with asyncio.timeout(DEADLINE_SECONDS):
        while True:
            with contextlib.suppress(HsmUnavailable):
                await world.port.ensure_key_pair(LABEL, key_type, may_generate=True)
                return


def assert_one_whole_pair(world: SoftHsmWorld) -> None:
    """As another process sees the token: exactly our pair, nothing half, nothing else."""
    assert [(kind, label, key) for kind, label, key in world.token.objects()] == [
        ("PRIVATE_KEY", LABEL, key_id(LABEL)),
        ("PUBLIC_KEY", LABEL, key_id(LABEL)),
    ]


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSEGV])
@pytest.mark.parametrize("key_type", [KeyType.EC_P256, KeyType.RSA_3072])
async def test_worker_killed_mid_key_generation_leaves_no_half_pair(
    soft: SoftHsmWorld, how: signal.Signals, key_type: KeyType
) -> None:
    # The points spread over the whole of a generation: from before it begins until after it has ended.
    steps = 10 if key_type is KeyType.EC_P256 else 4
    for step in range(steps):
        pid = await ready(soft)
        asking = asyncio.create_task(soft.port.ensure_key_pair(LABEL, key_type, may_generate=True))
        await progress(soft, asking, step)
        os.kill(pid, how)
        with contextlib.suppress(HsmUnavailable):
            await asking
        await ready(soft, other_than=pid)
        await until_answered(soft, key_type)
        assert_one_whole_pair(soft)
        await soft.port.sign(
            LABEL,
            SignMechanism.ECDSA_SHA256 if key_type is KeyType.EC_P256 else SignMechanism.RSA_PSS_SHA256,
            DIGEST,
        )
        await soft.port.destroy_key(LABEL)
        assert await soft.port.inventory() == ()


async def progress(world: SoftHsmWorld, asking: asyncio.Task[PublicKey], step: int) -> None:
    """Let the worker come as far as its `step`-th change of the store, or to the end of its work if it makes fewer."""
    (store,) = [entry for entry in (world.token.directory / "tokens").iterdir() if entry.is_dir()]
    before = stamps(store)
    changes = 0
    async with asyncio.timeout(DEADLINE_SECONDS):
        while changes < step and not asking.done():
            await asyncio.sleep(0.0005)  # the worker needs the processor more than we do
            now = stamps(store)
            if now != before:
                changes, before = changes + 1, now


def stamps(store: Path) -> dict[str, tuple[int, int]]:
    """Size and time of every file of the store."""
    found = {}
    for entry in os.scandir(store):
        with contextlib.suppress(FileNotFoundError):
            status = entry.stat()
            found[entry.name] = (status.st_size, status.st_mtime_ns)
    return found


@pytest.mark.parametrize("where", ["crash-generate-before", "crash-generate-after"])
async def test_segfault_around_key_generation_leaves_no_orphan(
    token: SoftHsmToken, faulty: FaultModule, where: str
) -> None:
    events: list[HsmEvent] = []
    async with Pkcs11Supervisor(settings_for(token, **faulty.settings()), events.append) as port:
        world = SoftHsmWorld(token, port, events)
        faulty.turn_on(where)  # the self-test at start has passed
        with pytest.raises(WorkerDown):
            await port.ensure_key_pair(LABEL, KeyType.EC_P256, may_generate=True)
        assert len(token.objects()) == (0 if where.endswith("before") else 2)
        faulty.turn_off(where)
        await until_answered(world, KeyType.EC_P256)
        assert_one_whole_pair(world)


async def test_module_that_returns_wrong_signatures_is_refused_at_start(
    token: SoftHsmToken, faulty: FaultModule
) -> None:
    faulty.turn_on("bad-signature")
    supervisor = Pkcs11Supervisor(settings_for(token, **faulty.settings()))
    with pytest.raises(ModuleUnusable):
        await supervisor.start()
    await supervisor.close()


async def test_a_lost_session_costs_one_login_and_no_call(token: SoftHsmToken, faulty: FaultModule) -> None:
    async with Pkcs11Supervisor(settings_for(token, **faulty.settings())) as port:
        await port.ensure_key_pair(LABEL, KeyType.EC_P256, may_generate=True)
        faulty.turn_on("session-lost")
        assert len(await port.sign(LABEL, SignMechanism.ECDSA_SHA256, DIGEST)) == 64
        assert len(await port.sign(LABEL, SignMechanism.ECDSA_SHA256, DIGEST)) == 64


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSEGV])
async def test_calls_in_flight_end_when_the_worker_dies_and_later_ones_are_served(
    soft: SoftHsmWorld, how: signal.Signals
) -> None:
    await soft.port.ensure_key_pair(LABEL, KeyType.EC_P256, may_generate=True)
    pid = await ready(soft)
    os.kill(pid, signal.SIGSTOP)
    calls = [asyncio.create_task(soft.port.sign(LABEL, SignMechanism.ECDSA_SHA256, DIGEST)) for _ in range(8)]
    await asyncio.sleep(0)
    os.kill(pid, how)
    os.kill(pid, signal.SIGCONT)
    async with asyncio.timeout(DEADLINE_SECONDS):
        results = await asyncio.gather(*calls, return_exceptions=True)
        assert all(isinstance(result, WorkerDown | bytes) for result in results)
        assert len(await soft.port.sign(LABEL, SignMechanism.ECDSA_SHA256, DIGEST)) == 64
    assert EventKind.DIED in [event.kind for event in soft.events]
    assert await ready(soft) != pid


async def test_a_call_ends_at_its_deadline_while_the_worker_is_stopped(tmp_path: Path) -> None:
    async with soft_hsm_world(tmp_path, call_timeout_seconds=0.2) as world:
        pid = await ready(world)
        os.kill(pid, signal.SIGSTOP)
        try:
            async with asyncio.timeout(DEADLINE_SECONDS):
                with pytest.raises(DeadlineExceeded):
                    await world.port.random(8)
        finally:
            os.kill(pid, signal.SIGCONT)
        async with asyncio.timeout(DEADLINE_SECONDS):
            await answered(world)


async def answered(world: SoftHsmWorld) -> None:
    while True:
        with contextlib.suppress(HsmUnavailable):
            await world.port.random(8)
            return


async def test_a_hanging_worker_is_killed_and_replaced(tmp_path: Path) -> None:
    async with soft_hsm_world(tmp_path, stall_seconds=0.3, call_timeout_seconds=0.2) as world:
        pid = await ready(world)
        os.kill(pid, signal.SIGSTOP)
        with pytest.raises(HsmUnavailable):
            await world.port.random(8)
        await ready(world, other_than=pid)
        async with asyncio.timeout(DEADLINE_SECONDS):
            await answered(world)
        assert EventKind.STALLED in [event.kind for event in world.events]


async def test_more_calls_than_the_bound_are_refused_at_once(tmp_path: Path) -> None:
    async with soft_hsm_world(tmp_path, max_pending_calls=4) as world:
        pid = await ready(world)
        os.kill(pid, signal.SIGSTOP)
        waiting = [asyncio.create_task(world.port.random(8)) for _ in range(4)]
        await asyncio.sleep(0)
        with pytest.raises(QueueFull):
            await world.port.random(8)
        os.kill(pid, signal.SIGCONT)
        assert [len(data) for data in await asyncio.gather(*waiting)] == [8] * 4
        assert len(await world.port.random(8)) == 8


async def test_callers_that_give_up_leave_their_room_to_others(tmp_path: Path) -> None:
    async with soft_hsm_world(tmp_path, max_pending_calls=4) as world:
        pid = await ready(world)
        os.kill(pid, signal.SIGSTOP)
        for _ in range(50):
            waiting = [asyncio.create_task(world.port.random(8)) for _ in range(4)]
            await asyncio.sleep(0)
            for task in waiting:
                task.cancel()
            given_up = await asyncio.gather(*waiting, return_exceptions=True)
            assert all(isinstance(result, asyncio.CancelledError) for result in given_up)
        os.kill(pid, signal.SIGCONT)
        assert len(await world.port.random(8)) == 8


async def test_the_worker_ends_with_its_gateway(tmp_path: Path) -> None:
    async with soft_hsm_world(tmp_path) as world:
        pid = await ready(world)
        token = world.token
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    assert token.objects() == []


async def test_nothing_secret_in_arguments_and_environment_of_the_worker(soft: SoftHsmWorld) -> None:
    pid = await ready(soft)
    proc = Path(f"/proc/{pid}")
    for name in ("cmdline", "environ"):
        assert soft.token.pin.encode() not in (proc / name).read_bytes()
    assert soft.token.pin.encode() not in b"".join(str(event).encode() for event in soft.events)
    for file in soft.token.state_directory.iterdir():
        assert soft.token.pin.encode() not in file.read_bytes()
        assert file.stat().st_mode & 0o077 == 0


async def test_the_worker_leaves_no_core_dump(soft: SoftHsmWorld) -> None:
    pid = await ready(soft)
    assert resource.prlimit(pid, resource.RLIMIT_CORE) == (0, 0)


async def test_every_error_says_expected_found_and_what_to_do(soft: SoftHsmWorld) -> None:
    with pytest.raises(HsmError) as caught:
        await soft.port.public_key(LABEL)
    assert caught.value.expected
    assert caught.value.found
    assert caught.value.remedy
    assert caught.value.code == "KeyAbsent"
