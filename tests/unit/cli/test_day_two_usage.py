"""Commands whose 2 is an answer do not end with 2 when they were mistyped, nor when nobody could be asked."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from chatelaine.cli.hsm import app as hsm
from chatelaine.cli.restore import app as restore

RUN = CliRunner()


@pytest.mark.parametrize(
    ("app", "words"),
    [
        (hsm, ["drain"]),
        (hsm, ["drain", "a", "b"]),
        (hsm, ["drain", "a", "--timeout", "-1"]),
        (hsm, ["retire", "a", "--all"]),
        (hsm, ["nothing"]),
        (restore, ["check"]),
        (restore, ["check", "a", "--force"]),
    ],
)
def test_usage_errors_end_with_64(app: object, words: list[str]) -> None:
    assert RUN.invoke(app, words).exit_code == 64  # type: ignore[arg-type]  # two typer apps


@pytest.mark.parametrize("words", [["drain", "a"], ["retire", "a"], ["inventory", "a"], ["cordon", "a"]])
def test_without_a_login_it_says_so_and_ends_with_1(tmp_path: Path, words: list[str]) -> None:
    found = RUN.invoke(hsm, [*words, "--kubeconfig", str(tmp_path / "none")])
    assert found.exit_code == 1
    assert "none" in found.output


def test_a_backup_that_is_not_there_is_no_backup(tmp_path: Path) -> None:
    found = RUN.invoke(restore, ["check", str(tmp_path / "none")])
    assert found.exit_code == 64
    assert "cannot be read" in found.output
