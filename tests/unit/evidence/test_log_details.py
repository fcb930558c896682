"""What refusals of logs and of structures inside them tell, each bound from both sides, and the names of images."""

from __future__ import annotations

import struct
from collections.abc import Callable

import pytest
from tools.lab import event_log_writer as tcg
from tools.lab.firmware import OWNER, authority

from chatelaine.evidence import errors
from chatelaine.evidence import event_log as logs
from chatelaine.evidence.boot_log import match_boot_log
from chatelaine.evidence.event_log import parse_event_log, replay
from chatelaine.evidence.tpm_types import MAX_BANKS
from chatelaine.evidence.uefi import MAX_NAME_CHARACTERS, guid, parse_variable
from chatelaine.evidence.uefi_gpt import MAX_ENTRY_BYTES, parse_partition_table
from chatelaine.evidence.uefi_image import MAX_NODES, loaded_from
from chatelaine.evidence.uefi_signatures import (
    MAX_SIGNATURES,
    SignatureKind,
    parse_authority,
    parse_signature_lists,
)
from chatelaine.model.tpm_policy import Bank
from support.paper_boot import PaperBoot, lab_log

SM3 = 0x0012
TABLE = tcg.partition_table(OWNER, [(tcg.PARTITION_LINUX, OWNER, "root")])


def spec(*pairs: tuple[int, int], count: int | None = None, vendor: bytes = b"\0") -> bytes:
    """A Spec ID event that declares these algorithms and lengths."""
    body = struct.pack("<I", len(pairs) if count is None else count)
    body += b"".join(struct.pack("<HH", *pair) for pair in pairs) + vendor
    return tcg.sha1_record(0, tcg.EV_NO_ACTION, bytes(20), tcg.SPEC_ID + struct.pack("<IBBBB", 0, 0, 2, 0, 2) + body)


def event(*digests: tuple[int, int], pcr: int = 4, kind: int = 1, count: int | None = None, size: int = 1) -> bytes:
    """An event with these algorithms, whose digests are zeros, and one byte of data."""
    head = struct.pack("<III", pcr, kind, len(digests) if count is None else count)
    return head + b"".join(struct.pack("<H", one) + bytes(n) for one, n in digests) + struct.pack("<I", size) + b"x"


def note(data: bytes) -> bytes:
    return tcg.record(0, tcg.EV_NO_ACTION, {tcg.SHA256: bytes(32)}, data)


SHA256 = (tcg.SHA256, 32)
BOTH = (SHA256, (tcg.SHA384, 48))
LIST = tcg.CERT_SHA256.bytes_le
LOG = lab_log()


@pytest.mark.parametrize(
    ("parse", "data", "expected", "found"),
    [
        (parse_event_log, bytes(logs.MAX_LOG_BYTES + 1), "at most 1048576 bytes", "1048577 bytes"),
        (parse_event_log, bytes(31), None, "31 bytes"),
        (parse_event_log, tcg.sha1_record(0, 3, bytes(20), b"abc")[:-1], "3 bytes", "2 bytes"),
        (parse_event_log, spec(SHA256, count=17), "1..16", "17"),
        (parse_event_log, spec(SHA256, count=0), "1..16", "0"),
        (parse_event_log, spec(SHA256, count=2), None, "33 bytes"),
        (parse_event_log, spec(SHA256, vendor=b"\x05abc"), "38", "36"),
        (parse_event_log, spec((tcg.SHA256, 20)), None, "20"),
        (parse_event_log, spec(SHA256) + event(SHA256)[:40], None, "40 bytes"),
        (parse_event_log, spec(SHA256) + event(SHA256, count=2), "1", "2"),
        (parse_event_log, spec(SHA256) + event((SM3, 32)), None, "0x0012"),
        (parse_event_log, spec(*BOTH) + event(SHA256, (tcg.SHA256, 48)), None, "Sha256"),
        (parse_event_log, spec(SHA256) + event(SHA256, size=3), "3 bytes", "1 bytes"),
        (parse_event_log, spec(SHA256) + event(SHA256, pcr=24), None, "24"),
        (parse_event_log, spec(SHA256) + note(b"StartupLocality\0\x01"), "0, 3 or 4", "1"),
        (parse_event_log, tcg.sha1_record(0, 1, bytes(20), b"") + bytes(31), None, "31 bytes"),
        (parse_event_log, tcg.sha1_record(24, 1, bytes(20), b""), None, "24"),
        (lambda data: replay(parse_event_log(data), tcg.SHA384), spec(SHA256, (SM3, 32)), "Sha384", "Sha256, 0x0012"),
        (parse_variable, bytes(31), None, "31 bytes"),
        (parse_variable, bytes(16) + struct.pack("<QQ", 513, 0), None, "513"),
        (parse_variable, bytes(16) + struct.pack("<QQ", 1, 2) + b"a\0b", "36 bytes", "35 bytes"),
        (parse_partition_table, TABLE[:99], None, "99 bytes"),
        (parse_partition_table, TABLE + b"x", None, "229 bytes"),
        (parse_signature_lists, LIST + bytes(11), None, "27 bytes"),
        (parse_signature_lists, LIST + struct.pack("<III", 29, 0, 48), "29 bytes", "28 bytes"),
        (parse_signature_lists, LIST + struct.pack("<III", 76, 0, 47) + bytes(48), "47 bytes each", "48"),
        (parse_signature_lists, LIST + struct.pack("<III", 64, 0, 36) + bytes(36), "32", "36"),
        (parse_authority, b"what is this?", None, "13 bytes"),
    ],
)  # fmt: skip
def test_refusals_of_logs_tell_what_was_expected_and_found(
    parse: Callable[[bytes], object], data: bytes, expected: str | None, found: str | None
) -> None:
    with pytest.raises(errors.EvidenceError) as refusal:
        parse(data)
    assert (refusal.value.expected, refusal.value.found) == (expected, found)


def test_mismatch_tells_the_value_of_the_first_pcr_that_differs() -> None:
    boot = PaperBoot()
    boot.separate(1, 8)
    values = replay(parse_event_log(boot.data), tcg.SHA256)
    with pytest.raises(errors.EventLogMismatch) as refusal:
        match_boot_log(boot.data, Bank.SHA256, {8: b"\x08" * 32, 10: b"\x10" * 32, 1: b"\x01" * 32})
    assert (refusal.value.expected, refusal.value.found) == ("01" * 32, values[1].hex())


# --- event logs -------------------------------------------------------------------------------------------------


def test_log_of_its_bound_is_read() -> None:
    size = logs.MAX_LOG_BYTES - 32
    assert len(parse_event_log(tcg.sha1_record(4, 1, bytes(20), bytes(size))).events[0].data) == size


def test_as_many_algorithms_as_a_tpm_has_banks_are_read() -> None:
    pairs = [(0x100 + number, 1 + number) for number in range(MAX_BANKS - 1)] + [(0x200, logs.MAX_DIGEST_BYTES)]
    log = parse_event_log(spec(*pairs) + event(*pairs, pcr=23))
    assert [tuple(found) for found in log.algorithms] == pairs
    assert [len(log.events[0].digest(tpm_id)) for tpm_id, _ in pairs] == [size for _, size in pairs]
    assert log.touched() == {23}


@pytest.mark.parametrize(
    "first",
    [
        spec(SHA256)[:4] + struct.pack("<I", 1) + spec(SHA256)[8:],
        struct.pack("<I", 1) + spec(SHA256)[4:],
        spec(SHA256).replace(b"Spec ID Event03", b"Spec ID Event02"),
    ],
    ids=["another type", "another PCR", "another name"],
)
def test_first_event_that_is_no_declaration_begins_a_log_of_sha1(first: bytes) -> None:
    log = parse_event_log(first)
    assert (log.banks, log.algorithms, log.events[0].number) == ((tcg.SHA1,), ((tcg.SHA1, 20),), 0)


@pytest.mark.parametrize(
    ("digests", "wrong"),
    [
        (((SM3, 32), (tcg.SHA384, 48)), "an algorithm that the log does not declare"),
        ((SHA256, (tcg.SHA256, 48)), "two digests of one bank"),
    ],
)
def test_digests_that_are_not_those_declared_are_told(digests: tuple[tuple[int, int], ...], wrong: str) -> None:
    with pytest.raises(errors.Malformed) as refusal:
        parse_event_log(spec(*BOTH) + event(*BOTH) + event(*digests))
    assert refusal.value.detail == f"event 2 has {wrong}"


def test_event_without_data_at_the_end_is_read() -> None:
    (only,) = parse_event_log(spec(SHA256) + event(SHA256, size=0)[:-1]).events
    assert (only.number, only.pcr, only.type, only.data) == (1, 4, 1, b"")


def test_locality_after_other_pcrs_were_measured_is_told_in_time() -> None:
    log = parse_event_log(spec(SHA256) + event(SHA256) + note(b"no locality") + note(b"StartupLocality\0\x03"))
    assert log.startup_locality == 3
    assert replay(log, tcg.SHA256)[0] == bytes(31) + b"\x03"


def test_logs_of_two_forms_that_are_read_in_turn_are_not_mixed_up() -> None:
    for pairs in (BOTH, BOTH[::-1], BOTH[:1], BOTH):
        (only,) = parse_event_log(spec(*pairs) + event(*pairs)).events
        assert only.digests == {tpm_id: bytes(size) for tpm_id, size in pairs}


# --- structures -------------------------------------------------------------------------------------------------


def test_guids_lie_in_memory_as_they_are_written() -> None:
    assert guid("00112233-4455-6677-8899-aabbccddeeff").hex() == "33221100554477668899aabbccddeeff"
    with pytest.raises(errors.Malformed):
        parse_variable(tcg.variable(OWNER, "a", b"b") + b"X")


def test_name_of_its_bound_is_read() -> None:
    name = "n" * MAX_NAME_CHARACTERS
    assert parse_variable(tcg.variable(OWNER, name, b"")).name == name


def test_entries_of_a_partition_table_may_be_longer_up_to_their_bound() -> None:
    long = TABLE[:84] + struct.pack("<I", MAX_ENTRY_BYTES) + TABLE[88:] + bytes(MAX_ENTRY_BYTES - 128)
    found = parse_partition_table(long)
    assert found == parse_partition_table(TABLE)
    (only,) = found.partitions
    assert (only.guid, only.label, only.first_block, only.last_block) == (str(OWNER), "root", 2048, 411_647)


def test_label_that_fills_its_field_and_one_with_rubbish_behind_it_are_read() -> None:
    label = ("x" * 36).encode("utf-16-le")
    assert parse_partition_table(TABLE[:-72] + label).partitions[0].label == "x" * 36
    rubbish = "ab\0cd\0ef".encode("utf-16-le").ljust(72, b"\xd8")
    assert parse_partition_table(TABLE[:-72] + rubbish).partitions[0].label == "ab"
    broken = b"a\0" + b"\x00\xd8" + b"b\0"
    assert parse_partition_table(TABLE[:-72] + broken.ljust(72, b"\0")).partitions[0].label == "a\ufffdb"


def test_database_of_its_bound_is_read() -> None:
    size = 17 * MAX_SIGNATURES
    data = OWNER.bytes_le + struct.pack("<III", 28 + size, 0, 17) + bytes(size)
    assert len(parse_signature_lists(data)) == MAX_SIGNATURES
    with pytest.raises(errors.Oversized) as refusal:
        parse_signature_lists(data + OWNER.bytes_le + struct.pack("<III", 45, 0, 17) + bytes(17))
    assert (refusal.value.expected, refusal.value.found) == (f"at most {MAX_SIGNATURES} entries", None)


def test_header_of_a_list_is_passed_over() -> None:
    data = LIST + struct.pack("<III", 28 + 5 + 48, 5, 48) + b"head!" + OWNER.bytes_le + b"\x11" * 32
    (only,) = parse_signature_lists(data)
    assert (only.owner, only.content) == (OWNER.bytes_le, b"\x11" * 32)


def test_owners_of_entries_are_kept_apart() -> None:
    other = tcg.PARTITION_LINUX
    lists = [tcg.signature_list(tcg.CERT_SHA256, owner, [bytes(32)]) for owner in (OWNER, other, OWNER)]
    assert [entry.owner for entry in parse_signature_lists(b"".join(lists))] == [
        one.bytes_le for one in (OWNER, other, OWNER)
    ]


def der(size: int, head: bytes) -> bytes:
    return b"\x30" + head + bytes([5]) * size


@pytest.mark.parametrize(
    "certificate",
    [
        der(6, b"\x06"),
        der(127, b"\x7f"),
        der(128, b"\x81\x80"),
        der(300, b"\x82\x01\x2c"),
        der(70_000, b"\x83\x01\x11\x70"),
    ],
)
def test_certificate_of_any_length_is_one_and_a_byte_less_is_none(certificate: bytes) -> None:
    for owner in (b"", OWNER.bytes_le):
        found = parse_authority(owner + certificate + bytes(3))
        assert (found.kind, found.owner, found.content) == (SignatureKind.CERTIFICATE, owner, certificate)
        for other in (certificate[:-1], certificate + b"\0\x01", certificate + b"X", b"\x31" + certificate[1:]):
            with pytest.raises(errors.Malformed):
                parse_authority(owner + other)


def test_shortest_certificate_is_one() -> None:
    assert parse_authority(der(2, b"\x02")).kind is SignatureKind.CERTIFICATE


@pytest.mark.parametrize(
    "data",
    [b"\x30\x84\0\0\0\x02ab", b"\x30\x01\x05", b"\x30\x00", b"\x30\x80" + bytes(128), b"\x30\x80\x05\x00\0\0"],
)
def test_lengths_that_no_certificate_has_make_none(data: bytes) -> None:
    with pytest.raises(errors.Malformed):
        parse_authority(data)


@pytest.mark.parametrize(
    ("data", "kind", "owner"),
    [
        (bytes(20), SignatureKind.SHA1, b""),
        (bytes(36), SignatureKind.SHA1, bytes(16)),
        (bytes(32), SignatureKind.SHA256, b""),
        (bytes(48), SignatureKind.SHA256, bytes(16)),
        (bytes(64), SignatureKind.SHA384, bytes(16)),
        (bytes(80), SignatureKind.SHA512, bytes(16)),
    ],
)
def test_digest_is_told_by_its_length(data: bytes, kind: SignatureKind, owner: bytes) -> None:
    found = parse_authority(data)
    assert (found.kind, found.owner, found.content) == (kind, owner, data[len(owner) :])


def test_entries_are_named_by_their_digests() -> None:
    certificate = authority("Laboratory db")
    assert parse_authority(bytes(32)).digest == bytes(32)
    assert len(parse_authority(certificate).digest) == 32


# --- names of images --------------------------------------------------------------------------------------------


def node(kind: int, subtype: int, content: bytes, length: int | None = None) -> bytes:
    return struct.pack("<BBH", kind, subtype, 4 + len(content) if length is None else length) + content


def wide(text: str) -> bytes:
    return text.encode("utf-16-le")


def load(*nodes: bytes, size: int | None = None) -> bytes:
    path = b"".join(nodes)
    return struct.pack("<QQQQ", 1, 2, 3, len(path) if size is None else size) + path


DISK, END = node(4, 1, bytes(38)), node(0x7F, 0xFF, b"")
EFI = wide("\\EFI\0")


@pytest.mark.parametrize(
    ("data", "name"),
    [
        (tcg.load_event("\\EFI\\BOOT\\BOOTX64.EFI"), "\\EFI\\BOOT\\BOOTX64.EFI"),
        (load(DISK, node(4, 4, wide("\\EFI")), node(4, 4, EFI), END), "\\EFI\\EFI"),
        (load(node(4, 4, EFI)), "\\EFI"),
        (load(node(4, 4, wide("\\LINUX\0"))), "\\LINUX"),
        (load(node(4, 4, EFI), END, node(4, 4, EFI)), "\\EFI"),
        (load(node(4, 4, EFI), node(4, 4, EFI), size=14), "\\EFI"),
        (load(node(4, 4, EFI), node(4, 4, EFI, length=3)), "\\EFI"),
        (load(node(4, 4, EFI), node(4, 4, EFI, length=15)), "\\EFI"),
        (load(node(4, 4, EFI), b"\x04\x04\x04"), "\\EFI"),
        (load(*(node(4, 4, b""),) * (MAX_NODES - 1), node(4, 4, EFI)), "\\EFI"),
        (load(*(node(4, 4, b""),) * MAX_NODES, node(4, 4, EFI)), None),
        (load(node(4, 4, b"\x00\xd8\\\0")), "\ufffd\\"),
        (load(node(4, 1, EFI), node(1, 4, EFI)), None),
        (load(), None),
        (bytes(31), None),
        (b"", None),
    ],
)  # fmt: skip
def test_file_that_an_image_was_loaded_from_is_named_as_far_as_its_path_is_whole(data: bytes, name: str | None) -> None:
    assert loaded_from(data) == name
