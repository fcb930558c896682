from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatelaine.gateway.errors import ViewOutdated, ViewRefused
from chatelaine.gateway.limits import MAX_DEADLINE_SECONDS
from chatelaine.gateway.view import LiveView
from chatelaine.model.identifiers import key_label
from chatelaine.model.keys import KeyState, Usage
from chatelaine.model.verdict import Verdict
from chatelaine.tokens.cache import Moment
from chatelaine.wire.messages import ClaimView, ClientView, ClusterKeys, KeyVersionView, KeyView, Standing, ViewUpdate
from support.tokens import CLUSTER_ISSUER, Cluster

NOW = Moment(wall=1_800_000_000.0, monotonic=100.0)
INSTANCE = "i"
KEYS = ClusterKeys(issuer=CLUSTER_ISSUER, jwks=Cluster().jwks())


def _standing(**changes) -> Standing:
    fields = {
        "verdict": "Trusted", "reason": "r", "epoch": "1.0.1", "policy_digest": "p", "evidence_digest": "e",
        "valid_for_seconds": 30.0, "valid_until": int(NOW.wall) + 30,
    }  # fmt: skip
    return Standing(**{**fields, **changes})


def _claim(uid: str = "u1", name: str = "one", **changes) -> ClaimView:
    fields = {
        "uid": uid, "namespace": "ns", "name": name, "sequence": 1,
        "keys": (KeyView(name="k", type="EcP256", usages=("Sign",), versions=(_version(uid),)),),
        "clients": (ClientView(service_account="sa", pod_uids=("p1", "p2"), keys=("k",), usages=("Sign",)),),
        "policy_digests": (), "valid_for_seconds": 30.0, "valid_until": int(NOW.wall) + 30,
    }  # fmt: skip
    return ClaimView(**{**fields, **changes})


def _version(uid: str, version: int = 1, state: str = "Active", label: str | None = None) -> KeyVersionView:
    return KeyVersionView(version=version, state=state, label=label or key_label(uid, "k", version))


def _update(number: int, **changes) -> ViewUpdate:
    fields = {"instance": INSTANCE, "term": 1, "number": number, "standing": _standing(), "claims": (_claim(),)}
    return ViewUpdate(**{**fields, **changes})


def _view(*updates: ViewUpdate) -> LiveView:
    view = LiveView(INSTANCE)
    for update in updates or (_update(1),):
        view.apply(update, NOW)
    return view


def test_nothing_is_served_before_the_first_view():
    view = LiveView(INSTANCE)
    assert view.standing is None
    assert not view.serving(NOW)
    assert view.seconds_left(NOW) == 0
    assert view.next_deadline_seconds(NOW) is None


def test_a_whole_view_says_what_is_served():
    view = _view(_update(1, cluster=KEYS))
    assert view.serving(NOW)
    claim = view.claim_named("ns", "one")
    assert claim is view.claim("u1")
    assert claim.subjects["sa", "p1"].usages == {"k": frozenset({Usage.SIGN})}
    assert view.cluster.issuer == CLUSTER_ISSUER
    assert view.next_deadline_seconds(NOW) == 30


@pytest.mark.parametrize("clocks", [Moment(NOW.wall, 130.0), Moment(NOW.wall + 30, 100.0)])
def test_the_earlier_of_both_clocks_is_the_deadline(clocks):
    view = _view()
    assert view.serving(Moment(NOW.wall + 29.9, 129.9))
    assert not view.serving(clocks)
    assert view.ended(clocks) == {"u1"}
    assert view.ended(clocks) == frozenset()
    assert view.seconds_left(clocks) == 0


def test_deadline_is_counted_from_receipt_and_bounded():
    view = _view(_update(1, standing=_standing(valid_for_seconds=1e12, valid_until=2**53)))
    assert view.seconds_left(NOW) == MAX_DEADLINE_SECONDS
    # Each clock alone is enough, whoever sets the other one back.
    assert not view.serving(Moment(NOW.wall, NOW.monotonic + MAX_DEADLINE_SECONDS))
    assert not view.serving(Moment(NOW.wall + MAX_DEADLINE_SECONDS, NOW.monotonic))
    view = _view(_update(1, standing=_standing(valid_for_seconds=-5.0)))
    assert not view.serving(NOW)


def test_claim_ends_at_its_own_deadline():
    view = _view(_update(1, claims=(_claim(), _claim("u2", "two", valid_for_seconds=5.0))))
    assert view.next_deadline_seconds(NOW) == 5
    later = Moment(NOW.wall + 5, 105.0)
    assert view.ended(later) == {"u2"}
    assert view.serving(later)
    assert view.next_deadline_seconds(later) == 25


@pytest.mark.parametrize(("term", "number"), [(1, 1), (1, 0), (0, 99), (-1, 5)])
def test_older_or_equal_view_is_not_taken(term, number):
    view = _view()
    held = view.claims
    with pytest.raises(ViewOutdated):
        view.apply(_update(number, term=term, claims=(), standing=_standing(verdict="Untrusted")), NOW)
    assert view.claims is held
    assert view.serving(NOW)


def test_newer_term_may_count_anew():
    view = _view(_update(500))
    view.apply(_update(1, term=2), NOW)
    assert (view.term, view.number) == (2, 1)


def test_view_for_another_instance_is_not_taken():
    with pytest.raises(ViewOutdated):
        _view(_update(1, instance="earlier life"))


@pytest.mark.parametrize(("term", "base"), [(1, 0), (1, 1), (0, 0)])
def test_change_without_a_held_view_is_not_taken(term, base):
    with pytest.raises(ViewOutdated):
        _view(_update(2, term=term, base=base))


def test_change_of_another_view_or_term_is_not_taken():
    for change in (_update(3, base=0), _update(3, base=2), _update(1, term=2, base=1)):
        with pytest.raises(ViewOutdated):
            _view(_update(1), change)


def test_a_change_leaves_what_it_does_not_name():
    view = _view(_update(1, cluster=KEYS), _update(2, base=1, standing=None, claims=(_claim("u2", "two"),)))
    assert set(view.claims) == {"u1", "u2"}
    assert view.serving(NOW)
    assert view.cluster is not None


def test_a_whole_view_forgets_what_it_does_not_name():
    view = _view(_update(1, cluster=KEYS))
    applied = view.apply(_update(2, standing=None, claims=()), NOW)
    assert applied.revoked == {"u1"}
    assert (view.standing, view.cluster, dict(view.claims)) == (None, None, {})


def test_gone_wins_over_granted():
    view = _view()
    assert view.apply(_update(2, base=1, gone=("u1",)), NOW).revoked == {"u1"}
    assert view.claim("u1") is None
    assert view.claim_named("ns", "one") is None


@pytest.mark.parametrize(
    "standing", [_standing(verdict="Untrusted"), _standing(verdict="Unknown"), _standing(verdict="?"),
                 _standing(epoch="2.0.1")]
)  # fmt: skip
def test_lost_standing_or_new_epoch_revokes_every_claim(standing):
    view = _view(_update(1, claims=(_claim(), _claim("u2", "two"))))
    assert view.apply(_update(2, base=1, claims=(), standing=standing), NOW).revoked == {"u1", "u2"}


def test_what_a_lost_standing_revokes_is_told_once():
    view = _view()
    assert view.apply(_update(2, standing=_standing(verdict="Untrusted")), NOW).revoked == {"u1"}
    assert view.ended(NOW) == frozenset()
    view.apply(_update(3), NOW)
    assert view.ended(Moment(NOW.wall, NOW.monotonic + 10**6)) == {"u1"}


def test_renewed_standing_revokes_nothing():
    view = _view()
    later = Moment(NOW.wall + 20, 120.0)
    assert view.apply(_update(2, standing=_standing(valid_until=int(NOW.wall) + 50)), later).revoked == frozenset()
    assert view.seconds_left(later) == 30


def test_new_allocation_of_a_claim_revokes_the_old_one():
    assert _view().apply(_update(2, claims=(_claim(sequence=2),)), NOW).revoked == {"u1"}


def test_unknown_verdict_is_not_trusted():
    assert _view(_update(1, standing=_standing(verdict="Splendid"))).standing.verdict is Verdict.UNKNOWN


def test_unknown_types_usages_and_states_are_left_out():
    keys = (
        KeyView(name="k", type="EcP256", usages=("Sign", "Levitate"), versions=(_version("u1", 1, "Odd"),)),
        KeyView(name="n", type="Kyber", usages=("Sign",), versions=()),
    )
    claim = _view(_update(1, claims=(_claim(keys=keys),))).claim("u1")
    assert set(claim.keys) == {"k"}
    assert claim.keys["k"].usages == {Usage.SIGN}
    assert claim.keys["k"].versions == ()


def test_versions_stand_in_falling_order():
    versions = tuple(_version("u1", number) for number in (2, 10, 1))
    key = KeyView(name="k", type="EcP256", usages=("Sign",), versions=versions)
    claim = _view(_update(1, claims=(_claim(keys=(key,)),))).claim("u1")
    assert [item.version for item in claim.keys["k"].versions] == [10, 2, 1]
    assert {item.state for item in claim.keys["k"].versions} == {KeyState.ACTIVE}


def test_a_pod_of_several_rows_may_do_what_any_grants_and_has_all_their_epochs():
    rows = (
        ClientView(service_account="sa", pod_uids=("p1",), keys=("k",), usages=("Sign",), epoch="b"),
        ClientView(service_account="sa", pod_uids=("p1", "p2"), keys=("k",), usages=("Verify",), epoch="a"),
    )
    claim = _view(_update(1, claims=(_claim(clients=rows),))).claim("u1")
    assert claim.subjects["sa", "p1"].usages == {"k": frozenset({Usage.SIGN, Usage.VERIFY})}
    assert claim.subjects["sa", "p1"].epoch == "a,b"
    assert claim.subjects["sa", "p2"].usages == {"k": frozenset({Usage.VERIFY})}


@pytest.mark.parametrize(
    "claims",
    [
        (_claim("service"),),
        (_claim(""),),
        (_claim("a/b"),),
        (_claim("u\n"),),
        (_claim(namespace="N"),),
        (_claim(name="../x"),),
        (_claim(name="x" * 254),),
        (_claim(), _claim()),
        (_claim(), _claim("u2")),
        (_claim(keys=_claim().keys * 2),),
        (_claim(keys=(KeyView(name="k/1", type="EcP256", usages=(), versions=()),)),),
        (_claim(keys=(KeyView(name="k", type="EcP256", usages=(), versions=(_version("u2"),)),)),),
        (_claim(keys=(KeyView(name="k", type="EcP256", usages=(), versions=(_version("u1"),) * 2),)),),
        (_claim(keys=(KeyView(name="k", type="EcP256", usages=(), versions=(_version("u1", 0),)),)),),
        (_claim(keys=(KeyView(name="k", type="EcP256", usages=(), versions=(_version("u1", 10**6 + 1),)),)),),
        (_claim(policy_digests=("x",) * 9),),
        (_claim(policy_digests=("x" * 129,)),),
        (_claim(clients=_claim().clients * 65),),
    ],
)
def test_view_that_contradicts_itself_or_breaks_a_bound_changes_nothing(claims):
    view = _view()
    held = (view.claims, view.standing, view.number)
    with pytest.raises(ViewRefused):
        view.apply(_update(2, claims=claims), NOW)
    assert (view.claims, view.standing, view.number) == held


def _heir(uid: str = "u9", name: str = "heir", *, adopted: tuple[str, ...] = ("old",), maker: str = "old") -> ClaimView:
    keys = (KeyView(name="k", type="EcP256", usages=("Sign",), versions=(_version(maker),)),)
    return _claim(uid, name, keys=keys, adopted=adopted)


def test_keys_of_a_former_claim_are_served_under_the_one_that_took_them_over():
    view = _view(_update(1, claims=(_claim(), _heir())))
    assert view.claim("u9").keys["k"].versions[0].label == "chat/old/k/1"


@pytest.mark.parametrize(
    "claims",
    [
        (_claim(), _heir(adopted=("u1",), maker="u1")),
        (_heir(adopted=("u1",), maker="u1"), _claim()),
        (_heir(), _heir("u8", "other")),
        (_heir(adopted=("else",)),),
        (_heir(adopted=("service",), maker="service"),),
        (_heir(adopted=("a/b",)),),
        (_heir(adopted=tuple(f"old-{number}" for number in range(17))),),
    ],
    ids=["of-one-served", "of-one-served-later", "for-two", "not-said", "service-keys", "no-uid", "too-many"],
)
def test_view_that_hands_keys_of_another_claim_to_an_heir_changes_nothing(claims):
    view = _view(_update(1, claims=()))
    with pytest.raises(ViewRefused):
        view.apply(_update(2, claims=claims), NOW)
    assert view.number == 1


def test_former_claim_that_comes_back_beside_its_heir_is_refused():
    view = _view(_update(1, claims=(_heir(),)))
    with pytest.raises(ViewRefused):
        view.apply(_update(2, base=1, claims=(_claim("old", "back"),)), NOW)
    assert view.claim("old") is None


def test_unusable_cluster_keys_change_nothing():
    view = _view()
    with pytest.raises(ViewRefused):
        view.apply(_update(2, cluster=ClusterKeys(issuer="i", jwks="{}")), NOW)
    assert view.number == 1


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 5), st.booleans(), st.booleans()), max_size=12))
def test_no_order_of_updates_brings_back_what_the_newest_one_revoked(steps):
    """Whatever arrives, what is served is what the highest (term, number) taken so far says."""
    view = LiveView(INSTANCE)
    highest, served = (0, 0), False
    for term, number, whole, grants in steps:
        claims = (_claim(),) if grants else ()
        gone = () if grants else ("u1",)
        update = _update(number, term=term, base=None if whole else view.number, claims=claims, gone=gone)
        try:
            view.apply(update, NOW)
        except ViewOutdated:
            continue
        assert (term, number) > highest
        highest, served = (term, number), grants
        assert (view.claim("u1") is not None) is served


def test_messages_survive_the_wire():
    update = _update(1, cluster=KEYS)
    assert msgspec.json.decode(msgspec.json.encode(update), type=ViewUpdate) == update
