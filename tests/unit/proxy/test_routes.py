"""Which requests are forwarded, and which never are."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatelaine.gateway import app as gateway
from chatelaine.proxy.errors import Refused
from chatelaine.proxy.routes import VERBS, Asked, Own, parse
from chatelaine.tokens.decide import OperationKind

CLAIM = "payments/checkout"


@pytest.mark.parametrize(
    ("method", "target", "path"),
    [
        ("GET", "/v1/keys/signing", "/v1/keys/payments/checkout/signing"),
        ("POST", "/v1/keys/signing/sign", "/v1/keys/payments/checkout/signing/sign"),
        ("POST", "/v1/keys/verify/verify", "/v1/keys/payments/checkout/verify/verify"),
        ("GET", "/v1/keys/payments/checkout/signing", "/v1/keys/payments/checkout/signing"),
        ("POST", "/v1/keys/payments/checkout/signing/verify", "/v1/keys/payments/checkout/signing/verify"),
        ("GET", "/v1/random?bytes=32", "/v1/random?bytes=32"),
    ],
)
def test_key_routes_are_forwarded(method: str, target: str, path: str) -> None:
    asked = parse(method, target)
    assert isinstance(asked, Asked)
    assert (asked.method, asked.path(CLAIM)) == (method, path)


def test_two_segments_are_a_key_and_a_verb_never_a_claim_and_a_key() -> None:
    asked = parse("POST", "/v1/keys/checkout/sign")
    assert isinstance(asked, Asked)
    assert (asked.key, asked.verb, asked.named) == ("checkout", "sign", "")


def test_operations_are_named_as_gateways_name_them() -> None:
    for operation, method, target in (
        ("PublicKeys", "GET", "/v1/keys/a"),
        ("Sign", "POST", "/v1/keys/a/sign"),
        ("Verify", "POST", "/v1/keys/a/verify"),
        ("Random", "GET", "/v1/random?bytes=1"),
    ):
        asked = parse(method, target)
        assert isinstance(asked, Asked)
        assert asked.operation == OperationKind(operation).value


def test_health_is_answered_here() -> None:
    assert (parse("GET", "/healthz"), parse("GET", "/readyz")) == (Own.HEALTH, Own.READY)


@pytest.mark.parametrize(
    ("method", "target", "code"),
    [
        ("GET", "/metrics", "ERROR_NOT_FOUND"),
        ("POST", "/v1/token", "ERROR_NOT_FOUND"),
        ("PUT", "/control/v1/view", "ERROR_NOT_FOUND"),
        ("GET", "http://evil.example/v1/keys/signing", "ERROR_NOT_FOUND"),
        ("GET", "/v1/keys/a/b", "ERROR_NOT_FOUND"),
        ("GET", "/v1/keys/a/b/c/d/e", "ERROR_NOT_FOUND"),
        ("POST", "/v1/keys/%73igning/sign", "ERROR_NOT_FOUND"),
        ("POST", "/v1/keys/signing/sign?a=b", "ERROR_NOT_FOUND"),
        ("GET", "/v1/keys/signing\n", "ERROR_NOT_FOUND"),
        ("GET", "/v1/keys/sign\u0131ng", "ERROR_NOT_FOUND"),
        ("GET", "/v1/random", "ERROR_BAD_REQUEST"),
        ("GET", "/v1/random?bytes=1&bytes=2", "ERROR_BAD_REQUEST"),
        ("GET", "/v1/random?bytes=0", "ERROR_BAD_REQUEST"),
        ("POST", "/v1/random?bytes=1", "ERROR_METHOD_NOT_ALLOWED"),
        ("GET", "/v1/keys/signing/sign", "ERROR_METHOD_NOT_ALLOWED"),
        ("DELETE", "/v1/keys/signing", "ERROR_METHOD_NOT_ALLOWED"),
        ("HEAD", "/healthz", "ERROR_METHOD_NOT_ALLOWED"),
    ],
)
def test_anything_else_is_refused(method: str, target: str, code: str) -> None:
    with pytest.raises(Refused) as caught:
        parse(method, target)
    assert caught.value.problem_code == code


def test_path_of_another_claim_is_refused_by_name() -> None:
    asked = parse("GET", "/v1/keys/payments/other/signing")
    assert isinstance(asked, Asked)
    with pytest.raises(Refused, match="of the claim payments/checkout, the path names payments/other"):
        asked.path(CLAIM)


@given(st.text(max_size=40), st.sampled_from(["/", "/v1/", "/v1/keys/", "/v1/keys/a/", "/v1/random?bytes="]))
def test_whatever_is_asked_only_this_claims_keys_are_reached(text: str, begin: str) -> None:
    for method in ("GET", "POST"):
        try:
            asked = parse(method, begin + text)
        except Refused:
            continue
        if isinstance(asked, Asked):
            path = asked.path(asked.named or CLAIM)
            assert path.startswith((f"/v1/keys/{asked.named or CLAIM}/", "/v1/random?bytes="))
            assert path.isascii()
            assert ".." not in path.split("/")
            assert not set(path) & set(" %\r\n\\#")


def test_the_verbs_are_those_of_the_gateway() -> None:
    assert {verb.encode() for verb in VERBS} == gateway._VERBS.keys()
