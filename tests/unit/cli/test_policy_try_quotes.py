"""Policies tried on a bare quote: it shows what booted, and nothing of the token or of who made the TPM."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from chatelaine.cli import policy as command
from support.paper_tpm import PCRS, PaperTpm

RUNNER = CliRunner()
TPM = PaperTpm()
Json = dict[str, Any]


def quote_file(folder: Path) -> str:
    """A quote over PCRs 0 and 7, as `verify tpm-quote --bundle` takes it."""
    attest, signature = TPM.quote(b"\x5a" * 32)
    pcrs = {str(index): value.hex() for index, value in PCRS.items()}
    quote = {
        "bank_tpm_alg_id": 0x000B, "attest_hex": attest.hex(), "signature_tpmt_hex": signature.hex(), "pcrs": pcrs,
    }  # fmt: skip
    path = folder / "quote.json"
    path.write_text(json.dumps({"ak_public_tpmt_hex": TPM.public.hex(), "quotes": [quote]}))
    return str(path)


def tried(folder: Path, *, good: str = "77" * 32, endorsement: Json | None = None, **spec: Any) -> tuple[int, set[str]]:
    """Exit status, and the reasons of what does not hold."""
    tpm: Json = {"pcrs": {"bank": "Sha256", "values": [{"index": 7, "anyOf": [good]}]}}
    if endorsement is not None:
        tpm["endorsement"] = endorsement
    path = folder / "policy.yaml"
    path.write_text(yaml.safe_dump({"spec": {"freshness": {"maxAgeSeconds": 30}, "tpm": tpm, **spec}}))
    done = RUNNER.invoke(command.app, ["test", str(path), quote_file(folder), "--json"])
    return done.exit_code, {leaf["reason"] for leaf in _open(json.loads(done.stdout)["results"][0]["findings"])}


def _open(finding: Json) -> list[Json]:
    children = finding.get("children") or []
    if children:
        return [leaf for child in children for leaf in _open(child)]
    return [finding] if finding["outcome"] != "Holds" else []


def test_quote_that_meets_the_values_is_accepted(tmp_path: Path) -> None:
    assert tried(tmp_path) == (0, set())
    assert tried(tmp_path, hsm={"statement": "HostAsserted"}) == (0, set())
    assert tried(tmp_path, good="00" * 32) == (1, {"PcrMismatch"})


NOT_SHOWN: list[Json] = [
    {"hsm": {"firmware": [{"model": "m", "anyOf": ["1"]}]}},
    {"hsm": {"inventory": "Accounted"}},
    {"hsm": {"statement": "VendorAttested"}},
    {"endorsement": {"listed": [{"ekDigest": "sha256:" + "ab" * 32}]}},
]


@pytest.mark.parametrize("rules", NOT_SHOWN, ids=lambda rules: next(iter(str(rules).split("'")[3:])))
def test_rule_that_no_quote_can_show_to_hold_is_not_taken_for_met(tmp_path: Path, rules: Json) -> None:
    assert tried(tmp_path, **rules) == (2, {"NotInEvidence"})
    assert tried(tmp_path, good="00" * 32, **rules) == (1, {"PcrMismatch", "NotInEvidence"})
