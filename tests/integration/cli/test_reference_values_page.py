"""The page about reference values: its commands run as they stand, and say what the page shows."""

from __future__ import annotations

import base64
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from chatelaine.evidence.dsse import MAX_ENVELOPE_BYTES, MAX_SIGNATURES
from chatelaine.evidence.errors import ReferenceValuesError
from chatelaine.evidence.reference_files import MAX_DIGESTS_OF_A_ROW, MAX_PATH_BYTES
from chatelaine.evidence.reference_values import MAX_DBX_ENTRIES, MAX_PCR_VALUES, verify_bundle
from chatelaine.model.tpm_policy import ReferenceKey, ReferenceValuesSource

PAGE = (Path(__file__).parents[3] / "docs" / "reference" / "reference-values.md").read_text()


def blocks(kind: str) -> list[str]:
    return re.findall(rf"^```{kind}\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the commands of the page have run; `said` is what they have said."""
    made = tmp_path_factory.mktemp("page")
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    script = "set -euo pipefail\n" + "".join(blocks("sh"))
    done = subprocess.run(
        ["bash", "-c", script], cwd=made, env={**os.environ, "PATH": path}, capture_output=True, text=True, timeout=300,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    (made / "said").write_text(done.stdout + done.stderr)
    return made


def test_commands_say_what_the_page_shows(folder):
    said = (folder / "said").read_text()
    assert len(blocks("text")) == 2
    for shown in blocks("text"):
        assert shown in said


def test_payload_is_the_one_that_the_page_shows(folder):
    (shown,) = blocks("json")
    payload = json.loads((folder / "payload.json").read_text())
    assert json.dumps(payload, indent=4) + "\n" == shown


def policy(folder: Path, threshold: int) -> ReferenceValuesSource:
    keys = [ReferenceKey(name=name, public_key=(folder / f"{name}.pub").read_text()) for name in ("alice", "bob")]
    return ReferenceValuesSource(series="baseline", file="x", keys=keys, threshold=threshold)


def test_what_was_signed_and_split_verifies(folder):
    manifests = list(yaml.safe_load_all((folder / "configmaps.yaml").read_text()))
    envelope = "".join(manifest["data"]["envelope"] for manifest in manifests).encode()
    assert verify_bundle(envelope, policy(folder, 2), not_below=7).signed_by == ("alice", "bob")
    elsewhere = (folder / "elsewhere.json").read_bytes()
    assert verify_bundle(elsewhere, policy(folder, 1), not_below=7).signed_by == ("alice",)


def test_update_holds_the_new_file_and_the_old_one_for_a_while(folder):
    rows = json.loads((folder / "next.json").read_text())["predicate"]
    ((prefix, files),) = rows["files"]
    assert (rows["version"], prefix) == (8, "/usr/bin/")
    assert [len(row) for row in files if row[0] == "gateway"].count(2) == 1


def test_no_private_key_was_shown(folder):
    said = (folder / "said").read_text()
    for name in ("alice", "bob"):
        body = "".join((folder / f"{name}.pem").read_text().splitlines()[1:-1])
        assert base64.b64decode(body)
        assert body[:40] not in said


def test_page_names_every_refusal_and_bound():
    for refusal in ReferenceValuesError.__subclasses__():
        assert f"`{refusal.__name__}`" in PAGE
    table = PAGE[PAGE.index("| bound |") :]
    for bound in (MAX_SIGNATURES, MAX_PCR_VALUES, MAX_DBX_ENTRIES, MAX_PATH_BYTES, MAX_DIGESTS_OF_A_ROW):
        assert re.search(rf"\| {bound:,}\b", table)
    assert MAX_ENVELOPE_BYTES == 16 * 1024 * 1024
