"""Bounds of CoRIMs, and what is said of those that are refused."""

from __future__ import annotations

from typing import Any

import cbor2
import pytest
from cbor2 import CBORTag

from chatelaine.evidence import corim, corim_cbor
from chatelaine.evidence.dsse import VerifyingKey
from chatelaine.evidence.errors import CorimRefused
from support.reference_bundles import ALICE, NOW

FIRST = b"\x11" * 32


def manifest(*measurements: object, environment: object = None, **more: object) -> bytes:
    comid = {4: {0: [[{0: {1: "ACME"}} if environment is None else environment, list(measurements)]]}}
    tags = [CBORTag(506, cbor2.dumps(comid))]
    return cbor2.dumps(CBORTag(501, {1: tags, **{int(name[1:]): value for name, value in more.items()}}))


def measured(key: object = 4, *digests: object) -> dict[int, object]:
    return {0: key, 1: {2: list(digests) or [[1, FIRST]]}}


def refused(make: Any, *arguments: Any, **more: Any) -> CorimRefused:
    with pytest.raises(CorimRefused) as caught:
        make(*arguments, **more)
    return caught.value


@pytest.mark.parametrize(("left_out", "last"), [(64, "63"), (65, "1 more"), (66, "2 more")])
def test_what_was_left_out_is_counted_from_the_bound_on(left_out: int, last: str) -> None:
    found = corim.import_corim(manifest(measured(), *(measured(f"part {n}") for n in range(left_out))), at=NOW)
    assert len(found.left_out) == min(left_out, 65)
    assert last in found.left_out[-1]


def test_environment_is_told_in_order_and_cut() -> None:
    described = {2: "model", 1: "vendor", 0: "class"}
    assert corim.import_corim(manifest(measured(), environment={0: described}), at=NOW).environments == (
        "class, vendor, model",
    )
    assert corim.import_corim(manifest(measured(), environment={1: 1}), at=NOW).environments == (
        "an instance or group",
    )
    long = corim.import_corim(manifest(measured(), measured("b" * 200), environment={0: {1: "a" * 200}}), at=NOW)
    assert long.environments == ("a" * 120 + "…",)
    assert (len(long.left_out[0]), long.left_out[0][-1]) == (121, "…")


def test_environment_of_values_that_were_known_already_is_not_told() -> None:
    records = [[{0: {1: name}}, [measured()]] for name in ("first", "second")]
    data = cbor2.dumps(CBORTag(501, {1: [CBORTag(506, cbor2.dumps({4: {0: records}}))]}))
    assert corim.import_corim(data, at=NOW).environments == ("first",)


@pytest.mark.parametrize(
    ("data", "found"),
    [
        (manifest(measured(), _3="profile"), "profile"),
        (manifest(measured("part")), "measurement 'part': it is no PCR"),
        (manifest(measured(4, [1, b"\x11"])), "11"),
        (manifest(measured(4, [1.5, b""])), "[1.5, b'']"),
        (manifest(measured(4, [1, FIRST], [-16, FIRST])), "-16"),
        (manifest(4), "int"),
        (manifest({0: 4, 1: {2: b"a"}}), "bytes"),
        (manifest(measured(4, [1, FIRST, 1])), "3"),
    ],
)  # fmt: skip
def test_refused_corim_says_what_was_found(data: bytes, found: str) -> None:
    assert refused(corim.import_corim, data, at=NOW).found == found


def test_measurement_without_a_key_and_with_a_tag_is_named() -> None:
    tagged, without = measured(CBORTag(37, b"1")), {1: {2: [[1, FIRST]]}}
    asks = {0: 4, 1: {2: [[1, FIRST]], 1: "v", 0: 1}, 3: 1, 2: []}
    found = corim.import_corim(manifest(measured(), tagged, without, asks), at=NOW)
    assert found.left_out == (
        "measurement b'1': it is no PCR",
        "measurement without a key: it is no PCR",
        "measurement 4: it also asks for value 1, value 0, field 3, an authority",
    )


def test_digests_of_several_unknown_algorithms_are_several() -> None:
    found = corim.import_corim(manifest(measured(4, [1, FIRST], [98, b"a"], [99, b"b"])), at=NOW)
    assert [pcrs[4] for pcrs in found.pcrs.values()] == [(FIRST.hex(),)]
    assert len(found.left_out) == 2


def test_module_without_reference_values_is_left_out() -> None:
    values = [[{0: {1: "ACME"}}, [measured()]]]
    tags = [CBORTag(506, cbor2.dumps({4: triples})) for triples in ({1: []}, {0: values})]
    found = corim.import_corim(cbor2.dumps(CBORTag(501, {1: tags})), at=NOW)
    assert (found.left_out, len(found.pcrs)) == (("triples of kind 1",), 1)


@pytest.mark.parametrize(
    ("comid", "detail"),
    [
        ({}, "triples: not a map"),
        ({4: {0: 5}}, "reference-value triples: not an array"),
        ({4: {0: [[{}, [{0: 4, 1: {2: 5}}]]]}}, "digests: not an array"),
    ],
)
def test_module_of_another_form_is_told_by_its_part(comid: dict[int, object], detail: str) -> None:
    data = cbor2.dumps(CBORTag(501, {1: [CBORTag(506, cbor2.dumps(comid))]}))
    assert refused(corim.import_corim, data, at=NOW).detail == detail


@pytest.mark.parametrize("number", sorted(corim_cbor.BUILT_IN_TAGS))
def test_tag_that_the_decoder_would_take_apart_is_kept(number: int) -> None:
    assert corim_cbor.decode(cbor2.dumps(CBORTag(number, 5)), "it") == CBORTag(number, 5)


def test_signed_corim_has_four_parts() -> None:
    key = VerifyingKey.parse("alice", ALICE.listed().public_key)
    error = refused(corim.import_corim, cbor2.dumps(CBORTag(18, [b"", {}, b""])), at=NOW, signer=key)
    assert error.expected == "four parts"


def test_corim_of_its_bound_is_read() -> None:
    short = manifest(measured(), _9=b"a" * 70_000)
    longest = manifest(measured(), _9=b"a" * (70_000 + corim_cbor.MAX_CORIM_BYTES - len(short)))
    assert len(longest) == corim_cbor.MAX_CORIM_BYTES
    assert corim.import_corim(longest, at=NOW).pcrs
    error = refused(corim_cbor.decode, longest + b"\0", "it")
    assert error.found == f"{corim_cbor.MAX_CORIM_BYTES + 1}"


@pytest.mark.parametrize(("items", "good"), [(corim_cbor.MAX_ITEMS, True), (corim_cbor.MAX_ITEMS + 1, False)])
def test_values_of_a_corim_are_bounded(items: int, good: bool) -> None:
    data = cbor2.dumps([0] * (items - 1))
    if good:
        assert corim_cbor.decode(data, "it") == [0] * (items - 1)
    else:
        error = refused(corim_cbor.decode, data, "it")
        assert (error.detail, error.expected) == ("it holds too many values", f"at most {corim_cbor.MAX_ITEMS}")


def test_nesting_of_a_corim_is_bounded() -> None:
    deepest = b"\x81" * corim_cbor.MAX_DEPTH + b"\x80"
    assert corim_cbor.decode(deepest, "it")
    refused(corim_cbor.decode, b"\x81" + deepest, "it")


@pytest.mark.parametrize("validity", [{1: CBORTag(1, NOW), 2: 0}, {1: CBORTag(1, True)}, {0: 0, 1: CBORTag(1, NOW)}, 1])
def test_validity_with_anything_else_in_it_is_refused(validity: object) -> None:
    error = refused(corim.import_corim, manifest(measured(), _4=validity), at=NOW)
    assert error.detail.startswith("the validity of the ")
    assert error.detail.endswith(" cannot be read")


@pytest.mark.parametrize("parts", [["", {}, b"", b""], [b"\xa0", [], b"", b""], [b"\xa0", {}, b"", ""]])
def test_parts_of_a_signed_corim_are_of_their_kinds(parts: list[object]) -> None:
    key = VerifyingKey.parse("alice", ALICE.listed().public_key)
    error = refused(corim.import_corim, cbor2.dumps(CBORTag(18, parts)), at=NOW, signer=key)
    assert error.expected == "bytes, map, bytes, bytes"


def test_refused_validity_says_when_it_would_hold() -> None:
    early = refused(corim_cbor.validity, {0: CBORTag(1, 5), 1: CBORTag(1, 9)}, 4, "it")
    late = refused(corim_cbor.validity, {0: CBORTag(1, 5), 1: CBORTag(1, 9)}, 10, "it")
    assert (early.expected, early.found, late.expected, late.found) == ("at 5 or later", "4", "at 9 or before", "10")


def sign1(header: dict[int, object], signature: bytes, payload: object = b"") -> bytes:
    return cbor2.dumps(CBORTag(18, [cbor2.dumps(header), {}, payload, signature]))


@pytest.mark.parametrize(
    ("header", "expected", "found"),
    [
        ({1: -7, 2: [1], 3: "application/rim+cbor"}, None, "[1]"),
        ({1: -7, 3: "text"}, "application/rim+cbor", "text"),
        ({1: -8, 3: "application/rim+cbor"}, "-7", "-8"),
        ({1: -7.0, 3: "application/rim+cbor"}, "-7", "-7.0"),
        ({1: -7, 3: "application/rim+cbor"}, "64", "3"),
    ],
)
def test_refused_signature_says_what_was_expected_and_found(
    header: dict[int, object], expected: str | None, found: str
) -> None:
    key = VerifyingKey.parse("alice", ALICE.listed().public_key)
    error = refused(corim.import_corim, sign1(header, b"abc"), at=NOW, signer=key)
    assert (error.expected, error.found) == (expected, found)
