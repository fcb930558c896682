from __future__ import annotations

import hmac
import json

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from joserfc.jwk import ECKey

from chatelaine.tokens import errors
from chatelaine.tokens.compact import encode
from chatelaine.tokens.service_account import MAX_TOKEN_BYTES, parse_key_set, verify
from support.tokens import CLUSTER_ISSUER, Cluster, compact, sign_es256

NOW = 1_800_000_000.0
CLUSTER = Cluster()
PRIVATE = CLUSTER.ec.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
SHORT = rsa.generate_private_key(65537, 1024).public_key().public_numbers().n.to_bytes(128, "big")
KEYS = parse_key_set(CLUSTER_ISSUER, CLUSTER.jwks())


def _verify(token: bytes, now: float = NOW):
    return verify(token, KEYS, now)


@pytest.mark.parametrize("alg", ["RS256", "ES256"])
def test_a_projected_token_names_its_workload(alg):
    identity = _verify(CLUSTER.token(CLUSTER.claims(NOW), header={"alg": alg}))
    assert (identity.namespace, identity.service_account, identity.pod_uid) == ("payments", "checkout", "pod-1")
    assert identity.expires_at == int(NOW) + 3600


@pytest.mark.parametrize(
    "audience",
    [[], "", ["https://kubernetes.default.svc"], ["chatelaine.dev", "https://kubernetes.default.svc"], ["chatelaine"]],
)
def test_token_for_another_audience_is_refused(audience):
    with pytest.raises(errors.AudienceRefused):
        _verify(CLUSTER.token(CLUSTER.claims(NOW, aud=audience)))


def test_token_that_is_not_bound_to_a_pod_is_refused():
    claims = CLUSTER.claims(NOW)
    for pod in (None, {"name": "", "uid": "u"}, {"name": "n", "uid": ""}):
        changed = {**claims, "kubernetes.io": {**claims["kubernetes.io"], "pod": pod}}
        with pytest.raises(errors.PodRefused):
            _verify(CLUSTER.token(changed))
    without = {name: value for name, value in claims["kubernetes.io"].items() if name != "pod"}
    with pytest.raises(errors.PodRefused):
        _verify(CLUSTER.token({**claims, "kubernetes.io": without}))


def test_token_whose_subject_contradicts_its_claims_is_refused():
    with pytest.raises(errors.SubjectRefused):
        _verify(CLUSTER.token(CLUSTER.claims(NOW, sub="system:serviceaccount:payments:admin")))


def test_names_with_a_colon_cannot_forge_another_subject():
    with pytest.raises(errors.SubjectRefused):
        _verify(CLUSTER.token(CLUSTER.claims(NOW, namespace="payments:checkout", account="x")))


def test_token_expired_by_a_second_is_refused():
    token = CLUSTER.token(CLUSTER.claims(NOW))
    with pytest.raises(errors.TokenExpired):
        _verify(token, NOW + 3600)


def test_token_that_is_not_valid_yet_is_refused():
    with pytest.raises(errors.TokenNotYetValid):
        _verify(CLUSTER.token(CLUSTER.claims(NOW, nbf=int(NOW) + 11)))


def test_token_of_another_cluster_is_refused():
    with pytest.raises(errors.IssuerRefused):
        _verify(CLUSTER.token(CLUSTER.claims(NOW, iss="https://elsewhere")))
    stranger = Cluster()
    with pytest.raises(errors.SignatureRefuted):
        _verify(stranger.token(stranger.claims(NOW)))


def test_alg_none_is_refused():
    with pytest.raises(errors.AlgorithmRefused):
        _verify(compact({"alg": "none", "kid": "rsa-1"}, CLUSTER.claims(NOW), lambda _: b"x"))


def test_hs256_keyed_with_the_public_key_is_refused():
    pem = CLUSTER.rsa.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    forged = compact(
        {"alg": "HS256", "kid": "rsa-1"}, CLUSTER.claims(NOW), lambda data: hmac.digest(pem, data, "sha256")
    )
    with pytest.raises(errors.AlgorithmRefused):
        _verify(forged)


def test_kid_of_a_key_of_another_algorithm_is_refused():
    forged = compact({"alg": "ES256", "kid": "rsa-1"}, CLUSTER.claims(NOW), lambda data: sign_es256(CLUSTER.ec, data))
    with pytest.raises(errors.AlgorithmRefused):
        _verify(forged)


@pytest.mark.parametrize("kid", ["other", "", None, 7])
def test_unknown_kid_is_refused(kid):
    with pytest.raises(errors.KeyUnknown):
        _verify(CLUSTER.token(CLUSTER.claims(NOW), header={"kid": kid}))


@pytest.mark.parametrize("member", [{"jwk": {}}, {"crit": ["exp"]}, {"x5u": "https://x"}])
def test_header_that_brings_its_own_key_or_rules_is_refused(member):
    with pytest.raises(errors.HeaderRefused):
        _verify(CLUSTER.token(CLUSTER.claims(NOW), header=member))


def test_a_token_of_another_type_is_refused():
    with pytest.raises(errors.TypeRefused):
        _verify(CLUSTER.token(CLUSTER.claims(NOW), header={"typ": "at+jwt"}))


def test_oversized_token_is_refused_before_parsing():
    with pytest.raises(errors.TokenTooLarge):
        _verify(b"a" * (MAX_TOKEN_BYTES + 1))


def test_missing_claims_are_refused():
    claims = CLUSTER.claims(NOW)
    for name in ("exp", "kubernetes.io", "aud", "sub", "iat"):
        with pytest.raises(errors.TokenMalformed):
            _verify(CLUSTER.token({key: value for key, value in claims.items() if key != name}))


def test_key_sets_that_cannot_be_used_are_refused():
    good = json.loads(CLUSTER.jwks())["keys"]
    bad: list[object] = [
        "no JSON",
        "[]",
        "{}",
        json.dumps({"keys": {}}),
        json.dumps({"keys": [1]}),
        json.dumps({"keys": [good[0], good[0]]}),
        json.dumps({"keys": [{"kty": "oct", "k": "AA", "kid": "s"}]}),
        json.dumps({"keys": [{**ECKey.import_key(PRIVATE).as_dict(private=True), "kid": "p"}]}),
        json.dumps({"keys": [{**good[0], "n": "AQAB"}]}),
        json.dumps({"keys": [{**good[0], "n": encode(SHORT).decode()}]}),
        json.dumps({"keys": [{**good[0], "n": encode(b"\xff" * 1024).decode()}]}),
        json.dumps({"keys": [{**good[1], "crv": "P-384"}]}),
        json.dumps({"keys": [{**good[0], "use": "enc"}]}),
        json.dumps({"keys": [{**good[0], "kid": str(number)} for number in range(17)]}),
        "[" * 70000,
    ]
    for jwks in bad:
        with pytest.raises(errors.KeySetRefused):
            parse_key_set(CLUSTER_ISSUER, str(jwks))
    with pytest.raises(errors.KeySetRefused):
        parse_key_set("", CLUSTER.jwks())


def test_a_key_without_a_kid_is_never_chosen():
    keys = [{name: value for name, value in key.items() if name != "kid"} for key in json.loads(CLUSTER.jwks())["keys"]]
    assert parse_key_set(CLUSTER_ISSUER, json.dumps({"keys": keys})).keys == {}
