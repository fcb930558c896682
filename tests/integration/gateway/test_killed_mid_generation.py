"""The gateway process killed while its token makes a key pair: after a restart the order ends in one whole pair."""

from __future__ import annotations

import os
import signal
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from chatelaine.model.identifiers import key_id, key_label
from chatelaine.wire.messages import DestroyKey, EnsureKey, encode
from support import pki
from support.gateway import GatewayProcess, Operator
from support.gateway_line import Line, Reply
from support.tokens import Cluster
from support.waiting import eventually

ENSURE = "/control/v1/keys/ensure"
BOTH_HALVES = {"PRIVATE_KEY", "PUBLIC_KEY"}
LEAST_OBJECT_BYTES = 256
"""No key fits into less; what SoftHSM leaves of a file that was cut off is shorter, and is shown to nobody."""
MOMENTS = [("EcP256", changes) for changes in (0, 1, 8, 24, 40, 56, 72)] + [("Rsa3072", changes) for changes in (1, 40)]
"""Key type, and how often the store has changed by then: nothing, torn files, the public half alone, both halves."""


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayProcess]:
    gateway = GatewayProcess(tmp_path_factory.mktemp("gateway"), pki.new_authority())
    try:
        yield gateway.start()
    finally:
        gateway.close()


@pytest.fixture
def operator(gateway: GatewayProcess, cluster: Cluster, tmp_path: Path) -> Operator:
    if gateway.process.poll() is not None:  # a test before this one failed between kill and restart
        gateway.start()
    operator = Operator(gateway, cluster, tmp_path / "operator")
    operator.hello()
    return operator


@pytest.mark.parametrize(("key_type", "changes"), MOMENTS)
def test_gateway_killed_mid_generation_makes_one_whole_pair_after_a_restart(
    gateway: GatewayProcess, operator: Operator, key_type: str, changes: int
) -> None:
    label = key_label(str(uuid.uuid4()), "signing", 1)
    before = gateway.token.objects()
    worker = gateway.worker_pid()
    with operator.line() as line:
        far_enough = progress(gateway, changes)
        order(line, EnsureKey(label=label, type=key_type, may_generate=True))
        eventually(far_enough, "the token's store changes", pause_seconds=0)
        os.kill(worker, signal.SIGSTOP)
        gateway.kill()
    # A worker that outlived its gateway would finish its pair beside the one that its successor makes.
    eventually(lambda: not Path(f"/proc/{worker}").exists(), "the worker ends with its gateway")

    gateway.start()
    operator.hello()
    made = ensured(operator, label, key_type)
    assert new_objects(gateway, before) == [(kind, label, key_id(label)) for kind in sorted(BOTH_HALVES)]
    assert object_files(gateway) == len(before) + len(BOTH_HALVES), "a key in the store that no search shows"
    again = ensured(operator, label, key_type)
    assert (again.json["created"], again.json["spki"]) == (False, made.json["spki"])

    gone = operator.ask("POST", "/control/v1/keys/destroy", DestroyKey(label=label))
    assert gone.status == 200, gone.body
    assert gateway.token.objects() == before


def order(line: Line, message: EnsureKey) -> None:
    """Send the order; nobody waits for its answer."""
    body = encode(message)
    head = f"POST {ENSURE} HTTP/1.1\r\nhost: gateway\r\ncontent-length: {len(body)}\r\n\r\n"
    line.socket.sendall(head.encode() + body)


def progress(gateway: GatewayProcess, changes: int) -> Callable[[], bool]:
    """Tells whether the token's store has changed so often from now on, or the making of the pair was recorded."""
    recorded, seen, before = audited_bytes(gateway), 0, stamps(gateway)

    def far_enough() -> bool:
        nonlocal seen, before
        now = stamps(gateway)
        if now != before:
            seen, before = seen + 1, now
        return seen >= changes or audited_bytes(gateway) > recorded

    return far_enough


def audited_bytes(gateway: GatewayProcess) -> int:
    log = gateway.state / "audit.jsonl"
    return log.stat().st_size if log.exists() else 0


def ensured(operator: Operator, label: str, key_type: str) -> Reply:
    reply = operator.ask("POST", ENSURE, EnsureKey(label=label, type=key_type, may_generate=True))
    assert reply.status == 200, reply.body
    return reply


def new_objects(gateway: GatewayProcess, before: list[tuple[str, str, bytes]]) -> list[tuple[str, str, bytes]]:
    """What another process sees on the token beyond `before`, which must all be there still."""
    now = gateway.token.objects()
    for entry in before:
        now.remove(entry)
    return now


def store(gateway: GatewayProcess) -> Path:
    (folder,) = [entry for entry in (gateway.token.directory / "tokens").iterdir() if entry.is_dir()]
    return folder


def object_files(gateway: GatewayProcess) -> int:
    """SoftHSM keeps each object in a file of its own, and the token itself in one more."""
    sizes = [size for name, (size, _) in stamps(gateway).items() if name.endswith(".object")]
    return sum(size >= LEAST_OBJECT_BYTES for size in sizes) - 1


def stamps(gateway: GatewayProcess) -> dict[str, tuple[int, int]]:
    """Size and time of every file of the store."""
    found = {}
    for entry in os.scandir(store(gateway)):
        try:
            status = entry.stat()
        except FileNotFoundError:
            continue
        found[entry.name] = (status.st_size, status.st_mtime_ns)
    return found
