"""Every way to use a token, or a service-account token, that is not one's own or not valid any more."""

from __future__ import annotations

import base64
import hmac
import json
import time
import uuid
from dataclasses import dataclass

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from chatelaine.model.identifiers import agent_server_name
from chatelaine.wire.messages import ClientView
from support.gateway import Client, GatewayProcess, Operator, leaf_of
from support.tokens import Cluster, compact, sign_es256

INVALID = "ERROR_INVALID_TOKEN"
CLAIM = "checkout-hsm"


def _parts(token: str) -> tuple[dict, dict, str]:
    header, payload, signature = token.split(".")
    return (*(json.loads(base64.urlsafe_b64decode(part + "==")) for part in (header, payload)), signature)


def _last_reason(gateway: GatewayProcess) -> str:
    return gateway.audit()[-1]["reason"]


def _refused(client: Client, token: str, reason: str) -> None:
    with client.line() as line:
        reply = client.sign(line, CLAIM, token=token)
    assert (reply.status, reply.code, reply.closes) == (403, INVALID, True)
    # Outside nothing tells one refusal from another; inside the record does.
    assert set(reply.json) == {"title", "status", "code"}
    assert _last_reason(client.gateway) == reason


# --- the trust token


def test_stolen_token_with_another_tls_key_is_refused(client, new_client):
    thief = new_client().login(CLAIM, client.cluster.claims(time.time(), pod_uid="pod-2"))
    _refused(thief, client.token, "HolderOther")


def test_token_without_a_client_certificate_is_refused(client, gateway):
    with gateway.line() as line:
        reply = client.sign(line, CLAIM)
    assert (reply.status, reply.code) == (403, INVALID)
    assert _last_reason(gateway) == "LeafAbsent"


def test_token_held_by_one_of_our_own_processes_is_refused(new_client, gateway, operator):
    """Its TLS key may be the token's, but only a leaf of the gateway's client CA says which pod holds it."""
    client = new_client()
    leaf_of(gateway, client.key_path.parent / "leaf", agent_server_name("hsm-a"))
    client.key_path = client.key_path.parent / "leaf" / "key.pem"
    client.key = load_pem_private_key(client.key_path.read_bytes(), None)
    client.login(CLAIM)
    client.chain_path = client.key_path.parent / "chain.pem"
    _refused(client, client.token, "LeafAbsent")


def test_leaf_without_a_token_is_refused(client, gateway):
    body = json.dumps({"input": ""}).encode()
    for headers in ({}, {"authorization": "Basic eDp5"}, {"authorization": "Bearer "}, {"authorization": "bearer x"}):
        with client.line() as line:
            reply = line.ask("POST", f"/v1/keys/payments/{CLAIM}/signing/sign", body, headers)
        assert (reply.status, reply.code) == (403, INVALID)


def test_two_authorization_headers_are_refused(client):
    body = json.dumps({"input": ""}).encode()
    head = f"POST /v1/keys/payments/{CLAIM}/signing/sign HTTP/1.1\r\nhost: x\r\ncontent-length: {len(body)}"
    with client.line() as line:
        reply = line.raw("POST", f"{head}\r\nauthorization: Bearer x\r\nauthorization: Bearer {client.token}", body)
        assert (reply.status, reply.code) == (400, "ERROR_BAD_REQUEST")


def test_alg_none_is_refused(client):
    header, payload, _ = _parts(client.token)
    forged = compact({**header, "alg": "none"}, payload, lambda _: b"x").decode()
    _refused(client, forged, "AlgorithmRefused")
    _refused(client, forged.rpartition(".")[0] + ".", "TokenMalformed")


def test_hs256_with_the_public_key_is_refused(client, operator):
    header, payload, _ = _parts(client.token)
    public = operator.hello().identity.attestation_key_spki
    forged = compact({**header, "alg": "HS256"}, payload, lambda data: hmac.digest(public, data, "sha256"))
    _refused(client, forged.decode(), "AlgorithmRefused")


def test_swapped_kid_is_refused(client):
    header, payload, _ = _parts(client.token)
    own = ec.generate_private_key(ec.SECP256R1())
    for kid, reason in (("x", "KeyUnknown"), (None, "KeyUnknown"), (header["kid"], "SignatureRefuted")):
        forged = compact({**header, "kid": kid}, payload, lambda data: sign_es256(own, data))
        _refused(client, forged.decode(), reason)


def test_token_whose_claims_were_changed_is_refused(client):
    head, _, signature = client.token.split(".")
    _, payload, _ = _parts(client.token)
    changed = base64.urlsafe_b64encode(json.dumps({**payload, "exp": payload["exp"] + 200}).encode()).rstrip(b"=")
    _refused(client, f"{head}.{changed.decode()}.{signature}", "SignatureRefuted")


@dataclass
class Other:
    gateway: GatewayProcess
    operator: Operator


@pytest.fixture(scope="module")
def other_hsm(gateway, cluster, tmp_path_factory):
    """A second host of the same installation: same CA, another token."""
    other = GatewayProcess(tmp_path_factory.mktemp("other"), gateway.authority, host="hsm-b", hsm="simulated")
    try:
        other.start()
        operator = Operator(other, cluster, tmp_path_factory.mktemp("other-operator"))
        operator.bind(CLAIM, str(uuid.uuid4()))
        operator.tell()
        yield Other(other, operator)
    finally:
        other.close()


def test_token_of_another_hsm_is_refused(client, other_hsm, cluster, tmp_path):
    elsewhere = Client(other_hsm.gateway, cluster, tmp_path / "c").login(CLAIM)
    _refused(client, elsewhere.token, "KeyUnknown")


def test_client_leaf_of_another_gateway_is_no_leaf_here(gateway, operator, other_hsm, cluster, tmp_path):
    elsewhere = Client(other_hsm.gateway, cluster, tmp_path / "c").login(CLAIM)
    context = gateway.context(elsewhere.chain_path, elsewhere.key_path)
    # TLS 1.3 tells the client of the refusal only when it reads.
    with pytest.raises(OSError), gateway.line(context) as line:
        line.ask("GET", "/healthz")


def test_token_of_another_claim_is_refused(client, operator):
    operator.bind("other-hsm", str(uuid.uuid4()), make_keys=False)
    operator.tell()
    other = Client(client.gateway, client.cluster, client.key_path.parent / "o")
    other.key, other.key_path = client.key, client.key_path
    other.login("other-hsm")
    other.chain_path = client.chain_path
    _refused(client, other.token, "ClaimOther")


def test_token_of_an_earlier_epoch_is_refused(client, operator):
    operator.world.epoch = "4.0.1"
    operator.tell()
    _refused(client, client.token, "HsmEpochOther")


def test_token_of_an_earlier_epoch_of_its_subject_is_refused(client, operator, made_uid):
    claim = operator.world.claims[made_uid]
    row = msgspec.structs.replace(claim.clients[0], epoch="2")
    operator.world.claims[made_uid] = msgspec.structs.replace(claim, clients=(row,))
    operator.tell()
    _refused(client, client.token, "SubjectEpochOther")


def test_token_of_an_earlier_allocation_is_refused(client, operator, made_uid):
    operator.world.claims[made_uid] = msgspec.structs.replace(operator.world.claims[made_uid], sequence=2)
    operator.tell()
    _refused(client, client.token, "SequenceOther")


def test_token_of_a_dead_pod_is_refused(client, operator, made_uid):
    claim = operator.world.claims[made_uid]
    row = msgspec.structs.replace(claim.clients[0], pod_uids=("pod-2",))
    operator.world.claims[made_uid] = msgspec.structs.replace(claim, clients=(row,))
    operator.tell()
    _refused(client, client.token, "PodNotLive")


def test_token_of_a_client_that_was_struck_out_is_refused(client, operator, made_uid):
    operator.world.claims[made_uid] = msgspec.structs.replace(operator.world.claims[made_uid], clients=())
    operator.tell()
    _refused(client, client.token, "AccountNotNamed")


@pytest.mark.parametrize("verdict", ["Untrusted", "Unknown", "Splendid"])
def test_hsm_that_is_not_trusted_serves_nothing(client, operator, verdict):
    operator.world.verdict = verdict
    operator.tell()
    _refused(client, client.token, "StandingNotTrusted")
    reply = client.exchange(client.form(CLAIM))
    assert (reply.status, reply.code) == (403, "ERROR_NOT_ATTESTED")


def test_expired_by_a_second_is_refused(client, operator, cluster):
    """The token ends with the service-account token that it was exchanged for."""
    now = time.time()
    client.login(CLAIM, cluster.claims(now, exp=int(now) + 2))
    end = int(now) + 2
    with client.line() as line:
        while time.time() < end:
            reply = client.sign(line, CLAIM)
            if time.time() < end:
                assert reply.status == 200, reply.body
    _refused(client, client.token, "TokenExpired")


# --- what is granted


def test_usage_that_is_not_granted_is_refused(client, operator, made_uid):
    claim = operator.world.claims[made_uid]
    row = ClientView(service_account="checkout", pod_uids=("pod-1",), keys=("signing",), usages=("Verify",))
    operator.world.claims[made_uid] = msgspec.structs.replace(claim, clients=(row,))
    operator.tell()
    with client.line() as line:
        reply = client.sign(line, CLAIM)
    assert (reply.status, reply.code) == (403, "ERROR_USAGE_NOT_ALLOWED")


@pytest.mark.parametrize("state", ["PreActive", "Deactivated", "Compromised", "Destroyed", "Sublime"])
def test_key_version_that_is_not_active_does_not_sign(client, operator, made_uid, state):
    claim = operator.world.claims[made_uid]
    keys = tuple(
        msgspec.structs.replace(key, versions=(msgspec.structs.replace(key.versions[0], state=state),))
        for key in claim.keys
    )
    operator.world.claims[made_uid] = msgspec.structs.replace(claim, keys=keys)
    operator.tell()
    for fields in ({}, {"key_version": 1}):
        with client.line() as line:
            reply = client.sign(line, CLAIM, **fields)
        assert (reply.status, reply.code) == (409, "ERROR_KEY_VERSION_NOT_USABLE")


# --- the exchange


def _exchange_refused(client: Client, code: str, reason: str, form: dict[str, str]) -> None:
    reply = client.exchange(form)
    assert reply.status == 403, reply.body
    assert reply.code == code
    assert _last_reason(client.gateway) == reason


@pytest.mark.parametrize(
    ("changes", "code", "reason"),
    [
        ({"account": "intruder"}, "ERROR_NOT_A_CLIENT", "AccountNotNamed"),
        ({"pod_uid": "pod-9"}, "ERROR_NOT_A_CLIENT", "PodNotLive"),
        ({"namespace": "shop"}, "ERROR_NOT_A_CLIENT", "NamespaceOther"),
        ({"aud": ["https://kubernetes.default.svc"]}, INVALID, "AudienceRefused"),
        ({"exp": 1}, INVALID, "TokenExpired"),
        ({"iss": "https://elsewhere"}, INVALID, "IssuerRefused"),
        (
            {
                "kubernetes.io": {
                    "namespace": "payments",
                    "serviceaccount": {"name": "checkout", "uid": "u"},
                }
            },
            INVALID,
            "PodRefused",
        ),
    ],
    ids=["account not named", "dead pod", "other namespace", "other audience", "expired", "other cluster", "no pod"],
)
def test_service_account_token_that_entitles_to_nothing_is_refused(new_client, cluster, changes, code, reason):
    client = new_client()
    _exchange_refused(client, code, reason, client.form(CLAIM, cluster.claims(time.time(), **changes)))


def test_service_account_token_of_another_signer_is_refused(new_client):
    client = new_client()
    stranger = Cluster()
    token = stranger.token(stranger.claims(time.time())).decode()
    _exchange_refused(client, INVALID, "SignatureRefuted", client.form(CLAIM, subject_token=token))


def test_claim_that_is_not_here_is_refused(new_client):
    client = new_client()
    _exchange_refused(client, "ERROR_NOT_ATTESTED", "ClaimNotBound", client.form("absent"))


def test_leaf_of_one_pod_cannot_carry_the_token_of_another(client, cluster, operator):
    form = client.form(CLAIM, cluster.claims(time.time(), pod_uid="pod-2"))
    del form["csr"]
    with client.line() as line:
        reply = client.exchange(form, line)
    assert (reply.status, reply.code) == (403, INVALID)
    assert _last_reason(client.gateway) == "LeafOfAnother"


def test_csr_that_proves_no_possession_is_refused(new_client):
    client = new_client()
    der = bytearray(base64.b64decode(client.csr()))
    der[-5] ^= 1
    for csr in (
        base64.b64encode(bytes(der)).decode(),
        "",
        "AAAA",
        "%%%",
        "\u00e9",
        base64.b64encode(b"0" * 9000).decode(),
    ):
        reply = client.exchange(client.form(CLAIM, csr=csr))
        assert (reply.status, reply.code) == (400, "ERROR_BAD_REQUEST")


@pytest.mark.parametrize(
    "changes",
    [
        {"grant_type": "password"},
        {"subject_token_type": "urn:ietf:params:oauth:token-type:saml2"},
        {"resource": "payments"},
        {"resource": "payments/a/b"},
        {"resource": "/"},
        {"actor_token": "x"},
        {"requested_token_type": "urn:ietf:params:oauth:token-type:access_token"},
    ],
)
def test_exchange_in_another_form_is_refused(new_client, changes):
    client = new_client()
    reply = client.exchange(client.form(CLAIM, **changes))
    assert (reply.status, reply.code) == (400, "ERROR_BAD_REQUEST")


def test_trust_token_cannot_be_exchanged_for_another(client):
    _exchange_refused(client, INVALID, "TypeRefused", client.form(CLAIM, subject_token=client.token))
