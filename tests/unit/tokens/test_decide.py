from __future__ import annotations

from dataclasses import replace

import msgspec
import pytest

from chatelaine.model.keys import KeyState, KeyType, Usage
from chatelaine.model.verdict import Verdict
from chatelaine.tokens.cache import Moment, VerifiedTokens
from chatelaine.tokens.decide import (
    CHECKS,
    Allowed,
    Answer,
    Operation,
    OperationKind,
    Reason,
    Refused,
    Verifier,
    decide,
)
from chatelaine.tokens.grants import ClaimGrant, Deadline, HsmStanding, KeyGrant, KeyVersion, SubjectGrant
from chatelaine.tokens.trust_token import Claims, Confirmation, TokenEpoch, TrustToken, parse_subject

NOW = Moment(wall=1_800_000_000.0, monotonic=500.0)
LATER = Deadline(monotonic=530.0, wall=1_800_000_030.0)
VERIFIER = Verifier("urn:chatelaine:hsm:a", "kid-1")
SUB = "system:serviceaccount:payments:checkout:pod-1"
CLAIMS = Claims(
    iss="i",
    aud=VERIFIER.audience,
    sub=SUB,
    iat=1_800_000_000,
    exp=1_800_000_060,
    jti="j",
    cnf=Confirmation("thumb"),
    epoch=TokenEpoch("3.0.1", "e1"),
    claim="uid-1",
    sequence=4,
)
TOKEN = TrustToken(CLAIMS, parse_subject(SUB), "kid-1")
STANDING = HsmStanding(Verdict.TRUSTED, "AllHold", "3.0.1", "sha256:p", "sha256:e", LATER)
SIGNING = KeyGrant(
    "signing",
    KeyType.EC_P256,
    frozenset({Usage.SIGN, Usage.VERIFY}),
    (
        KeyVersion(4, KeyState.PRE_ACTIVE, "l4"),
        KeyVersion(3, KeyState.ACTIVE, "l3"),
        KeyVersion(2, KeyState.DEACTIVATED, "l2"),
        KeyVersion(1, KeyState.COMPROMISED, "l1"),
    ),
)
CLAIM = ClaimGrant(
    "uid-1",
    "payments",
    "checkout-hsm",
    4,
    {"signing": SIGNING, "other": replace(SIGNING, name="other")},
    frozenset({"checkout"}),
    {("checkout", "pod-1"): SubjectGrant({"signing": frozenset({Usage.SIGN, Usage.VERIFY})}, "e1")},
    ("sha256:p",),
    LATER,
)
SIGN = Operation(OperationKind.SIGN, "payments", "checkout-hsm", "signing")


class View:
    def __init__(self, standing: HsmStanding | None = STANDING, *claims: ClaimGrant) -> None:
        self.standing = standing
        self.claims = claims or (CLAIM,)

    def claim(self, uid: str) -> ClaimGrant | None:
        return next((claim for claim in self.claims if claim.uid == uid), None)

    def claim_named(self, namespace: str, name: str) -> ClaimGrant | None:
        return next((claim for claim in self.claims if (claim.namespace, claim.name) == (namespace, name)), None)


def _decide(operation=SIGN, token=TOKEN, jkt="thumb", view=None, now=NOW):
    return decide(operation, token, jkt, view or View(), VERIFIER, now)


def _reason(**arguments):
    decision = _decide(**arguments)
    assert isinstance(decision, Refused)
    return decision.reason


def _claims(**changes):
    return replace(TOKEN, claims=msgspec.structs.replace(CLAIMS, **changes))


def test_the_holder_of_a_live_token_may_do_what_is_granted():
    decision = _decide()
    assert isinstance(decision, Allowed)
    assert (decision.claim, decision.key, decision.version) == (CLAIM, SIGNING, SIGNING.versions[1])


def test_stolen_token_with_another_tls_key_is_refused():
    assert _reason(jkt="thief") is Reason.HOLDER_OTHER
    assert _reason(jkt="") is Reason.LEAF_ABSENT


def test_stolen_token_whose_cnf_is_empty_needs_a_leaf_all_the_same():
    assert _reason(token=_claims(cnf=Confirmation("")), jkt="") is Reason.LEAF_ABSENT


def test_token_signed_by_another_key_is_refused():
    assert _reason(token=replace(TOKEN, kid="kid-2")) is Reason.SIGNER_UNKNOWN


def test_token_for_another_hsm_is_refused():
    assert _reason(token=_claims(aud="urn:chatelaine:hsm:b")) is Reason.AUDIENCE_OTHER


def test_token_expired_since_it_was_cached_is_refused():
    assert _reason(now=Moment(CLAIMS.exp, NOW.monotonic)) is Reason.EXPIRED


def test_token_of_another_claim_is_refused():
    other = replace(CLAIM, uid="uid-2", name="other-hsm")
    view = View(STANDING, CLAIM, other)
    assert _reason(operation=replace(SIGN, claim="other-hsm"), view=view) is Reason.CLAIM_OTHER
    assert _reason(operation=replace(SIGN, namespace="shop"), view=view) is Reason.CLAIM_OTHER


def test_token_of_a_claim_that_was_made_anew_under_its_name_is_refused():
    assert _reason(view=View(STANDING, replace(CLAIM, uid="uid-9"))) is Reason.CLAIM_NOT_BOUND


def test_token_of_an_earlier_allocation_is_refused():
    assert _reason(view=View(STANDING, replace(CLAIM, sequence=5))) is Reason.SEQUENCE_OTHER


def test_token_of_an_earlier_boot_is_refused():
    assert _reason(view=View(replace(STANDING, epoch="4.0.1"))) is Reason.HSM_EPOCH_OTHER


def test_token_of_an_earlier_epoch_of_its_subject_is_refused():
    subjects = {("checkout", "pod-1"): replace(CLAIM.subjects["checkout", "pod-1"], epoch="e2")}
    assert _reason(view=View(STANDING, replace(CLAIM, subjects=subjects))) is Reason.SUBJECT_EPOCH_OTHER


@pytest.mark.parametrize("verdict", [Verdict.UNTRUSTED, Verdict.UNKNOWN])
def test_hsm_that_is_not_trusted_serves_nothing(verdict):
    assert _reason(view=View(replace(STANDING, verdict=verdict))) is Reason.STANDING_NOT_TRUSTED


def test_gateway_that_was_never_told_serves_nothing():
    view = View()
    view.standing = None
    assert _reason(view=view) is Reason.STANDING_ABSENT


@pytest.mark.parametrize("now", [Moment(NOW.wall, 530.0), Moment(1_800_000_030.0, NOW.monotonic)])
def test_passed_deadline_on_either_clock_serves_nothing(now):
    assert _reason(now=now) is Reason.DEADLINE_PASSED
    forever = replace(STANDING, deadline=Deadline(1e9, 1e12))
    assert _reason(view=View(forever), now=now) is Reason.CLAIM_DEADLINE_PASSED


def test_dead_pod_is_refused():
    subjects = {("checkout", "pod-2"): CLAIM.subjects["checkout", "pod-1"]}
    assert _reason(view=View(STANDING, replace(CLAIM, subjects=subjects))) is Reason.POD_NOT_LIVE


def test_service_account_that_is_no_longer_named_is_refused():
    claim = replace(CLAIM, subjects={}, accounts=frozenset())
    assert _reason(view=View(STANDING, claim)) is Reason.ACCOUNT_NOT_NAMED


def test_service_account_of_another_namespace_is_refused():
    stranger = replace(TOKEN, subject=parse_subject("system:serviceaccount:shop:checkout:pod-1"))
    assert _reason(token=stranger) is Reason.NAMESPACE_OTHER


def test_usage_that_is_not_granted_is_refused_by_its_own_answer():
    verify_only = {("checkout", "pod-1"): SubjectGrant({"signing": frozenset({Usage.VERIFY})}, "e1")}
    decision = _decide(view=View(STANDING, replace(CLAIM, subjects=verify_only)))
    assert decision == Refused(Answer.USAGE_NOT_ALLOWED, Reason.USAGE_NOT_GRANTED)


def test_usage_that_the_key_itself_does_not_have_is_refused():
    keys = {"signing": replace(SIGNING, usages=frozenset({Usage.VERIFY}))}
    assert _reason(view=View(STANDING, replace(CLAIM, keys=keys))) is Reason.USAGE_NOT_GRANTED


@pytest.mark.parametrize("key", ["other", "absent", "", "signing/../other", "signing\0", "s\u0131gning", "Signing"])
def test_another_key_is_refused_alike_whether_it_exists_or_not(key):
    for kind in (OperationKind.SIGN, OperationKind.VERIFY, OperationKind.PUBLIC_KEYS):
        assert _reason(operation=replace(SIGN, kind=kind, key=key)) is Reason.USAGE_NOT_GRANTED


@pytest.mark.parametrize(("kind", "usable"), [(OperationKind.SIGN, {3}), (OperationKind.VERIFY, {2, 3})])
def test_a_key_version_serves_only_in_its_states(kind, usable):
    for version in range(6):
        decision = _decide(operation=replace(SIGN, kind=kind, version=version))
        if version in usable:
            assert isinstance(decision, Allowed)
            assert decision.version is not None
            assert decision.version.version == version
        else:
            assert decision == Refused(Answer.KEY_VERSION_NOT_USABLE, Reason.VERSION_NOT_USABLE)


def test_random_needs_a_live_token_but_no_key():
    random = Operation(OperationKind.RANDOM)
    assert _decide(operation=random) == Allowed(CLAIM, None, None)
    assert _reason(operation=random, view=View(replace(STANDING, epoch="9"))) is Reason.HSM_EPOCH_OTHER


def test_every_refusal_of_a_token_looks_alike_outside():
    outside = {Reason.USAGE_NOT_GRANTED, Reason.VERSION_NOT_USABLE}
    reasons = set()
    for arguments in (
        {"jkt": "x"},
        {"token": _claims(aud="x")},
        {"view": View(replace(STANDING, epoch="9"))},
        {"view": View(STANDING, replace(CLAIM, sequence=9))},
        {"now": Moment(NOW.wall + 3600, NOW.monotonic)},
    ):
        decision = _decide(**arguments)
        assert isinstance(decision, Refused)
        assert decision.answer is Answer.INVALID_TOKEN
        reasons.add(decision.reason)
    assert len(reasons) == 5
    assert not reasons & outside


def test_the_decision_has_no_hidden_steps():
    assert [check.__name__ for check in CHECKS] == [
        "_signer", "_unexpired", "_audience", "_holder", "_standing", "_claim_bound", "_subject_live", "_granted",
        "_version_usable",
    ]  # fmt: skip


def test_cached_token_ends_with_its_exp_on_either_clock_and_use_does_not_extend_it():
    cache = VerifiedTokens(2)
    cache.put(b"t", TOKEN, NOW)
    for seconds in (0, 30, 59):
        assert cache.get(b"t", Moment(NOW.wall, NOW.monotonic + seconds)) is TOKEN
    assert cache.get(b"t", Moment(NOW.wall - 3600, NOW.monotonic + 60)) is None
    cache.put(b"t", TOKEN, NOW)
    assert cache.get(b"t", Moment(NOW.wall + 60, NOW.monotonic)) is None


def test_the_cache_is_bounded_and_knows_only_the_very_bytes():
    cache = VerifiedTokens(2)
    for token in (b"1", b"2", b"3"):
        cache.put(token, TOKEN, NOW)
    assert len(cache) == 2
    assert cache.get(b"1", NOW) is None
    assert cache.get(b"3 ", NOW) is None
    assert cache.get(b"3", NOW) is TOKEN
    cache.clear()
    assert len(cache) == 0
    with pytest.raises(ValueError, match="at least one"):
        VerifiedTokens(0)
