"""A bounded run of each fuzz target: whatever the bytes, a parser answers, or refuses with an error of its own."""

from __future__ import annotations

import importlib
import subprocess
import sys

import pytest

from fuzz import corpus

RUNS = 20_000
SECONDS = 3


def test_every_target_is_named_where_it_is_looked_for() -> None:
    modules = sorted(set(corpus.GROUPS.values()))
    found = {name: module for module in modules for name in importlib.import_module(f"fuzz.{module}").TARGETS}
    assert found == corpus.GROUPS
    assert {path.stem for path in corpus.FOLDER.iterdir()} <= set(found)


@pytest.mark.parametrize("name", corpus.names())
def test_no_bytes_make_a_parser_fail_otherwise(name, tmp_path):
    found = tmp_path / "found"
    found.mkdir()
    done = subprocess.run(
        [
            sys.executable, str(corpus.FOLDER.parent), name,
            f"-runs={RUNS}", f"-max_total_time={SECONDS}", f"-artifact_prefix={tmp_path}/", str(found),
        ],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-4000:]
    assert "Done" in done.stderr
