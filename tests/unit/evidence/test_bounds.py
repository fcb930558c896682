"""Each bound of evidence from both sides: the last value that is taken, and the first that is not."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import cbor2
import pytest

from chatelaine.evidence import bundle, cbor, errors
from chatelaine.evidence import tpm_algorithms as alg
from chatelaine.evidence.bundle import (
    CACHED_INVENTORY_BYTES,
    MAX_PCR_BYTES,
    LogFlaw,
    QuoteEvidence,
    decode_evidence,
    with_ima,
)
from chatelaine.evidence.hsm_statement import (
    MAX_SPKI_BYTES,
    MAX_STATEMENT_BYTES,
    MAX_TEXT_CHARACTERS,
    attestation_public_key,
    decode_statement,
)
from chatelaine.evidence.ima import MAX_IMA_BYTES
from chatelaine.evidence.inventory import MAX_ID_BYTES, MAX_USAGES, decode_inventory, encode_inventory
from chatelaine.evidence.inventory import MAX_TEXT_CHARACTERS as MAX_LABEL_CHARACTERS
from chatelaine.evidence.reader import Reader, bounded
from chatelaine.evidence.tpm_types import (
    MAX_PCRS,
)
from support.paper_host import PaperHost, spki, token_key
from support.paper_tpm import NONCE, PCRS, ecc_key

# --- reader -----------------------------------------------------------------------------------------------------


def test_a_reader_reads_to_the_last_byte_and_says_where_it_ends() -> None:
    reader = Reader(bytes.fromhex("01020304050607"), "thing")
    assert (reader.u8(), reader.u16(), reader.u32()) == (1, 0x0203, 0x04050607)
    reader.end()
    with pytest.raises(errors.Truncated) as refusal:
        reader.take(2)
    assert (refusal.value.detail, refusal.value.expected, refusal.value.found) == (
        "thing ends early at byte 7",
        "2 bytes",
        "0 bytes",
    )


def test_a_reader_says_how_much_is_left() -> None:
    reader = Reader(b"\x00\x02abc", "thing")
    assert reader.sized(2, "field") == b"ab"
    with pytest.raises(errors.TrailingBytes) as refusal:
        reader.end()
    assert (refusal.value.detail, refusal.value.expected, refusal.value.found) == (
        "thing is followed by 1 more bytes",
        "0 bytes",
        "1",
    )
    with pytest.raises(errors.Truncated) as early:
        reader.take(2)
    assert (early.value.detail, early.value.found) == ("thing ends early at byte 4", "1 bytes")


def test_a_sized_field_is_held_to_its_bound_before_it_is_read() -> None:
    assert Reader(b"\x00\x03abc", "thing").sized(3, "field") == b"abc"
    with pytest.raises(errors.Oversized) as refusal:
        Reader(b"\x00\x03", "thing").sized(2, "field")
    assert (refusal.value.detail, refusal.value.expected, refusal.value.found) == (
        "thing: field is too long",
        "at most 2 bytes",
        "3 bytes",
    )


def test_a_bound_is_told_with_what_is_over_it() -> None:
    assert bounded(b"abc", 3, "it") == b"abc"
    assert type(bounded(bytearray(b"abc"), 3, "it")) is bytes
    with pytest.raises(errors.Oversized) as refusal:
        bounded(b"abcd", 3, "it")
    assert (refusal.value.detail, refusal.value.expected, refusal.value.found) == (
        "it is too long",
        "at most 3 bytes",
        "4 bytes",
    )


# --- CBOR -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("depth", range(1, 12))
def test_nesting_is_bounded(depth: int) -> None:
    data = b"\x81" * depth + b"\x00"
    if depth <= cbor.MAX_DEPTH:
        assert cbor.encode(cbor.decode(data, limit_bytes=100, what="it")) == data
    else:
        with pytest.raises(errors.Malformed):
            cbor.decode(data, limit_bytes=100, what="it")


@pytest.mark.parametrize(
    ("value", "items"),
    [
        (0, 1),
        (23, 1),
        (24, 1),
        (2**16, 1),
        (2**64 - 1, 1),
        (-1, 1),
        (None, 1),
        ("x" * 23, 1),
        ("x" * 24, 1),
        (b"x" * 256, 1),
        (b"x" * 65536, 1),
        ([], 1),
        ([1, 2], 3),
        ([b"\x80\x80", 1], 3),
        ([2**64 - 1, 1], 3),
        (["\x00" * 30, 1], 3),
        ({"a": 1}, 3),
        ({"a": [1, {"b": "c"}]}, 7),
        ([list(range(30))], 32),
    ],
)
def test_values_are_counted_at_every_depth_and_contents_of_strings_are_not(value: object, items: int) -> None:
    data = cbor.encode(value)
    assert cbor.decode(data, limit_bytes=len(data), what="it", max_items=items) == value
    with pytest.raises(errors.Oversized, match="too many values"):
        cbor.decode(data, limit_bytes=len(data), what="it", max_items=items - 1)


@pytest.mark.parametrize(
    "data", [b"\x1c", b"\x1c" + bytes(30), b"\x1f", b"\x5f\x41\x00\xff", b"\x9f\x00\xff", b"\x3b", b"\x5a\x00"]
)
def test_what_cannot_be_counted_is_left_to_the_decoder(data: bytes) -> None:
    cbor.check_count(data, 4, "it")
    with pytest.raises(errors.Malformed, match="not CBOR"):
        cbor.decode(data, limit_bytes=100, what="it", max_items=4)


@pytest.mark.parametrize(
    ("data", "told", "expected", "found"),
    [
        (bytes(101), "it is too long", "at most 100 bytes", "101 bytes"),
        (b"\x84" + bytes(4), "it holds too many values", "at most 4", None),
        (b"\x1c", "it is not CBOR of the allowed kind", None, None),
        (b"\x18\x00", "it is not deterministic CBOR", None, None),
        (b"\x81\xa1\x41b\x00", "it: keys of maps must be text", None, "bytes"),
        (b"\xa1\x61a\xf9\x00\x00", "it holds a value of a kind that is not used", None, "float"),
        (b"\x81\xf9\x00\x00", "it holds a value of a kind that is not used", None, "float"),
    ],
)
def test_what_was_to_be_decoded_is_named(data: bytes, told: str, expected: str | None, found: str | None) -> None:
    with pytest.raises(errors.Malformed) as refusal:
        cbor.decode(data, limit_bytes=100, what="it", max_items=4)
    assert (refusal.value.detail, refusal.value.expected, refusal.value.found) == (told, expected, found)


def test_fields_are_told_with_what_is_expected_and_found() -> None:
    assert cbor.fields({"a": 1, "b": 2}, ("b", "a"), "it") == {"a": 1, "b": 2}
    for value, found in (({"b": 1, "c": 2}, "['b', 'c']"), ([1], "list"), ({"a": 1}, "['a']"), (None, "NoneType")):
        with pytest.raises(errors.Malformed) as refusal:
            cbor.fields(value, ("b", "a"), "it")
        assert (refusal.value.expected, refusal.value.found) == ("['a', 'b']", found)
    with pytest.raises(errors.Malformed) as mixed:
        cbor.fields({1: 0, "a": 0}, ("a",), "it")
    assert mixed.value.found == "['1', 'a']"


@pytest.mark.parametrize("tag", cbor.BUILT_IN_TAGS)
def test_every_tag_that_the_library_knows_is_refused_before_it_acts(tag: int) -> None:
    for inner in (0, "2020-01-01T00:00:00Z", b"\x01", [1, 2], {"a": 1}):
        with pytest.raises(errors.Malformed, match="not CBOR"):
            cbor.decode(cbor2.dumps(cbor2.CBORTag(tag, inner)), limit_bytes=100, what="it")


def test_keys_and_kinds_are_checked_at_every_depth() -> None:
    for value in ({b"b": 0}, {"a": {b"b": 0}}, [{b"b": 0}]):
        with pytest.raises(errors.Malformed, match="must be text") as refusal:
            cbor.decode(cbor2.dumps(value, canonical=True), limit_bytes=100, what="it")
        assert refusal.value.found == "bytes"
    for nested in ([[1.5]], {"a": [1.5]}, {"a": {"b": 1.5}}):
        with pytest.raises(errors.Malformed, match="not used") as refusal:
            cbor.decode(cbor2.dumps(nested, canonical=True), limit_bytes=100, what="it")
        assert refusal.value.found == "float"


# --- statement and inventory ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["serial", "manufacturer", "model", "firmware", "hardware_version"])
def test_texts_of_a_statement_are_bounded(name: str) -> None:
    honest = PaperHost().statement(NONCE, PCRS)
    longest = replace(honest, **{name: "x" * MAX_TEXT_CHARACTERS})
    assert decode_statement(longest.encode()) == longest
    with pytest.raises(errors.Malformed, match="short text"):
        decode_statement(replace(honest, **{name: "x" * (MAX_TEXT_CHARACTERS + 1)}).encode())


@pytest.mark.parametrize("flags", [0, 2**64 - 1])
def test_the_least_and_the_most_flags_are_read(flags: int) -> None:
    statement = replace(PaperHost().statement(NONCE, PCRS), flags=flags)
    assert decode_statement(statement.encode()).flags == flags


@pytest.mark.parametrize("name", ["mechanisms_digest", "inventory_digest", "pcr_digest", "nonce"])
def test_only_the_log_of_a_statement_may_be_absent(name: str) -> None:
    honest = PaperHost().statement(NONCE, PCRS)
    assert decode_statement(replace(honest, log_digest=None).encode()).log_digest is None
    with pytest.raises(errors.Malformed):
        decode_statement(replace(honest, **{name: None}).encode())


def test_a_statement_is_bounded_before_it_is_read() -> None:
    with pytest.raises(errors.Malformed):
        decode_statement(bytes(MAX_STATEMENT_BYTES))
    with pytest.raises(errors.Oversized):
        decode_statement(bytes(MAX_STATEMENT_BYTES + 1))


def test_a_key_of_the_token_is_bounded_before_it_is_read() -> None:
    assert attestation_public_key(spki(ecc_key(alg.NIST_P256)))
    with pytest.raises(errors.Oversized):
        attestation_public_key(bytes(MAX_SPKI_BYTES + 1))
    with pytest.raises(errors.Malformed):
        attestation_public_key(bytes(MAX_SPKI_BYTES))


@pytest.mark.parametrize(
    ("longest", "longer"),
    [
        ({"id": bytes(MAX_ID_BYTES)}, {"id": bytes(MAX_ID_BYTES + 1)}),
        ({"key_type": "x" * MAX_LABEL_CHARACTERS}, {"key_type": "x" * (MAX_LABEL_CHARACTERS + 1)}),
        ({"usages": ("x" * MAX_LABEL_CHARACTERS,)}, {"usages": ("x" * (MAX_LABEL_CHARACTERS + 1),)}),
        (
            {"usages": tuple(f"u{number:02}" for number in range(MAX_USAGES))},
            {"usages": tuple(f"u{number:02}" for number in range(MAX_USAGES + 1))},
        ),
    ],
    ids=["id", "type", "usage", "usages"],
)
def test_fields_of_a_key_are_bounded(longest: dict[str, object], longer: dict[str, object]) -> None:
    key = token_key("a", **longest)
    assert decode_inventory(encode_inventory([key])) == (key,)
    with pytest.raises(errors.Oversized):
        encode_inventory([token_key("a", **longer)])
    name = {"key_type": "type"}.get(next(iter(longer)), next(iter(longer)))
    (stored,) = cbor2.loads(encode_inventory([key]))
    value = next(iter(longer.values()))
    changed = stored | {name: list(value) if isinstance(value, tuple) else value}
    with pytest.raises(errors.Malformed):
        decode_inventory(cbor2.dumps([changed], canonical=True))


def test_a_key_listed_twice_is_read_twice() -> None:
    """Two objects may be alike in everything that is listed; the appraisal refuses them, not the decoder."""
    key = token_key("a")
    assert decode_inventory(encode_inventory([key, key])) == (key, key)


# --- the whole evidence -----------------------------------------------------------------------------------------


def stored(**changed: object) -> bytes:
    return cbor2.dumps(cbor2.loads(PaperHost().answer().encode()) | changed, canonical=True)


def test_stored_pcrs_are_read_up_to_their_bounds() -> None:
    for pcrs in ([[0, bytes(MAX_PCR_BYTES)]], [[MAX_PCRS - 1, b""]], [[index, b""] for index in range(MAX_PCRS)]):
        assert decode_evidence(stored(pcrs=pcrs)).pcrs == {index: value for index, value in pcrs}  # noqa: C416 -- pairs
    for pcrs in ([[0, bytes(MAX_PCR_BYTES + 1)]], [[MAX_PCRS, b""]]):
        with pytest.raises(errors.Malformed):
            decode_evidence(stored(pcrs=pcrs))


@pytest.mark.parametrize("pcrs", [5, None, True, "text", b"", {}])
def test_stored_pcrs_that_are_no_list_are_refused(pcrs: object) -> None:
    with pytest.raises(errors.Malformed, match="no short list"):
        decode_evidence(stored(pcrs=pcrs))


def test_stored_evidence_that_is_a_flood_of_tiny_values_is_refused_before_one_is_made() -> None:
    with pytest.raises(errors.Oversized, match="too many values"):
        decode_evidence(stored(pcrs=[0] * 1000))


def test_a_stored_list_is_named_by_offset_and_digest() -> None:
    blob = b"list"
    digest = hashlib.sha256(blob).digest()
    for offset in (0, 7, MAX_IMA_BYTES):
        evidence = decode_evidence(stored(ima=[offset, digest]), {digest: blob}.__getitem__)
        assert (evidence.ima_offset, evidence.ima_list) == (offset, blob)
    for ima in ([-1, digest], [MAX_IMA_BYTES + 1, digest], [0, digest, 0], [0], [True, digest], [0, digest[1:]], {}):
        with pytest.raises(errors.Malformed):
            decode_evidence(stored(ima=ima), {digest: blob}.get)
    with pytest.raises(errors.Malformed):
        decode_evidence(stored(ima=[0, digest]), lambda _: b"another")


def test_a_stored_log_is_named_by_its_digest() -> None:
    digest = hashlib.sha256(b"log").digest()
    assert decode_evidence(stored(event_log=digest), {digest: b"log"}.__getitem__).event_log == b"log"
    for name in (digest[1:], "text", 7):
        with pytest.raises(errors.Malformed):
            decode_evidence(stored(event_log=name), lambda _: b"log")
    with pytest.raises(errors.EvidencePartMissing) as refusal:
        decode_evidence(stored(event_log=digest))
    assert refusal.value.found == digest.hex()


def test_inventories_are_remembered_by_their_bytes_up_to_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    def decode(data: bytes) -> tuple[object, ...]:
        asked.append(len(data))
        return ()

    small, large = token_key("a"), [token_key("x" * 900 + str(number)) for number in range(80)]
    monkeypatch.setattr(bundle, "decode_inventory", decode)
    bundle._remembered.cache_clear()
    for keys, times in (((small,), 1), (tuple(large), 2)):
        host = PaperHost(keys=keys)
        size = len(host.answer().inventory)
        assert (size > CACHED_INVENTORY_BYTES) is (times == 2)
        asked.clear()
        host.judged()
        host.judged()
        assert asked == [size] * times
    bundle._remembered.cache_clear()


def test_a_flaw_says_all_that_the_error_did() -> None:
    error = errors.StatementSerialMismatch("another token", expected="a", found="b")
    assert LogFlaw.of(error) == LogFlaw(
        "StatementSerialMismatch", "another token", refutes=True, expected="a", found="b"
    )
    assert LogFlaw.of(errors.Malformed("form")) == LogFlaw("Malformed", "form", refutes=False)


def test_a_list_that_goes_on_from_elsewhere_shows_nothing() -> None:
    host = PaperHost()
    verified = host.judged()
    assert with_ima(verified, host.answer(), None) is verified
    evidence: QuoteEvidence = replace(host.answer(), ima_list=b"", ima_offset=5)
    flawed = with_ima(verified, evidence, None)
    assert flawed.ima is None
    assert flawed.ima_flaw == LogFlaw(
        "ImaProgressLost", "the list goes on from elsewhere", refutes=False, expected="0", found="5"
    )


def test_a_missing_log_is_told_with_what_the_statement_names() -> None:
    host = PaperHost()
    answered = replace(host.answer(event_log=b"log"), event_log=None)
    with pytest.raises(errors.StatementLogMismatch) as refusal:
        host.judged(answered, wants_log=True)
    assert (refusal.value.expected, refusal.value.found) == (hashlib.sha256(b"log").hexdigest(), "none")
    with pytest.raises(errors.StatementLogMismatch) as other:
        host.judged(replace(host.answer(), event_log=b"log"))
    assert (other.value.expected, other.value.found) == ("none", hashlib.sha256(b"log").hexdigest())
    assert host.judged(wants_log=True).boot_log is None
    assert host.judged(answered).boot_log is None
