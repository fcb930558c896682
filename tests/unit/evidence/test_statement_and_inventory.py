"""HSM statements and inventories: one value, one encoding; nothing malformed gets through."""

from __future__ import annotations

from dataclasses import replace

import cbor2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatelaine.evidence import errors
from chatelaine.evidence import tpm_algorithms as alg
from chatelaine.evidence.hsm_statement import (
    DOMAIN,
    HsmStatement,
    decode_statement,
    statement_to_sign,
    verify_statement,
)
from chatelaine.evidence.inventory import (
    MAX_KEYS,
    MAX_USAGES,
    InventoryKey,
    decode_inventory,
    encode_inventory,
    inventory_digest,
)
from support.paper_host import PaperHost, raw_sign, spki, token_key
from support.paper_tpm import NONCE, PCRS, ecc_key, rsa_key

HOST = PaperHost()
STATEMENT = HOST.statement(NONCE, PCRS)


def judged(statement: HsmStatement = STATEMENT, *, raw=None, signature=None, key=None, **changed) -> HsmStatement:
    expected = {"nonce": NONCE, "pcr_digest": STATEMENT.pcr_digest, "serial": HOST.serial} | changed
    return verify_statement(
        raw if raw is not None else statement.encode(),
        signature if signature is not None else raw_sign(HOST.hsm_key, statement_to_sign(statement)),
        key or spki(HOST.hsm_key),
        **expected,
    )


def test_honest_statement_is_verified():
    assert judged() == STATEMENT


def test_message_to_sign_starts_with_its_domain():
    assert statement_to_sign(STATEMENT) == DOMAIN + STATEMENT.encode()


def test_signature_is_checked_before_a_byte_is_read():
    with pytest.raises(errors.StatementSignatureInvalid):
        judged(raw=b"\xff not cbor", signature=bytes(63) + b"\x01")


@pytest.mark.parametrize("length", [0, 63, 65, 72])
def test_der_signature_or_another_length_is_refused(length):
    with pytest.raises(errors.Malformed):
        judged(signature=bytes(length))


def test_all_zero_signature_is_refused():
    with pytest.raises(errors.StatementSignatureInvalid):
        judged(signature=bytes(64))


def test_key_on_another_curve_is_refused():
    with pytest.raises(errors.AlgorithmRefused):
        judged(key=spki(ecc_key(alg.NIST_P384)))


def test_rsa_key_as_hsm_attestation_key_is_refused():
    with pytest.raises(errors.AlgorithmRefused):
        judged(key=spki(rsa_key(2048)))


def test_key_that_is_none_is_refused():
    with pytest.raises(errors.Malformed):
        judged(key=b"no key")


@pytest.mark.parametrize(
    "changed",
    [
        {"level": "SelfProclaimed"},
        {"nonce": b"short"},
        {"pcr_digest": b"short"},
        {"inventory_digest": bytes(33)},
        {"mechanisms_digest": "text"},
        {"log_digest": bytes(31)},
        {"flags": -1},
        {"flags": 2**64},
        {"flags": True},
        {"serial": b"bytes"},
        {"model": "m" * 257},
        {"firmware": None},
    ],
    ids=lambda changed: next(iter(changed)),
)
def test_statement_with_a_field_of_another_kind_is_refused_even_if_signed(changed):
    statement = replace(STATEMENT, **changed)
    with pytest.raises(errors.Malformed):
        judged(statement)


def test_statement_with_an_unknown_field_is_refused_even_if_signed():
    raw = cbor2.dumps({**cbor2.loads(STATEMENT.encode()), "trusted": True}, canonical=True)
    with pytest.raises(errors.Malformed):
        judged(raw=raw, signature=raw_sign(HOST.hsm_key, DOMAIN + raw))


def test_second_encoding_of_a_statement_is_refused_even_if_signed():
    fields = cbor2.loads(STATEMENT.encode())
    raw = cbor2.dumps(dict(reversed(fields.items())))
    assert raw != STATEMENT.encode()
    with pytest.raises(errors.NotCanonical):
        judged(raw=raw, signature=raw_sign(HOST.hsm_key, DOMAIN + raw))


texts = st.text(max_size=40)
digests = st.binary(min_size=32, max_size=32)
statements = st.builds(
    HsmStatement,
    serial=texts,
    manufacturer=texts,
    model=texts,
    firmware=texts,
    hardware_version=texts,
    flags=st.integers(0, 2**64 - 1),
    mechanisms_digest=digests,
    pcr_digest=digests | st.binary(min_size=48, max_size=48),
    inventory_digest=digests,
    nonce=digests,
    log_digest=st.none() | digests,
)
keys = st.builds(
    InventoryKey,
    id=st.binary(max_size=20),
    label=texts,
    object_class=st.sampled_from(["private", "public", "secret"]),
    key_type=texts,
    usages=st.sets(texts, max_size=5).map(lambda found: tuple(sorted(found))),
    sensitive=st.booleans(),
    extractable=st.booleans(),
    local=st.booleans(),
    never_extractable=st.booleans(),
)


@given(statements)
def test_statement_is_read_back(statement):
    assert decode_statement(statement.encode()) == statement


@given(st.lists(keys, max_size=8))
def test_inventory_is_read_back_sorted(found):
    assert decode_inventory(encode_inventory(found)) == tuple(sorted(found))


@given(st.lists(keys, max_size=6), st.randoms())
def test_inventory_digest_does_not_depend_on_the_order_of_listing(found, random):
    shuffled = list(found)
    random.shuffle(shuffled)
    assert inventory_digest(shuffled) == inventory_digest(found)


@given(st.lists(keys, min_size=1, max_size=4), st.data())
def test_inventory_digest_changes_with_every_flag(found, data):
    flag = data.draw(st.sampled_from(["sensitive", "extractable", "local", "never_extractable"]))
    changed = [replace(found[0], **{flag: not getattr(found[0], flag)}), *found[1:]]
    assert inventory_digest(changed) != inventory_digest(found)


def test_inventory_beyond_its_bound_is_refused():
    with pytest.raises(errors.Oversized) as refusal:
        encode_inventory(token_key(f"key-{number}") for number in range(MAX_KEYS + 1))
    assert (refusal.value.expected, refusal.value.found) == ("at most 8192", "8193")


def test_encoded_inventory_beyond_its_bound_is_refused():
    with pytest.raises(errors.Oversized):
        decode_inventory(cbor2.dumps([0] * (MAX_KEYS + 1), canonical=True))


@pytest.mark.parametrize("where", ["on top", "inside a key"])
@pytest.mark.parametrize("flood", [b"\x80", b"\xa0", b"\x00", b"\x61x", b"\x41x"])
def test_inventory_that_is_a_flood_of_tiny_values_is_refused_before_one_is_made(where, flood):
    """A hostile host could keep the verifier busy for seconds with each answer, and let other hosts' verdicts lapse."""
    count = MAX_KEYS * 40
    many = b"\x9a" + count.to_bytes(4, "big") + flood * count
    data = many if where == "on top" else b"\x81\xa1\x66usages" + many
    with pytest.raises(errors.Oversized, match="too many values"):
        decode_inventory(data)


def test_largest_honest_inventory_is_read():
    usages = tuple(f"CKA_{number:02}" for number in range(MAX_USAGES))
    keys = [token_key(f"key-{number}", usages=usages) for number in range(MAX_KEYS)]
    assert len(decode_inventory(encode_inventory(keys))) == MAX_KEYS


def test_key_with_an_endless_label_is_refused():
    with pytest.raises(errors.Oversized) as refusal:
        encode_inventory([token_key("x" * 1025)])
    assert refusal.value.found.startswith("xxx")


def test_unsorted_inventory_is_refused():
    first, second = cbor2.loads(encode_inventory([token_key("a"), token_key("b")]))
    with pytest.raises(errors.NotCanonical):
        decode_inventory(cbor2.dumps([second, first], canonical=True))


@pytest.mark.parametrize(
    "changed",
    [
        {"class": "certificate"},
        {"id": "text"},
        {"id": bytes(257)},
        {"label": b"bytes"},
        {"label": "x" * 1025},
        {"usages": "CKA_SIGN"},
        {"usages": ["b", "a"]},
        {"usages": [1]},
        {"usages": [f"u{number:02}" for number in range(17)]},
        {"sensitive": 1},
        {"neverExtractable": None},
    ],
    ids=str,
)
def test_inventory_with_a_field_of_another_kind_is_refused(changed):
    (item,) = cbor2.loads(encode_inventory([token_key("a")]))
    with pytest.raises(errors.Malformed):
        decode_inventory(cbor2.dumps([item | changed], canonical=True))


@pytest.mark.parametrize("value", [{}, "text", [1], [{"id": b""}]])
def test_inventory_that_is_none_is_refused(value):
    with pytest.raises(errors.Malformed):
        decode_inventory(cbor2.dumps(value, canonical=True))


@pytest.mark.parametrize(
    ("value", "told"),
    [
        ({}, (None, "dict")),
        ([0] * (MAX_KEYS + 1), ("at most 8192", "8193")),
        ([{"label": b"bytes"}], ("1024 characters", None)),
        ([{"id": "text"}], ("at most 256 bytes", None)),
        ([{"class": "certificate"}], ("['private', 'public', 'secret']", "certificate")),
    ],
    ids=lambda value: str(value)[:40],
)
def test_refusals_of_an_inventory_tell_what_was_expected_and_found(value, told):
    (item,) = cbor2.loads(encode_inventory([token_key("a")]))
    if isinstance(value, list) and isinstance(value[0], dict):
        value = [item | value[0]]
    with pytest.raises(errors.Malformed) as refusal:
        decode_inventory(cbor2.dumps(value, canonical=True))
    assert (refusal.value.expected, refusal.value.found) == told
