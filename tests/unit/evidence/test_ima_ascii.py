"""ASCII lists: read in the one way that has the listed SHA-1, or refused."""

from __future__ import annotations

import hashlib

import pytest
from tools.lab import ima as lab

from chatelaine.evidence import errors
from chatelaine.evidence.ima import match_ascii_prefix, match_prefix
from chatelaine.evidence.ima_ascii import MAX_LINE_BYTES, ascii_records, is_ascii_list
from support.paper_ima import PaperIma, plain, sha256, start

BASH = b"bash 5.2"
SHA1 = "aa" * 20


def some_list() -> PaperIma:
    paper = PaperIma.booted().ran("/usr/bin/bash", BASH).ran("/opt/a b c", BASH).ran("/opt/signed", BASH, b"\x03sig")
    paper.ran("/opt/with blank", BASH, b"\x03sig").ran("/opt/unsigned", BASH, b"").ran("/opt/ends in 0302", BASH, b"")
    paper.violated("/var/log/wtmp").add("ima-buf", plain("keyring", b"key") + lab.field(b"key"))
    typed = lab.digest_field("ima:sha256", hashlib.sha256(BASH).digest()) + lab.path_field("/opt/typed")
    return paper.add("ima-ngv2", typed).add("ima", lab.old_data(hashlib.sha1(BASH).digest(), "/opt/old one"))


def test_ascii_list_says_what_the_binary_one_says():
    paper = some_list()
    progress, entries = match_ascii_prefix(start(), paper.lines, paper.pcr10)
    assert progress.offset_bytes == len(paper.lines)
    assert entries == match_prefix(start(), paper.data, paper.pcr10)[1]
    assert is_ascii_list(paper.lines)
    assert not is_ascii_list(paper.data)


@pytest.mark.parametrize("template", ["ima-sig", "ima-buf"])
def test_absent_last_field_may_be_written_without_its_blank(template):
    data = plain("/opt/with blank", BASH) + lab.field(b"")
    paper = PaperIma.booted().add(template, data)
    lines = paper.lines.replace(b"blank \n", b"blank\n")
    assert lines != paper.lines
    assert match_ascii_prefix(start(), lines, paper.pcr10)[1][1].path == "/opt/with blank"


def test_path_that_looks_like_a_signature_is_read_by_its_hash():
    """`/bin/x 0302` unsigned, and `/bin/x` signed by 0302, are the same line but for its SHA-1."""
    unsigned = PaperIma.booted().ran("/bin/x 0302", BASH, b"")
    signed = PaperIma.booted().ran("/bin/x", BASH, b"\x03\x02")
    first = match_ascii_prefix(start(), unsigned.lines.replace(b"0302 \n", b"0302\n"), unsigned.pcr10)[1][1]
    second = match_ascii_prefix(start(), signed.lines, signed.pcr10)[1][1]
    assert (first.path, first.signature) == ("/bin/x 0302", None)
    assert (second.path, second.signature) == ("/bin/x", b"\x03\x02")


def test_file_whose_name_holds_a_forged_line_is_refused():
    good = lab.ascii_line("ima-ng", plain("/bin/good", BASH)).decode().strip()
    paper = PaperIma.booted().ran(f"/tmp/evil\n{good}", BASH)
    with pytest.raises(errors.ImaLineAmbiguous, match="line 2"):
        match_ascii_prefix(start(), paper.lines, paper.pcr10)


def test_lines_behind_the_matching_prefix_are_not_read():
    paper = PaperIma.booted().ran("/usr/bin/bash", BASH)
    assert match_ascii_prefix(start(), paper.lines + b"nonsense\n", paper.pcr10)[0].entries == 2
    assert match_ascii_prefix(start(), paper.lines + b"10 half a li", paper.pcr10)[0].entries == 2


def test_last_line_that_is_cut_is_left_out():
    paper = PaperIma.booted()
    whole = paper.pcr10
    lines = paper.ran("/usr/bin/bash", BASH).lines
    for end in range(len(PaperIma.booted().lines), len(lines)):
        assert match_ascii_prefix(start(), lines[:end], whole)[0].entries == 1
        with pytest.raises(errors.ImaNoPrefix):
            match_ascii_prefix(start(), lines[:end], paper.pcr10)


@pytest.mark.parametrize(
    "line",
    [
        "",
        "10",
        f"10 {SHA1} ima-ng sha256:{'00' * 32}",
        f"24 {SHA1} ima-ng sha256:{'00' * 32} /a",
        f"-1 {SHA1} ima-ng sha256:{'00' * 32} /a",
        f"010 {SHA1} ima-ng sha256:{'00' * 32} /a",
        f"10 {SHA1}aa ima-ng sha256:{'00' * 32} /a",
        f"10 {'zz' * 20} ima-ng sha256:{'00' * 32} /a",
        f"10 {SHA1} ima-xx sha256:{'00' * 32} /a",
        f"10 {SHA1} ima-ng sha256:{'0' * 63} /a",
        f"10 {SHA1} ima-ng sha256:xx /a",
        f"10 {SHA1} ima-ng sha256:{'00' * 32} /a",
        f"10 {SHA1} ima-sig sha256:{'00' * 32} /a 0302",
        f"10 {SHA1} ima {'00' * 20} /a",
        f"10 {SHA1} ima {'00' * 19} /a",
        f"10 {SHA1} ima {'00' * 20} {'a' * 257}",
    ],
)
def test_line_that_can_be_read_in_no_way_is_refused(line):
    with pytest.raises(errors.ImaLineAmbiguous, match="line 1 of"):
        list(ascii_records(line.encode() + b"\n"))


def test_line_of_a_template_that_is_not_known_is_refused_though_its_hash_fits():
    with pytest.raises(errors.ImaLineAmbiguous, match="known template"):
        list(ascii_records(lab.ascii_line("evm-sig", plain("/a", BASH) + lab.field(b"x"))))


def test_endless_line_is_refused():
    with pytest.raises(errors.ImaLineAmbiguous, match="too long"):
        list(ascii_records(b"1" * (MAX_LINE_BYTES + 1) + b"\n"))


def test_violation_is_read_though_nothing_vouches_for_its_text():
    paper = PaperIma.booted().violated("/a b 0302")
    entry = match_ascii_prefix(start(), paper.lines, paper.pcr10)[1][1]
    assert entry.violation
    assert entry.path == "/a b 0302"


def test_measured_file_keeps_its_digest():
    paper = PaperIma.booted().ran("/opt/a b c", BASH)
    assert match_ascii_prefix(start(), paper.lines, paper.pcr10)[1][1].digest == sha256(BASH)
