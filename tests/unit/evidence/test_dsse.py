"""Envelopes: what counts as a signature by whom, and what is no envelope at all."""

from __future__ import annotations

import base64
import json
from dataclasses import replace

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st

from chatelaine.evidence import errors
from chatelaine.evidence.dsse import (
    MAX_ENVELOPE_BYTES,
    MAX_SIGNATURES,
    Envelope,
    Signature,
    VerifyingKey,
    pae,
    parse_envelope,
    verify_envelope,
)
from support.reference_bundles import ALICE, BOB, CAROL, MALLORY, Signer, signed

TYPE = "application/vnd.in-toto+json"
PAYLOAD = b'{"some": "payload"}' + bytes(range(256))


def keys(*signers: Signer) -> list[VerifyingKey]:
    return [VerifyingKey.parse(signer.name, signer.listed().public_key) for signer in signers]


def as_json(envelope: Envelope) -> dict:
    return json.loads(envelope.encode())


def bent(**members: object) -> bytes:
    return json.dumps(as_json(signed(PAYLOAD, ALICE)) | members).encode()


# --- reading ---------------------------------------------------------------------------------------------------


def test_encoding_is_that_of_the_specification():
    assert pae("http://example.com/HelloWorld", b"hello world") == (
        b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"
    )


def test_signature_of_the_specifications_example_verifies():
    """DSSE protocol, test vectors: its public point, its envelope."""
    public = ec.EllipticCurvePublicNumbers(
        x=46950820868899156662930047687818585632848591499744589407958293238635476079160,
        y=5640078356564379163099075877009565129882514886557779369047442380624545832820,
        curve=ec.SECP256R1(),
    ).public_key()
    pem = public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
    raw = base64.b64decode("A3JqsQGtVsJ2O2xqrI5IcnXip5GToJ3F+FnZ+O88SjtR6rDAajabZKciJTfUiHqJPcIAriEGAHTVeCUjW2JIZA==")
    r, s = int.from_bytes(raw[:32], "big"), int.from_bytes(raw[32:], "big")
    envelope = Envelope(
        "http://example.com/HelloWorld", b"hello world", (Signature(encode_dss_signature(r, s), "66301bbf"),)
    )
    assert verify_envelope(envelope, [VerifyingKey.parse("example", pem)], 1) == ("example",)


@given(
    st.text(st.characters(exclude_categories=["Cs"]), max_size=40),
    st.binary(max_size=64),
    st.lists(st.binary(min_size=1, max_size=80), max_size=4),
)
def test_what_is_written_is_read_back(kind, payload, signatures):
    envelope = Envelope(kind, payload, tuple(map(Signature, signatures)))
    assert parse_envelope(envelope.encode()) == envelope


@given(st.binary(max_size=64), st.binary(max_size=64), st.text("ab 1", max_size=8), st.text("ab 1", max_size=8))
def test_two_messages_are_never_the_same_bytes(first, second, kind, other):
    assert (pae(kind, first) == pae(other, second)) == ((kind, first) == (other, second))


def test_envelope_of_one_byte_too_many_is_refused_before_it_is_parsed():
    with pytest.raises(errors.EnvelopeOversized):
        parse_envelope(b"{" * (MAX_ENVELOPE_BYTES + 1))


def test_envelope_of_exactly_the_bound_is_read():
    honest = Envelope(TYPE, PAYLOAD).encode()
    assert parse_envelope(honest + b" " * (MAX_ENVELOPE_BYTES - len(honest))).payload == PAYLOAD


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"[" * 100_000 + b"]" * 100_000, id="deep"),
        pytest.param(b"[" * 1000 + b"]" * 1000, id="less deep"),
        pytest.param(b'{"a":' * 500 + b"1" + b"}" * 500, id="deep objects"),
        pytest.param(b"[" + b"[]," * 1_000_000 + b"[]]", id="a million lists"),
        pytest.param(b'["' + b'a","' * 1_000_000 + b'"]', id="a million texts"),
        pytest.param(b"", id="nothing"),
        pytest.param(b"\xff\xfe{}", id="no UTF-8"),
        pytest.param(b"\xef\xbb\xbf{}", id="byte order mark"),
        pytest.param(b"[]", id="no object"),
        pytest.param(b"{}", id="no members"),
        pytest.param(b'{"payload": NaN}', id="no number"),
    ],
)
def test_what_is_no_envelope_is_refused(data):
    with pytest.raises(errors.EnvelopeMalformed):
        parse_envelope(data)


@pytest.mark.parametrize("mark", [b"[],", b"{},", b'"",', b"1,"])
def test_flood_of_small_values_is_refused_before_any_is_made(mark):
    """A million empty lists would take a hundred megabytes, and whoever sends an envelope has shown nothing yet."""
    with pytest.raises(errors.EnvelopeMalformed, match="too many"):
        parse_envelope(b"[" + mark * 1_000_000 + b"1]")


def test_duplicate_members_of_the_envelope_are_refused():
    other = base64.b64encode(b"other").decode()
    honest = signed(PAYLOAD, ALICE).encode()
    for extra in (f'{{"payload":"{other}",'.encode(), b'{"payloadType":"text/plain",', b'{"signatures":[],'):
        with pytest.raises(errors.EnvelopeMalformed, match="twice"):
            parse_envelope(extra + honest[1:])


def test_duplicate_members_of_a_signature_are_refused():
    honest = signed(PAYLOAD, ALICE).encode()
    with pytest.raises(errors.EnvelopeMalformed, match="twice"):
        parse_envelope(honest.replace(b'{"keyid"', b'{"sig":"AAAA","keyid"'))


@pytest.mark.parametrize(
    "members",
    [
        {"more": 1},
        {"payload": 1},
        {"payload": None},
        {"payload": ["aa"]},
        {"payloadType": None},
        {"payloadType": "x" * 256},
        {"payloadType": "\ud800"},
        {"signatures": None},
        {"signatures": {}},
        {"signatures": [None]},
        {"signatures": [{}]},
        {"signatures": [{"sig": "AAAA", "cert": ""}]},
        {"signatures": [{"sig": ""}]},
        {"signatures": [{"sig": "A" * 180}]},
        {"signatures": [{"sig": "AAAA", "keyid": 1}]},
        {"signatures": [{"sig": "AAAA"}] * (MAX_SIGNATURES + 1)},
    ],
)
def test_other_members_are_refused(members):
    with pytest.raises(errors.EnvelopeMalformed):
        parse_envelope(bent(**members))


@pytest.mark.parametrize("hint", [{}, {"keyid": None}, {"keyid": ""}])
def test_hint_may_be_absent(hint):
    assert parse_envelope(bent(signatures=[{"sig": "AAAA", **hint}])).signatures == (Signature(b"\0\0\0"),)


# --- base64 ----------------------------------------------------------------------------------------------------

BYTES = b"\xfb\xef\xff\xfe"
STANDARD = "++///g=="


def test_both_alphabets_of_base64_are_read():
    for spelling in (STANDARD, "--___g=="):
        assert parse_envelope(bent(payload=spelling)).payload == BYTES


@pytest.mark.parametrize(
    "spelling",
    [
        "++///g", "++///g=", "++///g===", "++///h==", "++__/g==", "--//_g==", " ++///g==", "++///g==\n", "++//\n/g==",
        "++///g==++///g==", "=", "A", "++///g=\u00e9", "\ud800", "++///g==!",
    ],
)  # fmt: skip
def test_second_spelling_of_base64_is_refused(spelling):
    with pytest.raises(errors.EnvelopeMalformed):
        parse_envelope(bent(payload=spelling))
    with pytest.raises(errors.EnvelopeMalformed):
        parse_envelope(bent(signatures=[{"sig": spelling}]))


# --- who has signed --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("signer", [ALICE, BOB], ids=["P-256", "Ed25519"])
def test_listed_key_that_signed_is_named(signer):
    envelope = parse_envelope(signed(PAYLOAD, signer).encode())
    assert verify_envelope(envelope, keys(CAROL, signer), 1) == (signer.name,)


def test_all_keys_that_signed_are_named_in_the_order_of_the_policy():
    envelope = signed(PAYLOAD, MALLORY, CAROL, BOB, ALICE)
    assert verify_envelope(envelope, keys(ALICE, BOB, CAROL), 2) == ("alice", "bob", "carol")


def test_threshold_is_not_met_by_the_same_key_twice():
    envelope = signed(PAYLOAD, ALICE, ALICE, ALICE)
    assert len({entry.signature for entry in envelope.signatures}) == 3
    with pytest.raises(errors.ThresholdNotMet, match="alice"):
        verify_envelope(envelope, keys(ALICE, BOB), 2)


def test_threshold_is_not_met_by_one_signature_under_two_hints():
    once = signed(PAYLOAD, ALICE).signatures[0]
    hints = [replace(once, key_id=key.key_id) for key in keys(ALICE, BOB)]
    with pytest.raises(errors.ThresholdNotMet):
        verify_envelope(Envelope(TYPE, PAYLOAD, tuple(hints)), keys(ALICE, BOB), 2)


@pytest.mark.parametrize("second", ["another", "alice"])
def test_threshold_is_not_met_by_one_key_that_is_listed_twice(second):
    twice = [VerifyingKey.parse(name, ALICE.listed().public_key) for name in ("alice", second)]
    with pytest.raises(errors.ReferenceKeyRefused, match="two names"):
        verify_envelope(signed(PAYLOAD, ALICE), twice, 2)


def test_signature_by_an_unlisted_key_counts_nothing():
    with pytest.raises(errors.ThresholdNotMet):
        verify_envelope(signed(PAYLOAD, MALLORY), keys(ALICE, BOB), 1)
    with pytest.raises(errors.ThresholdNotMet):
        verify_envelope(signed(PAYLOAD, ALICE, MALLORY), keys(ALICE, BOB), 2)


def test_unlisted_key_that_bears_the_hint_of_a_listed_one_counts_nothing():
    envelope = signed(PAYLOAD, MALLORY)
    forged = replace(envelope.signatures[0], key_id=keys(ALICE)[0].key_id)
    with pytest.raises(errors.ThresholdNotMet):
        verify_envelope(replace(envelope, signatures=(forged,)), keys(ALICE), 1)


@pytest.mark.parametrize("hint", ["", "unknown", "sha256:" + "00" * 32])
def test_hint_that_names_no_listed_key_is_not_believed(hint):
    envelope = signed(PAYLOAD, BOB)
    other = replace(envelope.signatures[0], key_id=hint)
    assert verify_envelope(replace(envelope, signatures=(other,)), keys(ALICE, BOB), 1) == ("bob",)


@pytest.mark.parametrize("signer", [ALICE, BOB], ids=["P-256", "Ed25519"])
def test_signature_over_the_bare_payload_is_refused(signer):
    envelope = Envelope(TYPE, PAYLOAD, (signer.sign(PAYLOAD),))
    with pytest.raises(errors.ThresholdNotMet):
        verify_envelope(envelope, keys(signer), 1)


@pytest.mark.parametrize("signer", [ALICE, BOB], ids=["P-256", "Ed25519"])
def test_signature_for_another_payload_type_is_refused(signer):
    envelope = replace(signed(PAYLOAD, signer, payload_type="text/plain"), payload_type=TYPE)
    with pytest.raises(errors.ThresholdNotMet):
        verify_envelope(envelope, keys(signer), 1)


def test_type_and_payload_cannot_be_cut_elsewhere():
    """The same bytes after `DSSEv1 `, if lengths were not signed."""
    honest = signed(b"b c", ALICE, payload_type="a")
    with pytest.raises(errors.ThresholdNotMet):
        verify_envelope(replace(honest, payload_type="a b", payload=b"c"), keys(ALICE), 1)


@given(st.integers(0, len(PAYLOAD) * 8 - 1))
def test_payload_with_another_bit_is_refused(bit):
    changed = bytearray(PAYLOAD)
    changed[bit // 8] ^= 1 << bit % 8
    with pytest.raises(errors.ThresholdNotMet):
        verify_envelope(replace(SIGNED, payload=bytes(changed)), keys(ALICE, BOB), 1)


SIGNED = signed(PAYLOAD, ALICE, BOB)


@pytest.mark.parametrize("threshold", [0, -1])
def test_threshold_of_nobody_is_refused(threshold):
    with pytest.raises(errors.ThresholdNotMet):
        verify_envelope(Envelope(TYPE, PAYLOAD), [], threshold)


def test_envelope_without_signatures_is_refused():
    with pytest.raises(errors.ThresholdNotMet, match="none"):
        verify_envelope(Envelope(TYPE, PAYLOAD), keys(ALICE), 1)


# --- keys ------------------------------------------------------------------------------------------------------


def pem(key: ec.EllipticCurvePublicKey | rsa.RSAPublicKey) -> str:
    return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "alice",
        "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n",
        ALICE.listed().public_key * 20,
        pem(ec.generate_private_key(ec.SECP384R1()).public_key()),
        pem(ec.generate_private_key(ec.SECP256K1()).public_key()),
        pem(rsa.generate_private_key(65537, 2048).public_key()),
    ],
    ids=["empty", "text", "no key", "too long", "P-384", "secp256k1", "RSA"],
)
def test_key_of_another_kind_is_refused(text):
    with pytest.raises(errors.ReferenceKeyRefused):
        VerifyingKey.parse("alice", text)


def test_signature_with_another_hash_is_refused():
    envelope = Envelope(TYPE, PAYLOAD)
    raw = ALICE.key.sign(envelope.message, ec.ECDSA(hashes.SHA384()))
    with pytest.raises(errors.ThresholdNotMet):
        verify_envelope(replace(envelope, signatures=(Signature(raw),)), keys(ALICE), 1)
