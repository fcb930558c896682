from __future__ import annotations

import asyncio
import json

import pytest

from chatelaine.gateway.audit import AuditLog, AuditRecord, jti_hash
from chatelaine.gateway.audit_chain import verify
from chatelaine.gateway.errors import AuditUnavailable
from chatelaine.pki.errors import KeyFileDamaged, KeyFileExposed

RECORD = AuditRecord(at=1.0, operation="Sign", result="Allowed")


def _log(folder):
    return AuditLog(folder, lambda: 2.0)


def _lines(folder):
    return [line for line in (folder / "audit.jsonl").read_bytes().split(b"\n") if line]


def _key(folder):
    return (folder / "audit.key").read_bytes()


async def test_records_of_one_turn_are_written_together_and_each_is_there_when_its_call_returns(tmp_path):
    log = _log(tmp_path)

    async def one(number):
        await log.record(AuditRecord(at=1.0, operation=str(number), result="Allowed"))
        return {json.loads(line)["operation"] for line in _lines(tmp_path)}

    seen = await asyncio.gather(*(one(number) for number in range(20)))
    assert all(str(number) in there for number, there in enumerate(seen))
    assert verify(_key(tmp_path), _lines(tmp_path)).seq == 20
    log.close()


async def test_a_call_that_is_cancelled_takes_no_other_with_it(tmp_path):
    log = _log(tmp_path)
    tasks = [asyncio.create_task(log.record(RECORD)) for _ in range(2)]
    await asyncio.sleep(0)
    tasks[0].cancel()
    first, second = await asyncio.gather(*tasks, return_exceptions=True)
    assert isinstance(first, asyncio.CancelledError)
    assert second is None
    assert len(_lines(tmp_path)) == 2
    log.close()


async def test_the_chain_goes_on_after_a_restart(tmp_path):
    for _ in range(3):
        log = _log(tmp_path)
        await log.record(RECORD)
        log.close()
    lines = _lines(tmp_path)
    assert verify(_key(tmp_path), lines).seq == len(lines) == 5
    assert [json.loads(line)["operation"] for line in lines] == ["Sign", "Resumed", "Sign", "Resumed", "Sign"]
    assert all(json.loads(line).get("intact", True) for line in lines)


async def test_torn_last_line_stays_and_is_told(tmp_path):
    log = _log(tmp_path)
    await log.record(RECORD)
    await log.record(RECORD)
    log.close()
    path = tmp_path / "audit.jsonl"
    path.write_bytes(path.read_bytes()[:-20])
    torn = _lines(tmp_path)[-1]
    log = _log(tmp_path)
    await log.record(RECORD)
    log.close()
    lines = _lines(tmp_path)
    assert lines[1] == torn
    resumed = json.loads(lines[2])
    assert (resumed["operation"], resumed["intact"]) == ("Resumed", False)
    assert verify(_key(tmp_path), [lines[0], *lines[2:]]).seq == 3


async def test_changed_last_line_is_told_at_the_next_start(tmp_path):
    log = _log(tmp_path)
    await log.record(RECORD)
    log.close()
    path = tmp_path / "audit.jsonl"
    path.write_bytes(path.read_bytes().replace(b"Allowed", b"Refused"))
    log = _log(tmp_path)
    await log.record(RECORD)
    log.close()
    assert json.loads(_lines(tmp_path)[1])["intact"] is False


async def test_sink_that_cannot_be_opened_refuses_operations_and_is_tried_again(tmp_path):
    (tmp_path / "audit.jsonl").mkdir()
    log = _log(tmp_path)
    assert not log.is_open()
    with pytest.raises(AuditUnavailable):
        await log.record(RECORD)
    assert log.failures == 1
    (tmp_path / "audit.jsonl").rmdir()
    async with asyncio.timeout(10):
        while not log.is_open():  # noqa: ASYNC110 - there is nothing to wait on: opening is tried by being asked for
            await asyncio.sleep(0.05)
    await log.record(RECORD)
    log.close()


def test_link_in_the_place_of_the_log_is_not_followed(tmp_path):
    (tmp_path / "audit.jsonl").symlink_to(tmp_path / "elsewhere")

    async def opened():
        return _log(tmp_path).is_open()

    assert not asyncio.run(opened())
    assert not (tmp_path / "elsewhere").exists()


def test_audit_key_that_others_may_read_is_refused(tmp_path):
    _log(tmp_path)
    (tmp_path / "audit.key").chmod(0o644)
    with pytest.raises(KeyFileExposed):
        _log(tmp_path)


def test_audit_key_of_another_length_is_refused(tmp_path):
    (tmp_path / "audit.key").write_bytes(b"short")
    (tmp_path / "audit.key").chmod(0o600)
    with pytest.raises(KeyFileDamaged):
        _log(tmp_path)


def test_tokens_are_named_by_a_digest():
    assert len(jti_hash("x")) == 32
    assert jti_hash("x") != jti_hash("y")
