"""Names that no object of a cluster can have, and files of another kind, are wrong usage before anything is asked."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from chatelaine.cli import policy as command
from support.stored_rounds import policy

RUNNER = CliRunner()
NAMES = pytest.mark.parametrize("name", ["hsm a", "../hsms", "HSM-A", "", "a/b", "a" * 254])


def refused(*arguments: str) -> str:
    """What a usage error says, without the box around it."""
    done = RUNNER.invoke(command.app, list(arguments))
    assert (done.exit_code, done.stdout) == (64, ""), done.output
    return " ".join(done.stderr.replace("│", " ").split())


@NAMES
def test_capture_asks_for_no_object_that_cannot_be(name: str) -> None:
    assert "is no name of an object" in refused("capture", name)
    assert "is no name of an object" in refused("capture", "hsm-a", "--name", name)


@NAMES
def test_diff_live_asks_for_no_policy_that_cannot_be(tmp_path: Path, name: str) -> None:
    path = tmp_path / "policy.yaml"
    path.write_text(yaml.safe_dump({"kind": "AttestationPolicy", "metadata": {"name": name}, "spec": policy()}))
    assert "metadata.name" in (said := refused("diff", "--live", str(path))) or "is no name of an object" in said


@pytest.mark.parametrize("option", ["--pcr", "--without-pcr"])
def test_index_of_no_pcr_is_named_with_its_option(option: str) -> None:
    assert f"{option}: 24 is no PCR" in refused("capture", "hsm-a", option, "24")


def test_envelope_is_no_base_of_a_captured_policy(tmp_path: Path) -> None:
    path = tmp_path / "envelope.json"
    path.write_text('{"payload":"e30=","payloadType":"application/vnd.in-toto+json","signatures":[]}')
    assert "a bundle of reference values, not an AttestationPolicy" in refused("capture", "hsm-a", "--base", str(path))
