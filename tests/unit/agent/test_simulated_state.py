"""A simulated TPM keeps its keys and counts its starts; a damaged file is said, not replaced."""

from __future__ import annotations

from pathlib import Path

import pytest

from chatelaine.agent.errors import StateDamaged
from chatelaine.agent.simulated import SimulatedAttester
from chatelaine.agent.simulated_state import FILE, kept_tpm


async def test_keys_stay_and_each_start_is_a_reset(tmp_path: Path) -> None:
    first, second = SimulatedAttester(kept_tpm(tmp_path)), SimulatedAttester(kept_tpm(tmp_path))
    assert await first.identity() == await second.identity()
    assert (await second.marker()).reset_count == (await first.marker()).reset_count + 1
    assert (tmp_path / FILE).stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("damage", [b"", b"{}", b'{"ek":"x","ak":"y","reset_count":1}', b"x" * 20_000])
def test_a_damaged_file_is_said_and_not_replaced(tmp_path: Path, damage: bytes) -> None:
    kept_tpm(tmp_path)
    (tmp_path / FILE).write_bytes(damage)
    with pytest.raises(StateDamaged):
        kept_tpm(tmp_path)
    assert (tmp_path / FILE).read_bytes() == damage


def test_a_file_that_others_may_read_is_said(tmp_path: Path) -> None:
    kept_tpm(tmp_path)
    (tmp_path / FILE).chmod(0o644)
    with pytest.raises(StateDamaged):
        kept_tpm(tmp_path)
