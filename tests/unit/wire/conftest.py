from __future__ import annotations

from pathlib import Path

import pytest

from support.scripted_peer import Pki


@pytest.fixture
def pki(tmp_path: Path) -> Pki:
    return Pki(tmp_path)
