"""Each bound of a token from both sides: the last value that is taken, and the first that is not."""

from __future__ import annotations

import base64
from dataclasses import replace

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from joserfc import jws

from chatelaine.model.keys import KeyType, Usage
from chatelaine.model.verdict import Verdict
from chatelaine.tokens import errors, service_account, trust_token
from chatelaine.tokens.cache import Moment, VerifiedTokens
from chatelaine.tokens.compact import encode, parse
from chatelaine.tokens.decide import (
    CHECKS,
    Allowed,
    Operation,
    OperationKind,
    Reason,
    Refused,
    Verifier,
    _Case,
    _granted,
    _subject_live,
    _version_usable,
    decide,
    refuse,
)
from chatelaine.tokens.grants import ClaimGrant, Deadline, HsmStanding, KeyGrant, SubjectGrant
from chatelaine.tokens.trust_token import Claims, Confirmation, PinnedKey, TokenEpoch, TrustToken, signing_input, verify
from support.tokens import CLUSTER_ISSUER, Cluster, compact, sign_es256, spki

NOW = 1_800_000_000
AUDIENCE = "urn:chatelaine:hsm:a"
ISSUER = "gateway.hsm-a.chatelaine.internal"
SUB = "system:serviceaccount:payments:checkout:pod-1"
LATER = Deadline(monotonic=30.0, wall=NOW + 30)


def claims(**changes: object) -> Claims:
    said = Claims(
        iss=ISSUER,
        aud=AUDIENCE,
        sub=SUB,
        iat=NOW,
        exp=NOW + 60,
        jti="j1",
        cnf=Confirmation("thumb"),
        epoch=TokenEpoch("3.0.1", ""),
        claim="claim-uid",
        sequence=1,
    )
    return msgspec.structs.replace(said, **changes)


def judged(now: float = NOW, **changes: object) -> TrustToken:
    key = ec.generate_private_key(ec.SECP256R1())
    pinned = PinnedKey(spki(key), ISSUER)
    signed = signing_input(pinned.kid, claims(**changes))
    return verify(trust_token.assemble(signed, sign_es256(key, signed)).encode(), pinned, AUDIENCE, now)


# --- the trust token's times ------------------------------------------------------------------------------------


def test_a_clock_set_back_by_the_skew_is_tolerated_and_by_no_more() -> None:
    assert judged(NOW - trust_token.CLOCK_SKEW_SECONDS)
    with pytest.raises(errors.TokenNotYetValid):
        judged(NOW - trust_token.CLOCK_SKEW_SECONDS - 0.001)


@pytest.mark.parametrize("lifetime", [1, 2, trust_token.MAX_LIFETIME_SECONDS])
def test_the_shortest_and_the_longest_lifetime_are_taken(lifetime: int) -> None:
    assert judged(exp=NOW + lifetime).claims.exp == NOW + lifetime


def test_a_verified_token_says_which_key_did() -> None:
    key = PinnedKey(spki(ec.generate_private_key(ec.SECP256R1())), ISSUER)
    assert len(key.kid) == 43
    assert len(judged().kid) == 43


def test_a_pinned_key_verifies_with_its_one_algorithm() -> None:
    """Asked directly, without the header's check before it: the algorithm is pinned here too."""
    key = ec.generate_private_key(ec.SECP256R1())
    pinned = PinnedKey(spki(key), ISSUER)
    forged = compact({"alg": "ES384", "kid": pinned.kid}, {}, lambda data: sign_es256(key, data))
    with pytest.raises(errors.SignatureRefuted):
        pinned.verify_signature(forged)
    pinned.verify_signature(compact({"alg": "ES256"}, {}, lambda data: sign_es256(key, data)))


@pytest.mark.parametrize("module", [trust_token, service_account])
def test_the_library_is_told_which_algorithm_to_take(module, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a list it would choose one by the header, which whoever made the token wrote."""
    told = []

    def see(token: bytes, key: object, algorithms: list[str] | None = None) -> None:
        told.append(algorithms)

    monkeypatch.setattr(jws, "deserialize_compact", see)
    if module is trust_token:
        judged()
    else:
        cluster = Cluster()
        keys = service_account.parse_key_set(CLUSTER_ISSUER, cluster.jwks())
        service_account.verify(cluster.token(cluster.claims(NOW), header={"alg": "ES256"}), keys, NOW)
    assert told == [["ES256"]]


# --- service-account tokens -------------------------------------------------------------------------------------


def projected(now: float, **changes: object) -> service_account.WorkloadIdentity:
    cluster = Cluster()
    keys = service_account.parse_key_set(CLUSTER_ISSUER, cluster.jwks())
    return service_account.verify(cluster.token(cluster.claims(NOW, **changes)), keys, now)


@pytest.mark.parametrize("time", ["iat", "nbf"])
def test_a_projected_token_may_lie_ahead_by_the_skew_and_by_no_more(time: str) -> None:
    ahead = service_account.CLOCK_SKEW_SECONDS
    assert projected(NOW, **{time: NOW + ahead})
    with pytest.raises(errors.TokenNotYetValid):
        projected(NOW, **{time: NOW + ahead + 1})


def test_a_projected_token_need_not_say_nbf_and_still_is_not_taken_ahead_of_its_iat() -> None:
    assert projected(NOW, nbf=None)
    with pytest.raises(errors.TokenNotYetValid):
        projected(NOW, nbf=None, iat=NOW + service_account.CLOCK_SKEW_SECONDS + 1)


# --- compact form -----------------------------------------------------------------------------------------------


def test_a_token_of_its_bound_is_read_and_one_byte_more_is_refused() -> None:
    token = compact({"alg": "ES256"}, {"a": 1}, lambda _: bytes(64))
    assert parse(token, max_bytes=len(token)).payload == {"a": 1}
    with pytest.raises(errors.TokenTooLarge):
        parse(token, max_bytes=len(token) - 1)


def test_parts_of_every_length_are_read() -> None:
    for size in range(1, 9):
        token = compact({"alg": "ES256"}, {"a": "x" * size}, lambda _, size=size: bytes(size))
        read = parse(token, max_bytes=4096)
        assert (read.header, read.payload, read.signature) == ({"alg": "ES256"}, {"a": "x" * size}, bytes(size))


def test_every_character_may_be_a_parts_last() -> None:
    for last in range(64):
        data = bytes((0, 0, last))
        assert encode(data) == base64.urlsafe_b64encode(data)
        read = parse(compact({"alg": "ES256"}, {"a": 1}, lambda _, data=data: data), max_bytes=100)
        assert read.signature == data


@pytest.mark.parametrize(("token", "words"), [(b"YQ.YQ.", "has no signature"), (b"YQ.YQ", "three base64url parts")])
def test_an_unsigned_token_is_told_from_one_that_is_none(token: bytes, words: str) -> None:
    with pytest.raises(errors.TokenMalformed, match=words):
        parse(token, max_bytes=100)


# --- cache and decision -----------------------------------------------------------------------------------------


def trusted() -> TrustToken:
    return TrustToken(claims(), trust_token.parse_subject(SUB), "kid")


def test_a_cache_may_hold_one_token() -> None:
    cache = VerifiedTokens(1)
    now = Moment(NOW, 0.0)
    cache.put(b"1", trusted(), now)
    cache.put(b"2", trusted(), now)
    assert (len(cache), cache.get(b"1", now), cache.get(b"2", now)) == (1, None, trusted())


def test_a_token_that_expired_in_the_cache_is_forgotten() -> None:
    cache = VerifiedTokens(4)
    cache.put(b"1", trusted(), Moment(NOW, 0.0))
    assert cache.get(b"1", Moment(NOW, 60.0)) is None
    assert len(cache) == 0


def test_a_deadline_says_the_seconds_to_its_earlier_clock() -> None:
    deadline = Deadline(monotonic=100.0, wall=NOW + 50)
    assert deadline.seconds_left(Moment(NOW, 0.0)) == 50
    assert deadline.seconds_left(Moment(NOW, 80.0)) == 20
    assert deadline.seconds_left(Moment(NOW, 100.5)) == 0
    assert deadline.seconds_left(Moment(NOW + 51, 0.0)) == 0


class _View:
    def __init__(self, granted: ClaimGrant) -> None:
        self.standing = HsmStanding(Verdict.TRUSTED, "AllHold", "3.0.1", "sha256:p", "sha256:e", LATER)
        self.granted = granted

    def claim(self, uid: str) -> ClaimGrant | None:
        return self.granted if uid == self.granted.uid else None

    def claim_named(self, namespace: str, name: str) -> ClaimGrant | None:
        return self.granted if (namespace, name) == (self.granted.namespace, self.granted.name) else None


def test_public_keys_are_told_for_any_usage_and_need_no_version() -> None:
    key = KeyGrant("signing", KeyType.EC_P256, frozenset({Usage.SIGN}), ())
    grant = ClaimGrant(
        "claim-uid",
        "payments",
        "hsm",
        1,
        {"signing": key},
        frozenset({"checkout"}),
        {("checkout", "pod-1"): SubjectGrant({"signing": frozenset({Usage.SIGN})}, "")},
        (),
        LATER,
    )
    asked = Operation(OperationKind.PUBLIC_KEYS, "payments", "hsm", "signing")
    now = Moment(NOW, 0.0)
    decision = decide(asked, trusted(), "thumb", _View(grant), Verifier(AUDIENCE, "kid"), now)
    assert decision == Allowed(grant, key, None)
    signing = decide(replace(asked, kind=OperationKind.SIGN), trusted(), "thumb", _View(grant),
                     Verifier(AUDIENCE, "kid"), now)  # fmt: skip
    assert signing == refuse(Reason.VERSION_NOT_USABLE)
    assert isinstance(signing, Refused)


def _case() -> _Case:
    view = _View(ClaimGrant("claim-uid", "payments", "hsm", 1, {}, frozenset(), {}, (), LATER))
    asked = Operation(OperationKind.SIGN, "payments", "hsm", "signing")
    return _Case(asked, trusted(), "thumb", view, Verifier(AUDIENCE, "kid"), Moment(NOW, 0.0))


@pytest.mark.parametrize("check", CHECKS[CHECKS.index(_subject_live) :])
def test_a_check_that_lacks_what_an_earlier_one_should_have_found_refuses(check) -> None:
    """So that a list of checks in another order, or with one left out, allows nothing."""
    assert check(_case()) is (Reason.VERSION_NOT_USABLE if check is _version_usable else Reason.CLAIM_NOT_BOUND)


def test_a_subject_alone_and_a_claim_alone_grant_nothing() -> None:
    claim_only, subject_only = _case(), _case()
    claim_only.claim = claim_only.live.claim("claim-uid")
    subject_only.subject = SubjectGrant({"signing": frozenset({Usage.SIGN})}, "")
    for case in (claim_only, subject_only):
        assert _granted(case) is Reason.CLAIM_NOT_BOUND


def test_without_checks_nothing_is_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("chatelaine.tokens.decide.CHECKS", ())
    case = _case()
    decision = decide(case.operation, case.token, "thumb", case.live, case.verifier, case.now)
    assert decision == refuse(Reason.CLAIM_NOT_BOUND)
