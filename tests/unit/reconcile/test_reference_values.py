"""Signed reference values that judge: shown with every verdict, told of when they change, remembered for ever."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from chatelaine.model.material import PolicyMaterial, ReferenceValues
from chatelaine.model.reasons import Reason
from chatelaine.model.tpm_policy import Bank
from chatelaine.reconcile.standing import judge
from support.reference_bundles import ALICE, BOB, SERIES
from support.world import World
from support.world_hosts import BAD_PCR, GOOD_PCR
from support.world_objects import (
    condition,
    lean,
    message,
    policy_spec,
    put_claim,
    put_hsm,
    put_policy,
    stage,
    verdict,
)

SOURCE = {
    "series": SERIES,
    "configMapRefs": [{"name": "values", "key": "bundle"}],
    "keys": [ALICE.listed().dump(), BOB.listed().dump()],
    "threshold": 1,
}


class _NoFiles:
    def allows(self, path: str, digest: str, *, at: int) -> bool:
        return False

    def ended(self, *, after: int, until: int) -> bool:
        return False

    def __len__(self) -> int:
        return 0


def values(version: int, *good: str, **changes: Any) -> PolicyMaterial:
    """Version `version`, with `good` values of PCR 7."""
    pcrs = {Bank.SHA256: {7: good or (GOOD_PCR,)}}
    digest = f"sha256:{version:064x}"
    found = ReferenceValues(SERIES, version, digest, ("bob", "alice"), pcrs, frozenset(), _NoFiles())
    return PolicyMaterial(reference=replace(found, **changes))


REFUSED = PolicyMaterial(missing=("referenceValues: ReferenceRolledBack: a newer bundle was already used",))


def tpm() -> dict[str, Any]:
    """PCR 7 holds by the bundle alone."""
    rows = [{"index": 0, "anyOf": [GOOD_PCR]}, {"index": 7, "anyOf": [BAD_PCR]}]
    return {"pcrs": {"bank": "Sha256", "values": rows}}


def world_of(material: PolicyMaterial) -> World:
    return stage("hsm-a", tpm=tpm(), referenceValues=SOURCE, material=material)


def status(world: World) -> Any:
    return world.policies["baseline"].status


def told(world: World) -> list[str]:
    return [event.message for event in world.events if event.reason is Reason.REFERENCE_VALUES_CHANGED]


def test_version_that_judged_stands_with_the_verdict_and_with_the_policy() -> None:
    world = world_of(values(3))
    assert verdict(world) == ("Trusted", "EvidenceHolds")
    attestation = world.hsms["hsm-a"].status.attestation
    assert attestation is not None
    assert attestation.reference is not None
    assert (attestation.reference.name, attestation.reference.version) == (SERIES, 3)
    assert status(world).reference_values.dump() == {
        "name": SERIES, "version": 3, "digest": f"sha256:{3:064x}", "signedBy": ["alice", "bob"],
    }  # fmt: skip
    assert attestation.policy.digest == status(world).digest == world.policies["baseline"].digest()
    assert attestation.policy.digest != world.policies["baseline"].spec.digest()


def test_new_version_judges_at_once_and_is_told_of_once() -> None:
    world = world_of(values(3))
    lean(world, values(4, GOOD_PCR, BAD_PCR))
    world.settle()
    attestation = world.hsms["hsm-a"].status.attestation
    assert attestation is not None
    assert attestation.reference is not None
    assert attestation.reference.version == 4
    world.settle()
    assert len(told(world)) == 2
    assert "version 4" in told(world)[1]
    assert "signed by alice, bob, before: version 3" in told(world)[1]


def test_values_that_are_withdrawn_cut_by_policy_and_come_back() -> None:
    world = world_of(values(3))
    lean(world, values(4, "e" * 64))
    world.settle()
    assert verdict(world) == ("Unknown", "PolicyChanged")
    lean(world, values(5))
    world.attest()
    world.settle()
    assert verdict(world) == ("Trusted", "EvidenceHolds")


def test_refused_bundle_forgets_no_version_and_trusts_nobody_anew() -> None:
    world = world_of(values(3))
    lean(world, REFUSED)
    world.settle()
    assert condition(world.policies["baseline"], "Valid") == ("False", "MaterialUnusable")
    assert "ReferenceRolledBack" in message(world.policies["baseline"], "Valid")
    assert status(world).reference_values.version == 3
    assert judge(world.hsm_snapshot("hsm-a")).serves, "until the deadline"
    world.pass_time(31)
    world.attest()
    world.settle()
    assert not judge(world.hsm_snapshot("hsm-a")).serves
    assert verdict(world) == ("Unknown", "PolicyInvalid")
    put_hsm(world, "hsm-new")
    world.settle()
    assert world.hsms["hsm-new"].status.identity is None


def test_process_that_still_holds_an_older_version_does_not_lower_the_highest_one() -> None:
    world = world_of(values(4))
    lean(world, values(3))
    world.settle()
    assert status(world).reference_values.version == 4, "else whoever starts next takes version 3 again"
    lean(world, values(5))
    world.settle()
    assert status(world).reference_values.version == 5


def test_other_content_under_a_used_version_does_not_replace_the_one_that_was_used() -> None:
    world = world_of(values(4))
    lean(world, values(4, digest="sha256:" + "f" * 64))
    world.settle()
    assert status(world).reference_values.digest == f"sha256:{4:064x}"


def test_another_series_begins_its_own_count() -> None:
    world = world_of(values(4))
    lean(world, values(1, name="another"))
    world.settle()
    assert (status(world).reference_values.name, status(world).reference_values.version) == ("another", 1)


def test_claim_under_a_policy_whose_material_is_refused_does_not_bind() -> None:
    world = stage("hsm-a")
    put_policy(world, "strict", tpm=policy_spec()["tpm"], referenceValues=SOURCE, material=REFUSED)
    put_claim(world, policyRef={"name": "strict"})
    world.settle()
    claim = world.claims["payments", "checkout"]
    assert claim.status.allocation is None
    assert "ReferenceRolledBack" in message(claim, "Bound") + message(claim, "Ready")
    lean(world, values(3), "strict")
    world.settle()
    assert world.claims["payments", "checkout"].status.allocation is not None


def test_bundle_that_is_refused_is_told_of_once() -> None:
    world = world_of(values(3))
    for _ in range(3):
        lean(world, REFUSED)
        world.settle()
    assert [event.reason for event in world.events if event.reason is Reason.MATERIAL_UNUSABLE] == [
        Reason.MATERIAL_UNUSABLE
    ]


def test_one_key_under_two_names_is_no_second_person() -> None:
    twice = {**SOURCE, "keys": [ALICE.listed().dump(), ALICE.listed("alice-2").dump()], "threshold": 2}
    world = stage("hsm-a", tpm=tpm(), referenceValues=twice, material=values(3))
    assert condition(world.policies["baseline"], "Valid") == ("False", "RulesInvalid")
    assert "one key under two names" in message(world.policies["baseline"], "Valid")


def test_threshold_that_nobody_can_reach_is_told() -> None:
    high = {**SOURCE, "threshold": 3}
    world = stage("hsm-a", tpm=tpm(), referenceValues=high, material=values(3))
    assert "threshold is 3, but there are 2 keys" in message(world.policies["baseline"], "Valid")
