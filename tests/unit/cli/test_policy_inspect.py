"""`chatelaine policy inspect`: would a policy take this bundle?"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from support.policy_command import run
from support.reference_bundles import ALICE, BOB, MALLORY, PREDICATE, bundle, signed, source


def policy(folder: Path, **changes: object) -> Path:
    spec = {
        "freshness": {"maxAgeSeconds": 30},
        "tpm": {"pcrs": {"bank": "Sha256", "values": [{"index": 7, "anyOf": ["77" * 32]}]}},
        "referenceValues": source().dump() | changes,
    }
    path = folder / "policy.json"
    path.write_text(json.dumps({"kind": "AttestationPolicy", "spec": spec}))
    return path


def inspected(*arguments: object, stdin: bytes) -> tuple[int, dict]:
    done = run("inspect", "-", *arguments, "--json", stdin=stdin)
    return done.exit_code, json.loads(done.stdout)


def test_bundle_that_the_policy_would_take(tmp_path):
    status, report = inspected("--policy", policy(tmp_path, threshold=2), stdin=bundle(ALICE, BOB))
    assert (status, report["verdict"], report["findings"]["reason"]) == (0, "Trusted", "ThresholdMet")
    facts = report["facts"]
    assert facts.pop("digest").startswith("sha256:")
    assert len(facts.pop("signatures")) == 2
    assert facts == {
        "name": "baseline",
        "version": 7,
        "issuedAt": "2026-11-21T12:00:00Z",
        "pcrs": {"Sha256": {"4": ["11" * 32, "22" * 32], "7": ["77" * 32]}},
        "dbxAtLeast": 2,
        "files": {"paths": 2, "contents": 4, "inGrace": 1},
    }


@pytest.mark.parametrize(
    ("changes", "more", "reason"),
    [
        ({"threshold": 2}, [], "ThresholdNotMet"),
        ({"series": "lab"}, [], "SeriesMismatch"),
        ({}, ["--not-below", 8], "ReferenceRolledBack"),
    ],
)
def test_bundle_that_the_policy_would_refuse(tmp_path, changes, more, reason):
    status, report = inspected("--policy", policy(tmp_path, **changes), *more, stdin=bundle())
    assert (status, report["verdict"], report["findings"]["reason"]) == (1, "Untrusted", reason)


def test_nobody_can_tell_who_may_sign_without_being_told():
    for content in (bundle(), PREDICATE.encode()):
        status, report = inspected(stdin=content)
        assert (status, report["verdict"], report["findings"]["reason"]) == (2, "Unknown", "SignersUnknown")
        assert report["facts"]["version"] == 7


def test_keys_may_be_given_instead_of_a_policy(tmp_path):
    keys = []
    for signer in (ALICE, MALLORY):
        (tmp_path / signer.name).write_text(signer.listed().public_key)
        keys += ["--key", tmp_path / signer.name]
    assert inspected(*keys, stdin=bundle())[0] == 1
    assert inspected(*keys, "--threshold", 1, stdin=bundle())[0] == 0


def test_report_for_people():
    done = run("inspect", "-", stdin=bundle())
    assert done.stdout.startswith("Unknown")
    assert "baseline" in done.stdout


@pytest.mark.parametrize(
    "content", [b"{}", signed(b"{}", ALICE).encode(), signed(b"", ALICE, payload_type="a").encode()]
)
def test_what_is_no_bundle_is_refused(content):
    assert inspected(stdin=content)[0] == 1


def test_usage_errors_of_inspect_end_with_64(tmp_path):
    path = policy(tmp_path)
    (tmp_path / "key").write_text(ALICE.listed().public_key)
    without = tmp_path / "without.json"
    without.write_text(json.dumps({**json.loads(path.read_text())["spec"], "referenceValues": None}))
    for arguments in (
        ["--policy", path, "--threshold", 1],
        ["--policy", without],
        ["--policy", "/nonexistent"],
        ["--key", "/nonexistent"],
        ["--key", tmp_path / "key", "--threshold", 17],
        ["--key", without],
    ):
        assert run("inspect", "-", *arguments, stdin=bundle()).exit_code == 64
    assert run("inspect", "-", stdin=b"no JSON").exit_code == 64
