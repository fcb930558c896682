"""The main job, on a real token: exchange, sign, and openssl verifies."""

from __future__ import annotations

import base64
import hashlib
import json
import subprocess
import time

import pytest


def _b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _openssl_verifies(tmp_path, pem: str, signature: bytes, *options: str) -> bool:
    (tmp_path / "pub.pem").write_text(pem)
    (tmp_path / "sig").write_bytes(signature)
    (tmp_path / "message").write_bytes(b"message")
    done = subprocess.run(
        ["openssl", "dgst", "-sha256", "-verify", "pub.pem", "-signature", "sig", *options, "message"],
        cwd=tmp_path,
        capture_output=True,
        check=False,
    )
    return done.returncode == 0


def _public(client, line, key: str) -> dict:
    reply = line.ask("GET", f"/v1/keys/payments/checkout-hsm/{key}", None, client.headers())
    assert reply.status == 200, reply.body
    return reply.json


def test_a_pod_exchanges_its_token_signs_and_openssl_verifies(client, tmp_path):
    with client.line() as line:
        signed = client.sign(line, "checkout-hsm")
        assert signed.status == 200, signed.body
        assert signed.json["key_version"] == 1
        pem = _public(client, line, "signing")["versions"][0]["pem"]
    assert _openssl_verifies(tmp_path, pem, base64.b64decode(signed.json["signature"]))


@pytest.mark.parametrize(
    ("algorithm", "options"),
    [("pss", ["-sigopt", "rsa_padding_mode:pss", "-sigopt", "rsa_pss_saltlen:32"]), ("pkcs1v15", [])],
)
def test_rsa_signatures_verify_with_openssl(client, tmp_path, algorithm, options):
    with client.line() as line:
        signed = client.sign(line, "checkout-hsm", "wide", signature_algorithm=algorithm)
        assert signed.status == 200, signed.body
        pem = _public(client, line, "wide")["versions"][0]["pem"]
    assert _openssl_verifies(tmp_path, pem, base64.b64decode(signed.json["signature"]), *options)


def test_prehashed_and_raw_marshaling_say_the_same(client):
    with client.line() as line:
        digest = hashlib.sha256(b"message").digest()
        signed = client.sign(line, "checkout-hsm", input=_b64(digest), prehashed=True, marshaling="jws")
        raw = base64.b64decode(signed.json["signature"])
        assert len(raw) == 64
        for body, valid in (
            ({"input": _b64(b"message"), "signature": _b64(raw), "marshaling": "jws"}, True),
            ({"input": _b64(b"another"), "signature": _b64(raw), "marshaling": "jws"}, False),
            ({"input": _b64(b"message"), "signature": _b64(raw), "marshaling": "asn1"}, False),
            ({"input": _b64(b"message"), "signature": _b64(raw[:63]), "marshaling": "jws"}, False),
        ):
            reply = line.ask(
                "POST", "/v1/keys/payments/checkout-hsm/signing/verify", json.dumps(body).encode(), client.headers()
            )
            assert reply.status == 200, reply.body
            assert reply.json == {"valid": valid, "key_version": 1}


def test_public_keys_come_as_pem_and_jwk(client):
    with client.line() as line:
        said = _public(client, line, "wide")
    assert said["type"] == "Rsa3072"
    assert said["versions"][0]["state"] == "Active"
    assert said["versions"][0]["jwk"]["kty"] == "RSA"
    assert "d" not in said["versions"][0]["jwk"]


def test_random_comes_from_the_token_and_is_bounded(client):
    with client.line() as line:
        one = line.ask("GET", "/v1/random?bytes=32", None, client.headers())
        two = line.ask("GET", "/v1/random?bytes=32", None, client.headers())
        assert len(base64.b64decode(one.json["random"])) == 32
        assert one.json != two.json
        for query in ("", "?bytes=0", "?bytes=1025", "?bytes=-1", "?bytes=1e3", "?bytes=999999999999", "?size=1"):
            assert line.ask("GET", f"/v1/random{query}", None, client.headers()).code == "ERROR_BAD_REQUEST"


def test_a_second_token_on_the_leaf_needs_no_csr(client):
    form = client.form("checkout-hsm")
    del form["csr"]
    with client.line() as line:
        reply = client.exchange(form, line)
        assert reply.status == 200, reply.body
        assert "certificate_chain" not in reply.json
        assert reply.json["issued_token_type"] == "urn:ietf:params:oauth:token-type:jwt"
        assert 0 < reply.json["expires_in"] <= 60
        assert client.sign(line, "checkout-hsm", token=reply.json["access_token"]).status == 200


def test_every_operation_is_recorded_without_inputs_or_outputs(client, gateway):
    marker = f"marker-{time.time_ns()}".encode()
    with client.line() as line:
        signed = client.sign(line, "checkout-hsm", input=_b64(marker))
        refused = client.sign(line, "checkout-hsm", "idle")
    assert refused.code == "ERROR_USAGE_NOT_ALLOWED"
    allowed, denied = gateway.audit()[-2:]
    assert (allowed["operation"], allowed["result"], allowed["key"], allowed["version"]) == (
        "Sign",
        "Allowed",
        "signing",
        1,
    )
    assert allowed["subject"] == "system:serviceaccount:payments:checkout:pod-1"
    assert (denied["result"], denied["reason"], denied["key"]) == ("Refused", "UsageNotGranted", "idle")
    text = (gateway.state / "audit.jsonl").read_text()
    for secret in (_b64(marker), marker.decode(), signed.json["signature"], client.token):
        assert secret not in text
        assert secret not in gateway.log.read_text()


def test_health_needs_no_certificate_and_says_whether_it_serves(gateway, operator):
    with gateway.line() as line:
        assert line.ask("GET", "/healthz").status == 200
        assert line.ask("GET", "/readyz").json == {"ready": True, "serving": True}
        metrics = line.ask("GET", "/metrics").body.decode()
    assert "chatelaine_gateway_deadline_seconds" in metrics
    operator.world.verdict = "Untrusted"
    operator.tell()
    with gateway.line() as line:
        assert line.ask("GET", "/readyz").json == {"ready": True, "serving": False}
