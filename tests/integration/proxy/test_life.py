"""Years beside an application: tokens that end, gateways that restart or change, volumes that come late, stops."""

from __future__ import annotations

import base64
import http.client
import json
import socket
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path

from support.sidecar import CLAIM, House, Sidecar, verifies
from support.waiting import DEADLINE_SECONDS, eventually

MESSAGE = b"tick"
SIGN = {"input": base64.b64encode(MESSAGE).decode()}
EXCHANGES = 'chatelaine_proxy_token_exchanges_total{result="Issued"}'


def metric(sidecar: Sidecar, name: str) -> float:
    with urllib.request.urlopen(f"http://127.0.0.1:{sidecar.said['metrics_port']}/metrics", timeout=10) as answer:
        rows = answer.read().decode().splitlines()
    return sum(float(row.rpartition(" ")[2]) for row in rows if row.rpartition(" ")[0] == name)


def exchanges_of(house: House) -> list[dict[str, object]]:
    return [row for row in house.gateway.audit() if row.get("operation") == "TokenExchange"]


def test_tokens_are_renewed_and_the_projected_token_is_read_anew(
    house: House, new_sidecar: Callable[..., Sidecar]
) -> None:
    sidecar = new_sidecar("--metrics-listen", "127.0.0.1:0")
    sidecar.token_file.unlink()
    sidecar.start()
    before = len(exchanges_of(house))
    # A trust token never outlives the token that it was given for, so these make the renewals come soon.
    first_ends = int(time.time()) + 12

    def replaced_and_renewed() -> bool:
        sidecar.mount_token(house.account_token(exp=int(time.time()) + 12))
        sidecar.curl("/v1/keys/signing")
        return metric(sidecar, EXCHANGES) >= 3 and time.time() > first_ends

    eventually(replaced_and_renewed, "renewed twice", seconds=90, pause_seconds=0.5)
    sidecar.sign("signing", MESSAGE)
    made = [row for row in exchanges_of(house)[before:] if row.get("holder")]
    assert len({row["jti"] for row in made}) == len(made) >= 3
    assert len({row["holder"] for row in made}) == 1  # one caller's key, all the time


def test_a_gateway_that_is_killed_and_comes_back_serves_the_next_request(house: House, sidecar: Sidecar) -> None:
    sidecar.sign("signing", MESSAGE)
    house.gateway.listen = f"127.0.0.1:{house.gateway.port}"
    house.gateway.kill()
    reply = sidecar.curl("/v1/keys/signing/sign", SIGN)
    assert (reply.status, reply.code) == (503, "ERROR_GATEWAY_UNREACHABLE")
    assert "NetworkPolicies" in reply.json["detail"]
    house.gateway.start()
    house.serve(make_keys=False)
    eventually(lambda: sidecar.curl("/v1/keys/signing/sign", SIGN).status == 200, "served again")


def test_a_gateway_that_restarts_between_two_requests_is_not_noticed(house: House, sidecar: Sidecar) -> None:
    sidecar.sign("signing", MESSAGE)
    house.gateway.listen = f"127.0.0.1:{house.gateway.port}"
    house.gateway.stop()
    house.gateway.start()
    house.serve(make_keys=False)
    sidecar.sign("signing", MESSAGE)


def test_a_host_that_reboots_between_two_requests_is_not_noticed(house: House, sidecar: Sidecar) -> None:
    sidecar.sign("signing", MESSAGE)
    house.operator.world.epoch = "4.0.2"
    house.operator.tell()
    sidecar.sign("signing", MESSAGE)


def test_a_new_binding_is_followed_to_another_gateway(house: House, sidecar: Sidecar, tmp_path: Path) -> None:
    first = sidecar.curl("/v1/keys/signing").json["versions"][0]["pem"]
    other = House(tmp_path / "other", host="hsm-b", hsm="simulated", cluster=house.cluster)
    try:
        other.serve()
        house.operator.world.claims.clear()
        house.operator.tell()
        refused = sidecar.curl("/v1/keys/signing/sign", SIGN)
        assert (refused.status, refused.code) == (503, "ERROR_EXCHANGE_REFUSED")
        assert "ERROR_NOT_ATTESTED" in refused.json["detail"]
        sidecar.mount(other.binding())
        eventually(lambda: sidecar.curl("/v1/keys/signing").status == 200, "the other gateway serves")
        second = sidecar.curl("/v1/keys/signing").json["versions"][0]["pem"]
        assert first != second
        assert verifies(second, MESSAGE, sidecar.sign("signing", MESSAGE))
        assert len(sidecar.logged("a binding is followed")) == 2
    finally:
        other.gateway.close()


def test_a_binding_that_comes_late_and_a_token_that_comes_later_are_waited_for(
    house: House, new_sidecar: Callable[..., Sidecar]
) -> None:
    sidecar = new_sidecar()
    binding, token = sidecar.binding, sidecar.token_file
    sidecar.binding, sidecar.token_file = sidecar.folder / "late", sidecar.folder / "later" / "token"
    sidecar.start()
    assert sidecar.curl("/healthz").status == 200
    reply = sidecar.curl("/v1/keys/signing/sign", SIGN)
    assert (reply.status, reply.code) == (503, "ERROR_BINDING_UNUSABLE")
    assert "spec.binding.secretName" in reply.json["detail"]
    sidecar.mount(house.binding())
    reply = eventually(lambda: told(sidecar, "ERROR_ACCOUNT_TOKEN_UNUSABLE"), "the token is missed")
    assert "audience chatelaine.dev" in reply
    assert sidecar.curl("/readyz").status == 503
    sidecar.mount_token(token.read_bytes())
    eventually(lambda: sidecar.curl("/readyz").status == 200, "ready")
    sidecar.sign("signing", MESSAGE)
    assert binding.exists()


def told(sidecar: Sidecar, code: str) -> str | None:
    reply = sidecar.curl("/readyz")
    return str(reply.json["detail"]) if reply.status == 503 and reply.code == code else None


def test_a_request_under_way_gets_its_answer_when_the_sidecar_is_stopped(sidecar: Sidecar) -> None:
    assert sidecar.process is not None
    sidecar.sign("signing", MESSAGE)
    body = json.dumps(SIGN).encode()
    with socket.socket(socket.AF_UNIX) as line:
        line.settimeout(DEADLINE_SECONDS)
        line.connect(str(sidecar.socket_path))
        head = f"POST /v1/keys/signing/sign HTTP/1.1\r\nhost: x\r\ncontent-length: {len(body)}\r\n\r\n"
        line.sendall(head.encode() + body[:5])
        assert sidecar.curl("/healthz").status == 200  # accepted in order, so the first one is under way
        sidecar.process.terminate()
        eventually(lambda: sidecar.logged("stopping"), "it stops")
        line.sendall(body[5:])
        answer = http.client.HTTPResponse(line)
        answer.begin()
        assert answer.status == 200
        assert json.loads(answer.read())["key_version"] == 1
    assert sidecar.process.wait(DEADLINE_SECONDS) == 0
    assert not sidecar.socket_path.exists()


def test_the_claim_is_found_below_the_root_of_bindings(house: House, new_sidecar: Callable[..., Sidecar]) -> None:
    sidecar = new_sidecar()
    root = sidecar.folder / "bindings"
    sidecar.binding = root / CLAIM
    sidecar.mount(house.binding())
    (root / "database").mkdir()
    (root / "database" / "type").write_text("postgresql")
    sidecar.environment = {"SERVICE_BINDING_ROOT": str(root)}
    sidecar.start().sign("signing", MESSAGE)
