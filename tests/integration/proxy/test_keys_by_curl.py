"""Plain curl in an application's pod uses its keys: a real sidecar, a real gateway, a real token."""

from __future__ import annotations

import base64
import subprocess
from pathlib import Path

from support.sidecar import Sidecar, verifies

MESSAGE = b"pay 10 to Ada"
INPUT = base64.b64encode(MESSAGE).decode()


def public_key(sidecar: Sidecar) -> str:
    return str(sidecar.curl("/v1/keys/signing").json["versions"][0]["pem"])


def test_curl_signs_and_openssl_verifies(sidecar: Sidecar, tmp_path: Path) -> None:
    signature, pem = sidecar.sign("signing", MESSAGE), public_key(sidecar)
    files = {"message": MESSAGE, "signature": signature, "key.pem": pem.encode()}
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    command = ["openssl", "dgst", "-sha256", "-verify", "key.pem", "-signature", "signature", "message"]
    said = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True).stdout
    assert said == "Verified OK\n"


def test_every_key_route_is_forwarded_by_its_short_and_its_long_name(sidecar: Sidecar) -> None:
    signature = base64.b64encode(sidecar.sign("signing", MESSAGE)).decode()
    for name in ("signing", "payments/checkout-hsm/signing"):
        assert sidecar.curl(f"/v1/keys/{name}").json["name"] == "signing"
        assert sidecar.curl(f"/v1/keys/{name}/sign", {"input": INPUT}).status == 200
        verified = sidecar.curl(f"/v1/keys/{name}/verify", {"input": INPUT, "signature": signature})
        assert verified.json == {"valid": True, "key_version": 1}
    assert len(base64.b64decode(sidecar.curl("/v1/random?bytes=32").json["random"])) == 32
    assert verifies(public_key(sidecar), MESSAGE, base64.b64decode(signature))


def test_the_gateways_own_refusal_comes_back_as_it_is(sidecar: Sidecar) -> None:
    reply = sidecar.curl("/v1/keys/idle/sign", {"input": INPUT})
    assert (reply.status, reply.code) == (403, "ERROR_USAGE_NOT_ALLOWED")
    reply = sidecar.curl("/v1/keys/signing/sign", "no JSON")
    assert (reply.status, reply.code) == (400, "ERROR_BAD_REQUEST")
