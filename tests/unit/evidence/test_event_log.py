"""Event logs that lie about their form: each is refused, and none costs more than its own length."""

from __future__ import annotations

import hashlib
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tools.lab import event_log_writer as tcg
from tools.lab.firmware import Boot, measured

from chatelaine.evidence import errors
from chatelaine.evidence import event_log as logs
from chatelaine.evidence.event_log import parse_event_log, replay, replay_steps

SM3 = 0x0012
LAB = measured(Boot())


def agile(*records: bytes, banks: tuple[int, ...] = (tcg.SHA256,)) -> bytes:
    return tcg.spec_id_event(banks) + b"".join(records)


def one(pcr: int = 4, kind: int = 1, data: bytes = b"x", banks: tuple[int, ...] = (tcg.SHA256,)) -> bytes:
    return tcg.record(pcr, kind, {bank: tcg.digest(bank, data) for bank in banks}, data)


def spec(body: bytes) -> bytes:
    """A Spec ID event whose declaration of algorithms is `body`."""
    return tcg.sha1_record(0, tcg.EV_NO_ACTION, bytes(20), tcg.SPEC_ID + struct.pack("<IBBBB", 0, 0, 2, 0, 2) + body)


def algorithms(*pairs: tuple[int, int], count: int | None = None, vendor: bytes = b"\0") -> bytes:
    declared = b"".join(struct.pack("<HH", *pair) for pair in pairs)
    return struct.pack("<I", len(pairs) if count is None else count) + declared + vendor


def refused(data: bytes) -> errors.EvidenceError:
    with pytest.raises(errors.EvidenceError) as refusal:
        parse_event_log(data)
    assert not refusal.value.authenticated
    return refusal.value


def test_log_of_the_laboratory_is_read():
    log = parse_event_log(LAB.data)
    assert [found.tpm_id for found in log.algorithms] == [tcg.SHA256, tcg.SHA384]
    assert log.digest == hashlib.sha256(LAB.data).digest()
    assert [event.number for event in log.events] == list(range(1, len(log.events) + 1))
    for bank in (tcg.SHA256, tcg.SHA384):
        assert replay(log, bank) | LAB.values[bank] == replay(log, bank)


def test_steps_lead_to_the_value():
    log = parse_event_log(LAB.data)
    for pcr in range(24):
        steps = replay_steps(log, tcg.SHA256, pcr)
        assert all(event.pcr == pcr for event, _ in steps)
        if steps:
            assert steps[-1][1] == replay(log, tcg.SHA256)[pcr]


def test_oversized_log_is_refused_before_it_is_parsed():
    assert refused(bytes(logs.MAX_LOG_BYTES + 1)).reason == "Oversized"


@pytest.mark.parametrize("data", [b"", b"\0" * 31, tcg.sha1_record(0, 3, bytes(20), b"abc")[:-1]])
def test_log_that_ends_within_its_first_event_is_refused(data):
    assert refused(data).reason == "Truncated"


def test_length_past_the_end_is_refused():
    event = one()
    for size in (2, 0x100, 0x7FFFFFFF, 0xFFFFFFFF):
        assert refused(agile(event[:-5] + struct.pack("<I", size) + b"x")).reason == "Truncated"
    assert refused(tcg.sha1_record(0, 1, bytes(20), b"")[:-4] + b"\xff\xff\xff\xff").reason == "Truncated"


@pytest.mark.parametrize("count", [0, 2, 17, 2**32 - 1])
def test_event_with_another_number_of_digests_is_refused(count):
    event = one()
    assert refused(agile(event[:8] + struct.pack("<I", count) + event[12:])).reason == "Malformed"


@pytest.mark.parametrize("count", [0, 17, 2**32 - 1])
def test_log_that_declares_too_many_algorithms_or_none_is_refused(count):
    assert refused(spec(algorithms((tcg.SHA256, 32), count=count))).reason == "Malformed"


def test_declaration_that_ends_early_is_refused():
    assert refused(spec(algorithms((tcg.SHA256, 32), count=2)[:-1])).reason == "Truncated"
    assert refused(spec(b"")).reason == "Truncated"
    assert refused(spec(algorithms((tcg.SHA256, 32), vendor=b""))).reason == "Truncated"


@pytest.mark.parametrize("vendor", [b"\x05abc", b"\x00abc"])
def test_declaration_with_another_length_than_it_says_is_refused(vendor):
    assert refused(spec(algorithms((tcg.SHA256, 32), vendor=vendor))).reason == "Malformed"


def test_algorithm_declared_twice_is_refused():
    assert refused(spec(algorithms((tcg.SHA256, 32), (tcg.SHA256, 32)))).reason == "Malformed"


@pytest.mark.parametrize("pair", [(tcg.SHA256, 20), (tcg.SHA1, 32), (SM3, 0), (SM3, 65)])
def test_digest_length_that_is_not_the_algorithms_is_refused(pair):
    assert refused(spec(algorithms(pair))).reason == "Malformed"


def test_unknown_algorithm_is_skipped_by_its_declared_length_and_never_replayed():
    known = tcg.digest(tcg.SHA256, b"x")
    body = struct.pack("<III", 4, 1, 2) + struct.pack("<H", SM3) + b"\xaa" * 32 + struct.pack("<H", tcg.SHA256) + known
    log = parse_event_log(spec(algorithms((SM3, 32), (tcg.SHA256, 32))) + body + struct.pack("<I", 1) + b"x")
    assert log.events[0].digests == {SM3: b"\xaa" * 32, tcg.SHA256: known}
    assert replay(log, tcg.SHA256)[4] == tcg.digest(tcg.SHA256, bytes(32) + known)
    assert log.banks == (tcg.SHA256,)
    with pytest.raises(errors.EventLogBankMissing):
        replay(log, SM3)


def test_digest_of_an_algorithm_that_was_not_declared_is_refused():
    event = one()
    changed = event[:12] + struct.pack("<H", SM3) + event[14:]
    assert refused(agile(changed)).reason == "Malformed"


def test_two_digests_of_one_bank_are_refused():
    banks = (tcg.SHA256, tcg.SHA384)
    digest = struct.pack("<H", tcg.SHA256) + bytes(32)
    event = struct.pack("<III", 4, 1, 2) + digest + digest + bytes(16) + struct.pack("<I", 0)
    assert refused(agile(event, banks=banks)).reason == "Malformed"


def test_digest_repeated_before_the_one_that_is_left_is_refused():
    """Its length field lies within a digest then: a reader that goes on by what it finds loses its place."""
    banks = (tcg.SHA256, tcg.SHA384)
    digest = struct.pack("<H", tcg.SHA256) + bytes(32)
    rest = struct.pack("<H", tcg.SHA384) + bytes(14) + struct.pack("<I", 30) + bytes(30)
    event = struct.pack("<III", 4, 1, 2) + digest + digest + rest
    assert refused(agile(event, banks=banks)).reason == "Malformed"


def test_digests_in_another_order_than_declared_are_told_apart_by_their_names():
    banks = (tcg.SHA256, tcg.SHA384)
    straight = parse_event_log(agile(one(banks=banks), banks=banks))
    turned = parse_event_log(agile(one(banks=banks[::-1]), banks=banks))
    assert straight.events == turned.events


def test_second_spec_id_is_refused():
    again = tcg.record(0, tcg.EV_NO_ACTION, {tcg.SHA256: bytes(32)}, tcg.SPEC_ID + bytes(8))
    assert refused(agile(one(), again)).reason == "Malformed"
    first = tcg.sha1_record(4, 1, bytes(20), b"x")
    assert refused(first + tcg.spec_id_event((tcg.SHA256,))).reason == "Malformed"


@pytest.mark.parametrize("pcr", [24, 2**32 - 1])
def test_event_of_a_pcr_that_does_not_exist_is_refused(pcr):
    assert refused(agile(one(pcr=pcr))).reason == "Malformed"


def test_note_that_names_no_pcr_is_not_extended():
    note = tcg.record(2**32 - 1, tcg.EV_NO_ACTION, {tcg.SHA256: bytes(32)}, b"SP800-155 Event3")
    log = parse_event_log(agile(note, one()))
    assert log.touched() == {4}
    assert replay(log, tcg.SHA256)[4] == replay(parse_event_log(agile(one())), tcg.SHA256)[4]


def locality(value: bytes, pcr: int = 0) -> bytes:
    return tcg.record(pcr, tcg.EV_NO_ACTION, {tcg.SHA256: bytes(32)}, b"StartupLocality\0" + value)


@pytest.mark.parametrize("value", [0, 3, 4])
def test_startup_locality_is_where_the_first_pcr_starts(value):
    log = parse_event_log(agile(locality(bytes([value])), one(pcr=0)))
    start = bytes(31) + bytes([value])
    assert replay(log, tcg.SHA256)[0] == tcg.digest(tcg.SHA256, start + tcg.digest(tcg.SHA256, b"x"))


@pytest.mark.parametrize(
    "records",
    [
        (locality(b"\x03"), locality(b"\x03")),
        (locality(b"\x00"), locality(b"\x03")),
        (one(pcr=0), locality(b"\x03")),
        (locality(b"\x01"),),
        (locality(b""),),
        (locality(b"\x03\x00"),),
    ],
)
def test_startup_locality_told_twice_or_late_or_unreadably_is_refused(records):
    assert refused(agile(*records)).reason == "Malformed"


def test_log_without_spec_id_has_sha1_only():
    records = [tcg.sha1_record(4, 1, tcg.digest(tcg.SHA1, text), text) for text in (b"a", b"b")]
    log = parse_event_log(b"".join(records))
    assert log.banks == (tcg.SHA1,)
    assert [event.digests for event in log.events] == [{tcg.SHA1: tcg.digest(tcg.SHA1, text)} for text in (b"a", b"b")]
    first = tcg.digest(tcg.SHA1, bytes(20) + tcg.digest(tcg.SHA1, b"a"))
    assert replay(log, tcg.SHA1)[4] == tcg.digest(tcg.SHA1, first + tcg.digest(tcg.SHA1, b"b"))
    with pytest.raises(errors.EventLogBankMissing):
        replay(log, tcg.SHA256)


def test_pcrs_that_the_log_does_not_touch_have_their_start_values():
    values = replay(parse_event_log(agile(one())), tcg.SHA256)
    assert sorted(values) == list(range(24))
    assert all(values[index] == b"\xff" * 32 for index in range(17, 23))
    assert all(values[index] == bytes(32) for index in (*range(4), *range(5, 17), 23))


def test_type_that_lies_changes_no_value():
    honest = agile(one(kind=tcg.EV_SEPARATOR), one(data=b"y"))
    lying = agile(one(kind=tcg.EV_EFI_VARIABLE_DRIVER_CONFIG), one(kind=0xFFFFFFFF, data=b"y"))
    assert replay(parse_event_log(honest), tcg.SHA256) == replay(parse_event_log(lying), tcg.SHA256)


def test_event_relabelled_as_a_note_does_not_replay():
    honest = parse_event_log(agile(one(), one(data=b"y")))
    lying = parse_event_log(agile(one(), one(data=b"y", kind=tcg.EV_NO_ACTION)))
    assert replay(honest, tcg.SHA256)[4] != replay(lying, tcg.SHA256)[4]


@given(st.binary(max_size=400))
def test_any_bytes_are_answered_or_refused(data):
    for start in (b"", tcg.spec_id_event((tcg.SHA256, tcg.SHA384))):
        try:
            log = parse_event_log(start + data)
        except errors.EvidenceError:
            continue
        assert sum(len(event.data) for event in log.events) <= len(start + data)
        for bank in log.banks:
            assert len(replay(log, bank)) == 24
