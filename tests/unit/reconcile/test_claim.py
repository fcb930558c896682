"""Bound claims: cut, held, moved; their NetworkPolicies and Secrets."""

from __future__ import annotations

from dataclasses import replace

from chatelaine.model.identifiers import ANNOTATION_PAUSED, LABEL_EGRESS
from chatelaine.model.keys import KeyState
from chatelaine.model.reasons import Reason
from support.world_hosts import GOOD_PCR
from support.world_objects import (
    annotate_claim,
    bound_to,
    change_claim,
    change_hsm,
    condition,
    message,
    put_claim,
    put_hsm,
    readmit,
    stage,
    tamper,
    versions,
)


class TestCutAndFailover:
    def test_hold_waits_for_the_same_hsm(self) -> None:
        world = stage()
        put_claim(world)
        world.settle()
        tamper(world, "hsm-a")
        claim = world.claims["payments", "checkout"]
        assert bound_to(world) == "hsm-a"
        assert condition(claim, "Attested") == ("False", "EvidenceRefuted")
        assert condition(claim, "KeysReady") == ("False", "KeysSuspect")
        assert condition(claim, "NetworkReady") == ("False", "PoliciesRemoved")
        assert condition(claim, "Stalled") == ("True", "EvidenceRefuted")
        assert versions(world)[0].suspect_since is not None
        world.check_settled()
        world.hosts["hsm-a"].pcrs[7] = GOOD_PCR
        readmit(world, "hsm-a")
        world.settle()
        assert condition(world.claims["payments", "checkout"], "Ready") == ("True", "AllReady")
        assert versions(world)[0].suspect_since is not None

    def test_rebind_moves_with_new_keys_and_leaves_the_old_ones_on_record(self) -> None:
        world = stage()
        put_claim(world, failover="Rebind")
        world.settle()
        tamper(world, "hsm-a")
        claim = world.claims["payments", "checkout"]
        assert bound_to(world) == "hsm-b"
        assert claim.status.allocation is not None
        assert claim.status.allocation.sequence == 2
        assert [(v.version, v.state, v.hsm.name) for v in versions(world)] == [
            (1, KeyState.DEACTIVATED, "hsm-a"),
            (2, KeyState.ACTIVE, "hsm-b"),
        ]
        assert versions(world)[0].reason
        assert versions(world)[0].suspect_since is not None
        assert versions(world)[1].suspect_since is None
        old = world.hsms["hsm-a"].status
        assert old.allocations == []
        assert [(k.name, k.version) for k in old.retained[0].keys] == [("signing", 1)]
        assert condition(claim, "Ready") == ("True", "AllReady")
        world.check_settled()

    def test_rebind_with_nowhere_to_go_says_so_and_returns_when_the_hsm_does(self) -> None:
        world = stage("hsm-a")
        put_claim(world, failover="Rebind")
        world.settle()
        tamper(world, "hsm-a")
        claim = world.claims["payments", "checkout"]
        assert condition(claim, "Bound") == ("False", "Rebinding")
        assert "Hsm hsm-a was cut" in message(claim, "Bound")
        world.check_settled()
        world.hosts["hsm-a"].pcrs[7] = GOOD_PCR
        readmit(world, "hsm-a")
        world.settle()
        assert bound_to(world) == "hsm-a"
        assert condition(world.claims["payments", "checkout"], "Ready") == ("True", "AllReady")

    def test_hsm_that_is_gone_stalls_a_holding_claim(self) -> None:
        world = stage()
        put_claim(world)
        world.settle()
        del world.hsms["hsm-a"]
        world.settle()
        assert condition(world.claims["payments", "checkout"], "Bound") == ("False", "HsmGone")
        assert condition(world.claims["payments", "checkout"], "Stalled") == ("True", "HsmGone")

    def test_hsm_that_is_gone_makes_a_rebinding_claim_move(self) -> None:
        world = stage()
        put_claim(world, failover="Rebind")
        world.settle()
        del world.hsms["hsm-a"]
        world.settle()
        assert bound_to(world) == "hsm-b"

    def test_cordon_keeps_who_is_there(self) -> None:
        world = stage("hsm-a")
        put_claim(world)
        world.settle()
        change_hsm(world, "hsm-a", cordoned="Enabled")
        put_claim(world, "late")
        world.settle()
        assert (bound_to(world), bound_to(world, "late")) == ("hsm-a", None)
        assert world.served("payments", "checkout").serves


class TestNetworkAndSecret:
    def test_managed_egress_comes_with_an_event_and_stays_while_cut(self) -> None:
        world = stage("hsm-a")
        put_claim(world)
        labels = {"team": "payments", LABEL_EGRESS: "Managed"}
        world.namespaces["payments"] = replace(world.namespaces["payments"], labels=labels)
        world.settle()
        out = [key for key in world.network if key[0] == "payments"]
        assert len(out) == 1
        assert Reason.EGRESS_MANAGED in [event.reason for event in world.events]
        tamper(world, "hsm-a")
        assert [key for key in world.network if key[0] == "payments"] == out

    def test_drift_is_repaired(self) -> None:
        world = stage("hsm-a")
        put_claim(world)
        world.settle()
        key = next(key for key in world.network if key[1].endswith("-in"))
        del world.network[key]
        world.settle()
        assert key in world.network
        world.network[key] = replace(world.network[key], digest="sha256:other")
        world.settle()
        assert world.network[key].digest != "sha256:other"

    def test_foreign_allow_is_named(self) -> None:
        world = stage("hsm-a")
        put_claim(world)
        world.foreign = ("allow-all",)
        world.settle()
        claim = world.claims["payments", "checkout"]
        assert condition(claim, "NetworkReady") == ("False", "ForeignAllow")
        assert "allow-all" in message(claim, "NetworkReady")

    def test_external_gateway_cannot_be_enforced_and_is_ready_all_the_same(self) -> None:
        world = stage("hsm-a")
        gateway = {"external": {"host": "hsm.example.net", "port": 8443, "cidrs": ["192.0.2.10/32"]}}
        put_hsm(world, "hsm-x", gateway=gateway)
        world.settle()
        put_claim(world, selector=None, hsmRef={"name": "hsm-x"})
        world.settle()
        claim = world.claims["payments", "checkout"]
        assert condition(claim, "NetworkReady") == ("Unknown", "NotEnforceable")
        assert condition(claim, "Ready") == ("True", "AllReady")

    def test_secret_follows_its_name(self) -> None:
        world = stage("hsm-a")
        put_claim(world)
        world.settle()
        change_claim(world, binding={"secretName": "renamed"})
        world.settle()
        assert [key[1] for key in world.secrets] == ["renamed"]

    def test_paused_claim_changes_nothing_but_is_cut(self) -> None:
        world = stage("hsm-a")
        put_claim(world)
        world.settle()
        annotate_claim(world, ANNOTATION_PAUSED, "true")
        change_claim(world, binding={"secretName": "renamed"}, keys=None, clients=None)
        world.settle()
        assert [key[1] for key in world.secrets] == ["checkout-hsm"]
        assert [v.state for v in versions(world)] == [KeyState.ACTIVE]
        tamper(world, "hsm-a")
        assert not [key for key in world.network if key[1].endswith("-in")]
        assert condition(world.claims["payments", "checkout"], "Paused") == ("True", "Paused")


def test_a_settled_world_has_empty_plans() -> None:
    world = stage()
    put_claim(world)
    put_claim(world, "other", failover="Rebind", mode="Exclusive")
    put_claim(world, "nowhere", requirements={"compliance": ["Unheard"]})
    world.settle()
    assert [plan.writes for plan in world.plans() if plan.writes] == []
