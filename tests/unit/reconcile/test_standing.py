"""An HSM's standing over time: deadlines, restarts, a lost status, pauses."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from chatelaine.model.hsm import HsmStatus
from chatelaine.model.identifiers import ANNOTATION_PAUSED
from chatelaine.model.reasons import Reason
from chatelaine.model.verdict import Outcome, Verdict
from chatelaine.reconcile.plan import EmitEvent, SetHsmStatus
from chatelaine.reconcile.snapshot import HostObservation, Reach
from chatelaine.reconcile.standing import judge
from support.world_hosts import BAD_PCR, GOOD_PCR
from support.world_objects import (
    annotate_hsm,
    condition,
    delete_claim,
    put_claim,
    put_hsm,
    put_policy,
    readmit,
    refuted,
    stage,
    verdict,
)


def without_accounts(host: HostObservation | None) -> HostObservation:
    """As a process observes it that knew of no key when it asked."""
    assert host is not None
    assert host.last_round is not None
    return replace(host, last_round=replace(host.last_round, accounted=frozenset()), admission=None)


class TestTime:
    def test_silence_cuts_at_the_deadline_and_not_before(self) -> None:
        world = stage("hsm-a")
        put_claim(world)
        world.settle()
        world.attest()
        world.settle()
        world.hosts["hsm-a"].reachable = False
        world.pass_time(29)
        world.attest()
        world.settle()
        assert condition(world.hsms["hsm-a"], "Reachable") == ("False", "Unreachable")
        assert world.served("payments", "checkout").serves
        world.pass_time(2)
        world.settle()
        assert verdict(world) == ("Unknown", "EvidenceExpired")
        assert not world.served("payments", "checkout").serves
        world.check_settled()
        world.hosts["hsm-a"].reachable = True
        world.settle()
        assert world.served("payments", "checkout").serves

    def test_an_undecided_round_does_not_shorten_the_deadline(self) -> None:
        world = stage("hsm-a")
        put_claim(world)
        world.settle()
        values = [{"index": i, "anyOf": [GOOD_PCR]} for i in (0, 7, 11)]
        world.hosts["hsm-a"].reachable = False
        put_policy(world, tpm={"pcrs": {"bank": "Sha256", "values": values}})
        world.settle()
        assert world.served("payments", "checkout").serves
        world.pass_time(31)
        world.settle()
        assert verdict(world) == ("Unknown", "EvidenceUndecided")

    def test_keys_of_claims_that_were_not_read_yet_do_not_refute(self) -> None:
        world = stage("hsm-a")
        put_claim(world)
        world.settle()
        world.attest()
        known = world.hsm_snapshot("hsm-a")
        assert known.token_labels
        unread = replace(known, claims=(), claims_read=False, host=without_accounts(known.host))
        standing = judge(unread)
        assert (standing.verdict, standing.serves, standing.fresh) == (Verdict.TRUSTED, True, False)
        assert standing.valid_until is not None
        late = judge(replace(unread, now=standing.valid_until))
        assert (late.verdict, late.reason) == (Verdict.UNKNOWN, Reason.EVIDENCE_UNDECIDED)
        assert judge(replace(unread, claims_read=True)).verdict is Verdict.UNTRUSTED

    def test_what_needs_no_claim_to_be_known_refutes_at_once(self) -> None:
        world = stage("hsm-a")
        put_claim(world)
        world.settle()
        world.hosts["hsm-a"].pcrs[7] = BAD_PCR
        world.attest()
        known = world.hsm_snapshot("hsm-a")
        unread = replace(known, claims=(), claims_read=False, host=without_accounts(known.host))
        assert judge(unread).verdict is Verdict.UNTRUSTED

    def test_strange_key_that_no_claim_can_own_refutes_at_once(self) -> None:
        world = stage("hsm-a")
        world.settle()
        world.hosts["hsm-a"].labels.add("mine")
        world.attest()
        known = world.hsm_snapshot("hsm-a")
        assert judge(replace(known, claims=(), claims_read=False)).verdict is Verdict.UNTRUSTED

    def test_a_restarted_operator_cuts_nothing_while_the_host_may_still_answer(self) -> None:
        world = stage("hsm-a")
        put_claim(world)
        world.settle()
        world.pass_time(200)
        world.restart()
        world.hosts["hsm-a"].reachable = False
        world.settle()
        assert world.served("payments", "checkout").serves
        standing = judge(world.hsm_snapshot("hsm-a"))
        assert (standing.serves, standing.fresh) == (True, False)
        assert standing.valid_until == world.now + 30
        world.pass_time(31)
        world.settle()
        assert verdict(world) == ("Unknown", "EvidenceExpired")

    def test_nothing_new_binds_on_a_verdict_from_before_the_restart(self) -> None:
        world = stage("hsm-a")
        world.restart()
        world.hosts["hsm-a"].reachable = False
        put_claim(world)
        world.settle()
        assert condition(world.claims["payments", "checkout"], "Bound") == ("False", "WaitingForAttestation")
        world.hosts["hsm-a"].reachable = True
        world.settle()
        assert condition(world.claims["payments", "checkout"], "Bound") == ("True", "Bound")

    def test_rounds_cost_no_write_but_the_stamp(self) -> None:
        world = stage("hsm-a")
        put_claim(world)
        world.settle()
        world.attest()
        world.settle()
        before, stamped = world.writes, 0
        for _ in range(60):
            world.pass_time(10)
            world.attest()
            plans = list(world.plans())
            stamped += sum(isinstance(a, SetHsmStatus) for plan in plans for a in plan.writes)
            for plan in plans:
                world.run(plan)
        assert world.writes - before == stamped == 2

    def test_policy_deleted_stops_at_the_deadline(self) -> None:
        world = stage("hsm-a")
        put_claim(world)
        world.settle()
        del world.policies["baseline"]
        world.settle()
        assert condition(world.claims["payments", "checkout"], "Bound") == ("False", "ReleaseRefused")
        world.pass_time(31)
        world.settle()
        assert verdict(world) == ("Unknown", "PolicyNotFound")

    def test_deadlines_that_contradict_stall(self) -> None:
        world = stage("hsm-a")
        put_policy(world, freshness={"maxAgeSeconds": 10})
        world.settle()
        assert condition(world.hsms["hsm-a"], "Stalled") == ("True", "DeadlinesContradict")
        put_claim(world)
        world.settle()
        assert condition(world.claims["payments", "checkout"], "Bound")[0] == "False"


class TestLostStatus:
    def test_lost_status_of_a_token_with_our_keys_awaits_readmission_and_rebuilds_the_seats(self) -> None:
        world = refuted(stage())
        item = world.hsms["hsm-a"]
        world.put_hsm(item, **{name: getattr(HsmStatus(), name) for name in HsmStatus.model_fields})
        world.hosts["hsm-a"].pcrs[7] = GOOD_PCR
        world.restart()
        world.settle()
        item = world.hsms["hsm-a"]
        assert condition(item, "Enrolled") == ("False", "AwaitingReadmission")
        assert [seat.name for seat in item.status.allocations] == ["checkout"]
        assert not world.served("payments", "checkout").serves
        world.attest()
        world.settle()
        assert verdict(world) == ("Unknown", "AwaitingReadmission")
        readmit(world, "hsm-a")
        world.settle()
        attestation = world.hsms["hsm-a"].status.attestation
        assert attestation is not None
        assert attestation.epoch.generation == 2
        assert world.served("payments", "checkout").serves
        allocation = world.claims["payments", "checkout"].status.allocation
        assert allocation is not None
        assert allocation.sequence == 1

    def test_keys_of_claims_that_nobody_remembers_are_retained(self) -> None:
        world = stage("hsm-a")
        world.hosts["hsm-a"].labels.add("chat/11111111-2222-4333-8444-555555555555/old/3")
        item = world.hsms["hsm-a"]
        world.put_hsm(item, **{name: getattr(HsmStatus(), name) for name in HsmStatus.model_fields})
        world.restart()
        world.settle()
        readmit(world, "hsm-a")
        world.settle()
        item = world.hsms["hsm-a"]
        assert verdict(world) == ("Trusted", "EvidenceHolds")
        assert [(kept.name, kept.keys[0].name, kept.keys[0].version) for kept in item.status.retained] == [
            ("unknown", "old", 3)
        ]


class TestPause:
    def test_pause_stops_changes_but_not_revocation(self) -> None:
        world = stage("hsm-a")
        annotate_hsm(world, "hsm-a", ANNOTATION_PAUSED, "true")
        world.settle()
        assert condition(world.hsms["hsm-a"], "Paused") == ("True", "Paused")
        world.hosts["hsm-a"].pcrs[7] = BAD_PCR
        world.attest()
        world.settle()
        assert verdict(world)[0] == "Untrusted"
        assert len(world.cuts) == 0 or world.cuts[0].hsm == "hsm-a"
        world.hosts["hsm-a"].pcrs[7] = GOOD_PCR
        readmit(world, "hsm-a")
        world.settle()
        assert verdict(world)[0] == "Untrusted"
        annotate_hsm(world, "hsm-a", ANNOTATION_PAUSED, "false")
        world.settle()
        assert verdict(world)[0] == "Trusted"


def test_unreachable_host_is_shown_and_nothing_else() -> None:
    world = stage("hsm-a")
    uid = world.hsms["hsm-a"].metadata.uid
    seen = world.memory[uid]
    reach = Reach(Outcome.REFUTED, Reason.NOT_AUTHENTICATED, "a stranger answered", world.now)
    world.memory[uid] = replace(seen, reach=reach)
    world.settle()
    assert condition(world.hsms["hsm-a"], "Reachable") == ("False", "NotAuthenticated")
    assert verdict(world) == ("Trusted", "EvidenceHolds")


def test_conditions_are_unknown_at_first_sight() -> None:
    world = stage("hsm-a")
    put_hsm(world, "hsm-new")
    world.hosts["hsm-new"].reachable = False
    world.settle()
    item: Any = world.hsms["hsm-new"]
    assert [c.type for c in item.status.conditions] == [
        "Enrolled", "Reachable", "Attested", "Ready", "Stalled", "Paused",
    ]  # fmt: skip
    assert condition(item, "Enrolled") == ("Unknown", "Pending")
    assert not [
        e for e in world.events if isinstance(e, EmitEvent) and e.object.name == "hsm-new" and "Pending" in e.reason
    ]


def test_key_destroyed_since_the_last_round_does_not_count_against_the_host() -> None:
    world = stage("hsm-a")
    put_claim(world, reclaimPolicy="Destroy")
    world.settle()
    world.attest()
    world.settle()
    delete_claim(world)
    world.settle()
    assert world.claims == {}
    assert verdict(world) == ("Trusted", "EvidenceHolds")
