"""What a change of the TPM's counters means (trust rules, §1.7; TPM 2.0 Library, Part 1 §36)."""

from __future__ import annotations

import enum

from chatelaine.model.verdict import Epoch


class EpochChange(enum.StrEnum):
    """From the last accepted epoch to the one just quoted."""

    SAME = "Same"
    RESTARTED = "Restarted"
    """Restart or resume without a reset: PCRs may have been restored."""
    REBOOTED = "Rebooted"
    """The TPM was reset: what was issued before is void, boot rules are judged again."""
    WENT_BACK = "WentBack"
    """A counter fell: the TPM was cleared or replaced. The host must enrol again."""


def compare(last: Epoch, quoted: Epoch) -> EpochChange:
    """How `quoted` follows `last`. Admissions (`generation`) are ours, not the TPM's, and are not compared."""
    if quoted.reset_count < last.reset_count:
        return EpochChange.WENT_BACK
    if quoted.reset_count > last.reset_count:
        return EpochChange.REBOOTED
    if quoted.restart_count < last.restart_count:
        return EpochChange.WENT_BACK
    return EpochChange.RESTARTED if quoted.restart_count > last.restart_count else EpochChange.SAME
