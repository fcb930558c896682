"""After a restore each claim finds its keys again, once; nobody else gets them."""

from __future__ import annotations

from dataclasses import replace

import pytest

from chatelaine.model.hsm import HsmStatus, Retained, RetainedKey
from chatelaine.model.identifiers import key_label
from chatelaine.model.keys import KeyState
from chatelaine.reconcile import plan as p
from chatelaine.reconcile.adoption import adoptions_of, reservation
from support.restored import labels, lose_the_control_plane, readmit_all
from support.world import Killed, World
from support.world_hosts import BAD_PCR, GOOD_PCR
from support.world_objects import (
    annotate_claim,
    bound_to,
    change_claim,
    change_hsm,
    condition,
    delete_claim,
    message,
    put_claim,
    put_hsm,
    readmit,
    stage,
    tamper,
    verdict,
    versions,
)

NAMES = ("checkout", "refunds", "payroll")


def pool() -> World:
    """Three claims with keys on two Hsms, and an Hsm that holds none."""
    world = stage("hsm-a", "hsm-b", "hsm-empty")
    for name, hsm in zip(NAMES, ("hsm-a", "hsm-b", "hsm-b"), strict=True):
        for other in world.hsms:
            change_hsm(world, other, cordoned="Disabled" if other == hsm else "Enabled")
        put_claim(world, name)
        world.settle()
    for other in world.hsms:
        change_hsm(world, other, cordoned=None)
    world.settle()
    return world


def restored() -> World:
    world = pool()
    lose_the_control_plane(world)
    return world


def where(world: World) -> dict[str, tuple[str | None, list[tuple[int, str, str | None]]]]:
    """Of each claim: its Hsm, and number, state and maker of its versions."""
    return {
        name: (bound_to(world, name), [(v.version, v.state.value, v.made_by) for v in versions(world, name=name)])
        for name in NAMES
    }


def test_each_claim_is_bound_where_its_keys_are_and_none_is_made_twice() -> None:
    world = pool()
    before, uids = labels(world), {name: world.claims["payments", name].metadata.uid for name in NAMES}
    homes = {name: bound_to(world, name) for name in NAMES}
    assert sorted(filter(None, homes.values())) == ["hsm-a", "hsm-b", "hsm-b"]
    lose_the_control_plane(world)
    world.settle()
    # The empty Hsm is enrolled by now, and nobody has gone there.
    assert verdict(world, "hsm-empty") == ("Trusted", "EvidenceHolds")
    assert {name: bound_to(world, name) for name in NAMES} == dict.fromkeys(NAMES)
    assert condition(world.claims["payments", "checkout"], "Bound") == ("False", "AwaitingReadmission")
    assert condition(world.claims["payments", "checkout"], "Stalled")[0] == "True"
    readmit_all(world)
    world.settle()
    assert where(world) == {name: (homes[name], [(1, "Active", uids[name])]) for name in NAMES}
    assert labels(world) == before
    assert all(world.served("payments", name).serves for name in NAMES)
    assert [v.public_key for v in versions(world)] == ["PEM"]
    world.check_settled()


def test_a_restored_world_comes_to_rest_and_stays_trusted() -> None:
    world = restored()
    world.settle()
    readmit_all(world)
    world.settle()
    world.pass_time(10)
    world.attest()
    world.settle()
    writes = world.writes
    for plan in world.plans():
        assert plan.writes == ()
    assert world.writes == writes
    assert {verdict(world, name) for name in world.hsms} == {("Trusted", "EvidenceHolds")}


def test_killed_after_any_action_a_fresh_operator_reaches_the_same_end() -> None:
    def end(world: World) -> object:
        world.settle()
        readmit_all(world)
        world.settle()
        world.check_settled()
        homes = {name: (home, [(n, s) for n, s, _ in made]) for name, (home, made) in where(world).items()}
        kept = [(hsm.metadata.name, len(hsm.status.retained)) for hsm in world.hsms.values()]
        tokens = {name: len(found) for name, found in labels(world).items()}
        return homes, kept, tokens, [len(hsm.status.allocations) for hsm in world.hsms.values()]

    whole = end(restored())
    for number in range(1, 200):
        world, left = restored(), number

        def fatal(action: p.Action) -> None:
            nonlocal left
            if not isinstance(action, p.RequestEvidence | p.RequestIdentity):
                left -= 1
                if left == 0:
                    raise Killed

        world.before_write = fatal
        try:
            world.settle()
            readmit_all(world)
            world.settle()
        except Killed:
            world.before_write = lambda action: None
            world.restart()
            assert end(world) == whole, number
            continue
        assert number > 30
        return
    raise AssertionError("it never rests")


def test_a_strangers_claim_with_the_same_selector_does_not_get_the_keys() -> None:
    world = restored()
    put_claim(world, "stranger")
    world.settle()
    readmit_all(world)
    world.settle()
    assert [v.made_by for v in versions(world, name="stranger")] == [None]
    uid = world.claims["payments", "stranger"].metadata.uid
    assert uid not in {kept.adopted_by for hsm in world.hsms.values() for kept in hsm.status.retained}
    assert where(world)["checkout"][0] is not None


def test_a_claim_of_the_same_name_in_another_namespace_does_not_get_the_keys() -> None:
    teams = [{"namespaces": {"matchLabels": {"team": team}}} for team in ("payments", "other")]
    world = stage("hsm-a", release={"anyOf": teams})
    put_claim(world)
    world.settle()
    lose_the_control_plane(world)
    put_claim(world, "checkout", "other")
    world.settle()
    readmit_all(world)
    world.settle()
    theirs = world.claims["other", "checkout"].status.keys[0].versions
    assert [(v.version, v.made_by) for v in theirs] == [(1, None)]
    assert len(labels(world)["hsm-a"]) == 2


def test_a_later_claim_of_the_same_name_does_not_get_the_keys() -> None:
    """Its namespace may be another team's by then; who takes keys over is settled once."""
    world = restored()
    world.settle()
    readmit_all(world)
    world.settle()
    first = world.claims["payments", "checkout"].metadata.uid
    delete_claim(world)
    world.settle()
    put_claim(world)
    world.settle()
    assert [(v.version, v.made_by) for v in versions(world)] == [(1, None)]
    held = [k for k in world.hsms["hsm-a"].status.retained if k.adopted_by is not None]
    assert [kept.adopted_by for kept in held] == [first]


def test_keys_of_a_claim_that_exists_are_not_handed_over() -> None:
    """Those that a claim left behind when it moved are retained under its uid, and it lives."""
    world = stage("hsm-a", "hsm-b")
    put_claim(world, failover="Rebind")
    world.settle()
    old = bound_to(world)
    assert old is not None
    tamper(world, old)
    owner = world.claims["payments", "checkout"].metadata.uid
    assert [kept.claim_uid for kept in world.hsms[old].status.retained] == [owner]
    change_hsm(world, old, adoptions=[{"claimUid": owner, "namespace": "payments", "name": "thief"}])
    world.hosts[old].pcrs[7] = GOOD_PCR
    readmit(world, old)
    world.settle()
    put_claim(world, "thief")
    world.settle()
    assert versions(world, name="thief") == []
    assert condition(world.claims["payments", "thief"], "Bound") == ("False", "AdoptionPending")
    assert "exists" in message(world.claims["payments", "thief"], "Bound")
    assert [kept.adopted_by for kept in world.hsms[old].status.retained] == [None]


def test_a_promise_that_the_token_does_not_keep_holds_the_claim_and_says_so() -> None:
    world = pool()
    lose_the_control_plane(world)
    world.hosts["hsm-a"].labels -= labels(world)["hsm-a"]
    world.settle()
    readmit_all(world)
    world.settle()
    said = message(world.claims["payments", "checkout"], "Bound")
    assert (bound_to(world), versions(world)) == (None, [])
    assert "hsm-a.spec.adoptions" in said
    assert "take the entry away" in said
    change_hsm(world, "hsm-a", adoptions=None)
    world.settle()
    assert [(v.state, v.made_by) for v in versions(world)] == [(KeyState.ACTIVE, None)]


def test_a_key_that_is_gone_from_the_token_is_not_made_anew_under_its_old_name() -> None:
    world = restored()
    world.settle()
    gone = labels(world)["hsm-a"]
    readmit_all(world)
    world.before_write = lambda action: (
        world.hosts["hsm-a"].labels.difference_update(gone) if isinstance(action, p.EnsureKey) else None
    )
    for _ in range(8):  # it is asked for again and again
        for plan in world.plans():
            world.run(plan)
    assert [v.state for v in versions(world)] == [KeyState.PRE_ACTIVE]
    assert not labels(world)["hsm-a"]


def test_without_a_backup_the_keys_are_retained_and_nobody_gets_them() -> None:
    world = pool()
    before = labels(world)
    lose_the_control_plane(world, backed_up=False)
    world.settle()
    readmit_all(world)
    world.settle()
    assert all(v.made_by is None for name in NAMES for v in versions(world, name=name))
    kept = [kept for hsm in world.hsms.values() for kept in hsm.status.retained]
    assert [(k.namespace, k.adopted_by) for k in kept] == [("unknown", None)] * 3
    assert all(before[name] <= labels(world)[name] for name in before)


def test_the_mark_of_a_refutation_survives_the_restore() -> None:
    world = stage("hsm-a")
    put_claim(world)
    world.settle()
    world.hosts["hsm-a"].pcrs[7] = BAD_PCR
    world.attest()
    world.settle()
    world.hosts["hsm-a"].pcrs[7] = GOOD_PCR
    readmit(world, "hsm-a")
    world.settle()
    mark = versions(world)[0].suspect_since
    assert mark is not None
    lose_the_control_plane(world)
    world.settle()
    readmit_all(world)
    world.settle()
    assert [(v.state, v.suspect_since) for v in versions(world)] == [(KeyState.ACTIVE, mark)]


def test_a_second_restore_finds_keys_of_both_lives() -> None:
    world = restored()
    world.settle()
    readmit_all(world)
    world.settle()
    more = [{"name": name, "type": "EcP256", "usages": ["Sign"]} for name in ("signing", "second")]
    change_claim(world, keys=more)
    world.settle()
    before = labels(world)
    lose_the_control_plane(world)
    assert len(world.hsms["hsm-a"].spec.adoptions or ()) == 2
    world.settle()
    readmit_all(world)
    world.settle()
    assert labels(world) == before
    made = {v.made_by for key in ("signing", "second") for v in versions(world, key)}
    assert len(made) == 2
    assert None not in made
    assert world.served("payments", "checkout").serves


def test_status_lost_after_the_keys_were_taken_over_keeps_them_where_they_are() -> None:
    """The object lives on with its uid: as when somebody empties the status."""
    world = restored()
    world.settle()
    readmit_all(world)
    world.settle()
    before, homes = labels(world), where(world)
    for name in ("hsm-a", "hsm-b"):
        lost = HsmStatus()
        world.put_hsm(world.hsms[name], **{field: getattr(lost, field) for field in HsmStatus.model_fields})
    world.restart()
    world.settle()
    readmit_all(world)
    world.settle()
    assert (labels(world), where(world)) == (before, homes)
    assert all(world.served("payments", name).serves for name in NAMES)


def test_deleted_with_destroy_the_keys_that_were_taken_over_are_destroyed() -> None:
    world = stage("hsm-a")
    put_claim(world, reclaimPolicy="Destroy")
    world.settle()
    lose_the_control_plane(world)
    world.settle()
    readmit_all(world)
    world.settle()
    delete_claim(world)
    world.settle()
    assert labels(world)["hsm-a"] == set()
    assert world.claims == {}


def test_deleted_with_retain_the_keys_stay_accounted_for_under_their_maker() -> None:
    world = stage("hsm-a")
    uid = put_claim(world).metadata.uid
    world.settle()
    lose_the_control_plane(world)
    world.settle()
    readmit_all(world)
    world.settle()
    delete_claim(world)
    world.settle()
    world.attest()
    world.settle()
    assert labels(world)["hsm-a"] == {key_label(uid, "signing", 1)}
    assert [kept.claim_uid for kept in world.hsms["hsm-a"].status.retained] == [uid]
    assert verdict(world) == ("Trusted", "EvidenceHolds")


def test_older_versions_verify_and_the_newest_signs() -> None:
    world = stage("hsm-a")
    uid = put_claim(world).metadata.uid
    world.settle()
    world.hosts["hsm-a"].labels |= {key_label(uid, "signing", number) for number in range(2, 6)}
    lose_the_control_plane(world)
    world.settle()
    readmit_all(world)
    world.settle()
    found = versions(world)
    assert [v.version for v in found] == [1, 2, 3, 4, 5]
    assert [v.state for v in found] == [KeyState.DEACTIVATED] * 4 + [KeyState.ACTIVE]


def test_a_cordon_does_not_keep_a_claim_from_its_own_keys() -> None:
    world = stage("hsm-a", "hsm-b")
    put_claim(world)
    world.settle()
    home = bound_to(world)
    assert home is not None
    change_hsm(world, home, cordoned="Enabled")
    lose_the_control_plane(world)
    world.settle()
    readmit_all(world)
    world.settle()
    assert bound_to(world) == home


def test_a_paused_claim_waits_for_its_keys() -> None:
    world = restored()
    annotate_claim(world, "chatelaine.dev/paused", "true")
    world.settle()
    readmit_all(world)
    world.settle()
    assert bound_to(world) is None
    annotate_claim(world, "chatelaine.dev/paused", "false")
    world.settle()
    assert bound_to(world) == "hsm-a"


@pytest.mark.parametrize("uid_is", ["its own", "none's"])
def test_a_promise_to_a_claim_that_is_bound_moves_nothing(uid_is: str) -> None:
    world = stage("hsm-a", "hsm-b")
    own = put_claim(world).metadata.uid
    world.settle()
    home = bound_to(world)
    said = {"claimUid": own if uid_is == "its own" else "gone", "namespace": "payments", "name": "checkout"}
    for name in world.hsms:
        change_hsm(world, name, adoptions=[said])
    writes = world.writes
    world.settle()
    assert bound_to(world) == home
    assert all(v.made_by is None for v in versions(world))
    assert world.writes - writes <= len(world.hsms)  # the observed generation


def test_what_a_backup_says_leaves_out_claims_without_keys_here() -> None:
    world = stage("hsm-a", "hsm-b")
    put_claim(world, keys=None, clients=None)
    put_claim(world, "keyed")
    world.settle()
    claims = list(world.claims.values())
    said = [one for hsm in world.hsms.values() for one in adoptions_of(hsm, claims)]
    assert [(one.namespace, one.name) for one in said] == [("payments", "keyed")]


def test_only_the_first_of_two_claims_in_a_race_takes_the_keys() -> None:
    """Two operators with the same picture: the second write is refused by what the first has noted."""
    world = stage("hsm-a")
    item = world.hsms["hsm-a"]
    key = RetainedKey(name="signing", version=1, state=KeyState.DEACTIVATED)
    kept = Retained(claim_uid="gone", namespace="payments", name="checkout", keys=[key], at=item.metadata.name)
    world.hosts["hsm-a"].labels.add("chat/gone/signing/1")
    world.put_hsm(item, retained=[kept.model_copy(update={"adopted_by": "another"})])
    change_hsm(world, "hsm-a", adoptions=[{"claimUid": "gone", "namespace": "payments", "name": "checkout"}])
    put_claim(world)
    assert reservation(world.claim_snapshot("payments", "checkout")) is None
    snapshot = world.claim_snapshot("payments", "checkout")
    assert reservation(replace(snapshot, living=frozenset({"gone"}))) is None
    put_hsm(world, "hsm-b")
    world.settle()
    assert [v.made_by for v in versions(world)] == [None]
