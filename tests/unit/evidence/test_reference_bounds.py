"""Each bound of envelopes, bundles and CoRIMs from both sides; and that a refusal says what it saw."""

from __future__ import annotations

import base64
import json
from dataclasses import replace
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from chatelaine.evidence import dsse, errors, reference_files, reference_values, strict_json
from chatelaine.evidence.dsse import Envelope, Signature, VerifyingKey, parse_envelope, verify_envelope
from chatelaine.evidence.reference_files import GoodFile, check_file, read_files, write_files
from chatelaine.evidence.reference_values import read_payload, read_predicate, verify_bundle
from chatelaine.model.identifiers import canonical_json, digest_of
from chatelaine.model.tpm_policy import MAX_PEM_CHARACTERS
from support.reference_bundles import ALICE, BOB, CAROL, DIGEST, MALLORY, NOW, OLD_DIGEST, PREDICATE, bundle, source

STATEMENT = json.loads(PREDICATE.encode())


def envelope(*signatures: dict[str, Any], **members: Any) -> bytes:
    return json.dumps({"payload": "", "payloadType": "", "signatures": list(signatures)} | members).encode()


def predicate(**members: Any) -> reference_values.Predicate:
    return read_predicate(STATEMENT["predicate"] | members)


def refused(error: type[errors.EvidenceError], make: Any, *arguments: Any, **more: Any) -> errors.EvidenceError:
    with pytest.raises(error) as caught:
        make(*arguments, **more)
    return caught.value


# --- envelopes -------------------------------------------------------------------------------------------------


def test_envelope_with_all_that_it_may_hold_is_read() -> None:
    signature = {"sig": base64.b64encode(b"s" * dsse.MAX_SIGNATURE_BYTES).decode()}
    hint = "h" * dsse.MAX_KEY_ID_CHARACTERS
    found = parse_envelope(
        envelope(
            *[signature | {"keyid": hint}] * dsse.MAX_SIGNATURES, payloadType="t" * dsse.MAX_PAYLOAD_TYPE_CHARACTERS
        )
    )
    assert found.signatures == (Signature(b"s" * dsse.MAX_SIGNATURE_BYTES, hint),) * dsse.MAX_SIGNATURES
    assert parse_envelope(found.encode()) == found
    assert json.loads(found.encode())["signatures"][0] == signature | {"keyid": hint}


@pytest.mark.parametrize(
    "data",
    [
        envelope({"sig": base64.b64encode(b"s" * (dsse.MAX_SIGNATURE_BYTES + 1)).decode()}),
        envelope({"sig": "AAAA", "keyid": "h" * (dsse.MAX_KEY_ID_CHARACTERS + 1)}),
    ],
    ids=["signature", "hint"],
)
def test_signature_beyond_its_bounds_is_refused(data: bytes) -> None:
    refused(errors.EnvelopeMalformed, parse_envelope, data)


def test_envelope_of_as_many_marks_as_are_taken_is_read() -> None:
    def of_marks(commas: int) -> bytes:
        return envelope(*[{"sig": "AAAA", "keyid": "," * some} for some in (250, 250, 250, commas)])

    def marks(data: bytes) -> int:
        return sum(data.count(mark) for mark in (b'"', b",", b"[", b"{"))

    most = of_marks(dsse.MAX_MARKS - marks(of_marks(0)))
    assert marks(most) == dsse.MAX_MARKS
    assert len(parse_envelope(most).signatures) == 4
    error = refused(errors.EnvelopeMalformed, parse_envelope, most + b",")
    assert "too many" in error.detail


@pytest.mark.parametrize("mark", [b'"', b",", b"[", b"{"])
def test_flood_of_any_one_mark_is_refused_before_it_is_parsed(mark: bytes) -> None:
    assert "too many" in refused(errors.EnvelopeMalformed, parse_envelope, mark * (dsse.MAX_MARKS + 1)).detail


@pytest.mark.parametrize("spelling", ["+-AA", "+_AA", "/-AA", "/_AA", "AA+-", "++--"])
def test_two_alphabets_of_base64_in_one_text_are_refused(spelling: str) -> None:
    """Both readings of such a text would be one payload under two spellings."""
    error = refused(errors.EnvelopeMalformed, parse_envelope, envelope(payload=spelling))
    assert "two alphabets" in error.detail


@pytest.mark.parametrize(
    ("spelling", "data"), [("--AA", b"\xfb\xe0\x00"), ("__AA", b"\xff\xf0\x00"), ("AA_-", b"\0\x0f\xfe")]
)
def test_each_sign_of_the_url_safe_alphabet_is_read(spelling: str, data: bytes) -> None:
    assert parse_envelope(envelope(payload=spelling)).payload == data


def test_key_as_long_as_it_may_be_is_taken() -> None:
    pem = ALICE.listed().public_key
    longest = pem + "\n" * (MAX_PEM_CHARACTERS - len(pem))
    assert VerifyingKey.parse("alice", longest).key == ALICE.public
    error = refused(errors.ReferenceKeyRefused, VerifyingKey.parse, "alice", longest + "\n")
    assert error.expected == f"at most {MAX_PEM_CHARACTERS} characters"


def test_key_is_named_by_the_digest_of_its_der() -> None:
    for signer in (ALICE, BOB):
        der = signer.public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        key = VerifyingKey.parse(signer.name, signer.listed().public_key)
        assert (key.name, key.key_id) == (signer.name, digest_of(der))


@pytest.mark.parametrize(
    ("key", "found"),
    [
        (ec.generate_private_key(ec.SECP384R1()).public_key(), "secp384r1"),
        (rsa.generate_private_key(65537, 2048).public_key(), "RSAPublicKey"),
    ],
)
def test_kind_of_a_refused_key_is_said(key: Any, found: str) -> None:
    pem = key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
    error = refused(errors.ReferenceKeyRefused, VerifyingKey.parse, "mine", pem)
    assert (error.expected, error.found) == ("ECDSA P-256 or Ed25519", found)


def test_refused_envelope_says_what_was_expected() -> None:
    members = "['payload', 'payloadType', 'signatures']"
    assert refused(errors.EnvelopeMalformed, parse_envelope, b"{}").expected == members
    assert refused(errors.EnvelopeMalformed, parse_envelope, envelope({})).expected == "['keyid', 'sig']"
    keys = [VerifyingKey.parse(signer.name, signer.listed().public_key) for signer in (ALICE, BOB)]
    found = Envelope("type", b"", (MALLORY.sign(b"else"),))
    assert refused(errors.ThresholdNotMet, verify_envelope, found, keys, 1).found == "none, in 1 signatures"
    error = refused(errors.ReferenceKeyRefused, verify_envelope, found, [keys[0], replace(keys[0], name="al")], 1)
    assert error.found == "alice, al"


@pytest.mark.parametrize(
    ("data", "detail", "expected"),
    [
        (envelope(payload=1), "payload is not base64", None),
        (envelope(payload="AAAA!"), "payload is not in its one canonical", None),
        (envelope({"sig": 1}), "sig is not base64", None),
        (envelope({"sig": "AAAA", "keyid": 1}), "keyid is not a text of at most 256", None),
        (envelope(payloadType=1), "payloadType is not a text of at most 255", None),
        (envelope({"sig": ""}), "a signature is empty", "1 to 128 bytes"),
        (envelope(signatures=1), "signatures is not a list", "at most 16"),
        (b" " * (dsse.MAX_ENVELOPE_BYTES + 1), "the envelope is too long", "at most 16777216 bytes"),
    ],
    ids=lambda value: "" if isinstance(value, bytes) else value,
)
def test_refused_envelope_says_which_part(data: bytes, detail: str, expected: str | None) -> None:
    with pytest.raises((errors.EnvelopeMalformed, errors.EnvelopeOversized)) as caught:
        parse_envelope(data)
    if isinstance(caught.value, errors.EnvelopeOversized):
        assert caught.value.found == f"{len(data)} bytes"
    assert caught.value.detail.startswith(detail)
    assert caught.value.expected == expected


def test_keys_are_tried_until_one_has_signed() -> None:
    """Wrong ones first: unlisted, of the other kind, and one with the hint of somebody else who is listed."""
    found = Envelope("type", b"payload")
    wrong = (MALLORY.sign(found.message), Signature(b"\0"), CAROL.sign(b"else"))
    found = replace(found, signatures=(*wrong, ALICE.sign(found.message), BOB.sign(found.message)))
    keys = [VerifyingKey.parse(signer.name, signer.listed().public_key) for signer in (ALICE, BOB, CAROL)]
    assert verify_envelope(found, keys, 2) == ("alice", "bob")


# --- strict JSON -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "is_text"),
    [(0xD7FF, True), (0xD800, False), (0xDABC, False), (0xDFFF, False), (0xE000, True), (0x10FFFF, True)],
)
def test_each_half_of_a_character_is_no_text(code: int, is_text: bool) -> None:
    assert strict_json.is_text("é" + chr(code)) is is_text


# --- bundles ---------------------------------------------------------------------------------------------------


def hexes(count: int) -> list[str]:
    return [f"{number:064x}" for number in range(count)]


def test_predicate_with_all_that_it_may_hold_is_read() -> None:
    found = predicate(
        name="a" * 253,
        version=strict_json.MAX_INTEGER,
        pcrs={"Sha256": {"23": hexes(reference_values.MAX_PCR_VALUES)}},
        dbxAtLeast=hexes(reference_values.MAX_DBX_ENTRIES),
    )
    assert len(found.pcrs["Sha256"][23]) == reference_values.MAX_PCR_VALUES
    assert len(found.dbx_at_least) == reference_values.MAX_DBX_ENTRIES
    every = {str(index): ["ab" * 32] for index in range(24)}
    whole = predicate(pcrs={"Sha256": every, "Sha384": {"0": ["ab" * 48]}}).pcrs
    assert {bank.value: len(pcrs) for bank, pcrs in whole.items()} == {"Sha256": 24, "Sha384": 1}
    assert predicate(version=1).version == 1


def test_more_entries_of_dbx_than_may_be_are_refused() -> None:
    too_many = hexes(reference_values.MAX_DBX_ENTRIES + 1)
    error = refused(errors.ReferencePayloadRefused, predicate, dbxAtLeast=too_many)
    assert (error.detail.split()[0], error.expected) == ("dbxAtLeast", f"0 to {reference_values.MAX_DBX_ENTRIES}")


@pytest.mark.parametrize(("count", "good"), [(1, True), (16, True), (17, False), (0, False)])
def test_subjects_are_bounded(count: int, good: bool) -> None:
    payload = json.dumps(STATEMENT | {"subject": STATEMENT["subject"] * count}).encode()
    if good:
        assert read_payload(payload) == read_payload(PREDICATE.encode())
    else:
        refused(errors.ReferencePayloadRefused, read_payload, payload)


def test_payload_of_its_bound_is_read() -> None:
    payload = PREDICATE.encode()
    longest = payload + b" " * (dsse.MAX_ENVELOPE_BYTES - len(payload))
    assert read_payload(longest) == read_payload(payload)
    error = refused(errors.ReferencePayloadRefused, read_payload, longest + b" ")
    assert (error.detail, error.expected) == ("the payload is too long", f"at most {dsse.MAX_ENVELOPE_BYTES} bytes")


def test_statement_is_as_in_toto_has_it() -> None:
    inner = {
        "name": "baseline",
        "version": 7,
        "issuedAt": "2026-11-21T12:00:00Z",
        "pcrs": {"Sha256": {"4": ["11" * 32, "22" * 32], "7": ["77" * 32]}},
        "dbxAtLeast": ["aa" * 32, "bb" * 32],
        "files": [
            ["/usr/bin/", [["gateway", [OLD_DIGEST], NOW + 3600], ["gateway", [DIGEST]]]],
            ["/usr/lib/", [["libtpm.so", ["sha384:" + "cd" * 48, "sha512:" + "ef" * 64]]]],
        ],
    }
    subject = {"name": "baseline", "digest": {"sha256": digest_of(canonical_json(inner)).removeprefix("sha256:")}}
    wanted = {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [subject],
        "predicateType": "https://chatelaine.dev/reference-values/v1",
        "predicate": inner,
    }
    assert json.loads(PREDICATE.encode()) == wanted


@pytest.mark.parametrize(
    ("members", "expected", "found"),
    [
        ({"name": "A"}, "lower-case letters, digits, - and .", "A"),
        ({"version": 0}, "an integer from 1", "0"),
        ({"issuedAt": "now"}, "2026-01-31T12:00:00Z", "now"),
        ({"pcrs": {"Sha1": {}}}, "['Sha256', 'Sha384']", None),
        ({"pcrs": {"Sha256": {"24": []}}}, "0 to 23", None),
        ({"pcrs": {"Sha256": {"0": []}}}, "1 to 256", None),
        ({"dbxAtLeast": ["AA"]}, "64 lower-case hexadecimal digits", "AA"),
        ({"files": {}}, None, "dict"),
        ({"files": [["/"]]}, None, "['/']"),
        ({"files": [["/", [["a"]]]]}, None, "['a']"),
        ({"files": [["/", [["a", "b"]]]]}, None, "b"),
        ({"files": [["/", [["a", [DIGEST], None]]]]}, "seconds", "a"),
        ({"files": [["/", [["a", [DIGEST], 0]]]]}, "seconds", "0"),
        ({"files": [["/", [["a", []]]]]}, "1 to 64", "/a"),
        ({"files": [["/", [["a", ["b"]]]]]}, "sha256:, sha384: or sha512: and lower-case hexadecimal", "b for /a"),
        ({"files": [["", [["", [DIGEST]]]]]}, "1 to 4096 bytes", None),
        ({"files": [["/", [["a\0", [DIGEST]]]]]}, None, "/a?"),
        ({"more": 1}, "['dbxAtLeast', 'files', 'issuedAt', 'name', 'pcrs', 'version']", None),
    ],
    ids=str,
)
def test_refused_predicate_says_what_was_expected_and_found(
    members: dict[str, Any], expected: str | None, found: str | None
) -> None:
    error = refused(errors.ReferencePayloadRefused, predicate, **members)
    assert error.expected == expected
    if found is not None:
        assert error.found == found


def test_refused_statement_says_what_was_expected_and_found() -> None:
    def read(**members: Any) -> errors.EvidenceError:
        return refused(errors.ReferencePayloadRefused, read_payload, json.dumps(STATEMENT | members).encode())

    assert (read(_type="a").expected, read(_type="a").found) == ("https://in-toto.io/Statement/v1", "a")
    assert [read(**{name: "a"}).detail for name in ("_type", "predicateType")] == [
        "_type is another", "predicateType is another",
    ]  # fmt: skip
    assert (read(predicate=[]).found, read(more=1).found) == ("list", str(sorted([*STATEMENT, "more"])))
    assert read(subject=[{"name": "lab", "digest": {"a": "b"}}]).expected == "baseline"
    assert read(subject=[]).expected == "1 to 16"
    error = refused(errors.PayloadTypeRefused, verify_bundle, envelope(payloadType="a"), source(), not_below=0)
    assert (error.expected, error.found) == ("application/vnd.in-toto+json", "a")
    assert verify_bundle(bundle(), source(), not_below=7).version == 7


# --- rows of files ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("file", "good"),
    [
        (GoodFile("/" + "a" * 4095, (DIGEST,)), True),
        (GoodFile("/" + "a" * 4096, (DIGEST,)), False),
        (GoodFile("ä" * 2048, (DIGEST,)), True),
        (GoodFile("ä" * 2048 + "a", (DIGEST,)), False),
        (GoodFile("a", (DIGEST,), strict_json.MAX_INTEGER), True),
        (GoodFile("a", (DIGEST,), strict_json.MAX_INTEGER + 1), False),
        (GoodFile("a", (DIGEST,), 1), True),
        (GoodFile("a", (DIGEST,) * reference_files.MAX_DIGESTS_OF_A_ROW), True),
    ],
)  # fmt: skip
def test_bounds_of_a_row(file: GoodFile, good: bool) -> None:
    if good:
        assert check_file(file) is file
    else:
        refused(errors.ReferencePayloadRefused, check_file, file)


def test_prefixes_of_all_groups_count_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reference_files, "MAX_PREFIX_CHARACTERS", 12)
    group = ["/ab", [["a", [DIGEST]], ["b", [DIGEST]]]]
    assert len(read_files([group, group])) == 4
    error = refused(errors.ReferencePayloadRefused, read_files, [group, group, ["x", [["a", [DIGEST]]]]])
    assert error.expected == "12"
    assert len(read_files([group, group, ["", [["a", [DIGEST]]]]])) == 5


def test_rows_are_written_in_one_order() -> None:
    rows = [GoodFile("/a", (OLD_DIGEST,)), GoodFile("/a", (OLD_DIGEST, DIGEST), 9), GoodFile("/a", (DIGEST,))]
    written = [["/", [["a", [DIGEST, OLD_DIGEST], 9], ["a", [DIGEST]], ["a", [OLD_DIGEST]]]]]
    assert write_files(rows) == write_files(rows[::-1]) == written
