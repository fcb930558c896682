"""A policy tried on a real machine's quote and boot log, as a pipeline does it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml
from typer.testing import CliRunner

from chatelaine.cli import policy as command
from support.vectors import VECTORS, needs_vectors

Json = dict[str, Any]


def tried(folder: Path, spec: Json, evidence: str, *, code: int) -> str:
    (folder / "policy.yaml").write_text(yaml.safe_dump({"spec": spec}))
    done = CliRunner().invoke(command.app, ["test", str(folder / "policy.yaml"), evidence, "--json"])
    assert done.exit_code == code, done.output
    return done.stdout


@needs_vectors
def test_quote_and_log_of_a_real_machine(tmp_path: Path) -> None:
    name = str(VECTORS / "tpm" / "gce-cos-85-nonce9009.json")
    quotes = json.loads(Path(name).read_text())["quotes"]
    pcrs = next(quote["pcrs"] for quote in quotes if quote["bank_tpm_alg_id"] == 11)
    values = [{"index": index, "anyOf": [pcrs[str(index)]]} for index in (0, 4, 7)]
    spec: Json = {"freshness": {"maxAgeSeconds": 30}, "tpm": {"pcrs": {"bank": "Sha256", "values": values}}}
    spec["tpm"]["eventLog"] = {"replay": "Required", "secureBoot": "Enabled"}
    tried(tmp_path, spec, name, code=0)
    values[1]["anyOf"] = ["ab" * 32]
    assert "PcrMismatch" in tried(tmp_path, spec, name, code=1)
    spec["tpm"]["pcrs"]["values"] = [values[0]]
    spec["tpm"]["ima"] = {"unjudgedPaths": ["/x"]}
    assert "NotInEvidence" in tried(tmp_path, spec, name, code=2)
