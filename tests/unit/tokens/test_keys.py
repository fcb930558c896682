"""Keys as they come in: SubjectPublicKeyInfo and key sets, each bound from both sides."""

from __future__ import annotations

import json
from functools import cache
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from joserfc.jwk import ECKey, OKPKey, RSAKey

from chatelaine.tokens import errors
from chatelaine.tokens.compact import encode
from chatelaine.tokens.jwk import MAX_SPKI_BYTES, UnusableKey, public_jwk, thumbprint
from chatelaine.tokens.service_account import MAX_JWKS_BYTES, MAX_KEYS, parse_key_set
from support.tokens import spki

ISSUER = "https://kubernetes.default.svc"


@cache
def ec_key(curve: type[ec.EllipticCurve] = ec.SECP256R1) -> bytes:
    return spki(ec.generate_private_key(curve()))


def rsa_key(bits: int) -> bytes:
    """A modulus of so many bits; nobody has its factors, and nobody asks for them."""
    numbers = rsa.RSAPublicNumbers(65537, (1 << (bits - 1)) | 1)
    return numbers.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def member(der: bytes, kid: str = "k") -> dict[str, Any]:
    return {**public_jwk(der).as_dict(private=False), "kid": kid}


def rsa_member(bits: int) -> dict[str, Any]:
    modulus = ((1 << (bits - 1)) | 1).to_bytes((bits + 7) // 8, "big")
    return {"kty": "RSA", "e": "AQAB", "n": encode(modulus).decode(), "kid": "k"}


def key_set(*members: object) -> str:
    return json.dumps({"keys": list(members)})


@pytest.mark.parametrize("bits", [2048, 3072, 4096])
def test_rsa_keys_of_sizes_that_we_take_are_read(bits: int) -> None:
    assert isinstance(public_jwk(rsa_key(bits)), RSAKey)
    kind, key = parse_key_set(ISSUER, key_set(rsa_member(bits))).keys["k"]
    assert kind == "RS256"
    assert key.public_key.key_size == bits


@pytest.mark.filterwarnings("ignore:Key size should be")  # the library warns; the refusal is ours
@pytest.mark.parametrize("bits", [2047, 2040, 1024, 4097, 4104])
def test_rsa_keys_of_other_sizes_are_refused(bits: int) -> None:
    with pytest.raises(UnusableKey):
        public_jwk(rsa_key(bits))
    with pytest.raises(errors.KeySetRefused):
        parse_key_set(ISSUER, key_set(rsa_member(bits)))


def test_elliptic_keys_are_read_by_their_curves() -> None:
    for curve, name in ((ec.SECP256R1, "P-256"), (ec.SECP384R1, "P-384")):
        key = public_jwk(ec_key(curve))
        assert isinstance(key, ECKey)
        assert key.curve_name == name
    with pytest.raises(UnusableKey):
        public_jwk(ec_key(ec.SECP521R1))


def test_edwards_keys_are_ed25519_only() -> None:
    key = ed25519.Ed25519PublicKey.from_public_bytes(bytes(range(32)))
    der = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    read = public_jwk(der)
    assert isinstance(read, OKPKey)
    assert read.as_dict(private=False)["x"] == encode(bytes(range(32))).decode()
    other = ed448.Ed448PrivateKey.generate().public_key()
    with pytest.raises(UnusableKey):
        public_jwk(other.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo))


def test_a_thumbprint_is_that_of_the_key_and_no_other() -> None:
    assert thumbprint(ec_key()) == public_jwk(ec_key()).thumbprint()
    assert len(thumbprint(ec_key())) == 43
    assert thumbprint(ec_key()) != thumbprint(ec_key(ec.SECP384R1))


def test_oversized_key_is_refused_before_parsing(monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[int] = []

    def load(data: bytes) -> object:
        read.append(len(data))
        raise ValueError("no key")

    monkeypatch.setattr("chatelaine.tokens.jwk.load_der_public_key", load)
    for size in (MAX_SPKI_BYTES, MAX_SPKI_BYTES + 1):
        with pytest.raises(UnusableKey):
            public_jwk(bytes(size))
    assert read == [MAX_SPKI_BYTES]


def test_a_key_set_is_the_issuers_and_every_kind_of_its_keys() -> None:
    cluster = parse_key_set(ISSUER, key_set(rsa_member(2048), member(ec_key(), "e")))
    assert cluster.issuer == ISSUER
    assert {kid: kind for kid, (kind, _) in cluster.keys.items()} == {"k": "RS256", "e": "ES256"}


def test_keys_after_one_without_a_kid_are_read() -> None:
    nameless = {name: value for name, value in member(ec_key()).items() if name != "kid"}
    for first in (nameless, {**nameless, "kid": ""}, {**nameless, "kid": 7}):
        assert set(parse_key_set(ISSUER, key_set(first, member(ec_key(), "e"))).keys) == {"e"}


def test_two_keys_of_one_kid_are_refused() -> None:
    twice = [member(ec_key(), "same"), rsa_member(2048) | {"kid": "same"}]
    with pytest.raises(errors.KeySetRefused):
        parse_key_set(ISSUER, key_set(*twice))


def test_a_full_key_set_is_read_and_one_key_more_is_refused() -> None:
    keys = [member(ec_key(), str(number)) for number in range(MAX_KEYS + 1)]
    assert len(parse_key_set(ISSUER, key_set(*keys[:-1])).keys) == MAX_KEYS
    with pytest.raises(errors.KeySetRefused):
        parse_key_set(ISSUER, key_set(*keys))


def test_a_key_set_of_its_bound_is_read_and_one_character_more_is_refused() -> None:
    padded = key_set(member(ec_key())).ljust(MAX_JWKS_BYTES)
    assert set(parse_key_set(ISSUER, padded).keys) == {"k"}
    with pytest.raises(errors.KeySetRefused):
        parse_key_set(ISSUER, padded + " ")


@pytest.mark.parametrize("extra", [{"d": "AQAB"}, {"k": "AQAB"}, {"use": "enc"}, {"use": None}])
def test_a_key_that_brings_a_secret_or_is_for_encryption_is_refused(extra: dict[str, object]) -> None:
    for good in (member(ec_key()), rsa_member(2048)):
        with pytest.raises(errors.KeySetRefused):
            parse_key_set(ISSUER, key_set({**good, **extra}))


def test_the_use_of_a_key_need_not_be_said() -> None:
    for good in (member(ec_key()), rsa_member(2048)):
        assert "use" not in good
        assert set(parse_key_set(ISSUER, key_set(good)).keys) == {"k"}
        assert set(parse_key_set(ISSUER, key_set({**good, "use": "sig"})).keys) == {"k"}


@pytest.mark.parametrize("kty", ["EC", "RSA", "oct", "OKP", None])
def test_a_key_is_read_as_what_it_says_it_is(kty: str | None) -> None:
    for good in (member(ec_key()), rsa_member(2048)):
        if good["kty"] == kty:
            continue
        with pytest.raises(errors.KeySetRefused):
            parse_key_set(ISSUER, key_set({**good, "kty": kty}))


def test_an_elliptic_key_of_another_curve_is_refused() -> None:
    with pytest.raises(errors.KeySetRefused):
        parse_key_set(ISSUER, key_set(member(ec_key(ec.SECP384R1))))
