"""By which name we were called, versions, and what a shell is told when it completes."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from typer.testing import CliRunner

from chatelaine import __version__
from chatelaine.cli import completion, main
from chatelaine.cli.invocation import PLUGIN, command_name

ROOT = Path(__file__).resolve().parents[3]


def called(name: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Runs `main` as an executable of that name would."""
    code = "import sys; sys.argv[0] = sys.argv.pop(1); from chatelaine.cli.main import main; main()"
    return subprocess.run(
        [sys.executable, "-c", code, name, *arguments],
        capture_output=True, text=True, check=False, timeout=60, env={**os.environ, "COLUMNS": "200", **environment},
    )  # fmt: skip


def completed(words: str) -> list[str]:
    """What bash is told that could follow."""
    done = called(
        "/usr/bin/chatelaine", COMP_WORDS=words, COMP_CWORD=str(len(words.split(" ")) - 1),
        _CHATELAINE_COMPLETE="complete_bash",
    )  # fmt: skip
    return done.stdout.split()


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/usr/bin/chatelaine", "chatelaine"),
        ("/usr/local/bin/kubectl-chatelaine", "kubectl chatelaine"),
        ("main.py", "chatelaine"),
    ],
)
def test_the_name_is_the_one_by_which_we_were_called(monkeypatch: pytest.MonkeyPatch, path: str, name: str) -> None:
    monkeypatch.setattr(sys, "argv", [path])
    assert command_name() == name


def test_usage_texts_say_the_name_by_which_we_were_called() -> None:
    assert "Usage: kubectl chatelaine explain claim" in called(f"/bin/{PLUGIN}", "explain", "claim", "--help").stdout
    assert "Usage: chatelaine explain claim" in called("/bin/chatelaine", "explain", "claim", "--help").stdout
    wrong = called(f"/bin/{PLUGIN}", "explain", "claim", "nowhere")
    assert wrong.returncode == 64
    assert wrong.stderr.startswith("kubectl chatelaine explain:")


def test_both_names_are_installed() -> None:
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    assert scripts == {"chatelaine": "chatelaine.cli.main:main", PLUGIN: "chatelaine.cli.main:main"}


def test_the_version_is_said() -> None:
    assert called("/bin/chatelaine", "--version").stdout == f"chatelaine {__version__}\n"
    assert called("/bin/chatelaine", "version", "--client").stdout == f"chatelaine  {__version__}\n"


def test_a_version_without_a_cluster_says_why_it_is_not_known(tmp_path: Path) -> None:
    done = called("/bin/chatelaine", "version", "--kubeconfig", str(tmp_path / "none"))
    assert done.returncode == 0
    assert "not known: no login" in done.stdout


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_script_is_made_for_every_shell(shell: str) -> None:
    done = CliRunner().invoke(completion.app, [shell])
    assert done.exit_code == 0
    assert completion.VARIABLE in done.output
    assert "chatelaine" in done.output


def test_bash_takes_the_script(tmp_path: Path) -> None:
    script = tmp_path / "completion"
    script.write_text(CliRunner().invoke(completion.app, ["bash"]).output)
    done = subprocess.run(
        ["bash", "-c", f"source {script} && complete -p chatelaine"], capture_output=True, text=True, check=True
    )
    assert "_chatelaine_completion" in done.stdout


def test_a_shell_is_told_commands_and_options_at_any_depth() -> None:
    assert {"explain", "doctor", "check", "support-bundle"} <= set(completed("chatelaine "))
    assert completed("chatelaine explain ") == ["claim", "hsm", "policy"]
    assert "--system-namespace" in completed("chatelaine explain hsm --s")


def test_every_subcommand_has_its_module() -> None:
    for name in main.SUBCOMMANDS:
        path = ROOT / "operator" / f"{main.module_of(name).replace('.', '/')}.py"
        assert path.is_file(), path
