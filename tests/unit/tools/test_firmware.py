"""The laboratory's firmware: its log, read by the product, stands for the values that it extends."""

from __future__ import annotations

from dataclasses import replace

import pytest
from tools.lab import event_log_writer as tcg
from tools.lab.firmware import BOOT_PCRS, Boot, measured, pcr_values

from chatelaine.evidence.event_log import parse_event_log, replay

OTHERS = {
    "firmware": {0},
    "loader": {4},
    "kernel": {4, 9},
    "command_line": {8},
    "secure_boot": {7},
    "revoked": {7},
    "option_roms": {2},
    "serial": {5},
}


@pytest.mark.parametrize("bank", [tcg.SHA256, tcg.SHA384])
def test_log_replays_to_what_is_extended(bank):
    boot = Boot()
    replayed = replay(parse_event_log(measured(boot).data), bank)
    assert {index: replayed[index].hex() for index in BOOT_PCRS} == pcr_values(boot, bank)


@pytest.mark.parametrize(("knob", "moved"), OTHERS.items())
def test_each_change_of_a_boot_moves_its_own_pcrs(knob, moved):
    boot = Boot()
    values = {
        "firmware": "other",
        "loader": b"other",
        "kernel": b"other",
        "command_line": "/other ro",
        "secure_boot": False,
        "revoked": (),
        "option_roms": (b"rom",),
        "serial": "other",
    }
    clean, other = pcr_values(boot), pcr_values(replace(boot, **{knob: values[knob]}))
    assert {index for index in clean if clean[index] != other[index]} == moved


def test_same_boot_gives_the_same_log():
    assert measured(Boot()).data == measured(Boot()).data
