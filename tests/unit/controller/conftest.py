"""A store of evidence that is open, for the tests of what it keeps and of how it is damaged."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from chatelaine.controller.evidence_store import EvidenceStore
from support.stored_evidence import store


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "evidence"


@pytest.fixture
def opened(path: Path) -> Iterator[EvidenceStore]:
    found = store(path)
    found.open()
    yield found
    found.close()
