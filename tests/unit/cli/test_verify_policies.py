"""Policies that `chatelaine verify` judges by: what is misspelt in them judges nothing, and nobody would notice."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from chatelaine.cli import policy as policies
from chatelaine.cli import verify as command
from support.stored_rounds import policy

ZEROS = "00" * 32


@pytest.mark.parametrize(
    "arguments",
    [("event-log", "FILE"), ("ima", "FILE", "--pcr10", ZEROS), ("tpm-quote", "--bundle", "FILE")],
    ids=["event log", "list of measurements", "quote"],
)
def test_rule_whose_name_is_misspelt_is_not_passed_over(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    spec = policy()
    spec["tpm"]["eventLog"] = {"replay": "Required", "secureboot": "Enabled"}
    path = tmp_path / "policy.yaml"
    path.write_text(yaml.safe_dump({"kind": "AttestationPolicy", "metadata": {"name": "base"}, "spec": spec}))
    (tmp_path / "empty").write_bytes(b"")
    given = [str(tmp_path / "empty") if argument == "FILE" else argument for argument in arguments]
    done = CliRunner().invoke(command.app, [*given, "--policy", str(path)])
    assert done.exit_code == 64
    assert "spec.tpm.eventLog.secureboot is no field" in " ".join(done.stderr.replace("│", " ").split())


def test_private_key_where_a_public_one_is_wanted_is_said_to_be_none(tmp_path: Path) -> None:
    key, envelope = tmp_path / "alice.pem", tmp_path / "payload.json"
    key.write_text("-----BEGIN PRIVATE KEY-----\nc2VjcmV0\n-----END PRIVATE KEY-----\n")
    envelope.write_text(
        '{"name":"base","version":1,"issuedAt":"2026-11-21T12:00:00Z","pcrs":{},"dbxAtLeast":[],"files":[]}'
    )
    done = CliRunner().invoke(policies.app, ["inspect", str(envelope), "--key", str(key)])
    # A long path is folded wherever the box ends.
    said = "".join(done.stderr.replace("│", " ").split())
    assert done.exit_code == 64
    assert "alice.pem:nopublickeyinPEM" in said
    assert "c2VjcmV0" not in said
