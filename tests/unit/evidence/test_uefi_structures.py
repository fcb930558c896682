"""Variables, signature lists and partition tables whose lengths lie: refused, without more work than their size."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tools.lab import event_log_writer as tcg
from tools.lab.firmware import OWNER, authority

from chatelaine.evidence import errors
from chatelaine.evidence.uefi import GLOBAL_VARIABLE, MAX_NAME_CHARACTERS, guid_text, parse_variable
from chatelaine.evidence.uefi_gpt import parse_partition_table
from chatelaine.evidence.uefi_signatures import (
    MAX_SIGNATURES,
    SignatureKind,
    parse_authority,
    parse_signature_lists,
)

CERTIFICATE = authority("Laboratory db")
X509 = tcg.signature_list(tcg.CERT_X509, OWNER, [CERTIFICATE])
HASHES = tcg.signature_list(tcg.CERT_SHA256, OWNER, [b"\x11" * 32, b"\x22" * 32])


def refused(parse, data: bytes) -> str:
    with pytest.raises(errors.Malformed) as refusal:
        parse(data)
    return refusal.value.reason


def head(kind=tcg.CERT_SHA256, size: int = 28, header: int = 0, each: int = 48) -> bytes:
    return kind.bytes_le + struct.pack("<III", size, header, each)


# --- variables ------------------------------------------------------------------------------------------------


def test_variable_is_read():
    found = parse_variable(tcg.variable(tcg.GLOBAL_VARIABLE, "Böot", b"abc") + bytes(7))
    assert found == (GLOBAL_VARIABLE, "Böot", b"abc")


@pytest.mark.parametrize(("name", "size"), [(2**64 - 1, 0), (MAX_NAME_CHARACTERS + 1, 0)])
def test_variable_with_an_endless_name_is_refused(name, size):
    assert refused(parse_variable, bytes(16) + struct.pack("<QQ", name, size)) == "Malformed"


@pytest.mark.parametrize(("name", "size"), [(1, 0), (0, 1), (0, 2**64 - 1), (MAX_NAME_CHARACTERS, 2**63)])
def test_variable_whose_length_runs_over_the_end_is_refused(name, size):
    assert refused(parse_variable, bytes(16) + struct.pack("<QQ", name, size)) == "Truncated"


def test_variable_that_is_followed_by_something_is_refused():
    assert refused(parse_variable, tcg.variable(OWNER, "a", b"b") + b"\0c") == "Malformed"
    assert refused(parse_variable, bytes(31)) == "Truncated"


def test_variable_whose_name_is_no_utf16_is_refused():
    assert refused(parse_variable, bytes(16) + struct.pack("<QQ", 1, 0) + b"\x00\xd8") == "Malformed"


# --- signature lists ------------------------------------------------------------------------------------------


def test_lists_one_after_the_other_are_read():
    found = parse_signature_lists(X509 + HASHES + X509)
    assert [entry.kind for entry in found] == [
        SignatureKind.CERTIFICATE, SignatureKind.SHA256, SignatureKind.SHA256, SignatureKind.CERTIFICATE,
    ]  # fmt: skip
    assert found[0].content == CERTIFICATE
    assert found[1].digest == b"\x11" * 32
    assert {guid_text(entry.owner) for entry in found} == {str(OWNER)}


def test_no_list_and_a_list_without_entries_are_empty():
    assert parse_signature_lists(b"") == parse_signature_lists(head()) == parse_signature_lists(head(each=0)) == ()


def test_list_inside_a_list_is_data_like_any_other():
    """Nothing recurses: what lies inside is one entry of a certificate's kind, however deep it goes on."""
    nested = HASHES
    for _ in range(100):
        nested = tcg.signature_list(tcg.CERT_X509, OWNER, [nested])
    (only,) = parse_signature_lists(nested)
    assert only.kind is SignatureKind.CERTIFICATE


@pytest.mark.parametrize("size", [0, 1, 27])
def test_list_shorter_than_its_head_is_refused(size):
    assert refused(parse_signature_lists, head(size=size) + bytes(100)) == "Malformed"


def test_list_that_would_never_end_is_refused():
    """Its length takes the reader back to where the list began, and its entries would fill what is left of it."""
    assert refused(parse_signature_lists, head(kind=OWNER, size=0, each=28) + bytes(100)) == "Malformed"


@pytest.mark.parametrize("size", [29, 2**32 - 1])
def test_list_that_runs_over_the_end_is_refused(size):
    assert refused(parse_signature_lists, head(size=size)) == "Truncated"


def test_list_whose_header_is_longer_than_itself_is_refused():
    assert refused(parse_signature_lists, head(header=2**32 - 1)) == "Malformed"


@pytest.mark.parametrize("each", [0, 1, 16, 47, 2**32 - 1])
def test_list_whose_entries_do_not_fill_it_is_refused(each):
    for kind in (OWNER, tcg.CERT_SHA256):
        assert refused(parse_signature_lists, head(kind, size=28 + 48, each=each) + bytes(48)) == "Malformed"


def test_entries_of_another_length_than_their_digest_are_refused():
    assert refused(parse_signature_lists, head(size=28 + 36, each=36) + bytes(36)) == "Malformed"


def test_list_of_an_unknown_kind_is_kept_as_such():
    (entry,) = parse_signature_lists(head(kind=OWNER, size=28 + 20, each=20) + bytes(20))
    assert (entry.kind, len(entry.content), len(entry.digest)) == (SignatureKind.OTHER, 4, 32)


def test_database_of_too_many_entries_is_refused():
    size = 17 * (MAX_SIGNATURES + 1)
    data = head(kind=OWNER, size=28 + size, each=17) + bytes(size)
    assert refused(parse_signature_lists, data) == "Oversized"
    half = 17 * (MAX_SIGNATURES // 2 + 1)
    assert refused(parse_signature_lists, 2 * (head(kind=OWNER, size=28 + half, each=17) + bytes(half))) == "Oversized"


def test_authority_with_and_without_owner_is_read():
    assert parse_authority(OWNER.bytes_le + CERTIFICATE).content == CERTIFICATE
    assert parse_authority(CERTIFICATE + bytes(5)).content == CERTIFICATE
    assert parse_authority(b"\x33" * 32).owner == b""
    assert parse_authority(OWNER.bytes_le + b"\x33" * 48).kind is SignatureKind.SHA384
    assert parse_authority(OWNER.bytes_le + b"\x33" * 20).kind is SignatureKind.SHA1


@pytest.mark.parametrize(
    "data", [b"", b"\x30", CERTIFICATE[:-1], CERTIFICATE + b"\x01", b"\x30\x89" + bytes(40), b"\x30\x85" + bytes(40)]
)
def test_authority_that_is_no_entry_is_refused(data):
    assert refused(parse_authority, data) == "Malformed"


# --- partition tables -----------------------------------------------------------------------------------------

TABLE = tcg.partition_table(OWNER, [(tcg.PARTITION_LINUX, OWNER, "root"), (tcg.PARTITION_SYSTEM, OWNER, "EFI")])


def test_partition_table_is_read():
    found = parse_partition_table(TABLE)
    assert found.disk_guid == str(OWNER)
    assert [(p.label, p.type_guid) for p in found.partitions] == [
        ("root", str(tcg.PARTITION_LINUX)), ("EFI", str(tcg.PARTITION_SYSTEM)),
    ]  # fmt: skip
    assert found.partitions[0].last_block + 1 == found.partitions[1].first_block


@pytest.mark.parametrize("count", [0, 1, 3, 1025, 2**64 - 1])
def test_partition_table_with_another_count_is_refused(count):
    assert refused(parse_partition_table, TABLE[:92] + struct.pack("<Q", count) + TABLE[100:]) == "Malformed"


@pytest.mark.parametrize("size", [0, 127, 129, 4097, 2**32 - 1])
def test_partition_table_with_other_entries_is_refused(size):
    assert refused(parse_partition_table, TABLE[:84] + struct.pack("<I", size) + TABLE[88:]) == "Malformed"


def test_partition_table_without_signature_or_end_is_refused():
    assert refused(parse_partition_table, b"EFI PARX" + TABLE[8:]) == "Malformed"
    assert refused(parse_partition_table, TABLE[:99]) == "Truncated"


@given(st.binary(max_size=200), st.sampled_from([b"", X509, HASHES, TABLE, head(size=28 + 48)]))
def test_any_bytes_are_answered_or_refused(data, start):
    for parse in (parse_variable, parse_signature_lists, parse_authority, parse_partition_table):
        try:
            parse(start + data)
        except errors.Malformed:
            continue
