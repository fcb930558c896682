"""The agent's side: statement, identity, and word of every change of the token's keys."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import pwd
import socket
import uuid
from pathlib import Path

import pytest

from chatelaine.evidence.hsm_statement import verify_statement
from chatelaine.evidence.inventory import decode_inventory, inventory_digest
from chatelaine.model.identifiers import key_label
from chatelaine.wire.messages import LINES_MEDIA_TYPE, DestroyKey, EnsureKey, StatementRequest, encode
from support import pki
from support.gateway import GatewayProcess
from support.waiting import eventually

NONCE = bytes(range(32))
PCRS = bytes(32)


def test_statement_is_signed_inside_over_nonce_and_pcr_digest(gateway, operator):
    request = StatementRequest(pcr_digest=PCRS, nonce=NONCE)
    said = gateway.local("POST", "/local/v1/statement", encode(request)).json
    raw = {name: base64.b64decode(value) for name, value in said.items()}
    identity = operator.hello().identity
    assert raw["attestationKeySpki"] == identity.attestation_key_spki
    assert raw["gatewaySpki"] == identity.gateway_spki == gateway.leaf.spki
    statement = verify_statement(
        raw["statement"],
        raw["signature"],
        identity.attestation_key_spki,
        nonce=NONCE,
        pcr_digest=PCRS,
        serial=identity.token.serial,
    )
    assert statement.inventory_digest == inventory_digest(decode_inventory(raw["inventory"]))
    assert "sha256:" + statement.mechanisms_digest.hex() == identity.token.mechanisms_digest


def test_identity_is_the_one_that_the_operator_is_told(gateway, operator):
    said = gateway.local("GET", "/local/v1/identity").json
    assert base64.b64decode(said["gatewaySpki"]) == operator.hello().identity.gateway_spki


def test_statement_requests_in_another_form_are_refused(gateway):
    for body in (b"", b"{}", encode(StatementRequest(pcr_digest=PCRS, nonce=b"short"))[:-2]):
        assert gateway.local("POST", "/local/v1/statement", body).status == 400
    assert gateway.local("GET", "/local/v1/statement").status == 405
    assert gateway.local("GET", "/control/v1/hello").status == 404


def test_key_made_by_us_and_by_somebody_else_is_told_at_once(gateway, operator):
    connection = gateway.local_connection()
    connection.request("GET", "/local/v1/changes")
    answer = connection.getresponse()
    assert answer.getheader("content-type") == LINES_MEDIA_TYPE
    first = json.loads(answer.readline())
    assert first["kind"] == "Alive"
    label = key_label(str(uuid.uuid4()), "temporary", 1)
    operator.ask("POST", "/control/v1/keys/ensure", EnsureKey(label=label, type="EcP256", may_generate=True))
    told = _next_inventory(answer)
    assert told["counter"] > first["counter"]
    gateway.token.run_pkcs11(
        "from pkcs11 import KeyType\nsession.generate_key(KeyType.AES, 256, label='smuggled', store=True)\n"
    )
    assert _next_inventory(answer)["counter"] > told["counter"]
    operator.ask("POST", "/control/v1/keys/destroy", DestroyKey(label=label))
    assert _next_inventory(answer)
    connection.close()


def _next_inventory(answer):
    while True:
        line = json.loads(answer.readline())
        if line["kind"] == "Inventory":
            return line


def test_streams_that_are_left_are_forgotten(gateway, operator):
    before = gateway.metric("chatelaine_gateway_connections")
    for _ in range(5):
        connection = gateway.local_connection()
        connection.request("GET", "/local/v1/changes")
        connection.getresponse().readline()
        connection.close()
    eventually(lambda: gateway.metric("chatelaine_gateway_connections") <= before, "the streams are forgotten")


def asked_as(uid: int, path: Path) -> bytes:
    """What a process of that user reads from the socket first; empty: the gateway hung up."""
    if os.geteuid() != 0:
        pytest.fail("this test takes another user's place; run the tests as root")
    stranger = socket.socket(socket.AF_UNIX)
    try:
        os.seteuid(uid)
        try:
            stranger.connect(str(path))
        finally:
            os.seteuid(0)
        stranger.settimeout(30)
        with contextlib.suppress(ConnectionError):
            stranger.sendall(b"GET /local/v1/identity HTTP/1.1\r\nhost: x\r\n\r\n")
            return stranger.recv(12)
        return b""
    finally:
        stranger.close()


def test_another_user_of_this_host_gets_nothing(gateway):
    """Even where the folder let them in: the peer's user is asked of the kernel."""
    mode = gateway.socket_path.parent.stat().st_mode
    gateway.socket_path.parent.chmod(0o755)
    gateway.socket_path.chmod(0o666)
    try:
        assert asked_as(65534, gateway.socket_path) == b""
    finally:
        gateway.socket_path.chmod(0o600)
        gateway.socket_path.parent.chmod(mode & 0o777)


def test_the_agents_user_is_let_in_where_it_is_named_and_no_third_one(tmp_path):
    agent, third = pwd.getpwnam("daemon").pw_uid, pwd.getpwnam("games").pw_uid
    gateway = GatewayProcess(tmp_path, pki.new_authority(), hsm="simulated")
    gateway.options = ["--agent-user", "daemon"]
    try:
        gateway.start()
        assert gateway.socket_path.stat().st_mode & 0o777 == 0o660
        gateway.socket_path.parent.chmod(0o755)
        gateway.socket_path.chmod(0o666)
        assert asked_as(agent, gateway.socket_path) == b"HTTP/1.1 200"
        assert asked_as(third, gateway.socket_path) == b""
    finally:
        gateway.close()
