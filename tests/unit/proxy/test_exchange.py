"""What a gateway may answer to a token exchange, and what of it is believed."""

from __future__ import annotations

import asyncio
import base64
import json
import ssl
import time
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from chatelaine.gateway.client_ca import ClientCa
from chatelaine.proxy import exchange as exchanging
from chatelaine.proxy.binding import Binding
from chatelaine.proxy.caller import CallerKey
from chatelaine.proxy.errors import ExchangeRefused, GatewayMalformed
from chatelaine.proxy.line import Line, Reply
from chatelaine.tokens.trust_token import Subject

BINDING = Binding("payments", "checkout", "gateway", 8443, (), frozenset())
GOOD = {"access_token": "a.b.c", "expires_in": 60, "certificate_chain": "PEM"}


class Scripted(Line):
    """A gateway that answers as the test says."""

    def __init__(self, status: int, said: Any) -> None:
        self.binding = BINDING
        self.body = said if isinstance(said, bytes) else json.dumps(said).encode()
        self.status = status

    async def call(self, *_: Any, **__: Any) -> Reply:
        return Reply(self.status, "application/json", self.body)


def answered(said: Any, *, status: int = 200, csr: str = "csr") -> exchanging.Issued:
    return asyncio.run(exchanging.exchange(Scripted(status, said), "account", csr))


def test_a_token_is_issued() -> None:
    assert answered(GOOD) == exchanging.Issued("a.b.c", 60, "PEM")


def test_a_life_of_days_is_not_believed() -> None:
    assert answered({**GOOD, "expires_in": 10**9}).seconds == 300


@pytest.mark.parametrize(
    "said",
    [
        {**GOOD, "access_token": "a.b.c\r\nX-Smuggled: 1"},
        {**GOOD, "access_token": "a" * 5000 + ".b.c"},
        {**GOOD, "access_token": ""},
        {**GOOD, "expires_in": 0},
        {**GOOD, "expires_in": "60"},
        {"access_token": "a.b.c", "expires_in": 60},
        [],
        b"\xff",
        b"[" * 100_000,
    ],
)
def test_answer_that_is_no_token_is_refused(said: Any) -> None:
    with pytest.raises(GatewayMalformed):
        answered(said)


def test_a_refusal_names_the_gateways_code_and_what_to_do() -> None:
    with pytest.raises(ExchangeRefused, match=r"ERROR_NOT_A_CLIENT.*spec\.clients") as caught:
        answered({"code": "ERROR_NOT_A_CLIENT", "status": 403}, status=403)
    assert caught.value.gateway_code == "ERROR_NOT_A_CLIENT"


def test_refusal_that_would_steer_a_terminal_is_shown_in_letters_only() -> None:
    with pytest.raises(ExchangeRefused) as caught:
        answered({"code": "\x1b[2J" * 1000, "detail": "\u202e"}, status=403)
    assert "\x1b" not in caught.value.detail
    assert len(caught.value.detail) < 800


# --- the caller's key


def issued(tmp_path: Any, key: CallerKey | None = None) -> str:
    (tmp_path / "ca").mkdir()
    authority = ClientCa(tmp_path / "ca", "hsm-a", time.time())
    subject = Subject("payments", "checkout", "pod-1")
    return authority.issue(base64.b64decode((key or CallerKey()).request()), subject, time.time()).chain_pem


def test_the_callers_leaf_can_be_shown(tmp_path: Any) -> None:
    key = CallerKey()
    chain = issued(tmp_path, key)
    assert isinstance(key.checked(chain).public_key(), ec.EllipticCurvePublicKey)
    key.show(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), chain)


def test_leaf_over_another_key_is_refused(tmp_path: Any) -> None:
    with pytest.raises(GatewayMalformed, match="another key"):
        CallerKey().checked(issued(tmp_path))
    with pytest.raises(GatewayMalformed, match="cannot be read"):
        CallerKey().checked("no PEM")
