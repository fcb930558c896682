"""What a boot log leaves open becomes no rule, and is named."""

from __future__ import annotations

import pytest
from tools.lab.firmware import OWNER, authority

from chatelaine.appraisal.capture_boot import CapturedBoot, capture_boot
from support.paper_boot import SHIM_LOCK, PaperBoot, facts, lab_log, secure_boot


def captured(*logs: bytes) -> CapturedBoot:
    return capture_boot({f"host-{number}": facts(log) for number, log in enumerate(logs)}, into_bundle=False)


@pytest.mark.parametrize("off", ["firmware", "shim"])
def test_authorities_of_a_host_that_had_to_verify_nothing_are_left_out(off):
    """Whatever ran there could have appended them."""
    boot = secure_boot(on=off != "firmware")
    if off == "shim":
        boot.entry(b"\x01", "MokSBState", SHIM_LOCK)
    boot.entry(OWNER.bytes_le + authority("Laboratory db"))
    found = captured(lab_log(), boot.data)
    assert not {"authorities", "secureBoot"} & found.rules.keys()
    assert found.left["authorities"] == found.left["secureBoot"]
    assert found.left["secureBoot"].startswith("host-1: ")


def test_absence_of_option_roms_is_left_out_where_the_firmware_measured_nothing():
    boot = PaperBoot()
    boot.separate(7)
    found = captured(lab_log(), boot.data)
    assert "optionRoms" not in found.rules
    assert found.left["optionRoms"] == "host-1: PCR 2 was not quoted, or has no separator"
