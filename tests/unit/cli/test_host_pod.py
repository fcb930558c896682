"""What pods of hosts do before their processes start, with the privileges that the chart gives them and no more."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from chatelaine.cli.host_pod import PARTS, await_join, copy_pin, make_folders
from chatelaine.pkcs11.pin import MAX_PIN_BYTES, read_pin

USER = 65532


def test_folders_are_made_and_made_again_with_two_capabilities(tmp_path: Path) -> None:
    root = os.geteuid() == 0
    owner = USER if root else os.geteuid()
    capabilities = ["setpriv", "--bounding-set=-all,+chown,+fowner", "--inh-caps=-all"] if root else []
    command = [*capabilities, sys.executable, "-m", "chatelaine.cli.main", "host", "folders"]
    for _ in range(2):
        subprocess.run([*command, "--state-dir", str(tmp_path), "--owner", str(owner)], check=True, timeout=60)
    for name in PARTS:
        status = (tmp_path / name).stat()
        assert (status.st_uid, status.st_mode & 0o777) == (owner, 0o700)


@pytest.mark.parametrize("name", PARTS)
def test_folder_that_is_a_link_to_another_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "elsewhere").mkdir(mode=0o755)
    (tmp_path / name).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(NotADirectoryError):
        make_folders(tmp_path, os.geteuid())
    assert (tmp_path / "elsewhere").stat().st_mode & 0o777 == 0o755


def test_a_pin_of_a_secrets_volume_becomes_a_file_that_the_gateway_takes(tmp_path: Path) -> None:
    (tmp_path / "..data").mkdir()
    (tmp_path / "..data" / "pin").write_text("12345678\n")
    (tmp_path / "pin").symlink_to("..data/pin")
    for _ in range(2):
        copy_pin(tmp_path / "pin", tmp_path / "own")
    assert read_pin(tmp_path / "own") == "12345678"


@pytest.mark.parametrize("content", [b"", b"1" * (MAX_PIN_BYTES + 3)])
def test_what_is_no_pin_is_not_copied(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "pin").write_bytes(content)
    with pytest.raises(ValueError, match="PIN of 1 to"):
        copy_pin(tmp_path / "pin", tmp_path / "own")
    assert not (tmp_path / "own").exists()


def test_waiting_ends_once_there_is_a_certificate(tmp_path: Path) -> None:
    def join(_seconds: float) -> None:
        if (tmp_path / "tls").exists():
            (tmp_path / "tls" / "chain.pem").write_text("-----BEGIN CERTIFICATE-----")
        else:
            (tmp_path / "tls").mkdir()

    await_join(tmp_path, join)
    assert (tmp_path / "tls" / "chain.pem").exists()
