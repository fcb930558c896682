"""What `verify event-log` says of single events: a person reads it as what the machine did."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
from tools.lab import event_log_writer as tcg

from chatelaine.appraisal.offline_log import LogCase, judge_event_log
from chatelaine.evidence.event_log import parse_event_log, replay
from chatelaine.model.verdict import Verdict
from support.paper_boot import PaperBoot, secure_boot

SECURE_BOOT_ON = tcg.variable(tcg.GLOBAL_VARIABLE, "SecureBoot", b"\x01")


def told(log: bytes, pcrs: Iterable[int]) -> list[tuple[str, bool]]:
    """Words of each event, and whether they count as checked; the log replays to the values of `pcrs`."""
    values = replay(parse_event_log(log), tcg.SHA256)
    report = judge_event_log(LogCase(log, {"sha256": {index: values[index] for index in pcrs}}))
    assert report.verdict is Verdict.TRUSTED
    return [(event["measures"], event["checked"]) for event in report.facts["events"]]  # type: ignore[attr-defined] # facts are plain JSON


def test_note_that_looks_like_secure_boot_is_not_told_as_measured():
    boot = PaperBoot()
    boot.config("SecureBoot", b"\x00")
    digests = {bank: tcg.digest(bank, SECURE_BOOT_ON) for bank in boot.banks}
    log = boot.data + tcg.record(7, tcg.EV_NO_ACTION, digests, SECURE_BOOT_ON)
    assert told(log, [7]) == [("UEFI variable SecureBoot = 00", True), ("note, not measured", False)]


@pytest.mark.parametrize("pcr", [6, 7])
def test_event_of_a_pcr_that_was_not_compared_counts_as_unchecked(pcr):
    """Its digests are the host's word, like all the rest."""
    boot = secure_boot(on=False)
    boot.measure(pcr, tcg.EV_EFI_VARIABLE_DRIVER_CONFIG, SECURE_BOOT_ON)
    compared = told(boot.data, [6, 7])[-1]
    assert compared == ("UEFI variable SecureBoot = 01", True)
    assert told(boot.data, {6, 7} - {pcr})[-1] == ("not compared: UEFI variable SecureBoot = 01", False)
