"""Kills, restarts, a full disk, exchanged keys. Each test has a gateway of its own."""

from __future__ import annotations

import os
import signal
import threading
import uuid

import pytest
from tools.lab.softhsm import full_disk

from chatelaine.gateway.audit_chain import verify
from chatelaine.model.identifiers import key_id, service_key_label
from support import pki
from support.gateway import Client, GatewayProcess, Operator
from support.waiting import eventually

CLAIM = "checkout-hsm"


class Scene:
    def __init__(self, tmp_path, cluster):
        self.gateway = GatewayProcess(tmp_path / "g", pki.new_authority()).start()
        self.operator = Operator(self.gateway, cluster, tmp_path / "op")
        self.operator.bind(CLAIM, str(uuid.uuid4()))
        self.operator.tell()
        self.client = Client(self.gateway, cluster, tmp_path / "c").login(CLAIM)

    def signs(self):
        with self.client.line() as line:
            return self.client.sign(line, CLAIM)


@pytest.fixture
def scene(tmp_path, cluster):
    scene = Scene(tmp_path, cluster)
    try:
        yield scene
    finally:
        scene.gateway.close()


def test_killed_gateway_comes_back_with_its_keys_and_serves_nobody_before_it_is_told(scene):
    before = scene.operator.hello()
    assert scene.signs().status == 200
    scene.gateway.kill()
    scene.gateway.start()
    after = scene.operator.hello()
    assert after.identity == before.identity
    assert after.instance != before.instance
    assert (after.term, after.number) == (0, 0)
    refused = scene.signs()
    assert (refused.status, refused.code) == (403, "ERROR_INVALID_TOKEN")
    scene.operator.tell()
    # Same token key, same client CA: leaf and token of before the kill hold, for as long as they would have.
    assert scene.signs().status == 200


def test_view_of_an_earlier_life_is_not_taken_after_a_restart(scene):
    update = scene.operator.update()
    scene.gateway.kill()
    scene.gateway.start()
    scene.operator.hello()
    assert scene.operator.ask("PUT", "/control/v1/view", update).status == 409


def test_audit_chain_holds_across_kills(scene):
    for _ in range(2):
        assert scene.signs().status == 200
        scene.gateway.kill()
        scene.gateway.start()
        scene.operator.tell()
    assert scene.signs().status == 200
    key = (scene.gateway.state / "audit.key").read_bytes()
    lines = (scene.gateway.state / "audit.jsonl").read_bytes().splitlines()
    assert verify(key, lines).seq == len(lines)
    assert sum(row["operation"] == "Resumed" for row in scene.gateway.audit()) == 2


def test_worker_killed_under_load_costs_only_the_calls_in_flight(scene):
    statuses: list[int] = []
    stop = threading.Event()

    def load():
        with scene.client.line() as line:
            while not stop.is_set():
                statuses.append(scene.client.sign(line, CLAIM).status)

    threads = [threading.Thread(target=load) for _ in range(4)]
    for thread in threads:
        thread.start()
    try:
        eventually(lambda: statuses.count(200) > 20, "signatures flow")
        os.kill(scene.gateway.worker_pid(), signal.SIGKILL)
        eventually(lambda: 503 in statuses, "the calls in flight fail")
        seen = len(statuses)
        eventually(lambda: statuses[seen:].count(200) > 20, "signatures flow again")
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert set(statuses) == {200, 503}
    assert scene.gateway.metric("chatelaine_gateway_worker_restarts_total") == 1
    failed = [row for row in scene.gateway.audit() if row.get("result") == "Failed"]
    assert len(failed) == statuses.count(503)


def test_operations_that_cannot_be_recorded_are_not_done(scene):
    assert scene.signs().status == 200
    with full_disk(scene.gateway.process.pid):
        for _ in range(3):
            reply = scene.signs()
            assert (reply.status, reply.code) == (503, "ERROR_AUDIT_UNAVAILABLE")
        exchange = scene.client.exchange(scene.client.form(CLAIM))
        assert exchange.code == "ERROR_AUDIT_UNAVAILABLE"
        assert b"access_token" not in exchange.body
        # Revocation must go through all the same.
        scene.operator.world.verdict = "Untrusted"
        scene.operator.tell()
    scene.operator.world.verdict = "Trusted"
    scene.operator.tell()
    eventually(lambda: scene.signs().status == 200, "the log is written again")
    key = (scene.gateway.state / "audit.key").read_bytes()
    lines = [line for line in (scene.gateway.state / "audit.jsonl").read_bytes().splitlines() if line]
    assert verify(key, lines).seq == len(lines)


def test_exchanged_service_key_stops_the_gateway_from_serving(scene):
    scene.gateway.stop()
    label = service_key_label("attestation")
    for half in ("PRIVATE_KEY", "PUBLIC_KEY"):
        scene.gateway.token.delete_half(key_id(label), half)
    scene.gateway.start()
    eventually(lambda: "service keys cannot be used" in scene.gateway.log.read_text(), "the gateway says so")
    reply = scene.operator.ask("GET", "/control/v1/hello")
    assert (reply.status, reply.code) == (503, "ERROR_HSM_UNAVAILABLE")
    assert scene.gateway.local("GET", "/local/v1/identity").status == 503
    assert not [label for _, label, _ in scene.gateway.token.objects() if label.endswith("attestation/1")]


def test_wrong_pin_keeps_the_gateway_up_and_serving_nothing(tmp_path):
    gateway = GatewayProcess(tmp_path / "g", pki.new_authority())
    gateway.token.write_pin("wrong")
    try:
        gateway.start()
        eventually(lambda: "PinRejected" in gateway.log.read_text(), "the refusal is told")
        with gateway.line() as line:
            assert line.ask("GET", "/healthz").status == 200
            assert line.ask("GET", "/readyz").status == 503
        # A token that has seen a wrong PIN is not tried again by us: a person logs in once with another tool.
        gateway.token.run_pkcs11("pass")
        gateway.token.write_pin(gateway.token.pin)
        with gateway.line() as line:
            eventually(lambda: line.ask("GET", "/readyz").status == 200, "the mended PIN is noticed")
        assert "wrong" not in gateway.log.read_text()
    finally:
        gateway.close()


def test_sigterm_ends_it_in_order(scene):
    with scene.client.line() as line:
        assert scene.client.sign(line, CLAIM).status == 200
        assert scene.gateway.stop() == 0
        eventually(line.closed_by_peer, "open connections are closed")
    assert not scene.gateway.socket_path.exists()


def test_gateway_without_a_leaf_says_what_to_do(tmp_path):
    gateway = GatewayProcess(tmp_path / "g", pki.new_authority(), hsm="simulated")
    (gateway.folder / "tls" / "chain.pem").unlink()
    with pytest.raises(AssertionError, match="chatelaine host join"):
        gateway.start()
    gateway.close()


def test_key_file_that_others_may_read_is_refused(tmp_path):
    gateway = GatewayProcess(tmp_path / "g", pki.new_authority(), hsm="simulated")
    (gateway.folder / "tls" / "key.pem").chmod(0o644)
    with pytest.raises(AssertionError, match="chmod 600"):
        gateway.start()
    gateway.close()
