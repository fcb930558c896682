"""Settings that contradict themselves are usage errors, before any file is touched."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from chatelaine.cli.gateway import app


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"--listen": ":8443"}, "not host:port"),
        ({"--listen": "[::1]:٨"}, "not host:port"),
        ({"--listen": "::1:8443"}, "not host:port"),
        ({"--hsm": "pkcs11"}, "--module"),
        ({"--local-socket": "/" + "s" * 107}, "107 bytes"),
    ],
)
def test_settings_that_cannot_be_meant_are_refused(tmp_path: Path, changes: dict[str, str], told: str) -> None:
    folders = {"--state-dir": str(tmp_path / "state"), "--tls-dir": str(tmp_path / "tls")}
    given = {"--host-name": "a", "--local-socket": "s", "--hsm": "simulated", **folders, **changes}
    ended = CliRunner().invoke(app, [word for pair in given.items() for word in pair])
    assert ended.exit_code == 2
    assert told in " ".join(ended.output.replace("│", " ").split())
    assert list(tmp_path.iterdir()) == []
