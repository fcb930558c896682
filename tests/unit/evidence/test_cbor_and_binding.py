"""One value has one encoding, and two bindings never share one."""

from __future__ import annotations

import hashlib
from dataclasses import fields, replace

import cbor2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatelaine.evidence import cbor, errors
from chatelaine.evidence.binding import Binding, quote_extra_data

BINDING = Binding.of_hsm_host(subject_uid="uid", agent_spki=b"agent", gateway_spki=b"gateway", statement=b"statement")
NONCE = bytes(32)

values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.text(max_size=8) | st.binary(max_size=8),
    lambda children: st.lists(children, max_size=4) | st.dictionaries(st.text(max_size=4), children, max_size=4),
    max_leaves=12,
)


def decode(data: bytes, limit_bytes: int = 4096) -> object:
    return cbor.decode(data, limit_bytes=limit_bytes, what="value")


@given(values)
def test_what_is_encoded_is_read_back(value):
    assert decode(cbor.encode(value)) == value


@given(st.binary(max_size=64))
def test_no_bytes_make_the_decoder_fail_otherwise_and_what_it_takes_has_one_encoding(data):
    try:
        value = decode(data)
    except errors.Malformed:
        return
    assert cbor.encode(value) == data


@pytest.mark.parametrize(
    "data",
    [
        bytes.fromhex("1800"),  # 0 in two bytes
        bytes.fromhex("5f4101ff"),  # byte string of indefinite length
        bytes.fromhex("9f00ff"),  # array of indefinite length
        bytes.fromhex("a2616200616100"),  # keys out of order
        bytes.fromhex("0000"),  # a second value
    ],
)
def test_second_encoding_is_refused(data):
    with pytest.raises(errors.Malformed):
        decode(data)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x9b" + b"\xff" * 8,  # 2^64-1 elements
        b"\x5b\x7f" + b"\xff" * 7,  # a string of 2^63 bytes
        b"\x81" * 100 + b"\x00",  # deep nesting
        bytes.fromhex("c074323031332d30332d32315432303a30343a30305a"),  # tag: date
        bytes.fromhex("d8236128"),  # tag: regular expression, broken
        bytes.fromhex("c249010000000000000000"),  # tag: big number
        bytes.fromhex("d81c80"),  # tag: shared value
        bytes.fromhex("fb3ff199999999999a"),  # float
        bytes.fromhex("f97e00"),  # NaN
        bytes.fromhex("f7"),  # undefined
        bytes.fromhex("e0"),  # simple value
        bytes.fromhex("a2616100616101"),  # a key twice
        bytes.fromhex("a10000"),  # a key that is no text
        bytes.fromhex("a1410000"),
        bytes.fromhex("61ff"),  # text that is not UTF-8
        cbor2.dumps(cbor2.CBORTag(4711, 1)),
    ],
)
def test_what_our_structures_do_not_use_is_refused(data):
    with pytest.raises(errors.Malformed):
        decode(data)


def test_length_is_checked_first():
    with pytest.raises(errors.Oversized):
        decode(b"\xff" * 11, limit_bytes=10)


@pytest.mark.parametrize("field", [field.name for field in fields(Binding)])
def test_every_field_of_the_binding_changes_the_extra_data(field):
    changed = replace(BINDING, **{field: "x" if field in {"purpose", "subject_uid"} else b"\x01" * 32})
    assert quote_extra_data(NONCE, changed) != quote_extra_data(NONCE, BINDING)


def test_same_digest_in_another_field_is_another_binding():
    digest = b"\x07" * 32
    bindings = [Binding("HsmHost", "uid", **{field.name: digest}) for field in fields(Binding) if field.default is None]
    assert len({quote_extra_data(NONCE, binding) for binding in bindings}) == len(bindings) == 6


def test_extra_data_is_the_formula_of_the_trust_rules():
    inner = hashlib.sha256(BINDING.encode()).digest()
    assert quote_extra_data(NONCE, BINDING) == hashlib.sha256(b"chatelaine/quote/v1" + NONCE + inner).digest()


def test_binding_holds_digests_of_the_keys():
    assert BINDING.agent_spki == hashlib.sha256(b"agent").digest()
    assert cbor2.loads(BINDING.encode())["hpkeKey"] is None


@pytest.mark.parametrize("length", [0, 16, 31, 33, 64])
def test_nonce_of_another_length_is_refused(length):
    with pytest.raises(errors.NonceRefused):
        quote_extra_data(bytes(length), BINDING)
