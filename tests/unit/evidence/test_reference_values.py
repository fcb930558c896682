"""Bundles: what is taken out of one, and every way in which one is refused."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatelaine.evidence import errors
from chatelaine.evidence.dsse import MAX_ENVELOPE_BYTES
from chatelaine.evidence.reference_files import GoodFile
from chatelaine.evidence.reference_values import (
    PAYLOAD_TYPE,
    Predicate,
    read_payload,
    read_predicate,
    verify_bundle,
)
from chatelaine.model.identifiers import digest_of
from chatelaine.model.tpm_policy import Bank, ReferenceKey
from support.reference_bundles import (
    ALICE,
    BOB,
    DIGEST,
    MALLORY,
    NOW,
    OLD_DIGEST,
    PREDICATE,
    bundle,
    signed,
    source,
)

STATEMENT = json.loads(PREDICATE.encode())


def verified(envelope: bytes, not_below: int = 0):
    return verify_bundle(envelope, source(), not_below=not_below)


def signed_statement(**members: object) -> bytes:
    return signed(json.dumps(STATEMENT | members).encode(), ALICE).encode()


def signed_predicate(**members: object) -> bytes:
    return signed_statement(predicate=STATEMENT["predicate"] | members)


# --- what is taken ---------------------------------------------------------------------------------------------


def test_bundle_that_enough_keys_have_signed_is_taken():
    found = verify_bundle(bundle(ALICE, BOB), source(threshold=2), not_below=7)
    assert (found.name, found.version, found.signed_by) == ("baseline", 7, ("alice", "bob"))
    assert found.digest == digest_of(PREDICATE.encode())
    assert found.pcrs == {Bank.SHA256: {4: ("11" * 32, "22" * 32), 7: ("77" * 32,)}}
    assert found.dbx_at_least == {b"\xaa" * 32, b"\xbb" * 32}
    assert len(found.files) == 4
    assert found.files.allows("/usr/bin/gateway", DIGEST, at=NOW)


def test_payload_that_is_encoded_otherwise_is_taken_as_it_was_signed():
    payload = json.dumps(STATEMENT, indent=4).encode()
    found = verified(signed(payload, ALICE).encode())
    assert found.pcrs == verified(bundle()).pcrs
    assert found.digest == digest_of(payload) != verified(bundle()).digest


def test_empty_bundle_allows_nothing():
    found = verified(bundle(pcrs={}, dbx_at_least=(), files=()))
    assert not found.files.allows("/usr/bin/gateway", DIGEST, at=NOW)
    assert (len(found.files), found.dbx_at_least, found.pcrs) == (0, frozenset(), {})


def test_what_was_taken_cannot_be_changed_afterwards():
    found = verified(bundle())
    with pytest.raises(TypeError):
        found.pcrs[Bank.SHA256][4] = ("00" * 32,)


# --- attacks ---------------------------------------------------------------------------------------------------


def test_bundle_that_too_few_of_the_keys_have_signed_is_refused():
    with pytest.raises(errors.ThresholdNotMet, match="2 of alice, bob, carol; found alice"):
        verify_bundle(bundle(ALICE, ALICE, MALLORY), source(threshold=2), not_below=0)


def test_bundle_under_a_policy_with_an_unusable_key_is_refused():
    broken = ReferenceKey(name="broken", public_key="-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n")
    policy = source().model_copy(update={"keys": [ALICE.listed(), broken]})
    with pytest.raises(errors.ReferenceKeyRefused):
        verify_bundle(bundle(), policy, not_below=0)


def test_version_that_was_rolled_back_is_refused():
    assert verified(bundle(version=6), not_below=6).version == 6
    with pytest.raises(errors.ReferenceRolledBack, match="version 7 or above; found 6"):
        verified(bundle(version=6), not_below=7)


def test_bundle_of_another_series_is_refused_however_high_its_version():
    with pytest.raises(errors.SeriesMismatch, match="baseline; found lab"):
        verified(bundle(name="lab", version=1000), not_below=7)


def test_name_that_was_changed_in_the_signed_payload_is_refused():
    envelope = signed(replace(PREDICATE, name="lab").encode(), ALICE)
    with pytest.raises(errors.ThresholdNotMet):
        verified(replace(envelope, payload=PREDICATE.encode()).encode())


def test_payload_that_was_encoded_again_is_refused():
    envelope = signed(PREDICATE.encode(), ALICE)
    again = json.dumps(STATEMENT).encode()
    assert again != envelope.payload
    with pytest.raises(errors.ThresholdNotMet):
        verified(replace(envelope, payload=again).encode())


@pytest.mark.parametrize("kind", ["application/json", "application/vnd.in-toto+json; charset=utf-8", ""])
def test_payload_that_was_signed_as_something_else_is_refused(kind):
    with pytest.raises(errors.PayloadTypeRefused):
        verified(signed(PREDICATE.encode(), ALICE, payload_type=kind).encode())


def test_payload_type_that_was_changed_after_signing_is_refused():
    envelope = signed(PREDICATE.encode(), ALICE, payload_type="application/json")
    with pytest.raises(errors.ThresholdNotMet):
        verified(replace(envelope, payload_type=PAYLOAD_TYPE).encode())


def test_payload_is_not_even_read_before_the_threshold_is_met():
    with pytest.raises(errors.ThresholdNotMet):
        verified(signed(b"\xff no statement", MALLORY).encode())


def test_predicate_of_another_type_that_the_same_keys_signed_is_refused():
    for other in ("https://slsa.dev/provenance/v1", "https://chatelaine.dev/reference-values/v2"):
        with pytest.raises(errors.ReferencePayloadRefused, match="predicateType"):
            verified(signed_statement(predicateType=other))


def test_statement_of_another_version_is_refused():
    with pytest.raises(errors.ReferencePayloadRefused, match="_type"):
        verified(signed_statement(_type="https://in-toto.io/Statement/v0.1"))


@pytest.mark.parametrize(
    ("honest", "doubled"),
    [
        (b'"version":7', b'"version":7,"version":8'),
        (b'"name":"baseline","pcrs"', b'"name":"baseline","name":"baseline","pcrs"'),
        (b'"pcrs":{', b'"pcrs":{},"pcrs":{'),
        (b'"4":[', b'"4":[],"4":['),
        (b'"predicateType"', b'"predicateType":"","predicateType"'),
        (b'"sha256":', b'"sha256":"","sha256":'),
    ],
)
def test_duplicate_members_of_the_payload_are_refused(honest, doubled):
    payload = PREDICATE.encode()
    assert payload.count(honest) == 1
    with pytest.raises(errors.ReferencePayloadRefused, match="twice"):
        verified(signed(payload.replace(honest, doubled), ALICE).encode())


@pytest.mark.parametrize("payload", [b"[" * 100_000 + b"]" * 100_000, b'{"a":' * 100_000 + b"1" + b"}" * 100_000])
def test_deep_nesting_is_refused(payload):
    with pytest.raises(errors.ReferencePayloadRefused, match="deep"):
        verified(signed(payload, ALICE).encode())


@pytest.mark.parametrize("payload", [b"", b"[]", b"null", b"\xff", b"{}", b'{"_type": 1e3}'])
def test_payload_that_is_no_statement_is_refused(payload):
    with pytest.raises(errors.ReferencePayloadRefused):
        verified(signed(payload, ALICE).encode())


@pytest.mark.parametrize(
    "members",
    [
        {"more": 1},
        {"subject": []},
        {"subject": None},
        {"subject": [{"name": "lab", "digest": {"sha256": "00" * 32}}]},
        {"subject": [{"name": "baseline", "digest": {}}]},
        {"subject": [{"name": "baseline"}]},
        {"predicate": None},
        {"predicate": []},
    ],
)
def test_other_statement_is_refused(members):
    with pytest.raises(errors.ReferencePayloadRefused):
        verified(signed_statement(**members))


@pytest.mark.parametrize(
    "members",
    [
        {"expires": "2026-12-01T00:00:00Z"},
        {"name": "Baseline"},
        {"name": ""},
        {"name": 7},
        {"version": 0},
        {"version": -7},
        {"version": True},
        {"version": "7"},
        {"version": 2**53},
        {"version": 7.0},
        {"issuedAt": "2026-11-21"},
        {"issuedAt": "2026-11-21T12:00:00"},
        {"issuedAt": "2026-11-21T12:00:00+00:00"},
        {"issuedAt": "2026-13-21T12:00:00Z"},
        {"issuedAt": 1800000000},
        {"pcrs": []},
        {"pcrs": {"Sha1": {"0": ["00" * 20]}}},
        {"pcrs": {"sha256": {"0": ["00" * 32]}}},
        {"pcrs": {"Sha256": {}}},
        {"pcrs": {"Sha256": {"24": ["00" * 32]}}},
        {"pcrs": {"Sha256": {"00": ["00" * 32]}}},
        {"pcrs": {"Sha256": {"-1": ["00" * 32]}}},
        {"pcrs": {"Sha256": {"\u0661": ["00" * 32]}}},
        {"pcrs": {"Sha256": {"0": []}}},
        {"pcrs": {"Sha256": {"0": "00" * 32}}},
        {"pcrs": {"Sha256": {"0": ["00" * 48]}}},
        {"pcrs": {"Sha256": {"0": ["AA" * 32]}}},
        {"pcrs": {"Sha256": {"0": ["00" * 32] * 2}}},
        {"pcrs": {"Sha256": {"0": [f"{n:064x}" for n in range(257)]}}},
        {"pcrs": {"Sha384": {"0": ["00" * 32]}}},
        {"dbxAtLeast": ["aa" * 48]},
        {"dbxAtLeast": ["aa" * 32] * 2},
        {"dbxAtLeast": None},
        {"files": {}},
        {"files": [["/usr/bin/", []], []]},
        {"files": [["/usr/bin/"]]},
        {"files": [7]},
        {"files": ["/a"]},
        {"files": [{"0": "/", "1": []}]},
        {"files": [["/", [7]]]},
        {"files": [["/", [None]]]},
        {"files": [["/", [{"0": "a", "1": []}]]]},
        {"files": [["/", [[1, [DIGEST]]]]]},
        {"files": [["/", [[]]]]},
        {"files": [[1, []]]},
        {"files": [["/usr/bin/", [["ls"]]]]},
        {"files": [["/usr/bin/", [["ls", DIGEST]]]]},
        {"files": [["/usr/bin/", [["ls", []]]]]},
        {"files": [["/usr/bin/", [["ls", [DIGEST], None]]]]},
        {"files": [["/usr/bin/", [["ls", [DIGEST], 0]]]]},
        {"files": [["/usr/bin/", [["ls", [DIGEST], -1]]]]},
        {"files": [["/usr/bin/", [["ls", [DIGEST], True]]]]},
        {"files": [["/usr/bin/", [["ls", [DIGEST], "2026-11-21T12:00:00Z"]]]]},
        {"files": [["/usr/bin/", [["ls", [DIGEST], 1, 1]]]]},
        {"files": [["/usr/bin/", [["ls", ["ab" * 32]]]]]},
        {"files": [["/usr/bin/", [["ls", ["sha1:" + "ab" * 20]]]]]},
        {"files": [["/usr/bin/", [["ls", ["sha256:" + "AB" * 32]]]]]},
        {"files": [["/usr/bin/", [["ls", [DIGEST + "\n"]]]]]},
        {"files": [["/usr/bin/", [["ls", [1]]]]]},
        {"files": [["/usr/bin/", [["ls\x00", [DIGEST]]]]]},
        {"files": [["/usr/bin/", [["\ud800", [DIGEST]]]]]},
        {"files": [["", [["", [DIGEST]]]]]},
        {"files": [["/" * 4096, [["x", [DIGEST]]]]]},
        {"files": [["/bin/", [["ls", [DIGEST, DIGEST]]]]]},
        {"files": [["/bin/", [["ls", [DIGEST]]]], ["/b", [["in/ls", [DIGEST]]]]]},
        {"files": [["/bin/", [["ls", [DIGEST], 5]]], ["/bin/", [["ls", [DIGEST]]]]]},
    ],
    ids=lambda members: json.dumps(members)[:60],
)
def test_other_predicate_is_refused(members):
    with pytest.raises(errors.ReferencePayloadRefused):
        verified(signed_predicate(**members))


@pytest.mark.parametrize("name", ["Baseline", "-a", "a-", "a b", "", "a" * 254, "ä", "a\n"])
def test_other_names_are_refused(name):
    with pytest.raises(errors.ReferencePayloadRefused, match="name is none"):
        read_predicate(STATEMENT["predicate"] | {"name": name})


def test_payload_is_bounded_even_where_no_envelope_bounds_it():
    with pytest.raises(errors.ReferencePayloadRefused, match="too long"):
        read_payload(b" " * (MAX_ENVELOPE_BYTES + 1))


def test_hostile_bundle_cannot_flood_a_message():
    with pytest.raises(errors.ReferencePayloadRefused) as refused:
        verified(signed_predicate(files=[["/usr/bin/" + "x" * 4000, [["\x1b[0m", ["y" * 4000]]]]]))
    assert len(str(refused.value)) < 600
    assert str(refused.value).isprintable()


# --- grace -----------------------------------------------------------------------------------------------------


def test_grace_that_has_ended_allows_nothing():
    files = verified(bundle()).files
    assert files.allows("/usr/bin/gateway", OLD_DIGEST, at=NOW + 3599)
    assert not files.allows("/usr/bin/gateway", OLD_DIGEST, at=NOW + 3600)
    assert not files.allows("/usr/bin/gateway", OLD_DIGEST, at=2**62)
    assert files.allows("/usr/bin/gateway", DIGEST, at=2**62)


# --- round trip ------------------------------------------------------------------------------------------------

hexes = st.integers(0, 2**256 - 1).map("{:064x}".format)
paths = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=12)
good_files = st.dictionaries(
    st.tuples(paths, hexes.map("sha256:{}".format)), st.none() | st.integers(1, 2**53 - 1), max_size=6
).map(lambda found: tuple(GoodFile(path, (digest,), until) for (path, digest), until in found.items()))
predicates = st.builds(
    Predicate,
    name=st.from_regex(r"[a-z0-9]([-a-z0-9.]{0,9}[a-z0-9])?", fullmatch=True),
    version=st.integers(1, 2**53 - 1),
    issued_at=st.just("2026-11-21T12:00:00Z"),
    pcrs=st.dictionaries(
        st.just(Bank.SHA256),
        st.dictionaries(
            st.integers(0, 23),
            st.lists(hexes, min_size=1, max_size=3, unique=True).map(lambda found: tuple(sorted(found))),
            min_size=1,
            max_size=3,
        ),
        max_size=1,
    ),
    dbx_at_least=st.lists(hexes, max_size=3, unique=True).map(lambda found: tuple(sorted(found))),
    files=good_files,
)


@given(predicates)
def test_what_is_encoded_is_read_back_and_has_one_encoding(predicate):
    found = read_payload(predicate.encode())
    assert replace(found, files=frozenset(found.files)) == replace(predicate, files=frozenset(predicate.files))
    assert found.encode() == predicate.encode()
