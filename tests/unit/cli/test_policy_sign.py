"""`chatelaine policy sign`: which keys sign what, and that nothing of a key is shown."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    KeySerializationEncryption,
    NoEncryption,
    PrivateFormat,
)
from typer.testing import CliRunner, Result

from chatelaine.cli.policy import app
from chatelaine.evidence.dsse import parse_envelope
from chatelaine.evidence.reference_values import verify_bundle
from support.reference_bundles import ALICE, BOB, MALLORY, PREDICATE, Signer, signed, source


def run(*arguments: object, stdin: bytes | None = None) -> Result:
    return CliRunner().invoke(app, ["sign", *map(str, arguments)], input=stdin)


def key_file(
    folder: Path, signer: Signer, encryption: KeySerializationEncryption | None = None, name: str | None = None
) -> Path:
    path = folder / f"{name or signer.name}.pem"
    path.write_bytes(signer.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption or NoEncryption()))
    return path


@pytest.fixture
def payload(tmp_path: Path) -> Path:
    path = tmp_path / "payload"
    path.write_bytes(PREDICATE.encode())
    return path


def test_two_people_sign_one_after_the_other(tmp_path, payload):
    first = run(payload, "--key", key_file(tmp_path, ALICE), "--output", tmp_path / "first")
    assert (first.exit_code, first.stdout_bytes) == (0, b"")
    assert "baseline version 7" in first.stderr
    second = run(tmp_path / "first", "--key", key_file(tmp_path, BOB))
    assert verify_bundle(second.stdout_bytes, source(threshold=2), not_below=7).signed_by == ("alice", "bob")


def test_key_that_every_user_may_read_is_told_of(tmp_path, payload):
    key = key_file(tmp_path, ALICE)
    key.chmod(0o600)
    assert "every user" not in run(payload, "--key", key).stderr
    key.chmod(0o644)
    done = run(payload, "--key", key)
    assert done.exit_code == 0
    assert "may be read by every user" in done.stderr


def test_two_keys_sign_at_once(tmp_path, payload):
    done = run(payload, "--key", key_file(tmp_path, ALICE), "--key", key_file(tmp_path, BOB))
    assert verify_bundle(done.stdout_bytes, source(threshold=2), not_below=7).version == 7


def test_key_that_signs_again_replaces_its_signature(tmp_path, payload):
    key = key_file(tmp_path, ALICE)
    done = run("-", "--key", key, "--key", key, stdin=run(payload, "--key", key).stdout_bytes)
    assert len(parse_envelope(done.stdout_bytes).signatures) == 1


def test_predicate_alone_is_made_a_statement(tmp_path):
    predicate = json.loads(PREDICATE.encode())["predicate"]
    done = run("-", "--key", key_file(tmp_path, ALICE), stdin=json.dumps(predicate).encode())
    assert parse_envelope(done.stdout_bytes).payload == PREDICATE.encode()


def test_payload_is_signed_byte_for_byte(tmp_path):
    spread = json.dumps(json.loads(PREDICATE.encode()), indent=2).encode()
    done = run("-", "--key", key_file(tmp_path, ALICE), stdin=spread)
    assert parse_envelope(done.stdout_bytes).payload == spread


@pytest.mark.parametrize("signer", [ALICE, BOB], ids=["P-256", "Ed25519"])
def test_signature_made_elsewhere_is_added(tmp_path, payload, signer):
    assert run(payload, "--message", tmp_path / "message").exit_code == 0
    (tmp_path / "signature").write_bytes(signer.sign((tmp_path / "message").read_bytes()).signature)
    (tmp_path / "public").write_text(signer.listed().public_key)
    done = run(payload, "--signature", tmp_path / "signature", "--public-key", tmp_path / "public")
    assert verify_bundle(done.stdout_bytes, source(), not_below=0).signed_by == (signer.name,)


def test_signature_by_another_key_than_the_named_one_is_not_added(tmp_path, payload):
    run(payload, "--message", tmp_path / "message")
    (tmp_path / "signature").write_bytes(MALLORY.sign((tmp_path / "message").read_bytes()).signature)
    (tmp_path / "public").write_text(ALICE.listed().public_key)
    done = run(payload, "--signature", tmp_path / "signature", "--public-key", tmp_path / "public")
    assert (done.exit_code, done.stdout_bytes) == (1, b"")
    assert "ThresholdNotMet" in done.stderr


@pytest.mark.parametrize(
    "content",
    [
        signed(b'{"some": "other statement"}', ALICE).encode(),
        signed(PREDICATE.encode(), ALICE, payload_type="text/plain").encode(),
        PREDICATE.encode().replace(b"reference-values/v1", b"reference-values/v2"),
        PREDICATE.encode().replace(b'"version":7', b'"version":0'),
        b"{}",
        b" " * (16 * 1024 * 1024 + 1),
    ],
    ids=["other statement", "other type", "other predicate", "no version", "empty", "too long"],
)
def test_what_is_no_reference_values_is_not_signed(tmp_path, content):
    done = run("-", "--key", key_file(tmp_path, ALICE), stdin=content)
    assert (done.exit_code, done.stdout_bytes) == (1, b"")
    assert "Traceback" not in done.stderr


def test_encrypted_key_is_opened_with_the_passphrase_of_a_file(tmp_path, payload):
    key = key_file(tmp_path, ALICE, BestAvailableEncryption(b"correct horse"))
    (tmp_path / "passphrase").write_bytes(b"correct horse\n")
    done = run(payload, "--key", key, "--passphrase-file", tmp_path / "passphrase")
    assert verify_bundle(done.stdout_bytes, source(), not_below=0).signed_by == ("alice",)
    assert run(payload, "--key", key).exit_code == 64
    (tmp_path / "passphrase").write_bytes(b"battery staple")
    refused = run(payload, "--key", key, "--passphrase-file", tmp_path / "passphrase")
    assert refused.exit_code == 64
    assert "battery" not in refused.output


@pytest.mark.parametrize(
    "key",
    [ec.generate_private_key(ec.SECP384R1()), rsa.generate_private_key(65537, 2048)],
    ids=["P-384", "RSA"],
)
def test_key_of_another_kind_does_not_sign(tmp_path, payload, key):
    assert run(payload, "--key", key_file(tmp_path, Signer("other", key))).exit_code == 64


def test_nothing_of_a_key_is_shown(tmp_path, payload):
    whole = key_file(tmp_path, Signer("whole", ed25519.Ed25519PrivateKey.generate()))
    lines = whole.read_text().splitlines()
    broken = tmp_path / "broken.pem"
    broken.write_text(lines[0] + "\n" + lines[1][:-8] + "\n" + lines[2])
    for path in (whole, broken):
        done = run(payload, "--key", path)
        assert lines[1][:-8] not in done.output
        assert "Traceback" not in done.output
    assert run(payload, "--key", broken).exit_code == 64


@pytest.mark.parametrize(
    "arguments",
    [
        ["payload"],
        ["payload", "--key", "none"],
        ["none", "--key", "key"],
        ["payload", "--key", "key", "--message", "out"],
        ["payload", "--key", "key", "--signature", "payload", "--public-key", "payload"],
        ["payload", "--signature", "payload"],
        ["payload", "--public-key", "payload"],
        ["payload", "--key", "payload"],
        ["payload", "--key", "key", "--output", "none/none"],
        ["payload", "--key", "key", "--passphrase-file", "empty"],
        ["payload", "--key", "key", "--passphrase-file", "payload"],
        ["empty", "--key", "key"],
        [],
    ],
)
def test_usage_errors_end_with_64(tmp_path, payload, monkeypatch, arguments):
    monkeypatch.chdir(tmp_path)
    key_file(tmp_path, ALICE).rename("key")
    Path("empty").touch()
    done = run(*arguments)
    assert (done.exit_code, done.stdout_bytes) == (64, b"")
    assert done.stderr
