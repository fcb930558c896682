"""The operator's routes: who gets in, and what a view must be to be taken."""

from __future__ import annotations

import time
import uuid

import msgspec
import pytest

from chatelaine.model.identifiers import agent_server_name, gateway_server_name, key_label, service_key_label
from chatelaine.wire.messages import (
    DestroyKey,
    EnsureKey,
    GatewayHello,
    Leaf,
    LeafRequest,
    ViewUpdate,
    encode,
)
from support import pki
from support.gateway import Operator, leaf_of
from support.tokens import Cluster

HELLO = "/control/v1/hello"
VIEW = "/control/v1/view"
CLAIM = "checkout-hsm"


# --- who gets in


def _refused(line, method="GET", path=HELLO, body=None):
    reply = line.ask(method, path, body)
    assert (reply.status, reply.code) == (403, "ERROR_OPERATOR_ONLY")


def test_caller_without_a_certificate_is_refused(gateway):
    for path in (HELLO, VIEW, "/control/v1/keys/ensure", "/control/v1/absent", "/control/"):
        with gateway.line() as line:
            _refused(line, "PUT", path, b"{}")


def test_client_leaf_on_operator_routes_is_refused(client):
    with client.line() as line:
        _refused(line)


@pytest.mark.parametrize("name", [agent_server_name("hsm-a"), gateway_server_name("hsm-a"), gateway_server_name("x")])
def test_leaf_of_another_of_our_processes_is_refused(gateway, tmp_path, name):
    leaf_of(gateway, tmp_path / "leaf", name)
    context = gateway.context(tmp_path / "leaf" / "chain.pem", tmp_path / "leaf" / "key.pem")
    with gateway.line(context) as line:
        _refused(line)


def test_operator_of_another_installation_is_refused(gateway, cluster, tmp_path):
    other = Operator(gateway, cluster, tmp_path / "own")
    stranger = pki.new_authority()
    pki.renew(stranger, other.leaf)
    with pytest.raises(OSError), other.line() as line:
        line.ask("GET", HELLO)


def test_leaf_of_a_ca_that_has_left_the_bundle_is_refused(gateway, cluster, tmp_path, operator):
    """OpenSSL cannot forget a CA; the gateway goes by the present bundle all the same."""
    old = gateway.authority
    fresh = pki.new_authority()
    before = operator.line()
    request = msgspec.json.decode(operator.ask("POST", "/control/v1/leaf/request").body, type=LeafRequest)

    def give(signer, bundle):
        issued = signer.issue_leaf(
            request.csr, gateway_server_name("hsm-a"), pki.now(), serial=uuid.uuid4().bytes, lifetime_seconds=3600
        )
        return Leaf(chain_pem=issued.chain_pem, ca_bundle_pem=bundle)

    try:
        with before:
            assert operator.ask("PUT", "/control/v1/leaf", give(fresh, fresh.bundle_pem)).status == 204
            _refused(before)
        gateway.authority = fresh
        # A trusted store that still knows the old CA: our client here trusts both.
        with pytest.raises((AssertionError, OSError)):
            assert operator.ask("GET", HELLO).status == 200
    finally:
        gateway.authority = fresh
        back = Operator(gateway, cluster, tmp_path / "back")
        assert back.ask("PUT", "/control/v1/leaf", give(old, old.bundle_pem)).status == 204
        gateway.authority = old


def test_new_leaf_is_shown_to_new_connections_and_keeps_the_key(gateway, operator):
    asked = msgspec.json.decode(operator.ask("POST", "/control/v1/leaf/request").body, type=LeafRequest)
    issued = gateway.authority.issue_leaf(
        asked.csr, gateway_server_name("hsm-a"), pki.now(), serial=uuid.uuid4().bytes, lifetime_seconds=7200
    )
    spki = operator.hello().identity.gateway_spki
    with operator.line() as before:
        leaf = Leaf(chain_pem=issued.chain_pem, ca_bundle_pem=gateway.authority.bundle_pem)
        assert operator.ask("PUT", "/control/v1/leaf", leaf).status == 204
        assert before.ask("GET", HELLO).status == 200
    after = msgspec.json.decode(operator.ask("POST", "/control/v1/leaf/request").body, type=LeafRequest)
    assert after.not_after == issued.not_after
    assert operator.hello().identity.gateway_spki == spki == issued.spki


@pytest.mark.parametrize("flaw", ["other name", "other key", "other ca", "no certificate"])
def test_leaf_that_is_not_for_this_gateway_is_refused(gateway, operator, tmp_path, flaw):
    asked = msgspec.json.decode(operator.ask("POST", "/control/v1/leaf/request").body, type=LeafRequest)
    authority = pki.new_authority() if flaw == "other ca" else gateway.authority
    name = gateway_server_name("hsm-b" if flaw == "other name" else "hsm-a")
    csr = leaf_of(gateway, tmp_path / "x", name).request() if flaw == "other key" else asked.csr
    chain = authority.issue_leaf(csr, name, pki.now(), serial=uuid.uuid4().bytes, lifetime_seconds=60).chain_pem
    leaf = Leaf(chain_pem="" if flaw == "no certificate" else chain, ca_bundle_pem=gateway.authority.bundle_pem)
    reply = operator.ask("PUT", "/control/v1/leaf", leaf)
    assert (reply.status, reply.code) == (422, "LeafRefused")
    assert operator.ask("GET", HELLO).status == 200


# --- views


def _not_taken(operator: Operator, update: ViewUpdate) -> GatewayHello:
    reply = operator.ask("PUT", VIEW, update)
    assert reply.status == 409, reply.body
    return msgspec.json.decode(reply.body, type=GatewayHello)


def _signs(client) -> bool:
    with client.line() as line:
        return client.sign(line, CLAIM).status == 200


def test_older_term_cannot_override_a_revocation(client, operator):
    deposed = operator.update()
    operator.term += 1
    operator.world.verdict = "Untrusted"
    operator.tell()
    hello = _not_taken(operator, msgspec.structs.replace(deposed, number=deposed.number + 1000))
    assert (hello.term, hello.number) == (operator.term, operator.number)
    assert not _signs(client)


def test_older_term_cannot_extend_a_deadline(client, operator):
    longer = operator.update()
    operator.term += 1
    operator.world.valid_seconds = 0.0
    operator.tell()
    _not_taken(operator, msgspec.structs.replace(longer, number=longer.number + 1000))
    assert not _signs(client)


def test_replayed_view_is_not_taken(client, operator):
    taken = operator.update()
    operator.tell(taken)
    operator.world.claims.clear()
    operator.tell()
    _not_taken(operator, taken)
    assert not _signs(client)


def test_view_for_an_earlier_life_of_the_gateway_is_not_taken(operator):
    _not_taken(operator, operator.update(instance=uuid.uuid4().hex))


@pytest.mark.parametrize("base", [0, -1, 10**9])
def test_change_of_a_view_that_is_not_held_is_not_taken(operator, base):
    _not_taken(operator, operator.update(base=base))


def test_new_leader_must_tell_a_whole_view(operator):
    base = operator.number
    operator.term += 1
    _not_taken(operator, operator.update(base=base))


def test_change_adds_to_the_view_that_is_held(client, operator):
    added = operator.bind("added", str(uuid.uuid4()), make_keys=False)
    base = operator.number
    operator.tell(operator.update(base=base, claims=(added,), standing=None, cluster=None))
    assert _signs(client)
    client.login("added")


@pytest.mark.parametrize(
    "label",
    [
        service_key_label("token"),
        service_key_label("attestation"),
        key_label("00000000-0000-0000-0000-000000000000", "signing", 1),
        "anything",
    ],
)
def test_view_that_leads_to_another_key_is_refused(client, operator, made_uid, label):
    claim = operator.world.claims[made_uid]
    key = claim.keys[0]
    stolen = msgspec.structs.replace(key, versions=(msgspec.structs.replace(key.versions[0], label=label),))
    operator.world.claims[made_uid] = msgspec.structs.replace(claim, keys=(stolen,))
    reply = operator.ask("PUT", VIEW, operator.update())
    assert (reply.status, reply.code) == (422, "ViewRefused")
    assert _signs(client)


def test_claim_whose_uid_is_service_is_refused(operator):
    """Its first key's label would be one of the token's own keys."""
    operator.bind("sly", "service", make_keys=False)
    reply = operator.ask("PUT", VIEW, operator.update())
    assert (reply.status, reply.code) == (422, "ViewRefused")


def test_unknown_version_of_a_message_is_refused(operator):
    reply = operator.ask("PUT", VIEW, operator.update(v=99))
    assert (reply.status, reply.code) == (400, "VersionNotSupported")


def test_malformed_messages_are_refused(operator):
    with operator.line() as line:
        for body in (b"", b"{}", b"[]", b"\xff", b'{"v":1,"instance":1}', b"[" * 100_000):
            reply = line.ask("PUT", VIEW, body)
            assert (reply.status, reply.code) == (400, "ERROR_BAD_REQUEST")


def test_oversized_control_body_is_refused(operator):
    with operator.line() as line:
        reply = line.ask("PUT", VIEW, None, {"content-length": str(9 * 1024 * 1024)})
        assert (reply.status, reply.code) == (413, "ERROR_BODY_TOO_LARGE")


# --- keys


def test_keys_are_made_once_and_destroyed_for_good(operator):
    label = key_label(str(uuid.uuid4()), "temporary", 1)
    ensure = EnsureKey(label=label, type="EcP256", may_generate=False)
    absent = operator.ask("POST", "/control/v1/keys/ensure", ensure)
    assert (absent.status, absent.code) == (404, "KeyAbsent")
    make = msgspec.structs.replace(ensure, may_generate=True)
    made = operator.ask("POST", "/control/v1/keys/ensure", make).json
    again = operator.ask("POST", "/control/v1/keys/ensure", make).json
    assert made["created"]
    assert not again.get("created")
    assert made["spki"] == again["spki"]
    assert made["pkcs11Uri"].startswith("pkcs11:token=")
    gone = [operator.ask("POST", "/control/v1/keys/destroy", DestroyKey(label=label)).json for _ in range(2)]
    assert [bool(item.get("existed")) for item in gone] == [True, False]


@pytest.mark.parametrize(
    "label",
    [service_key_label("token"), service_key_label("attestation"), "chat/service/x/1", "chat/u/../1", "chat/u/k/0", "x",
     "chat/u/k/1/2", "chat//k/1", "chat/u/K/1", "chat/u/k\x00/1", "chat/u/k/1\n",
     "chat/u/k/1000001", "chat/u/k/999999999"],
)  # fmt: skip
def test_service_keys_and_foreign_labels_are_nobodys_to_make_or_destroy(operator, label):
    for path, message in (
        ("ensure", EnsureKey(label=label, type="EcP256", may_generate=True)),
        ("destroy", DestroyKey(label=label)),
    ):
        reply = operator.ask("POST", f"/control/v1/keys/{path}", message)
        assert (reply.status, reply.code) == (422, "LabelRefused")


def test_inventory_shows_the_keys_of_the_claim(operator, made_uid):
    from base64 import b64decode

    from chatelaine.evidence.inventory import decode_inventory

    keys = decode_inventory(b64decode(operator.ask("GET", "/control/v1/inventory").json["inventory"]))
    labels = {key.label for key in keys}
    assert key_label(made_uid, "signing", 1) in labels
    assert service_key_label("token") in labels
    assert not any(key.extractable for key in keys if key.object_class == "private")


def test_cluster_keys_follow_the_view(new_client, operator):
    client = new_client()
    rotated = Cluster()
    operator.cluster, before = rotated, operator.cluster
    try:
        operator.tell()
        assert client.exchange(client.form(CLAIM)).code == "ERROR_INVALID_TOKEN"
        token = rotated.token(rotated.claims(time.time())).decode()
        assert client.exchange(client.form(CLAIM, subject_token=token)).status == 200
    finally:
        operator.cluster = before


def test_the_hello_has_no_secret_and_names_the_view(operator):
    hello = operator.hello()
    assert (hello.term, hello.number) == (operator.term, operator.number)
    assert b"PRIVATE" not in encode(hello)
