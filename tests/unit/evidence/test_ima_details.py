"""What refusals of IMA's lists and signatures tell, and each of their bounds from both sides."""

from __future__ import annotations

import dataclasses
import hashlib
import struct

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from tools.lab import ima as lab

from chatelaine.evidence import errors, ima
from chatelaine.evidence.ima import ImaProgress, extend, match_ascii_prefix, match_prefix, verify_ima
from chatelaine.evidence.ima_ascii import MAX_LINE_BYTES, ascii_records, is_ascii_list
from chatelaine.evidence.ima_binary import binary_records
from chatelaine.evidence.ima_entry import (
    MAX_ENTRY_BYTES,
    MAX_FIELDS,
    MAX_PATH_BYTES,
    MAX_TEMPLATE_NAME_BYTES,
    ImaEntry,
    ImaRecord,
    entry_of,
)
from chatelaine.evidence.ima_signature import MAX_FILE_SIGNATURE_BYTES, signing_key, verify_file_signature
from chatelaine.evidence.tpm_quote import VerifiedQuote
from chatelaine.evidence.tpm_types import MAX_PCRS, Selection
from chatelaine.model.tpm_policy import Bank
from support.paper_ima import PaperIma, file_signature, pem, plain, sha256, start
from support.paper_tpm import rsa_key

BASH = b"bash 5.2"


def quote_of(pcrs: dict[int, bytes], *, resets: int = 5, restarts: int = 1) -> VerifiedQuote:
    selection = Selection(Bank.SHA256, tuple(pcrs))
    return VerifiedQuote("Ecdsa-Sha256", selection, pcrs, b"", b"", b"", 0, resets, restarts, True, 0)


def told(error: type[errors.EvidenceError], act) -> tuple[str | None, str | None]:
    with pytest.raises(error) as refusal:
        act()
    return refusal.value.expected, refusal.value.found


# --- the list as a whole ----------------------------------------------------------------------------------------


def test_refusals_of_a_list_tell_what_was_expected_and_found() -> None:
    paper = PaperIma.booted()
    behind = dataclasses.replace(start(), pcr10=b"\x01" * 32)
    assert told(errors.PcrMissing, lambda: verify_ima(b"", quote_of({0: bytes(32)}))) == (None, "Sha256:0")
    lost = lambda: verify_ima(b"", quote_of({10: bytes(32)}, resets=6, restarts=2), start())  # noqa: E731 -- of one use
    assert told(errors.ImaProgressLost, lost) == ("6.2 Sha256", "5.1 Sha256")
    assert told(errors.ImaNoPrefix, lambda: match_prefix(start(), paper.data, b"\x05" * 32)) == (
        "05" * 32,
        paper.pcr10.hex(),
    )
    assert told(errors.ImaNoPrefix, lambda: match_prefix(behind, b"", b"\x05" * 32)) == ("05" * 32, "01" * 32)


@pytest.mark.parametrize(
    ("offset", "size", "told_limit", "told_size"),
    [(0, 61, 60, 61), (50, 51, 60, 101), (90, 11, 60, 101)],
)
def test_chunk_that_is_too_long_is_told_by_its_bound(monkeypatch, offset, size, told_limit, told_size) -> None:
    monkeypatch.setattr(ima, "MAX_IMA_BYTES", 100)
    monkeypatch.setattr(ima, "MAX_IMA_CHUNK_BYTES", 60)
    far = dataclasses.replace(start(), offset_bytes=offset)
    assert told(errors.Oversized, lambda: extend(far, bytes(size))) == (
        f"at most {told_limit} bytes", f"{told_size} bytes",
    )  # fmt: skip


def test_list_and_chunk_of_their_bounds_are_taken(monkeypatch) -> None:
    paper = PaperIma.booted()
    size = len(paper.data)
    far = dataclasses.replace(start(), offset_bytes=7, entries=3)
    monkeypatch.setattr(ima, "MAX_IMA_BYTES", size + 7)
    monkeypatch.setattr(ima, "MAX_IMA_CHUNK_BYTES", size)
    after = dataclasses.replace(far, offset_bytes=size + 7, entries=4, pcr10=paper.pcr10)
    assert match_prefix(far, paper.data, paper.pcr10)[0] == extend(far, paper.data)[0] == after
    monkeypatch.setattr(ima, "MAX_IMA_BYTES", len(paper.lines))
    assert match_ascii_prefix(start(), paper.lines, paper.pcr10)[0].entries == 1


def test_empty_prefix_that_is_quoted_already_reads_nothing() -> None:
    progress = ImaProgress(5, 1, Bank.SHA256, 9, 4, b"\x01" * 32)
    assert match_prefix(progress, b"\xff" * 99, b"\x01" * 32) == (progress, ())


# --- the binary list --------------------------------------------------------------------------------------------


def head(name_bytes: int, pcr: int = 10) -> bytes:
    return struct.pack("<I20sI", pcr, bytes(20), name_bytes)


@pytest.mark.parametrize(
    ("data", "what", "expected", "found"),
    [
        (head(3, pcr=24) + bytes(9), "an IMA entry", None, "24"),
        (head(256), "the template name of an IMA entry", "at most 255 bytes", "256"),
        (
            head(6) + b"ima-ng" + struct.pack("<I", 262_145),
            "the data of an IMA entry",
            "at most 262144 bytes",
            "262145",
        ),
        (head(3) + b"ima" + bytes(20) + struct.pack("<I", 257), "the data of an IMA entry", "at most 256 bytes", "257"),
    ],
)
def test_refusals_of_an_entry_tell_where_it_is_and_what_was_expected_and_found(data, what, expected, found) -> None:
    first = PaperIma.booted().data
    with pytest.raises(errors.Malformed) as refusal:
        list(binary_records(first + data))
    assert refusal.value.detail.startswith(f"{what} at byte {len(first)} is ")
    assert (refusal.value.expected, refusal.value.found) == (expected, found)


def test_longest_entry_and_longest_name_of_the_last_pcr_are_read() -> None:
    name, data = "n" * MAX_TEMPLATE_NAME_BYTES, b"d" * MAX_ENTRY_BYTES
    (record,) = binary_records(lab.record(name, data, pcr=MAX_PCRS - 1))
    assert record == (23, name.encode(), data, False, 28 + len(name) + 4 + len(data))


@pytest.mark.parametrize("path", ["/bin/x", "p" * 256, ""])
def test_entry_of_the_first_template_is_filled_up(path) -> None:
    data = lab.old_data(b"\x01" * 20, path)
    first = lab.record("ima", data)
    record, last = binary_records(first + lab.record("ima-ng", b"abc", listed=bytes(20)))
    assert record == (10, b"ima", data, False, len(first))
    assert (last.data, last.violation) == (b"abc", True)


@pytest.mark.parametrize("listed", [bytes(19) + b"\x01", b"\x01" + bytes(19)])
def test_hash_that_is_nearly_zero_is_no_violation(listed) -> None:
    assert [record.violation for record in binary_records(lab.record("ima-ng", b"", listed=listed))] == [False]


# --- the ASCII list ---------------------------------------------------------------------------------------------


def test_line_of_its_bound_is_read_and_a_longer_one_is_told() -> None:
    path = "p" * (MAX_LINE_BYTES - len(lab.ascii_line("ima-ng", plain("", BASH))) + 1)
    line = lab.ascii_line("ima-ng", plain(path, BASH))
    assert len(line) == MAX_LINE_BYTES + 1  # its newline besides
    assert [record.end_bytes for record in ascii_records(line + line)] == [len(line), 2 * len(line)]
    longer = lab.ascii_line("ima-ng", plain(path + "p", BASH))
    assert told(errors.ImaLineAmbiguous, lambda: list(ascii_records(longer))) == (
        f"at most {MAX_LINE_BYTES} bytes",
        None,
    )


@pytest.mark.parametrize("pcr", [0, 9, 10, 23])
def test_line_of_every_pcr_is_read(pcr) -> None:
    (record,) = ascii_records(lab.ascii_line("ima-ng", plain("/a", BASH), pcr=pcr))
    assert record[:4] == (pcr, b"ima-ng", plain("/a", BASH), False)


def test_old_line_of_its_longest_name_is_read() -> None:
    for name in ("n" * 256, "n" * 255, "a b"):
        data = lab.old_data(b"\x07" * 20, name)
        assert [record.data for record in ascii_records(lab.ascii_line("ima", data))] == [data]


@pytest.mark.parametrize(("digest", "name"), [(b"\x07" * 19, b"/a"), (b"\x07" * 21, b"/a"), (b"\x07" * 20, b"n" * 257)])
def test_old_line_that_could_not_be_measured_is_refused_though_its_hash_fits(digest, name) -> None:
    listed = hashlib.sha1(digest + name.ljust(256, b"\0")).hexdigest().encode()
    with pytest.raises(errors.ImaLineAmbiguous, match="line 1 of"):
        list(ascii_records(b"10 %s ima %s %s\n" % (listed, digest.hex().encode(), name)))


@pytest.mark.parametrize("path", [" /a", "/a  b", "/opt/a good", "/opt/a abc", "/opt/a XXXX", "/opt/a ab", "a\tb"])
@pytest.mark.parametrize("blank", [b"", b" "])
def test_path_whose_blanks_look_like_others_is_read_as_it_was_measured(path, blank) -> None:
    unsigned, bare = plain(path, BASH) + lab.field(b""), plain(path, BASH)
    assert [record.data for record in ascii_records(lab.ascii_line("ima-ng", bare))] == [bare]
    line = lab.ascii_line("ima-sig", unsigned).removesuffix(b" \n") + blank + b"\n"
    assert [record.data for record in ascii_records(line)] == [unsigned]


@pytest.mark.parametrize("data", [b"10 aa", b"9 aa", b"0"])
def test_list_that_begins_with_any_pcr_is_an_ascii_list(data) -> None:
    assert is_ascii_list(data)
    assert not is_ascii_list(b"\x0a" + data)
    assert not is_ascii_list(b"")


def test_digest_without_an_algorithm_is_read_as_it_was_hashed() -> None:
    """`d-ng` with no algorithm: a colon is neither written nor hashed."""
    data = lab.field(b"\0" + b"\x07" * 20) + lab.path_field("/a")
    line = b"10 %s ima-ng %s /a\n" % (hashlib.sha1(data).hexdigest().encode(), b"07" * 20)
    assert [record.data for record in ascii_records(line)] == [data]


@pytest.mark.parametrize("third", [b"\xab\xcd", b"\x00", b"abc"])
def test_signature_in_either_case_is_read(third) -> None:
    data = plain("/opt/x y", BASH) + lab.field(third)
    line = lab.ascii_line("ima-sig", data)
    shown = third.hex().encode()
    for written in (line, line.replace(b" " + shown, b" " + shown.upper())):
        assert [record.data for record in ascii_records(written)] == [data]


# --- entries ----------------------------------------------------------------------------------------------------


def read(template: bytes, data: bytes, *, violation: bool = False) -> ImaEntry:
    return entry_of(ImaRecord(10, template, data, violation, 0), 7, b"hash")


def test_every_field_of_an_entry_is_in_its_place() -> None:
    digest = sha256(BASH)
    whole = plain("/bin/x", BASH)
    assert read(b"ima-ng", whole) == (7, 10, "ima-ng", "/bin/x", digest, b"hash", None, None, False, "")
    assert read(b"ima-sig", whole + lab.field(b"s")) == (
        7, 10, "ima-sig", "/bin/x", digest, b"hash", b"s", None, False, "",
    )  # fmt: skip
    assert read(b"ima-buf", whole + lab.field(b"")) == (
        7, 10, "ima-buf", "/bin/x", digest, b"hash", None, b"", False, "",
    )  # fmt: skip
    assert read(b"ima", lab.old_data(b"\x01" * 20, "/old"), violation=True) == (
        7, 10, "ima", "/old", f"sha1:{'01' * 20}", b"hash", None, None, True, "",
    )  # fmt: skip
    for template, data in ((b"x\xff", whole), (b"ima-ng", b"abc"), (b"ima", bytes(276))):
        entry = read(template, data, violation=True)
        assert entry[:9] == (
            7, 10, template.decode("ascii", "replace"), "", "", b"hash", None, None, True,
        )  # fmt: skip
        assert entry.flaw


def test_path_of_its_bound_is_read_and_a_longer_one_is_a_flaw() -> None:
    longest = "p" * (MAX_PATH_BYTES - 1)
    assert read(b"ima-ng", plain(longest, BASH)).path == longest
    assert read(b"ima-ng", plain("a", BASH)).path == "a"
    assert "too long" in read(b"ima-ng", plain(longest + "p", BASH)).flaw


def test_path_behind_a_digest_with_a_flaw_is_shown_beside_the_flaw() -> None:
    entry = read(b"ima-ng", lab.digest_field("sha256", bytes(31)) + lab.path_field("/a"))
    assert (entry.path, entry.digest, "digest" in entry.flaw) == ("/a", "", True)
    entry = read(b"ima-ng", lab.digest_field("sha256", bytes(32)) + lab.field(b"/a"))
    assert (entry.path, entry.digest, "path" in entry.flaw) == ("", f"sha256:{'00' * 32}", True)


@pytest.mark.parametrize(("name", "size"), [("md5", 16), ("sha1", 20), ("sha256", 32), ("sha384", 48), ("sha512", 64)])
def test_digest_of_each_algorithm_is_named_by_it(name, size) -> None:
    assert read(b"ima-ng", lab.digest_field(name, bytes(size)) + lab.path_field("/a")).digest == f"{name}:{'00' * size}"
    for kind, shown in (("ima:", ""), ("verity:", "verity:")):
        data = lab.digest_field(f"{kind}{name}", bytes(size)) + lab.path_field("/a")
        assert read(b"ima-ngv2", data).digest == f"{shown}{name}:{'00' * size}"


@pytest.mark.parametrize("name", ["sm3", "sha256X", "", "verity:sha256"])
def test_digest_of_an_unknown_algorithm_is_a_flaw_of_any_length(name) -> None:
    for size in (0, 1, 20, 32):
        entry = read(b"ima-ng", lab.digest_field(name, bytes(size)) + lab.path_field("/a"))
        assert (entry.digest, entry.flaw) == ("", "the digest's algorithm is not known")


def test_data_of_too_many_fields_is_a_flaw() -> None:
    for count in (MAX_FIELDS, MAX_FIELDS + 1):
        assert "fields" in read(b"ima-ng", lab.field(b"a") * count).flaw
    assert "fields" in read(b"ima-ng", plain("/a", BASH) + b"\0\0\0").flaw


def test_old_path_ends_with_its_first_nul() -> None:
    assert read(b"ima", bytes(20) + b"/a" + bytes(254)).path == "/a"
    assert read(b"ima", bytes(20) + b"n" * 256).path == "n" * 256
    assert read(b"ima", bytes(20) + b"\xff" + bytes(255)).path == "\udcff"
    for rest in (b" ", b"X", b"\0X", b"/b"):
        assert read(b"ima", bytes(20) + b"/a\0" + rest + bytes(250)).flaw


# --- file signatures --------------------------------------------------------------------------------------------

KEY = rsa_key(2048, 200)
KEYS = (signing_key(pem(KEY)),)


@pytest.mark.parametrize(
    ("changed", "expected", "found"),
    [
        ({"kind": 5}, "type 3", "an EVM portable signature, which covers attributes that the list does not hold"),
        ({"kind": 9}, "type 3", "type 9"),
        ({"version": 3}, "2", "3"),
        ({"hash_id": 2}, "sha256, sha384 or sha512", "hash 2"),
        ({"hash_id": 6}, "sha256", "sha512"),
        ({"length": 2000}, "2000", "256"),
    ],
)
def test_refusals_of_a_signature_tell_what_was_expected_and_found(changed, expected, found) -> None:
    signature = file_signature(KEY, BASH, **changed)
    assert told(errors.FileSignatureRefused, lambda: verify_file_signature(signature, sha256(BASH), KEYS)) == (
        expected, found,
    )  # fmt: skip


def test_signature_of_nobody_is_told_by_the_key_it_names() -> None:
    forged = file_signature(KEY, b"another", key_id=b"\x01\x02\x03\x04")
    refusal = told(errors.FileSignatureInvalid, lambda: verify_file_signature(forged, sha256(BASH), KEYS))
    assert refusal == (None, "key id 01020304")


@pytest.mark.parametrize(("size", "error"), [
    (9, errors.FileSignatureRefused),
    (10, errors.FileSignatureInvalid),
    (MAX_FILE_SIGNATURE_BYTES, errors.FileSignatureInvalid),
    (MAX_FILE_SIGNATURE_BYTES + 1, errors.FileSignatureRefused),
])  # fmt: skip
def test_signature_is_judged_up_to_its_bound(size, error) -> None:
    made = struct.pack(">BBB4sH", 3, 2, 4, bytes(4), size - 9) + bytes(size - 9)
    with pytest.raises(error) as refusal:
        verify_file_signature(made, sha256(BASH), KEYS)
    assert refusal.value.found == (f"{size} bytes" if error is errors.FileSignatureRefused else "key id 00000000")


def unowned(bits: int) -> str:
    """An RSA key of so many bits, which nobody can sign with."""
    return pem(_Public(rsa.RSAPublicNumbers(65537, (1 << (bits - 1)) | 1).public_key()))


@dataclasses.dataclass(frozen=True)
class _Public:
    key: rsa.RSAPublicKey

    def public_key(self) -> rsa.RSAPublicKey:
        return self.key


@pytest.mark.parametrize(("bits", "fits"), [(2047, False), (2048, True), (4096, True), (4097, False)])
def test_signing_key_is_as_long_as_is_accepted(bits, fits) -> None:
    if fits:
        assert signing_key(unowned(bits)).key.key_size == bits
    else:
        assert told(errors.WeakKey, lambda: signing_key(unowned(bits))) == ("2048 bits", str(bits))


def test_signing_keys_that_are_refused_are_told() -> None:
    for key, error, said in (
        (ec.generate_private_key(ec.SECP521R1()), errors.WeakKey, ("NIST P-256 or P-384", "secp521r1")),
        (ed25519.Ed25519PrivateKey.generate(), errors.AlgorithmRefused, ("RSA or ECC", "Ed25519PublicKey")),
    ):
        assert told(error, lambda key=key: signing_key(pem(key))) == said
    assert told(errors.Malformed, lambda: signing_key("")) == ("-----BEGIN PUBLIC KEY-----", None)
