"""Logs that come with the evidence of a whole host: bound by the statement and by PCR 10, or they show nothing."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import pytest
from tools.lab import event_log_writer as tcg

from chatelaine.evidence import errors
from chatelaine.evidence.boot_log import verify_boot_log
from chatelaine.evidence.bundle import QuoteEvidence, VerifiedEvidence, decode_evidence, with_ima
from chatelaine.evidence.event_log import parse_event_log, replay
from chatelaine.evidence.ima import verify_ima
from chatelaine.evidence.tpm_types import Selection
from chatelaine.model.tpm_policy import Bank
from support.paper_boot import lab_log
from support.paper_host import PaperHost
from support.paper_ima import PaperIma
from support.paper_tpm import PCRS

INDICES = (0, 4, 7)


def booted() -> tuple[bytes, dict[int, bytes]]:
    log = lab_log()
    values = replay(parse_event_log(log), tcg.SHA256)
    return log, {index: values[index] for index in INDICES}


def judged(log: bytes | None, pcrs: dict[int, bytes], **changed: object) -> VerifiedEvidence:
    host = PaperHost()
    return host.judged(host.answer(event_log=log, pcrs=pcrs), selection=Selection(Bank.SHA256, tuple(pcrs)), **changed)


# --- the boot event log -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("wanted", [True, False])
def test_a_log_that_the_statement_names_and_that_replays_is_shown(wanted: bool) -> None:
    log, pcrs = booted()
    verified = judged(log, pcrs, wants_log=wanted)
    assert verified.boot_log == verify_boot_log(log, verified.quote)
    assert verified.boot_log_flaw is None
    assert verified.quote.pcrs == pcrs


def test_a_log_of_another_boot_is_a_fact_about_the_host() -> None:
    log, pcrs = booted()
    verified = judged(log, {**pcrs, 4: bytes(32)})
    assert verified.boot_log is None
    assert verified.boot_log_flaw is not None
    assert (verified.boot_log_flaw.reason, verified.boot_log_flaw.refutes) == ("EventLogMismatch", True)
    assert verified.boot_log_flaw.expected == "00" * 32
    assert verified.boot_log_flaw.found == pcrs[4].hex()
    assert verified.statement.serial == PaperHost().serial


def test_a_log_that_cannot_be_read_shows_nothing_and_refutes_nothing() -> None:
    _, pcrs = booted()
    verified = judged(b"no log", pcrs)
    assert verified.boot_log is None
    assert verified.boot_log_flaw is not None
    assert not verified.boot_log_flaw.refutes


def test_a_log_put_in_place_of_the_hosts_own_is_refused() -> None:
    log, pcrs = booted()
    host = PaperHost()
    swapped = replace(host.answer(event_log=log, pcrs=pcrs), event_log=log + b"\x00")
    with pytest.raises(errors.StatementLogMismatch) as refusal:
        host.judged(swapped, selection=Selection(Bank.SHA256, INDICES))
    assert not refusal.value.authenticated


# --- what ran ---------------------------------------------------------------------------------------------------


def ran(paper: PaperIma, offset: int = 0) -> tuple[QuoteEvidence, VerifiedEvidence]:
    host = PaperHost()
    pcrs = {**PCRS, 10: paper.pcr10}
    evidence = host.answer(pcrs=pcrs, ima=(offset, paper.data[offset:]))
    return evidence, host.judged(evidence, selection=Selection(Bank.SHA256, tuple(sorted(pcrs))))


def test_a_list_that_leads_to_the_quoted_value_is_shown() -> None:
    paper = PaperIma.booted().ran("/usr/bin/bash", b"bash")
    evidence, verified = ran(paper)
    shown = with_ima(verified, evidence, None)
    assert shown.ima == verify_ima(paper.data, verified.quote)
    assert shown.ima is not None
    assert [entry.path for entry in shown.ima.entries] == ["boot_aggregate", "/usr/bin/bash"]
    assert shown.ima_flaw is None
    assert (shown.quote, shown.statement) == (verified.quote, verified.statement)


def test_a_list_goes_on_from_where_the_last_one_ended() -> None:
    paper = PaperIma.booted().ran("/usr/bin/bash", b"bash")
    evidence, verified = ran(paper)
    first = with_ima(verified, evidence, None).ima
    assert first is not None
    paper.ran("/usr/bin/python3", b"python")
    evidence, verified = ran(paper, first.progress.offset_bytes)
    shown = with_ima(verified, evidence, first.progress)
    assert shown.ima is not None
    assert [entry.path for entry in shown.ima.entries] == ["/usr/bin/python3"]
    assert shown.ima.from_entry == 2
    again = with_ima(verified, evidence, None)
    assert again.ima is None
    assert again.ima_flaw is not None
    assert (again.ima_flaw.reason, again.ima_flaw.expected, again.ima_flaw.found) == (
        "ImaProgressLost",
        "0",
        str(first.progress.offset_bytes),
    )


def test_a_list_that_leads_elsewhere_shows_nothing_and_refutes_nothing() -> None:
    evidence, verified = ran(PaperIma.booted().ran("/usr/bin/bash", b"bash"))
    other = replace(evidence, ima_list=PaperIma.booted().ran("/usr/bin/bash", b"another").data)
    shown = with_ima(verified, other, None)
    assert shown.ima is None
    assert shown.ima_flaw is not None
    assert (shown.ima_flaw.reason, shown.ima_flaw.refutes) == ("ImaNoPrefix", False)


def test_without_a_list_nothing_is_added() -> None:
    host = PaperHost()
    verified = host.judged()
    assert with_ima(verified, host.answer(), None) is verified


# --- as it is stored --------------------------------------------------------------------------------------------


def test_logs_stand_in_stored_evidence_by_their_digests_and_are_found_by_them() -> None:
    log, pcrs = booted()
    paper = PaperIma.booted()
    evidence = PaperHost().answer(event_log=log, pcrs=pcrs, ima=(7, paper.data))
    parts = {hashlib.sha256(part).digest(): part for part in (log, paper.data)}
    stored = evidence.encode()
    assert all(digest in stored for digest in parts)
    assert log not in stored
    assert paper.data not in stored
    assert decode_evidence(stored, parts.__getitem__) == evidence
    for changed in ({"event_log": log + b"\x00"}, {"ima_list": b""}, {"ima_offset": 8}, {"event_log": None}):
        assert replace(evidence, **changed).evidence_digest() != evidence.evidence_digest()
