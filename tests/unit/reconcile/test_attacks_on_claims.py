"""Attacks by tenants, each test named by one; each was seen red with its check taken out."""

from __future__ import annotations

from chatelaine.model.claim import ClaimAllocation, HsmClaimStatus, HsmRefStatus, KeyStatus, KeyVersionStatus
from chatelaine.model.common import Condition
from chatelaine.model.conditions import timestamp
from chatelaine.model.hsm import EpochStatus
from chatelaine.model.identifiers import LABEL_NAMESPACE_NAME, key_label
from chatelaine.model.keys import KeyState, KeyType
from chatelaine.reconcile import claim as claim_room
from chatelaine.reconcile.claim_snapshot import NamespaceFacts
from chatelaine.reconcile.plan import EnsureKey
from chatelaine.reconcile.served import usable_versions
from support.world import World
from support.world_hosts import BAD_PCR
from support.world_objects import (
    change_claim,
    change_hsm,
    condition,
    delete_claim,
    message,
    put_claim,
    put_policy,
    stage,
    uid_of,
)

EVIDENCE = "sha256:" + "e" * 64


def forged(world: World, hsm: str, *, sequence: int = 7) -> HsmClaimStatus:
    """A status as a tenant would like to have it."""
    item = world.hsms[hsm]
    ref = HsmRefStatus(name=hsm, uid=item.metadata.uid)
    allocation = ClaimAllocation(
        sequence=sequence, hsm=ref, at=timestamp(world.now), policies=[], evidence_digest=EVIDENCE,
        epoch=EpochStatus(reset_count=3, restart_count=0, generation=1),
    )  # fmt: skip
    version = KeyVersionStatus(
        version=1, state=KeyState.ACTIVE, sequence=sequence, hsm=ref, pkcs11_uri="pkcs11:object=x"
    )
    conditions = [
        Condition(type=type_, status="True", last_transition_time=timestamp(world.now), reason=reason)
        for type_, reason in (("Bound", "Bound"), ("Attested", "EvidenceHolds"), ("Ready", "AllReady"))
    ]
    keys = [KeyStatus(name="signing", type=KeyType.EC_P256, versions=[version])]
    return HsmClaimStatus(allocation=allocation, keys=keys, conditions=conditions)


def test_forged_claim_status_without_a_seat_is_not_served() -> None:
    world = stage("hsm-a")
    change_hsm(world, "hsm-a", cordoned="Enabled")
    claim = put_claim(world)
    world.put_claim(claim, forged(world, "hsm-a"))
    assert not world.served("payments", "checkout").serves
    world.settle()
    claim = world.claims["payments", "checkout"]
    assert not world.served("payments", "checkout").serves
    assert condition(claim, "Bound") == ("False", "NoSuitableHsm")
    assert condition(claim, "Ready")[0] == "False"
    assert not [key for key in world.network if key[1].startswith(f"chat-{claim.metadata.uid[:13]}")]
    assert world.hosts["hsm-a"].labels == set()


def test_forged_allocation_to_another_hsm_than_the_seat_is_put_right() -> None:
    world = stage("hsm-a", "hsm-b")
    put_claim(world)
    world.settle()
    world.put_claim(world.claims["payments", "checkout"], forged(world, "hsm-b"))
    assert not world.served("payments", "checkout").serves
    world.settle()
    allocation = world.claims["payments", "checkout"].status.allocation
    assert allocation is not None
    assert (allocation.hsm.name, allocation.sequence) == ("hsm-a", 8)


def test_forged_active_key_is_never_served_by_the_next_allocation() -> None:
    world = stage("hsm-a")
    claim = put_claim(world)
    world.put_claim(claim, forged(world, "hsm-a"))
    world.settle()
    claim = world.claims["payments", "checkout"]
    usable = usable_versions(claim, world.view("hsm-a"))
    assert [version.version for version in usable["signing"]] == [2]
    assert claim.status.keys[0].versions[0].state is KeyState.DEACTIVATED


def test_recreated_claim_of_the_same_name_gets_nothing_of_the_old_one() -> None:
    world = stage("hsm-a")
    old = put_claim(world)
    world.settle()
    delete_claim(world)
    world.settle()
    new = put_claim(world)
    world.settle()
    assert old.metadata.uid != new.metadata.uid
    claim = world.claims["payments", "checkout"]
    labels = world.hosts["hsm-a"].labels
    assert {key_label(old.metadata.uid, "signing", 1), key_label(new.metadata.uid, "signing", 1)} <= labels
    assert old.metadata.uid not in (claim.status.keys[0].versions[0].pkcs11_uri or "")
    assert [seat.claim_uid for seat in world.hsms["hsm-a"].status.allocations] == [new.metadata.uid]


def test_recreated_claim_does_not_take_the_seat_of_one_that_vanished() -> None:
    world = stage("hsm-a")
    put_claim(world)
    world.settle()
    status = world.claims["payments", "checkout"].status
    new = put_claim(world)
    world.put_claim(new, status)
    assert not world.served("payments", "checkout").serves


def test_claim_that_asks_for_more_than_the_release_rules_give_is_refused() -> None:
    rule = {
        "namespaces": {"matchLabels": {"team": "payments"}},
        "keyTypes": ["EcP256"],
        "usages": ["Sign"],
        "maxSensitivity": "Internal",
        "workloadTypes": ["PaymentSigning"],
    }
    world = stage("hsm-a", release={"anyOf": [rule]})
    wants = {"sensitivity": "Internal", "workloadType": "PaymentSigning"}
    key = {"name": "signing", "type": "EcP256", "usages": ["Sign"]}
    fine = {"requirements": wants, "keys": [key]}
    put_claim(world, "fine", **fine)
    put_claim(world, "type", **{**fine, "keys": [{**key, "type": "Rsa3072"}]})
    put_claim(world, "usage", **{**fine, "keys": [{**key, "usages": ["Sign", "Verify"]}]})
    put_claim(world, "sensitivity", **{**fine, "requirements": {**wants, "sensitivity": "Confidential"}})
    put_claim(world, "workload", **{**fine, "requirements": {"sensitivity": "Internal"}})
    world.settle()
    bound = {name for (_, name), claim in world.claims.items() if claim.status.allocation is not None}
    assert bound == {"fine"}


def test_claim_that_asks_for_more_after_it_was_bound_is_cut() -> None:
    rule = {"namespaces": {"matchLabels": {"team": "payments"}}, "keyTypes": ["EcP256"]}
    world = stage("hsm-a", release={"anyOf": [rule]})
    put_claim(world)
    world.settle()
    key = {"name": "signing", "type": "EcP256", "usages": ["Sign"]}
    change_claim(world, keys=[key, {"name": "more", "type": "Rsa3072", "usages": ["Sign"]}])
    world.settle()
    assert not world.served("payments", "checkout").serves
    assert not [label for label in world.hosts["hsm-a"].labels if "/more/" in label]
    world.check_settled()


def test_usages_of_clients_count_as_asked_for() -> None:
    rule = {"namespaces": {"matchLabels": {"team": "payments"}}, "usages": ["Sign"]}
    world = stage("hsm-a", release={"anyOf": [rule]})
    client = {
        "serviceAccount": "app", "podSelector": {"matchLabels": {"app": "x"}},
        "keys": ["signing"], "usages": ["Verify"],
    }  # fmt: skip
    put_claim(world, keys=[{"name": "signing", "type": "EcP256", "usages": ["Sign"]}], clients=[client])
    world.settle()
    assert world.claims["payments", "checkout"].status.allocation is None


def test_namespace_with_many_labels_does_not_match_a_rule_of_other_labels() -> None:
    world = stage("hsm-a", release={"anyOf": [{"namespaces": {"matchLabels": {"team": "payments", "stage": "live"}}}]})
    wide = {"team": "payments", "stage": "test", "everything": "yes", LABEL_NAMESPACE_NAME: "payments"}
    world.namespaces["payments"] = NamespaceFacts(uid_of(), wide)
    put_claim(world)
    world.settle()
    assert world.claims["payments", "checkout"].status.allocation is None


def test_namespace_that_labels_itself_with_anothers_name_is_refused() -> None:
    rule = {"namespaces": {"matchLabels": {LABEL_NAMESPACE_NAME: "payments"}}}
    world = stage("hsm-a", release={"anyOf": [rule]})
    world.namespaces["other"] = NamespaceFacts(uid_of(), {LABEL_NAMESPACE_NAME: "payments"})
    put_claim(world, namespace="other")
    put_claim(world)
    world.settle()
    assert world.claims["other", "checkout"].status.allocation is None
    assert world.claims["payments", "checkout"].status.allocation is not None


def test_policy_without_release_releases_nothing() -> None:
    world = stage("hsm-a", release=None)
    put_claim(world)
    world.settle()
    assert condition(world.claims["payments", "checkout"], "Bound") == ("False", "ReleaseRefused")
    assert "nothing is released" in message(world.claims["payments", "checkout"], "Bound")


def test_own_policy_without_release_releases_nothing() -> None:
    world = stage("hsm-a")
    put_policy(world, "mute", release=None)
    put_claim(world, policyRef={"name": "mute"})
    world.settle()
    assert world.claims["payments", "checkout"].status.allocation is None


def test_own_policy_cannot_widen_the_hsms_release_rules() -> None:
    world = stage("hsm-a")
    put_policy(world, "wide", release={"anyOf": [{"namespaces": {"matchLabels": {"team": "other"}}}]})
    put_claim(world, namespace="other", policyRef={"name": "wide"})
    world.settle()
    assert world.claims["other", "checkout"].status.allocation is None


def test_secret_of_somebody_else_is_not_touched() -> None:
    world = stage("hsm-a")
    world.secrets["payments", "checkout-hsm"] = ("uid-of-somebody-else", "sha256:theirs")
    put_claim(world)
    world.settle()
    claim = world.claims["payments", "checkout"]
    assert world.secrets["payments", "checkout-hsm"] == ("uid-of-somebody-else", "sha256:theirs")
    assert condition(claim, "Ready") == ("False", "SecretNameTaken")
    assert condition(claim, "Stalled") == ("True", "SecretNameTaken")
    assert claim.status.binding is None


def test_keys_are_not_made_in_an_hsm_that_was_refuted_meanwhile() -> None:
    world = stage("hsm-a")
    put_claim(world)
    world.run(claim_room.reconcile(world.claim_snapshot("payments", "checkout")))
    world.hosts["hsm-a"].pcrs[7] = BAD_PCR
    world.attest()
    plan = claim_room.reconcile(world.claim_snapshot("payments", "checkout"))
    assert not [action for action in plan.actions if isinstance(action, EnsureKey)]
    world.settle()
    assert world.hosts["hsm-a"].labels == set()
