"""`chatelaine verify` as people and scripts run it, and the files that they hand it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from typer.testing import CliRunner, Result

from chatelaine.cli.verify import app
from support.paper_tpm import PCRS, PaperTpm

EXTRA = b"\x5a" * 32
TPM = PaperTpm()


def run(*arguments: str | Path, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    """In a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "chatelaine.cli.verify", *map(str, arguments)],
        input=stdin,
        capture_output=True,
        timeout=60,
        check=False,
    )


def run_here(*arguments: str | Path, stdin: bytes = b"") -> Result:
    """Without a process of its own, which takes a second each."""
    return CliRunner().invoke(app, [*map(str, arguments)], input=stdin)


def verdict(*arguments: str | Path, stdin: bytes = b"") -> tuple[int, dict[str, Any]]:
    """Exit status and report of `--json`, in a process of its own."""
    done = run(*arguments, "--json", stdin=stdin)
    assert done.stdout, done.stderr
    return done.returncode, json.loads(done.stdout)


def leaves(finding: dict[str, Any]) -> list[dict[str, Any]]:
    """What a tree of findings ends in."""
    return [leaf for child in finding.get("children", ()) for leaf in leaves(child)] or [finding]


def reasons(report: dict[str, Any]) -> set[str]:
    """Of all leaves."""
    return {leaf["reason"] for leaf in leaves(report["findings"])}


class QuoteFiles:
    """Files of one quote; `arguments` names them all."""

    def __init__(self, folder: Path, tpm: PaperTpm = TPM, **fields: Any) -> None:
        attest, signature = tpm.quote(EXTRA, **fields)
        self.files = {"attest": attest, "signature": signature, "ak": tpm.public}
        self.folder = folder
        for name, data in self.files.items():
            (folder / name).write_bytes(data)
        self.write_pcrs({"sha256": {str(index): value.hex() for index, value in PCRS.items()}})

    def write_pcrs(self, value: object) -> None:
        """Say that these are the values."""
        (self.folder / "pcrs").write_text(json.dumps(value))

    def arguments(self, *, extra: bytes | None = EXTRA, **changed: str) -> list[str]:
        """Of `verify`; `changed` names other files."""
        names = {name: str(self.folder / name) for name in ("attest", "signature", "ak", "pcrs")} | changed
        found = [part for name, path in names.items() for part in (f"--{name}", path)]
        return ["tpm-quote", *found, *(["--extra-data", extra.hex()] if extra else [])]


def policy_file(folder: Path, values: list[dict[str, Any]], **hsm: Any) -> Path:
    """A policy with these PCR values."""
    path = folder / "policy.yaml"
    spec: dict[str, Any] = {"freshness": {"maxAgeSeconds": 30}, "tpm": {"pcrs": {"bank": "Sha256", "values": values}}}
    if hsm:
        spec["hsm"] = hsm
    path.write_text(json.dumps({"apiVersion": "chatelaine.dev/v1alpha1", "kind": "AttestationPolicy", "spec": spec}))
    return path
