"""IMA's list against PCR 10: the prefix rule, increments, and lists that lie about their form."""

from __future__ import annotations

import dataclasses
import hashlib
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tools.lab import ima as lab

from chatelaine.evidence import errors, ima
from chatelaine.evidence.ima import ImaProgress, extend, match_ascii_prefix, match_prefix, verify_ima
from chatelaine.evidence.ima_entry import MAX_ENTRY_BYTES
from chatelaine.evidence.tpm_quote import AttestationKey, VerifiedQuote, verify_quote
from chatelaine.evidence.tpm_types import Selection
from chatelaine.model.tpm_policy import Bank
from support.paper_ima import PaperIma, plain, sha256, start
from support.paper_tpm import PaperTpm

BASH, PYTHON = b"bash 5.2", b"python 3.11"


def some_list() -> PaperIma:
    """Every template that is known, and a violation."""
    paper = PaperIma.booted().ran("/usr/bin/bash", BASH).ran("/usr/bin/python3", PYTHON, b"\x03signature")
    paper.violated("/var/log/wtmp")
    paper.add("ima-buf", plain(".ima", b"a key") + lab.field(b"a key"))
    typed = lab.digest_field("ima:sha384", hashlib.sha384(BASH).digest()) + lab.path_field("/bin/typed")
    verity = lab.digest_field("verity:sha256", bytes(32)) + lab.path_field("/bin/verity")
    paper.add("ima-ngv2", typed).add("ima-sigv2", verity + lab.field(b"")).ran("/usr/bin/unsigned", BASH, b"")
    return paper.add("ima", lab.old_data(hashlib.sha1(BASH).digest(), "/bin/old")).ran("/usr/bin/last", PYTHON)


def quote_of(pcrs, *, resets: int = 5, restarts: int = 1, bank: Bank = Bank.SHA256) -> VerifiedQuote:
    """A quote that was verified."""
    selection = Selection(bank, tuple(pcrs))
    return VerifiedQuote("Ecdsa-Sha256", selection, pcrs, b"", b"", b"", 0, resets, restarts, True, 0)


# --- what an honest list says -----------------------------------------------------------------------------------


@pytest.mark.parametrize("bank", list(Bank))
def test_every_template_is_replayed_and_read(bank):
    paper = some_list()
    progress, entries = match_prefix(start(bank), paper.data, paper.pcrs[bank])
    assert (progress.entries, progress.offset_bytes, progress.pcr10) == (10, len(paper.data), paper.pcrs[bank])
    assert [entry.number for entry in entries] == list(range(10))
    assert not any(entry.flaw for entry in entries)
    assert [(entry.template, entry.path, entry.digest) for entry in entries[1:]] == [
        ("ima-ng", "/usr/bin/bash", sha256(BASH)),
        ("ima-sig", "/usr/bin/python3", sha256(PYTHON)),
        ("ima-ng", "/var/log/wtmp", f"sha256:{'00' * 32}"),
        ("ima-buf", ".ima", sha256(b"a key")),
        ("ima-ngv2", "/bin/typed", f"sha384:{hashlib.sha384(BASH).hexdigest()}"),
        ("ima-sigv2", "/bin/verity", f"verity:sha256:{'00' * 32}"),
        ("ima-sig", "/usr/bin/unsigned", sha256(BASH)),
        ("ima", "/bin/old", f"sha1:{hashlib.sha1(BASH).hexdigest()}"),
        ("ima-ng", "/usr/bin/last", sha256(PYTHON)),
    ]
    assert [entry.number for entry in entries if entry.violation] == [3]
    assert [(entry.number, entry.signature) for entry in entries if entry.signature] == [(2, b"\x03signature")]
    assert [(entry.number, entry.buffer) for entry in entries if entry.buffer] == [(4, b"a key")]


def test_template_hashes_are_computed_for_the_quoted_bank_and_a_violation_is_all_ones():
    paper = some_list()
    for bank, new in ((Bank.SHA256, hashlib.sha256), (Bank.SHA384, hashlib.sha384)):
        _, entries = match_prefix(start(bank), paper.data, paper.pcrs[bank])
        assert entries[1].template_hash == new(plain("/usr/bin/bash", BASH)).digest()
        assert entries[3].template_hash == b"\xff" * new().digest_size


def test_path_that_is_no_utf8_is_kept_apart_from_every_other_path():
    paper = PaperIma.booted().ran(b"/bin/\xff", BASH).ran(b"/bin/\xfe", BASH)
    _, entries = match_prefix(start(), paper.data, paper.pcr10)
    assert [entry.path.encode("utf-8", "surrogateescape") for entry in entries[1:]] == [b"/bin/\xff", b"/bin/\xfe"]


# --- the prefix rule --------------------------------------------------------------------------------------------


def test_what_was_appended_after_the_quote_is_ignored():
    paper = PaperIma.booted().ran("/usr/bin/bash", BASH)
    quoted = paper.pcr10
    paper.ran("/usr/bin/later", PYTHON)
    progress, entries = match_prefix(start(), paper.data, quoted)
    assert [entry.path for entry in entries] == ["boot_aggregate", "/usr/bin/bash"]
    assert progress.offset_bytes < len(paper.data)


@pytest.mark.parametrize(
    "tail", [b"\xff" * 100, b"\x0a", struct.pack("<I20sI", 10, bytes(20), 2**31), b"\x0a\0\0\0" + b"A" * 40]
)
def test_garbage_is_ignored_only_behind_the_matching_prefix(tail):
    paper = PaperIma.booted().ran("/usr/bin/bash", BASH)
    assert match_prefix(start(), paper.data + tail, paper.pcr10)[0].entries == 2
    with pytest.raises((errors.ImaNoPrefix, errors.Malformed)):
        match_prefix(start(), paper.data + tail, b"\x55" * 32)


def test_tail_that_is_cut_anywhere_behind_the_prefix_is_ignored_and_within_it_nothing_matches():
    paper = PaperIma.booted().ran("/usr/bin/bash", BASH)
    prefix, quoted = len(paper.data), paper.pcr10
    paper.ran("/usr/bin/later", PYTHON, b"\x03s")
    for end in range(prefix, len(paper.data)):
        assert match_prefix(start(), paper.data[:end], quoted)[0].offset_bytes == prefix
    for end in range(prefix):
        with pytest.raises(errors.ImaNoPrefix):
            match_prefix(start(), paper.data[:end], quoted)


def test_list_of_another_host_has_no_prefix_and_that_refutes_nobody():
    paper, other = PaperIma.booted().ran("/usr/bin/bash", BASH), PaperIma.booted().ran("/usr/bin/evil", BASH)
    with pytest.raises(errors.ImaNoPrefix, match="2 entries") as refusal:
        match_prefix(start(), paper.data, other.pcr10)
    assert refusal.value.authenticated is False


@given(st.data())
def test_no_single_changed_byte_of_what_is_hashed_goes_unseen(data):
    paper = PaperIma.booted().ran("/usr/bin/bash", BASH).ran("/usr/bin/python3", PYTHON, b"\x03s")
    _, honest = match_prefix(start(), paper.data, paper.pcr10)
    at = data.draw(st.integers(0, len(paper.data) - 1))
    changed = bytearray(paper.data)
    changed[at] ^= data.draw(st.integers(1, 255))
    try:
        _, entries = match_prefix(start(), bytes(changed), paper.pcr10)
    except (errors.ImaNoPrefix, errors.Malformed):
        return
    # Only what no PCR covers may differ: the listed SHA-1, and the template's name, which changes no digest or path.
    for entry, other in zip(honest, entries, strict=True):
        assert entry.template_hash == other.template_hash
        assert (other.path, other.digest) == (entry.path, entry.digest) or other.flaw


def test_entry_left_out_of_the_list_is_seen():
    with_it = PaperIma.booted().ran("/usr/bin/evil", BASH).ran("/usr/bin/python3", PYTHON)
    without = PaperIma.booted().ran("/usr/bin/python3", PYTHON)
    with pytest.raises(errors.ImaNoPrefix):
        match_prefix(start(), without.data, with_it.pcr10)


def test_entry_that_is_listed_twice_is_seen():
    paper = PaperIma.booted()
    begin = len(paper.data)
    paper.ran("/usr/bin/bash", BASH)
    entry, quoted = paper.data[begin:], paper.pcr10
    paper.ran("/usr/bin/python3", PYTHON)
    with pytest.raises(errors.ImaNoPrefix):
        match_prefix(start(), paper.data[:begin] + entry + entry + paper.data[begin + len(entry) :], paper.pcr10)
    # Behind the prefix it is nobody's concern.
    assert match_prefix(start(), paper.data[: begin + len(entry)] + entry, quoted)[0].entries == 2


def test_entry_that_claims_another_pcr_is_not_replayed_into_this_one():
    hidden = PaperIma.booted()
    begin = len(hidden.data)
    hidden.ran("/usr/bin/evil", BASH)
    relabelled = hidden.data[:begin] + struct.pack("<I", 11) + hidden.data[begin + 4 :]
    with pytest.raises(errors.ImaNoPrefix):
        match_prefix(start(), relabelled, hidden.pcr10)


def test_entry_of_another_pcr_is_handed_on_and_changes_nothing():
    paper = PaperIma.booted().add("ima-ng", plain("/usr/bin/else", BASH), pcr=11).ran("/usr/bin/bash", BASH)
    _, entries = match_prefix(start(), paper.data, paper.pcr10)
    assert [entry.pcr for entry in entries] == [10, 11, 10]


def test_measurement_relabelled_as_a_violation_is_seen_and_a_violation_as_a_measurement():
    data = plain("/usr/bin/evil", BASH)
    measured, violated = PaperIma.booted().add("ima-ng", data), PaperIma.booted().add("ima-ng", data, violation=True)
    for listed, extended in ((measured, violated), (violated, measured)):
        with pytest.raises(errors.ImaNoPrefix):
            match_prefix(start(), listed.data, extended.pcr10)


@pytest.mark.parametrize("listed", [b"\x01" * 20, b"\xff" * 20])
def test_template_hash_that_the_list_gives_is_not_believed(listed):
    data = plain("/usr/bin/bash", BASH)
    honest = PaperIma.booted().add("ima-ng", data)
    assert (
        match_prefix(start(), PaperIma.booted().add("ima-ng", data, listed=listed).data, honest.pcr10)[0].entries == 2
    )


def test_a_bank_extended_with_padded_sha1_is_not_followed():
    data = plain("/usr/bin/bash", BASH)
    value = hashlib.sha256(bytes(32) + hashlib.sha1(data).digest().ljust(32, b"\0")).digest()
    with pytest.raises(errors.ImaNoPrefix):
        match_prefix(start(), lab.record("ima-ng", data), value)


# --- templates that lie -----------------------------------------------------------------------------------------

NAMES = ("ima", "ima-ng", "ima-sig", "ima-buf", "ima-ngv2", "ima-sigv2", "evm-sig", "", "d-ng|n-ng")


@pytest.mark.parametrize("claimed", NAMES)
@pytest.mark.parametrize("true", ["ima", "ima-ng", "ima-sig", "ima-buf", "ima-ngv2"])
def test_template_name_that_lies_gives_no_other_digest_or_path(true, claimed):
    data = {
        "ima": lab.old_data(hashlib.sha1(BASH).digest(), "/bin/old"),
        "ima-ng": plain("/bin/x", BASH),
        "ima-sig": plain("/bin/x", BASH) + lab.field(b"\x03sig"),
        "ima-buf": plain("/bin/x", BASH) + lab.field(BASH),
        "ima-ngv2": lab.digest_field("ima:sha256", hashlib.sha256(BASH).digest()) + lab.path_field("/bin/x"),
    }[true]
    if claimed == "ima" and len(data) != 276:
        # It cannot even be written that way: what is hashed has another length.
        return
    paper = PaperIma.booted().add(true, data)
    lying = PaperIma.booted().data + lab.record(claimed, data)
    _, entries = match_prefix(start(), lying, paper.pcr10)
    entry = entries[1]
    weak = entry.digest.startswith("sha1:")
    assert entry.flaw or weak or (entry.path, entry.digest) == ("/bin/x", sha256(BASH))


@pytest.mark.parametrize(
    ("template", "data", "flaw"),
    [
        ("ima-ng", lab.digest_field("sha256", bytes(32)) + lab.field(b"/bin/a\0/bin/b\0"), "NUL"),
        ("ima-ng", lab.digest_field("sha256", bytes(32)) + lab.field(b"/bin/a"), "NUL"),
        ("ima-ng", lab.digest_field("sha256", bytes(32)) + lab.field(b"\0"), "empty"),
        ("ima-ng", lab.digest_field("sha256", bytes(32)) + lab.field(b""), "empty"),
        ("ima-ng", lab.digest_field("sha256", bytes(32)) + lab.field(b"a" * 4096 + b"\0"), "too long"),
        ("ima-ng", lab.digest_field("sha256", bytes(31)) + lab.path_field("/a"), "length"),
        ("ima-ng", lab.digest_field("sha256", bytes(33)) + lab.path_field("/a"), "length"),
        ("ima-ng", lab.digest_field("sm3", bytes(32)) + lab.path_field("/a"), "algorithm"),
        ("ima-ng", lab.digest_field("verity:sha256", bytes(32)) + lab.path_field("/a"), "algorithm"),
        ("ima-ng", lab.field(bytes(32)) + lab.path_field("/a"), "algorithm"),
        ("ima-ng", lab.field(b"") + lab.path_field("/a"), "algorithm"),
        ("ima-ng", plain("/a", BASH) + lab.field(b"more"), "fields"),
        ("ima-ng", plain("/a", BASH)[:-1], "fields"),
        ("ima-ng", plain("/a", BASH) + b"\0", "fields"),
        ("ima-ng", b"", "fields"),
        ("ima-sig", plain("/a", BASH), "fields"),
        ("ima-ng", struct.pack("<I", 2**32 - 1) + plain("/a", BASH), "fields"),
        ("ima-ng", lab.field(b"") * 16, "fields"),
        ("evm-sig", plain("/a", BASH), "not known"),
        ("ima", bytes(20) + b"/bin/a\0/bin/b".ljust(256, b"\0"), "NUL"),
        ("ima", bytes(276), "empty"),
    ],
)  # fmt: skip
def test_entry_whose_data_does_not_fit_its_template_is_measured_and_unreadable(template, data, flaw):
    paper = PaperIma.booted()
    value = hashlib.sha256(paper.pcr10 + hashlib.sha256(data).digest()).digest()
    _, entries = match_prefix(start(), paper.data + lab.record(template, data), value)
    assert flaw in entries[1].flaw
    assert not (entries[1].path and entries[1].digest)


def test_file_named_like_a_field_of_another_template_is_still_a_path():
    names = ["sha256:" + "00" * 32, "ima-sig", "boot_aggregate", "/bin/x 03020400", "/bin/x\n10 00 ima-ng sha256:00 /y"]
    paper = PaperIma.booted()
    for name in names:
        paper.ran(name, BASH)
    _, entries = match_prefix(start(), paper.data, paper.pcr10)
    assert [entry.path for entry in entries[1:]] == names
    assert {entry.digest for entry in entries[1:]} == {sha256(BASH)}


# --- bounds -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("length", [MAX_ENTRY_BYTES + 1, 2_000_000_000, 2**31, 2**32 - 1])
def test_two_billion_bytes_of_data_are_refused_before_they_are_awaited(length):
    head = struct.pack("<I20sI", 10, bytes(20), 6)
    with pytest.raises(errors.Oversized, match="data"):
        match_prefix(start(), head + b"ima-ng" + struct.pack("<I", length), bytes(31))
    with pytest.raises(errors.Oversized, match="data"):
        extend(start(), struct.pack("<I20sI", 10, bytes(20), 3) + b"ima" + bytes(20) + struct.pack("<I", length))


@pytest.mark.parametrize("length", [256, 2_000_000_000, 2**32 - 1])
def test_endless_template_name_is_refused(length):
    with pytest.raises(errors.Oversized, match="name"):
        match_prefix(start(), struct.pack("<I20sI", 10, bytes(20), length) + bytes(64), b"")


@pytest.mark.parametrize("pcr", [24, 255, 2**32 - 1])
def test_pcr_that_does_not_exist_is_refused(pcr):
    with pytest.raises(errors.Malformed, match="does not exist"):
        match_prefix(start(), lab.record("ima-ng", plain("/a", BASH), pcr=pcr), b"")


def test_list_chunk_and_sum_of_chunks_beyond_their_bounds_are_refused(monkeypatch):
    monkeypatch.setattr(ima, "MAX_IMA_BYTES", 100)
    monkeypatch.setattr(ima, "MAX_IMA_CHUNK_BYTES", 60)
    far = dataclasses.replace(start(), offset_bytes=50)
    for act in (
        lambda: match_prefix(start(), bytes(101), b""),
        lambda: match_ascii_prefix(start(), bytes(101), b""),
        lambda: match_prefix(far, bytes(51), b""),
        lambda: extend(start(), bytes(61)),
        lambda: extend(far, bytes(51)),
    ):
        with pytest.raises(errors.Oversized):
            act()


# --- increments -------------------------------------------------------------------------------------------------


def test_increment_is_judged_from_where_the_last_one_ended():
    paper = PaperIma.booted().ran("/usr/bin/bash", BASH)
    first = verify_ima(paper.data, quote_of({10: paper.pcr10}))
    assert (first.from_entry, len(first.entries)) == (0, 2)
    paper.ran("/usr/bin/python3", PYTHON)
    second = verify_ima(paper.data[first.progress.offset_bytes :], quote_of({10: paper.pcr10}), first.progress)
    assert (second.from_entry, [entry.number for entry in second.entries]) == (2, [2])
    assert second.progress.offset_bytes == len(paper.data)
    third = verify_ima(b"", quote_of({10: paper.pcr10}), second.progress)
    assert (third.entries, third.from_entry, third.progress) == ((), 3, second.progress)


def test_increment_from_another_offset_has_no_prefix():
    paper = PaperIma.booted().ran("/usr/bin/bash", BASH)
    first = verify_ima(paper.data, quote_of({10: paper.pcr10}))
    paper.ran("/usr/bin/python3", PYTHON).ran("/usr/bin/evil", BASH)
    for offset in (0, first.progress.offset_bytes - 1):
        with pytest.raises((errors.ImaNoPrefix, errors.Malformed)):
            verify_ima(paper.data[offset:], quote_of({10: paper.pcr10}), first.progress)


@pytest.mark.parametrize(
    "changed", [{"resets": 6}, {"resets": 4}, {"restarts": 2}, {"bank": Bank.SHA384}], ids=lambda value: str(value)
)
def test_progress_of_another_boot_or_bank_is_refused(changed):
    paper = PaperIma.booted()
    quote = quote_of({10: paper.pcrs[changed.get("bank", Bank.SHA256)]}, **changed)
    with pytest.raises(errors.ImaProgressLost):
        verify_ima(paper.data, quote, start())
    assert verify_ima(paper.data, quote).from_entry == 0


def test_without_a_quoted_pcr_10_nothing_is_verified():
    with pytest.raises(errors.PcrMissing):
        verify_ima(PaperIma.booted().data, quote_of({0: bytes(32)}))


def test_quote_of_a_real_selection_vouches_for_its_list():
    paper = some_list()
    tpm = PaperTpm()
    pcrs = {0: bytes(32), 10: paper.pcr10}
    selection = Selection(Bank.SHA256, (0, 10))
    attest, signature = tpm.quote(b"\x5a" * 32, pcrs, selection=selection.encoded)
    quote = verify_quote(
        attest, signature, ak=AttestationKey.parse(tpm.public), expected_extra_data=b"\x5a" * 32,
        selection=selection, pcrs=pcrs,
    )  # fmt: skip
    assert len(verify_ima(paper.data, quote).entries) == 10


@given(st.data())
def test_chunks_cut_anywhere_give_the_same_as_the_whole_list(data):
    paper = some_list()
    whole = match_prefix(start(), paper.data, paper.pcr10)
    progress, found = start(), []
    while progress.offset_bytes < len(paper.data):
        rest = len(paper.data) - progress.offset_bytes
        size = data.draw(st.integers(min(rest, 330), rest))
        progress, entries = extend(progress, paper.data[progress.offset_bytes :][:size])
        found += entries
    assert (progress, tuple(found)) == whole


def test_chunk_without_a_whole_entry_moves_nothing():
    assert extend(start(), PaperIma.booted().data[:-1]) == (start(), ())


def test_entries_are_numbered_on_from_those_that_no_quote_has_vouched_for_yet():
    paper = PaperIma.booted().ran("/usr/bin/bash", BASH)
    progress, entries = extend(start(), paper.data)
    paper.ran("/usr/bin/python3", PYTHON)
    found = verify_ima(paper.data[progress.offset_bytes :], quote_of({10: paper.pcr10}), progress)
    assert [entry.number for entry in (*entries, *found.entries)] == [0, 1, 2]
    assert found.from_entry == 2


def test_chunk_that_ran_ahead_of_the_quote_has_no_prefix():
    paper = PaperIma.booted()
    quoted = paper.pcr10
    progress, _ = extend(start(), paper.ran("/usr/bin/bash", BASH).data)
    with pytest.raises(errors.ImaNoPrefix):
        verify_ima(b"", quote_of({10: quoted}), progress)


def test_progress_starts_from_an_untouched_pcr():
    assert start(Bank.SHA384).pcr10 == bytes(48)
    assert ImaProgress.at_start_of(quote_of({10: bytes(32)})) == start()
