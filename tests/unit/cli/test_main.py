"""One command; nothing heavy is loaded before its subcommand runs."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
import typer

from chatelaine.cli import main
from chatelaine.cli.listen import parse_listen

HEAVY = ("tpm2_pytss", "kopf", "kubernetes", "pkcs11", "aiohttp", "uvicorn")


def test_importing_the_command_loads_nothing_heavy() -> None:
    code = "import json, sys; import chatelaine.cli.main; print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert set(HEAVY).isdisjoint(json.loads(done.stdout))


def test_the_agents_settings_load_without_the_tpm_software_stack() -> None:
    code = "import sys; sys.modules['tpm2_pytss'] = None; import chatelaine.cli.agent, chatelaine.agent.process"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_every_subcommand_is_a_module_with_an_app() -> None:
    assert set(main.SUBCOMMANDS) >= {"agent", "host", "policy", "verify"}
    for name in ("agent", "host", "policy", "verify"):
        assert isinstance(main._load(name), typer.Typer)


def test_a_part_that_is_not_installed_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(typer.Exit) as ended:
        main._load("nonexistent")
    assert ended.value.exit_code == 69
    assert "cannot run here" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("127.0.0.1:0", ("127.0.0.1", 0)),
        ("[::1]:8444", ("::1", 8444)),
        ("agent.example:65535", ("agent.example", 65535)),
    ],
)
def test_an_address_is_read(text: str, expected: tuple[str, int]) -> None:
    assert parse_listen(text) == expected


@pytest.mark.parametrize("text", ["", ":1", "8444", "a:", "a:x", "a:65536", "a:-1", "::1:1", "[]:1", "a:१"])
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(typer.BadParameter):
        parse_listen(text)
