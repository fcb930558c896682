"""What somebody else in the pod, on the network, or in a browser tries with a sidecar."""

from __future__ import annotations

import base64
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from chatelaine.model.identifiers import digest_of
from support import pki
from support.sidecar import House, Sidecar
from support.waiting import DEADLINE_SECONDS, eventually

SIGN = {"input": base64.b64encode(b"attack").decode()}


def exchanges(house: House) -> int:
    return sum(row.get("operation") == "TokenExchange" for row in house.gateway.audit())


# --- on the network


def test_gateway_with_another_key_than_the_attested_one_is_told_nothing(
    house: House, new_sidecar: Callable[..., Sidecar]
) -> None:
    sidecar = new_sidecar()
    sidecar.mount(house.binding(**{"gateway-spki": digest_of(b"another key")}))
    before = exchanges(house)
    reply = sidecar.start().curl("/v1/keys/signing/sign", SIGN)
    assert (reply.status, reply.code) == (502, "ERROR_GATEWAY_NOT_AUTHENTICATED")
    assert digest_of(house.gateway.leaf.spki) in reply.json["detail"]
    assert exchanges(house) == before


def test_gateway_of_another_authority_is_told_nothing(house: House, new_sidecar: Callable[..., Sidecar]) -> None:
    sidecar = new_sidecar()
    sidecar.mount(house.binding(**{"ca.crt": pki.new_authority().bundle_pem}))
    before = exchanges(house)
    reply = sidecar.start().curl("/v1/keys/signing/sign", SIGN)
    assert (reply.status, reply.code) == (502, "ERROR_GATEWAY_NOT_AUTHENTICATED")
    assert exchanges(house) == before


def test_gateway_whose_key_leaves_the_binding_is_told_nothing_more(house: House, sidecar: Sidecar) -> None:
    sidecar.sign("signing", b"while it is believed")
    sidecar.mount(house.binding(**{"gateway-spki": digest_of(b"the key of tomorrow")}))
    eventually(lambda: sidecar.curl("/v1/keys/signing/sign", SIGN).status == 502, "it is not believed any more")


def test_token_for_the_api_server_is_never_sent_to_a_gateway(house: House, new_sidecar: Callable[..., Sidecar]) -> None:
    sidecar = new_sidecar()
    sidecar.mount_token(house.account_token(aud=["https://kubernetes.default.svc"]))
    before = exchanges(house)
    reply = sidecar.start().curl("/v1/keys/signing/sign", SIGN)
    assert (reply.status, reply.code) == (503, "ERROR_ACCOUNT_TOKEN_UNUSABLE")
    assert "found ['https://kubernetes.default.svc']" in reply.json["detail"]
    assert exchanges(house) == before


# --- in the pod


def test_token_file_that_never_ends_is_read_to_its_bound(house: House, new_sidecar: Callable[..., Sidecar]) -> None:
    sidecar = new_sidecar()
    endless = sidecar.token_file.parent / "endless"
    with endless.open("wb") as file:
        file.truncate(1 << 40)
    sidecar.token_file = endless
    reply = sidecar.start().curl("/readyz")
    assert "over 8192 bytes" in str(eventually(lambda: detail(sidecar), "told"))
    assert reply.status == 503


def test_pipe_in_place_of_the_token_does_not_stop_the_sidecar(
    house: House, new_sidecar: Callable[..., Sidecar]
) -> None:
    sidecar = new_sidecar()
    sidecar.token_file = sidecar.folder / "pipe"
    os.mkfifo(sidecar.token_file)
    sidecar.start()
    assert "no regular file" in str(eventually(lambda: detail(sidecar), "told"))


def detail(sidecar: Sidecar) -> str | None:
    reply = sidecar.curl("/readyz")
    return str(reply.json["detail"]) if reply.status == 503 and reply.code != "ERROR_GATEWAY_UNREACHABLE" else None


def test_second_process_at_the_same_socket_is_refused_and_the_first_goes_on(sidecar: Sidecar) -> None:
    command = [*sidecar.command]
    command[command.index("--ready-file") + 1] = str(sidecar.run / "thief.json")
    thief = subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE_SECONDS, check=False)
    assert thief.returncode == 1
    assert f"another sidecar serves {sidecar.socket_path}" in thief.stderr
    sidecar.sign("signing", b"still here")


def test_socket_of_a_killed_sidecar_is_taken_over(sidecar: Sidecar) -> None:
    assert sidecar.process is not None
    sidecar.process.kill()
    sidecar.process.wait(DEADLINE_SECONDS)
    assert sidecar.socket_path.exists()
    sidecar.start().sign("signing", b"again")
    assert sidecar.stop() == 0
    assert not sidecar.socket_path.exists()


_SAME_USER = """
import ctypes, os, sys
from chatelaine.proxy.caller import keep_memory_private
if os.geteuid() == 0:  # to whom nothing is closed
    os.setgroups([]); os.setgid(65534); os.setuid(65534)
    ctypes.CDLL(None).prctl(4, 1, 0, 0, 0)
if sys.argv[1] == "private":
    keep_memory_private()
attacker = os.fork()
if attacker == 0:
    try:
        open(f"/proc/{os.getppid()}/environ", "rb").read()
    except PermissionError:
        os._exit(13)
    os._exit(0)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(attacker, 0)[1]))
"""


@pytest.mark.parametrize(("memory", "status"), [("private", 13), ("as it was", 0)])
def test_memory_of_the_sidecar_is_closed_to_other_processes_of_its_user(memory: str, status: int) -> None:
    done = subprocess.run([sys.executable, "-c", _SAME_USER, memory], timeout=DEADLINE_SECONDS, check=False)
    assert done.returncode == status


def test_key_and_tokens_stand_in_no_file_no_argument_and_no_log(house: House, sidecar: Sidecar) -> None:
    assert sidecar.process is not None
    sidecar.sign("signing", b"message")
    secret = sidecar.token_file.read_text().strip()
    log, arguments = sidecar.log.read_text(), Path(f"/proc/{sidecar.process.pid}/cmdline").read_text()
    assert secret not in log + arguments
    assert "eyJ" not in log  # how every JWT begins
    written = [path for path in sidecar.run.iterdir() if path.is_file()]
    assert {path.name for path in written} == {".keys.sock.lock", "ready.json"}
    assert not any("PRIVATE" in path.read_text() for path in written)
    opened = [str(link.readlink()) for link in Path(f"/proc/{sidecar.process.pid}/fd").iterdir()]
    assert not any("memfd" in name for name in opened)


def test_authorization_and_other_headers_of_a_caller_go_no_further(sidecar: Sidecar) -> None:
    headers = ("Authorization: Bearer stolen.token.here", "Connection: close, Authorization", "Cookie: a=b")
    reply = sidecar.curl("/v1/keys/signing/sign", SIGN, *(word for line in headers for word in ("--header", line)))
    assert reply.status == 200


def test_what_is_no_key_route_is_not_forwarded(house: House, sidecar: Sidecar) -> None:
    before = len(house.gateway.audit())
    for path in (
        "/v1/token", "/control/v1/hello", "/metrics", "/v1/keys/..%2f..%2fcontrol/sign", "/v1/keys/../token",
        "/v1/keys/signing/sign/", "/v1/keys/signing/destroy", "/v1/keys//signing", "//v1/keys/signing",
        "/v1/keys/signing?x=/v1/token",
    ):  # fmt: skip
        reply = sidecar.curl(path, None, "--path-as-is")
        assert (reply.status, reply.code) == (404, "ERROR_NOT_FOUND"), path
    reply = sidecar.curl("/v1/keys/payments/another-claim/signing")
    assert (reply.status, reply.code) == (404, "ERROR_NOT_FOUND")
    assert "payments/checkout-hsm" in reply.json["detail"]
    assert sidecar.curl("/v1/keys/signing/sign").code == "ERROR_METHOD_NOT_ALLOWED"
    assert {row["operation"] for row in house.gateway.audit()[before:]} <= {"TokenExchange"}


def test_body_over_the_bound_is_refused_before_it_is_read(sidecar: Sidecar) -> None:
    reply = sidecar.curl("/v1/keys/signing/sign", "x" * 100, "--header", f"Content-Length: {1 << 40}")
    assert (reply.status, reply.code) == (413, "ERROR_BODY_TOO_LARGE")


# --- in a browser that can reach loopback


def test_web_page_cannot_use_keys_over_loopback(house: House, new_sidecar: Callable[..., Sidecar]) -> None:
    sidecar = new_sidecar(listen="127.0.0.1:0").start()
    assert sidecar.sign("signing", b"a program of the pod")
    port = str(sidecar.said["listen"]).rpartition(":")[2]
    by_name = sidecar.curl("/v1/keys/signing", url=f"http://localhost:{port}")
    assert by_name.status == 200
    before = len(house.gateway.audit())
    for header in (
        "Origin: http://evil.example",
        "Origin: null",
        "Sec-Fetch-Site: cross-site",
        "Sec-Fetch-Mode: no-cors",
    ):
        reply = sidecar.curl("/v1/keys/signing/sign", SIGN, "--header", header)
        assert (reply.status, reply.code) == (403, "ERROR_NOT_FROM_HERE"), header
    preflight = sidecar.curl(
        "/v1/keys/signing/sign", None, "--request", "OPTIONS", "--header", "Origin: http://evil.example"
    )
    assert preflight.status == 403
    assert len(house.gateway.audit()) == before


def test_page_whose_name_was_rebound_to_loopback_is_refused(house: House, new_sidecar: Callable[..., Sidecar]) -> None:
    sidecar = new_sidecar(listen="127.0.0.1:0").start()
    sidecar.sign("signing", b"a program of the pod")
    port = str(sidecar.said["listen"]).rpartition(":")[2]
    rebound = ("--resolve", f"evil.example:{port}:127.0.0.1")
    before = len(house.gateway.audit())
    reply = sidecar.curl("/v1/keys/signing", None, *rebound, url=f"http://evil.example:{port}")
    assert (reply.status, reply.code) == (403, "ERROR_NOT_FROM_HERE")
    assert f"127.0.0.1:{port}" in reply.json["detail"]
    assert len(house.gateway.audit()) == before


@pytest.mark.parametrize("address", ["0.0.0.0:8200", "[::]:8200", "192.0.2.7:8200", "localhost:8200"])
def test_address_that_others_could_reach_is_refused(tmp_path: Path, address: str) -> None:
    command = [sys.executable, "-m", "chatelaine.cli.main", "proxy", "--binding", str(tmp_path), "--listen", address]
    done = subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE_SECONDS, check=False)
    assert done.returncode == 2
    assert "127.0.0.1" in done.stderr
