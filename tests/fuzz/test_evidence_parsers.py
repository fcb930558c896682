"""A bounded run of each fuzz target: whatever the bytes, a parser answers, or refuses with an error of its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from fuzz import evidence_targets

RUNS = 20_000
SECONDS = 5
MAX_BYTES = 2048


@pytest.mark.parametrize("name", evidence_targets.TARGETS)
def test_no_bytes_make_a_parser_fail_otherwise(name, tmp_path):
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    for number, seed in enumerate(evidence_targets.seeds(name)):
        (corpus / f"seed-{number}").write_bytes(seed)
    done = subprocess.run(
        [
            sys.executable, str(Path(evidence_targets.__file__)), name,
            f"-runs={RUNS}", f"-max_total_time={SECONDS}", f"-max_len={MAX_BYTES}",
            f"-artifact_prefix={tmp_path}/", str(corpus),
        ],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-4000:]
    assert "Done" in done.stderr
