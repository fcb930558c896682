"""CoRIMs: which of their digests are those of PCRs, and what is not imported is named or refused."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from typing import Any

import cbor2
import pytest
from cbor2 import CBORTag
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from hypothesis import given
from hypothesis import strategies as st

from chatelaine.evidence import errors
from chatelaine.evidence.corim import MAX_LEFT_OUT, ImportedCorim, import_corim
from chatelaine.evidence.corim_cbor import MAX_CORIM_BYTES
from chatelaine.evidence.dsse import VerifyingKey
from chatelaine.model.tpm_policy import Bank
from support.reference_bundles import ALICE, BOB, MALLORY, NOW, Signer

FIRST, SECOND, WIDE = b"\x11" * 32, b"\x22" * 32, b"\x33" * 48
ENVIRONMENT = {0: {0: CBORTag(37, b"\x67" * 16), 1: "ACME Inc.", 2: "RoadRunner"}}


def pcr(index: object, *digests: list[object], **changes: Any) -> dict[object, object]:
    return {0: index, 1: {2: list(digests)}} | changes


def comid(*measurements: object, environment: object = ENVIRONMENT, **more: object) -> CBORTag:
    triples = {0: [[environment, list(measurements)]]}
    return CBORTag(506, cbor2.dumps({1: {0: b"id"}, 4: triples, **{int(k[1:]): v for k, v in more.items()}}))


def corim(*tags: object, **more: object) -> bytes:
    return cbor2.dumps(CBORTag(501, {0: "an id", 1: list(tags), **{int(k[1:]): v for k, v in more.items()}}))


def imported(data: bytes, **changes: Any) -> ImportedCorim:
    return import_corim(data, at=NOW, **changes)


SIMPLE = corim(comid(pcr(4, [1, FIRST])))


# --- what is imported ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [4, "PCR4", "pcr 4", "PCR[4]", "pcr-4", "TPM PCR 4", "tpm_pcr_4"])
def test_digest_of_a_pcr_is_imported_by_index_and_by_name(name):
    found = imported(corim(comid(pcr(name, [1, FIRST]))))
    assert found.pcrs == {Bank.SHA256: {4: (FIRST.hex(),)}}
    assert (found.left_out, found.signed_by) == ((), None)
    assert "RoadRunner" in found.environments[0]


@pytest.mark.parametrize("name", [24, -1, "4", "PCR 24", "PCR 04", "PCR4 ", "xPCR4", CBORTag(37, b"4" * 16), None])
def test_measurement_of_something_else_is_left_out_and_named(name):
    found = imported(corim(comid(pcr(4, [1, FIRST]), pcr(name, [1, SECOND]))))
    assert found.pcrs == {Bank.SHA256: {4: (FIRST.hex(),)}}
    assert len(found.left_out) == 1
    assert "no PCR" in found.left_out[0]


def test_integrity_registers_are_imported():
    registers = {0: [[1, FIRST], [7, WIDE]], "PCR 7": [["sha-256", SECOND]], "my-register": [[1, FIRST]]}
    found = imported(corim(comid({1: {14: registers}})))
    assert found.pcrs == {Bank.SHA256: {0: (FIRST.hex(),), 7: (SECOND.hex(),)}, Bank.SHA384: {0: (WIDE.hex(),)}}
    assert "my-register" in found.left_out[0]


@pytest.mark.parametrize(("algorithm", "bank", "digest"), [
    (1, Bank.SHA256, FIRST), (-16, Bank.SHA256, FIRST), ("sha-256", Bank.SHA256, FIRST), ("sha256", Bank.SHA256, FIRST),
    (7, Bank.SHA384, WIDE), (-43, Bank.SHA384, WIDE), ("sha-384", Bank.SHA384, WIDE), ("sha384", Bank.SHA384, WIDE),
])  # fmt: skip
def test_every_name_of_an_algorithm_is_its_bank(algorithm, bank, digest):
    assert imported(corim(comid(pcr(4, [algorithm, digest])))).pcrs == {bank: {4: (digest.hex(),)}}


@pytest.mark.parametrize("algorithm", [8, -44, "sha-512", "sha1", -14, 2, "my-alg"])
def test_digest_of_another_algorithm_is_left_out_and_named(algorithm):
    found = imported(corim(comid(pcr(4, [1, FIRST], [algorithm, b"\x44" * 64]))))
    assert found.pcrs == {Bank.SHA256: {4: (FIRST.hex(),)}}
    assert f"algorithm {algorithm}" in found.left_out[0]


def test_values_of_several_measurements_and_tags_add_up():
    other = comid(pcr(4, [1, SECOND]), environment={1: CBORTag(550, b"i")})
    found = imported(corim(comid(pcr(4, [1, FIRST])), other, other))
    assert found.pcrs == {Bank.SHA256: {4: (FIRST.hex(), SECOND.hex())}}
    assert len(found.environments) == 2


@pytest.mark.parametrize(
    ("tags", "more", "named"),
    [
        ([comid(pcr(7, [1, SECOND]) | {2: [CBORTag(554, "key")]})], {}, "authority"),
        ([comid({0: 7, 1: {2: [[1, SECOND]], 1: CBORTag(552, 3)}})], {}, "value 1"),
        ([comid(pcr(7, [1, SECOND]) | {-1: "extension"})], {}, "field -1"),
        ([CBORTag(505, b"swid")], {}, "505"),
        (["untagged"], {}, "untagged"),
        ([comid(pcr(4, [1, FIRST]))], {"_2": [{0: CBORTag(32, "https://acme.example")}]}, "depends"),
    ],
)
def test_what_our_values_cannot_express_is_left_out_and_named(tags, more, named):
    found = imported(corim(comid(pcr(4, [1, FIRST])), *tags, **more))
    assert found.pcrs == {Bank.SHA256: {4: (FIRST.hex(),)}}
    assert len(found.left_out) == 1
    assert named in found.left_out[0]


def test_what_is_left_out_beyond_the_bound_is_counted_and_not_passed_over():
    """Else many harmless things would hide the one PCR that is not imported."""
    others = [pcr(f"part {number}", [1, FIRST]) for number in range(MAX_LEFT_OUT + 5)]
    found = imported(corim(comid(pcr(4, [1, FIRST]), *others, pcr(7, ["md5", b"x" * 16]))))
    assert len(found.left_out) == MAX_LEFT_OUT + 1
    assert found.left_out[-1] == "6 more"


def test_endorsed_values_are_no_reference_values():
    triples = {0: [[ENVIRONMENT, [pcr(4, [1, FIRST])]]], 1: [[ENVIRONMENT, [pcr(4, [1, SECOND])]]]}
    found = imported(corim(CBORTag(506, cbor2.dumps({1: {0: "id"}, 4: triples}))))
    assert found.pcrs == {Bank.SHA256: {4: (FIRST.hex(),)}}
    assert found.left_out == ("triples of kind 1",)


# --- what is refused -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (corim(), "nothing of PCRs"),
        (corim(comid(pcr("firmware", [1, FIRST]))), "nothing of PCRs"),
        (corim(comid(pcr(4, [1, FIRST])), _3=CBORTag(32, "https://acme.example/profile")), "profile"),
        (corim(comid(pcr(4, [1, FIRST]), _3=[{0: "other", 1: 0}])), "supplements"),
        (corim(comid(pcr(4, [1, FIRST[:31]]))), "another length"),
        (corim(comid(pcr(4, [7, FIRST]))), "another length"),
        (corim(comid(pcr(4, [1, FIRST], [1, SECOND]))), "two digests of one algorithm"),
        (corim(comid(pcr(4, [1, FIRST], ["sha-256", SECOND]))), "two digests of one algorithm"),
        (corim(comid(pcr(4, [1, "text"]))), "not [algorithm, bytes]"),
        (corim(comid(pcr(4, [1.0, FIRST]))), "not [algorithm, bytes]"),
        (corim(comid(pcr(4, [1, FIRST, 1]))), "two parts"),
        (corim(comid({0: 4, 1: {2: FIRST}})), "not an array"),
        (corim(comid({0: 4})), "not a map"),
        (corim(comid(4)), "not a map"),
        (corim(comid(pcr(4, [1, FIRST]), environment=1)), "not a map"),
        (corim(CBORTag(506, cbor2.dumps([]))), "not a map"),
        (corim(CBORTag(506, b"\xff")), "not CBOR"),
        (cbor2.dumps(CBORTag(501, {0: "id"})), "not an array"),
        (cbor2.dumps(CBORTag(501, [])), "not a CoRIM"),
        (cbor2.dumps(CBORTag(502, {0: "id", 1: []})), "not a CoRIM"),
        (cbor2.dumps({0: "id", 1: []}), "not a CoRIM"),
        (b"", "not CBOR"),
        (SIMPLE + b"\x00", "not CBOR"),
        (b"\xd9\x01\xf5\xbf\x00\x61a\xff", "not CBOR"),  # a map of indefinite length
        (b"\xd9\x01\xf5\xa2\x01\x80\x01\x80", "not CBOR"),  # a key twice
        (b"\x81" * 100 + b"\x00", "not CBOR"),
        (b"\x9a\x00\x10\x00\x00" + b"\xa0" * 70_000, "too many values"),
        (b"\x00" * (MAX_CORIM_BYTES + 1), "too long"),
    ],
)  # fmt: skip
def test_what_cannot_be_imported_is_refused(data, why):
    with pytest.raises(errors.CorimRefused) as refused:
        imported(data)
    assert why in str(refused.value)


def test_no_tag_makes_the_decoder_do_anything():
    for tag in (CBORTag(35, "("), CBORTag(0, "no date"), CBORTag(30, [1, 0]), CBORTag(28, []), CBORTag(29, 7)):
        found = imported(corim(comid(pcr(4, [1, FIRST])), tag))
        assert found.left_out == (f"a tag that is no CoMID ({tag.tag})",)


@pytest.mark.parametrize(
    ("validity", "holds"),
    [
        ({1: CBORTag(1, NOW)}, True),
        ({1: CBORTag(1, NOW - 1)}, False),
        ({0: CBORTag(1, NOW), 1: CBORTag(1, NOW + 1)}, True),
        ({0: CBORTag(1, NOW + 1), 1: CBORTag(1, NOW + 2)}, False),
        ({0: CBORTag(1, NOW)}, False),
        ({1: NOW + 1}, False),
        ({1: CBORTag(1, "later")}, False),
        ({1: CBORTag(1, 4e9)}, False),
        ({1: CBORTag(1001, NOW + 1)}, False),
        ([], False),
    ],
)
def test_manifest_that_is_not_valid_now_is_refused(validity, holds):
    data = corim(comid(pcr(4, [1, FIRST])), _4=validity)
    if holds:
        assert imported(data).pcrs
    else:
        with pytest.raises(errors.CorimRefused, match="valid"):
            imported(data)


@given(st.binary(max_size=128))
def test_no_bytes_make_it_fail_otherwise(data):
    for content in (data, corim(CBORTag(506, data)), cbor2.dumps(CBORTag(18, data))):
        with pytest.raises(errors.CorimRefused):
            imported(content)


@given(st.integers(0, len(SIMPLE) * 8 - 1))
def test_every_changed_bit_is_refused_or_read_as_something(bit):
    changed = bytearray(SIMPLE)
    changed[bit // 8] ^= 1 << bit % 8
    with contextlib.suppress(errors.CorimRefused):
        assert imported(bytes(changed)).pcrs


# --- signed ----------------------------------------------------------------------------------------------------


def key(signer: Signer) -> VerifyingKey:
    return VerifyingKey.parse(signer.name, signer.listed().public_key)


def signed(signer: Signer = ALICE, payload: object = SIMPLE, context: str = "Signature1", **header: object) -> bytes:
    """COSE_Sign1; members of the protected header by their number, `_3`."""
    algorithm = -7 if signer is not BOB else -8
    members = {1: algorithm, 3: "application/rim+cbor"} | {int(name[1:]): value for name, value in header.items()}
    protected = cbor2.dumps({name: value for name, value in members.items() if value is not None})
    raw = signer.sign(cbor2.dumps([context, protected, b"", payload])).signature
    if signer is not BOB:
        r, s = decode_dss_signature(raw)
        raw = r.to_bytes(32, "big") + s.to_bytes(32, "big")
    return cbor2.dumps(CBORTag(18, [protected, {}, payload, raw]))


@pytest.mark.parametrize("signer", [ALICE, BOB], ids=["ES256", "EdDSA"])
def test_signed_manifest_is_imported_with_its_key(signer):
    found = imported(signed(signer), signer=key(signer))
    assert found.signed_by == signer.name
    assert found.pcrs == imported(SIMPLE).pcrs


def test_signed_manifest_is_refused_without_a_key():
    with pytest.raises(errors.CorimRefused, match="give the key"):
        imported(signed())


def test_unsigned_manifest_is_refused_where_a_key_is_given():
    with pytest.raises(errors.CorimRefused, match="not signed, and a key was given"):
        imported(SIMPLE, signer=key(ALICE))


def test_manifest_signed_by_another_key_is_refused():
    with pytest.raises(errors.CorimRefused, match="not signed by alice"):
        imported(signed(MALLORY), signer=key(ALICE))


def test_manifest_that_was_changed_after_signing_is_refused():
    tag = cbor2.loads(signed())
    other = corim(comid(pcr(4, [1, SECOND])))
    with pytest.raises(errors.CorimRefused, match="not signed by alice"):
        imported(cbor2.dumps(CBORTag(18, [tag.value[0], {}, other, tag.value[3]])), signer=key(ALICE))


def test_second_spelling_of_a_signature_is_refused():
    header, more, payload, raw = cbor2.loads(signed()).value
    longer = raw[:32] + b"\x00" + raw[32:]
    with pytest.raises(errors.CorimRefused, match="another length"):
        imported(cbor2.dumps(CBORTag(18, [header, dict(more), payload, longer])), signer=key(ALICE))


def test_signature_for_another_purpose_is_refused():
    with pytest.raises(errors.CorimRefused, match="not signed by alice"):
        imported(signed(context="Signature"), signer=key(ALICE))


@pytest.mark.parametrize(
    ("header", "why"),
    [
        ({"_1": -8}, "algorithm"),
        ({"_1": -35}, "algorithm"),
        ({"_1": None}, "algorithm"),
        ({"_1": "ES256"}, "algorithm"),
        ({"_2": [100]}, "critical"),
        ({"_3": "application/cbor"}, "signed as something else"),
        ({"_3": None}, "signed as something else"),
        ({"_258": -16}, "digest"),
        ({"_8": cbor2.dumps({0: {0: "ACME"}, 1: {1: CBORTag(1, NOW - 1)}})}, "not valid any more"),
        ({"_8": cbor2.dumps({0: {0: "ACME"}, 1: {0: CBORTag(1, NOW + 1), 1: CBORTag(1, NOW + 2)}})}, "not valid yet"),
        ({"_8": cbor2.dumps([])}, "corim-meta cannot be read"),
        ({"_8": {}}, "corim-meta cannot be read"),
        ({"_8": b"\xff"}, "corim-meta is not CBOR"),
        ({"_15": {1: "ACME", 4: True}}, "validity"),
        ({"_15": {1: "ACME", 4: NOW - 1}}, "not valid any more"),
        ({"_15": {1: "ACME", 5: NOW + 1}}, "not valid yet"),
        ({"_15": {4: "never"}}, "validity"),
        ({"_15": 1}, "CWT"),
    ],
)
def test_signature_that_says_otherwise_is_refused(header, why):
    with pytest.raises(errors.CorimRefused, match=why):
        imported(signed(**header), signer=key(ALICE))


def test_signature_that_is_still_valid_is_taken():
    meta = cbor2.dumps({0: {0: "ACME"}, 1: {0: CBORTag(1, NOW), 1: CBORTag(1, NOW)}})
    assert imported(signed(_8=meta, _15={1: "ACME", 4: NOW, 5: NOW}), signer=key(ALICE)).pcrs


@pytest.mark.parametrize(
    "parts",
    [
        7,
        None,
        b"four",
        [],
        [b"", {}, SIMPLE],
        [b"\xa0", {}, SIMPLE, b"", b""],
        ["", {}, SIMPLE, b""],
        [b"\xa0", [], SIMPLE, b""],
        [b"\xa0", {}, None, b""],
        [b"\xa0", {}, SIMPLE, ""],
        [b"\x80", {}, SIMPLE, b""],
        [b"\xff", {}, SIMPLE, b""],
        [cbor2.dumps({1: -7, 3: "application/rim+cbor"}), {}, SIMPLE, b"\x01" * 63],
        [cbor2.dumps({1: -7, 3: "application/rim+cbor"}), {}, SIMPLE, b"\x00" * 64],
        [cbor2.dumps({3: "application/rim+cbor"}), {1: -7}, SIMPLE, b"\x00" * 64],
    ],
)
def test_what_is_no_signed_manifest_is_refused(parts):
    with pytest.raises(errors.CorimRefused):
        imported(cbor2.dumps(CBORTag(18, parts)), signer=key(ALICE))


def test_signed_something_else_is_refused():
    with pytest.raises(errors.CorimRefused, match="not a CoRIM"):
        imported(signed(payload=cbor2.dumps({})), signer=key(ALICE))
    with pytest.raises(errors.CorimRefused, match="not a CoRIM"):
        imported(signed(payload=signed()), signer=key(ALICE))


def test_another_signer_has_another_name():
    assert imported(signed(), signer=replace(key(ALICE), name="vendor")).signed_by == "vendor"
