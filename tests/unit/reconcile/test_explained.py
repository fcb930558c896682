"""What a refusal says of the boot: in the status, in the condition and in the Event, and only of the same TPM."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from chatelaine.appraisal.explain import NOTHING_CHANGED
from chatelaine.model.identifiers import digest_of
from chatelaine.reconcile.hsm import reconcile
from chatelaine.reconcile.plan import EmitEvent
from chatelaine.reconcile.snapshot import HostKeys
from support import world_objects
from support.world import World
from support.world_hosts import BAD_PCR, GOOD_PCR
from support.world_objects import message, put_policy, readmit, tamper, verdict


def stage(name: str, **policy: Any) -> World:
    """A Trusted host; its judgement is looked at, as the controller does with every round."""
    world = world_objects.stage(name, **policy)
    world.view(name)
    return world


def explanation(world: World, name: str = "hsm-a") -> list[str]:
    attestation = world.hsms[name].status.attestation
    assert attestation is not None
    return attestation.explanation


def test_refusal_names_the_pcr_that_moved_since_the_last_trusted_evidence():
    world = stage("hsm-a")
    assert explanation(world) == []
    tamper(world, "hsm-a")
    assert verdict(world) == ("Untrusted", "EvidenceRefuted")
    moved, why, when = explanation(world)
    assert moved == f"PCR 7 holds {BAD_PCR}; at the last trusted evidence it held {GOOD_PCR}."
    assert "the policy asks for no event log" in why
    assert when == "The host was not rebooted since its last trusted evidence."
    assert moved in message(world.hsms["hsm-a"], "Attested")


def test_event_carries_the_explanation():
    world = stage("hsm-a")
    world.hosts["hsm-a"].pcrs[7] = BAD_PCR
    world.attest()
    plan = reconcile(world.hsm_snapshot("hsm-a"))
    notes = [action.message for action in plan.actions if isinstance(action, EmitEvent)]
    assert any(f"at the last trusted evidence it held {GOOD_PCR}" in note for note in notes)


def test_explanation_stays_while_the_verdict_sticks_and_goes_with_a_readmission():
    world = stage("hsm-a")
    tamper(world, "hsm-a")
    told = explanation(world)
    world.hosts["hsm-a"].pcrs[7] = GOOD_PCR
    world.pass_time(5)
    world.attest()
    world.settle()
    assert explanation(world) == told
    world.check_settled()
    readmit(world, "hsm-a")
    world.settle()
    assert (verdict(world)[0], explanation(world)) == ("Trusted", [])


def test_boot_of_another_tpm_explains_nothing():
    world = stage("hsm-a")
    uid = world.hsms["hsm-a"].metadata.uid
    known = world.memory[uid].last_trusted
    assert known is not None
    other = known._replace(keys=HostKeys("another", digest_of(b"another")))
    world.hosts["hsm-a"].pcrs[7] = BAD_PCR
    world.attest()
    world.memory[uid] = replace(world.memory[uid], last_trusted=other)
    world.settle()
    assert explanation(world)[-1].startswith("No earlier trusted evidence of this TPM is known")


def test_policy_that_changed_is_told_apart_from_a_host_that_did():
    world = stage("hsm-a")
    put_policy(world, tpm={"pcrs": {"bank": "Sha256", "values": [{"index": 7, "anyOf": [BAD_PCR]}]}})
    world.settle()
    assert verdict(world) == ("Unknown", "PolicyChanged")
    assert explanation(world) == [NOTHING_CHANGED]


def test_policy_that_only_looks_explains_too():
    world = stage("hsm-a", enforcement="Audit")
    tamper(world, "hsm-a")
    assert verdict(world) == ("Untrusted", "AuditOnly")
    assert explanation(world)[0].startswith("PCR 7 holds")
    world.check_settled()


def test_message_stays_within_what_a_condition_may_hold():
    good = [f"{number:064x}" for number in range(32)]
    world = stage("hsm-a", tpm={"pcrs": {"bank": "Sha256", "values": [
        {"index": i, "anyOf": [GOOD_PCR, *good[1:]]} for i in range(24)
    ]}})  # fmt: skip
    for index in range(24):
        world.hosts["hsm-a"].pcrs[index] = BAD_PCR
    world.attest()
    world.settle()
    assert verdict(world)[0] == "Untrusted"
    assert len(explanation(world)) == 8
    assert len(message(world.hsms["hsm-a"], "Attested")) <= 1000
    assert "readmit=sha256:" in message(world.hsms["hsm-a"], "Attested")
