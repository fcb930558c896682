"""What is fuzzed of tokens: trust tokens, service-account tokens, the cluster's keys, and the exchange's form."""

from __future__ import annotations

import json
from urllib.parse import urlencode

from cryptography.hazmat.primitives.asymmetric import ec

from chatelaine.gateway.exchange import GRANT_TYPE, TOKEN_TYPE_JWT, parse_form
from chatelaine.gateway.problems import Refusal
from chatelaine.tokens import service_account, trust_token
from chatelaine.tokens.compact import parse
from chatelaine.tokens.errors import KeySetRefused, TokenError
from chatelaine.tokens.jwk import UnusableKey, thumbprint
from fuzz.target import Target
from support.tokens import CLUSTER_ISSUER, Cluster, compact, sign_es256, spki

NOW = 1_780_000_000.0
CLUSTER = Cluster()
KEY_SET = service_account.parse_key_set(CLUSTER_ISSUER, CLUSTER.jwks())
TOKEN_KEY = ec.generate_private_key(ec.SECP256R1())
PINNED = trust_token.PinnedKey(spki(TOKEN_KEY), "issuer")
HONEST = compact({"alg": "ES256", "kid": "ec-1"}, CLUSTER.claims(NOW), lambda data: sign_es256(CLUSTER.ec, data))
TRUST_CLAIMS = {
    "iss": "issuer", "aud": "hsm-1", "sub": "system:serviceaccount:payments:checkout:pod-1",
    "iat": int(NOW), "exp": int(NOW) + 300, "jti": "1", "cnf": {"jkt": "x"},
    "epoch": {"hsm": "1/0", "subject": ""}, "claim": "c", "sequence": 1, "policies": ["sha256:0"],
    "submods": {"host": {"ear.status": "affirming", "ear.appraisal-policy-id": "p"}},
}  # fmt: skip


def signed_trust_token(payload: bytes) -> object:
    """Any claims under the right key: a thief of nothing, but everything behind the signature is read."""
    header = {"alg": trust_token.ALGORITHM, "kid": PINNED.kid, "typ": trust_token.TYPE}
    token = compact(header, payload, lambda data: sign_es256(TOKEN_KEY, data))
    return trust_token.verify(token, PINNED, "hsm-1", NOW)


def signed_service_account_token(payload: bytes) -> object:
    """Any claims under the cluster's key."""
    token = compact({"alg": "ES256", "kid": "ec-1"}, payload, lambda data: sign_es256(CLUSTER.ec, data))
    return service_account.verify(token, KEY_SET, NOW)


def form(data: bytes) -> object:
    """The body of a token exchange."""
    return parse_form(b"application/x-www-form-urlencoded", data)


def honest_form() -> bytes:
    """As our own clients send it."""
    fields = {
        "grant_type": GRANT_TYPE, "subject_token_type": TOKEN_TYPE_JWT, "resource": "payments/checkout",
        "subject_token": "a.b.c", "csr": "AAAA",
    }  # fmt: skip
    return urlencode(fields).encode()


TARGETS = {
    "compact": Target(lambda data: parse(data, max_bytes=4096), (TokenError,), lambda: [HONEST]),
    "trust-token": Target(signed_trust_token, (TokenError,), lambda: [json.dumps(TRUST_CLAIMS).encode()]),
    "service-account-token": Target(
        signed_service_account_token, (TokenError,), lambda: [json.dumps(CLUSTER.claims(NOW)).encode()]
    ),
    "cluster-keys": Target(
        lambda data: service_account.parse_key_set(CLUSTER_ISSUER, data.decode(errors="replace")),
        (KeySetRefused,),
        lambda: [CLUSTER.jwks().encode()],
    ),
    "public-jwk": Target(thumbprint, (UnusableKey,), lambda: [spki(TOKEN_KEY), spki(CLUSTER.rsa)]),
    "token-form": Target(form, (Refusal,), lambda: [honest_form()]),
}
