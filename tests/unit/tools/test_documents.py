"""What the documents point to is there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
DOCUMENTS = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]
TESTS = re.compile(r"\btests/[A-Za-z0-9_/.]*[A-Za-z0-9_]")
LINKS = re.compile(r"\]\(([^)#:]+)(?:#[^)]*)?\)")


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_tests_and_files_that_a_document_names_are_there(document: Path) -> None:
    text = document.read_text()
    assert [name for name in TESTS.findall(text) if not (ROOT / name).exists()] == []
    assert [link for link in LINKS.findall(text) if not (document.parent / link).exists()] == []


def test_status_names_tests() -> None:
    assert len(TESTS.findall((ROOT / "docs/explanation/status.md").read_text())) > 30
