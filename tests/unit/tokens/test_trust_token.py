from __future__ import annotations

import hmac

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given, settings
from hypothesis import strategies as st

from chatelaine.tokens import errors
from chatelaine.tokens.compact import encode
from chatelaine.tokens.jwk import UnusableKey
from chatelaine.tokens.trust_token import (
    MAX_TOKEN_BYTES,
    Claims,
    Confirmation,
    PinnedKey,
    Submodule,
    TokenEpoch,
    assemble,
    signing_input,
    verify,
)
from support.tokens import compact, sign_es256, spki

NOW = 1_800_000_000
AUDIENCE = "urn:chatelaine:hsm:a"
ISSUER = "gateway.hsm-a.chatelaine.internal"
KEY = ec.generate_private_key(ec.SECP256R1())
PINNED = PinnedKey(spki(KEY), ISSUER)
CLAIMS = Claims(
    iss=ISSUER,
    aud=AUDIENCE,
    sub="system:serviceaccount:payments:checkout:pod-1",
    iat=NOW,
    exp=NOW + 60,
    jti="j1",
    cnf=Confirmation("thumb"),
    epoch=TokenEpoch("3.0.1", ""),
    claim="claim-uid",
    sequence=1,
    policies=("sha256:aa",),
    submods={"hsm": Submodule("affirming", "sha256:aa")},
)
HEADER = {"alg": "ES256", "kid": PINNED.kid, "typ": "chat-trust+jwt"}


def _sign(data: bytes) -> bytes:
    return sign_es256(KEY, data)


def _token(claims: Claims = CLAIMS) -> bytes:
    signed = signing_input(PINNED.kid, claims)
    return assemble(signed, _sign(signed)).encode()


def _with(**changes: object) -> bytes:
    return _token(msgspec.structs.replace(CLAIMS, **changes))


def _plain() -> dict[str, object]:
    return msgspec.to_builtins(CLAIMS)


def _verify(token: bytes, now: float = NOW) -> object:
    return verify(token, PINNED, AUDIENCE, now)


def test_an_issued_token_verifies_to_what_was_issued():
    trusted = verify(_token(), PINNED, AUDIENCE, NOW)
    assert trusted.claims == CLAIMS
    assert (trusted.subject.namespace, trusted.subject.service_account, trusted.subject.pod_uid) == (
        "payments",
        "checkout",
        "pod-1",
    )
    assert str(trusted.subject) == CLAIMS.sub


def test_a_signature_of_another_length_is_never_put_on_a_token():
    with pytest.raises(ValueError, match="64 bytes"):
        assemble(b"a.b", b"x" * 63)


def test_a_token_key_that_is_not_p256_is_refused():
    with pytest.raises(UnusableKey):
        PinnedKey(spki(ec.generate_private_key(ec.SECP384R1())), ISSUER)


def test_token_expired_by_a_second_is_refused():
    assert _verify(_token(), NOW + 59.999)
    for late in (60, 61):
        with pytest.raises(errors.TokenExpired):
            _verify(_token(), NOW + late)


def test_token_from_the_future_is_refused():
    with pytest.raises(errors.TokenNotYetValid):
        _verify(_token(), NOW - 6)


@pytest.mark.parametrize("lifetime", [301, 0, -5, 2**60])
def test_token_of_a_lifetime_that_we_never_issue_is_refused(lifetime):
    with pytest.raises(errors.LifetimeRefused):
        _verify(_with(exp=NOW + lifetime))


def test_token_for_another_hsm_is_refused():
    with pytest.raises(errors.AudienceRefused):
        _verify(_with(aud="urn:chatelaine:hsm:b"))


def test_token_of_another_issuer_is_refused():
    with pytest.raises(errors.IssuerRefused):
        _verify(_with(iss="gateway.hsm-b.chatelaine.internal"))


@pytest.mark.parametrize(
    "sub",
    ["", "checkout", "system:serviceaccount:payments:checkout", "system:serviceaccount:payments:checkout:",
     "system:node:payments:checkout:pod-1", "system:serviceaccount:payments:checkout:pod-1:x"],
)  # fmt: skip
def test_token_without_a_pod_in_its_subject_is_refused(sub):
    with pytest.raises(errors.SubjectRefused):
        _verify(_with(sub=sub))


def test_alg_none_is_refused():
    payload = _plain()
    unsigned = compact({**HEADER, "alg": "none"}, payload, lambda _: b"")
    with pytest.raises(errors.TokenMalformed):
        _verify(unsigned)
    with pytest.raises(errors.AlgorithmRefused):
        _verify(compact({**HEADER, "alg": "none"}, payload, _sign))


def test_hs256_keyed_with_the_public_key_is_refused():
    forged = compact({**HEADER, "alg": "HS256"}, _plain(), lambda data: hmac.digest(spki(KEY), data, "sha256"))
    with pytest.raises(errors.AlgorithmRefused):
        _verify(forged)


@pytest.mark.parametrize("alg", ["ES384", "es256", "RS256", None, ["ES256"]])
def test_another_algorithm_is_refused(alg):
    with pytest.raises(errors.AlgorithmRefused):
        _verify(compact({**HEADER, "alg": alg}, _plain(), _sign))


@pytest.mark.parametrize("typ", [None, "JWT", "CHAT-TRUST+JWT"])
def test_a_token_of_another_kind_signed_by_the_same_key_is_refused(typ):
    with pytest.raises(errors.TypeRefused):
        _verify(compact({**HEADER, "typ": typ}, _plain(), _sign))


@pytest.mark.parametrize("kid", ["other", None, 1])
def test_swapped_kid_is_refused(kid):
    with pytest.raises(errors.KeyUnknown):
        _verify(compact({**HEADER, "kid": kid}, _plain(), _sign))
    without = {name: value for name, value in HEADER.items() if name != "kid"}
    with pytest.raises(errors.KeyUnknown):
        _verify(compact(without, _plain(), _sign))


@pytest.mark.parametrize(
    "member", [{"jwk": {"kty": "EC"}}, {"jku": "https://x"}, {"x5c": ["AA"]}, {"crit": ["b64"], "b64": False}]
)
def test_header_that_brings_its_own_key_or_rules_is_refused(member):
    with pytest.raises(errors.HeaderRefused):
        _verify(compact({**HEADER, **member}, _plain(), _sign))


def test_token_signed_by_another_key_is_refused():
    other = ec.generate_private_key(ec.SECP256R1())
    signed = signing_input(PINNED.kid, CLAIMS)
    with pytest.raises(errors.SignatureRefuted):
        _verify(assemble(signed, sign_es256(other, signed)).encode())


def test_all_zero_signature_is_refused():
    signed = signing_input(PINNED.kid, CLAIMS)
    with pytest.raises(errors.SignatureRefuted):
        _verify(assemble(signed, bytes(64)).encode())


def test_duplicate_members_are_refused():
    payload = msgspec.json.encode(CLAIMS)
    doubled = payload[:-1] + b',"aud":"urn:chatelaine:hsm:b"}'
    with pytest.raises(errors.TokenMalformed):
        _verify(compact(HEADER, doubled, _sign))
    nested = payload.replace(b'{"jkt":"thumb"}', b'{"jkt":"thief","jkt":"thumb"}')
    assert nested != payload
    with pytest.raises(errors.TokenMalformed):
        _verify(compact(HEADER, nested, _sign))
    header = b'{"alg":"none","alg":"ES256","kid":"' + PINNED.kid.encode() + b'","typ":"chat-trust+jwt"}'
    with pytest.raises(errors.TokenMalformed):
        _verify(compact(header, payload, _sign))


@pytest.mark.parametrize(
    "change", [{"extra": 1}, {"exp": str(NOW + 60)}, {"exp": NOW + 60.0}, {"cnf": {}}, {"cnf": {"jkt": "t", "x": 1}}]
)
def test_unexpected_claims_are_refused(change):
    with pytest.raises(errors.TokenMalformed):
        _verify(compact(HEADER, {**_plain(), **change}, _sign))


def test_oversized_token_is_refused_before_parsing():
    with pytest.raises(errors.TokenTooLarge):
        _verify(b"a" * (MAX_TOKEN_BYTES + 1))


def test_deep_nesting_is_refused():
    with pytest.raises(errors.TokenMalformed):
        _verify(compact(b"[" * 1500, _plain(), _sign))


def test_second_spelling_of_the_same_bytes_is_refused():
    """The last character of a base64url part has spare bits; only the spelling with zero bits is taken."""
    token = _token()
    alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    last = alphabet.index(token[-1:])
    respelled = token[:-1] + alphabet[last | 1 : (last | 1) + 1]
    assert respelled != token
    with pytest.raises(errors.TokenMalformed):
        _verify(respelled)


@pytest.mark.parametrize("data", [b"", b"..", b"a.b", b"a.b.c.d", b"a b.c.d", b"\x00.a.b", "ä.b.c".encode()])
def test_what_is_no_compact_jws_is_refused(data):
    with pytest.raises(errors.TokenMalformed):
        _verify(data)


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_a_token_with_any_one_character_changed_is_refused(data):
    token = bytearray(_token())
    position = data.draw(st.integers(0, len(token) - 1))
    old = token[position]
    token[position] = data.draw(st.integers(33, 126).filter(lambda byte: byte != old))
    with pytest.raises(errors.TokenError):
        _verify(bytes(token))


@given(st.binary(max_size=300))
def test_no_bytes_raise_anything_but_a_token_error(data):
    for token in (data, encode(data) + b"." + encode(data) + b"." + encode(data) if data else b"x"):
        with pytest.raises(errors.TokenError):
            _verify(token)
