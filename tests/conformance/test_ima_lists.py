"""The list of measurements of a real machine: every line is read as its kernel hashed it, and no changed one is."""

from __future__ import annotations

import hashlib
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tools.lab import ima as lab

from chatelaine.appraisal.ima_rules import ima_rule
from chatelaine.evidence import errors
from chatelaine.evidence.ima import VerifiedIma, match_ascii_prefix, match_prefix
from chatelaine.evidence.ima_ascii import ascii_records
from chatelaine.model.tpm_policy import Bank, ImaRules
from chatelaine.model.verdict import Outcome
from support.paper_ima import GracefulFiles, start
from support.vectors import VECTORS, needs_vectors

pytestmark = needs_vectors

ENTRIES = 826
LINE = re.compile(rb"10 ([0-9a-f]{40}) ima-ng (sha1):([0-9a-f]{40}) (.*)")


def the_list() -> bytes:
    return (VECTORS / "tpm" / "ima" / "ascii_runtime_measurements").read_bytes()


def the_data() -> list[bytes]:
    """Template data of every line, put together here, by other means than the parser's."""
    found = [LINE.fullmatch(line) for line in the_list().splitlines()]
    data = [
        lab.digest_field(match[2].decode(), bytes.fromhex(match[3].decode())) + lab.path_field(match[4])
        for match in found
        if match is not None
    ]
    assert [hashlib.sha1(part).hexdigest().encode() for part in data] == [m[1] for m in found if m is not None]
    return data


def pcr_of(data: list[bytes], bank: Bank) -> bytes:
    """PCR 10 as this machine's TPM would have had it in `bank`."""
    value = start(bank).pcr10
    for part in data:
        value = hashlib.new(bank.value.lower(), value + lab.extension(part, bank.value.lower())).digest()
    return value


@pytest.mark.parametrize("bank", list(Bank))
def test_every_line_is_read_as_it_was_hashed_and_replayed(bank):
    data = the_data()
    progress, entries = match_ascii_prefix(start(bank), the_list(), pcr_of(data, bank))
    assert progress.entries == len(entries) == ENTRIES
    assert not any(entry.flaw or entry.violation for entry in entries)
    assert entries[0].path == "boot_aggregate"
    assert entries[2].path == "/bin/sh"
    assert {entry.digest[:5] for entry in entries} == {"sha1:"}


@pytest.mark.parametrize("count", [0, 1, 2, 400, ENTRIES - 1])
def test_every_prefix_of_it_is_found(count):
    data = the_data()
    quoted = pcr_of(data[:count], Bank.SHA256)
    assert match_ascii_prefix(start(), the_list(), quoted)[0].entries == count


def test_binary_form_of_the_list_says_the_same():
    data = the_data()
    quoted = pcr_of(data, Bank.SHA384)
    binary = b"".join(lab.record("ima-ng", part) for part in data)
    first = match_ascii_prefix(start(Bank.SHA384), the_list(), quoted)[1]
    assert match_prefix(start(Bank.SHA384), binary, quoted)[1] == first


def test_files_of_a_kernel_that_measures_with_sha1_are_refused_whatever_a_list_says():
    data = the_data()
    progress, entries = match_ascii_prefix(start(), the_list(), pcr_of(data, Bank.SHA256))
    files = GracefulFiles({entry.path: {entry.digest: None} for entry in entries})
    finding = ima_rule(ImaRules(), files, at=0).judge_ima(VerifiedIma(entries, progress, 0))
    assert finding.outcome is Outcome.REFUTED
    assert {leaf.reason for leaf in finding.leaves() if leaf.outcome is Outcome.REFUTED} == {"ImaWeakDigest"}


@given(st.data())
def test_no_changed_line_of_it_is_read(data):
    line = bytearray(data.draw(st.sampled_from(the_list().splitlines(keepends=True))))
    whole = next(ascii_records(bytes(line))).data
    at = data.draw(st.integers(3, len(line) - 2))
    line[at] ^= data.draw(st.integers(1, 255))
    try:
        found = list(ascii_records(bytes(line)))
    except errors.ImaLineAmbiguous:
        return
    # A hexadecimal digit in the other case is the same digit.
    assert [record.data for record in found] == [whole]
