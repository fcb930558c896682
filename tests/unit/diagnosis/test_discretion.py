"""Nothing that looks like a secret gets through, wherever it was planted; and what is none is not lost."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from chatelaine.cli.support_bundle_files import Bundle, fit, written
from chatelaine.diagnosis.discretion import discreet, discreet_lines, pod, suspicions

KEY = ec.generate_private_key(ec.SECP256R1())


def encoded(text: bytes) -> str:
    return base64.b64encode(text).decode()


PEM = KEY.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
SEC1 = KEY.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption())
DER = KEY.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
LOCKED = KEY.private_bytes(Encoding.DER, PrivateFormat.PKCS8, BestAvailableEncryption(b"x"))
JWT = ".".join(
    base64.urlsafe_b64encode(part).decode().rstrip("=")
    for part in (b'{"alg":"RS256","kid":"k"}', b'{"sub":"system:serviceaccount:a:b"}', b"s" * 64)
)
PLANTED = {
    "a key in PEM": PEM.decode(),
    "a key in SEC 1": SEC1.decode(),
    "a key in DER": encoded(DER),
    "a locked key in DER": encoded(LOCKED),
    "a key in PEM in base64": encoded(PEM),
    "a key in base64 twice": encoded(encoded(PEM).encode()),
    "a service account's token": JWT,
    "a token in base64": encoded(JWT.encode()),
    "a header": "Authorization: Bearer abcdefghijklmnop",
    "an invitation": "chat1.eyJzZWNyZXQiOiJhYmNkZWZnaGlqa2xtbm9w",
    "a PIN in a URI": "pkcs11:token=hsm-a?pin-value=1234",
    "a PIN in words": "the user PIN is 123456",
    "a PIN in an assignment": "SO_PIN=12345678",
    "a password": "password: hunter2",
}


@pytest.mark.parametrize("planted", PLANTED.values(), ids=PLANTED)
def test_a_secret_planted_in_an_annotation_is_left_out(planted: str) -> None:
    body = {"metadata": {"name": "a", "annotations": {"note": f"look: {planted} !"}}, "spec": {"list": [planted]}}
    out = json.dumps(discreet(body))
    assert planted not in json.loads(json.dumps(discreet(body)))["metadata"]["annotations"]["note"]
    assert out.count("left out") == 2
    assert suspicions(out) == ()


@pytest.mark.parametrize("planted", PLANTED.values(), ids=PLANTED)
@pytest.mark.parametrize("shape", ["plain", "json"])
def test_a_secret_planted_in_a_log_is_left_out(planted: str, shape: str) -> None:
    line = json.dumps({"message": planted}) if shape == "json" else f"said: {planted}"
    out = "\n".join(discreet_lines(f"before\n{line}\nafter"))
    assert out.splitlines()[0] == "before"
    assert out.splitlines()[-1] == "after"
    assert "left out" in out
    assert suspicions(out) == ()
    body = "".join(PEM.decode().splitlines()[1:-1])
    assert body[:40] not in out


@pytest.mark.parametrize("planted", PLANTED.values(), ids=PLANTED)
def test_a_file_that_the_first_fence_let_through_is_refused_by_the_second(planted: str, tmp_path: Path) -> None:
    bundle = Bundle({"logs/a.log": f"x {planted} y", "logs/b.log": "harmless"})
    good, refused = fit(bundle.files)
    assert set(good) == {"logs/b.log"}
    assert set(refused) == {"logs/a.log"}
    assert set(written(tmp_path / "bundle.tar.gz", bundle)) == {"logs/a.log"}


@pytest.mark.parametrize(
    "field", ["pin", "PIN", "userPin", "password", "clientSecret", "token", "bearerToken", "hsm-pin"]
)
def test_a_field_that_is_called_like_a_secret_loses_its_value(field: str) -> None:
    assert discreet({field: "abc"}) == {field: "[left out]"}


HARMLESS = {
    "token": "pkcs11:token=hsm-a",
    "secretName": "checkout-hsm",
    "evidenceDigest": "sha256:" + "ab" * 32,
    "publicKey": KEY.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode(),
    "attestationKeyPublic": encoded(KEY.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)),
    "message": "Key signing/1 is pinned; the token's PIN was refused twice. PCR 7 is " + "cd" * 32,
    "pinFile": "/etc/chatelaine/pin",
}


def test_what_people_need_to_help_stays() -> None:
    assert discreet(HARMLESS) == HARMLESS
    assert list(discreet_lines(json.dumps(HARMLESS))) == [json.dumps(HARMLESS)]


def test_the_last_applied_configuration_of_an_object_goes() -> None:
    applied = {"kubectl.kubernetes.io/last-applied-configuration": '{"data":{"pin":"MTIzNA=="}}', "kept": "yes"}
    body: Any = {"metadata": {"annotations": applied, "managedFields": [{"manager": "x"}]}}
    assert discreet(body) == {"metadata": {"annotations": {"kept": "yes"}}}


def test_values_of_a_pods_environment_go() -> None:
    container = {
        "name": "gateway",
        "env": [{"name": "LICENCE", "value": "abc"}, {"name": "N", "valueFrom": {"x": "y"}}],
    }
    assert pod({"spec": {"containers": [container]}})["spec"]["containers"][0]["env"] == [
        {"name": "LICENCE", "value": "[left out]"},
        {"name": "N", "valueFrom": {"x": "y"}},
    ]


def test_what_is_too_long_to_look_through_is_left_out() -> None:
    assert suspicions("A" * 70_000)


def test_a_bundle_is_its_owners_alone_and_never_written_over_another_file(tmp_path: Path) -> None:
    place = tmp_path / "bundle.tar.gz"
    written(place, Bundle({"a.txt": "a"}))
    assert place.stat().st_mode & 0o777 == 0o600
    with pytest.raises(FileExistsError):
        written(place, Bundle({"a.txt": "b"}))
