"""A host that deviates in the very moment in which a policy is edited has deviated all the same."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from chatelaine.evidence.bundle import VerifiedEvidence
from chatelaine.evidence.tpm_types import Selection
from chatelaine.model.tpm_policy import Bank
from chatelaine.reconcile.facts import facts_of, unchanged
from chatelaine.reconcile.snapshot import EvidenceRound, HostKeys
from support.paper_host import token_key
from support.world_hosts import WorldHost
from support.world_objects import condition, put_claim, put_policy, stage

DEVIATIONS: tuple[dict[str, Any], ...] = (
    {"sensitive": False},
    {"extractable": True},
    {"local": False},
    {"never_extractable": False},
    {"usages": ("CKA_SIGN", "CKA_UNWRAP")},
)


@pytest.mark.parametrize("flags", DEVIATIONS, ids=lambda flags: next(iter(flags)))
def test_key_that_deviates_while_the_policy_is_edited_is_no_change_of_policy(flags: dict[str, Any]) -> None:
    world = stage("hsm-a")
    put_claim(world)
    world.settle()
    world.attest()
    world.settle()
    world.hosts["hsm-a"].private_flags = flags
    put_policy(world, freshness={"maxAgeSeconds": 31})
    world.attest()
    world.settle()
    assert condition(world.hsms["hsm-a"], "Attested") == ("False", "EvidenceRefuted")


def shown(evidence: VerifiedEvidence) -> tuple[str, ...]:
    policy = next(iter(stage("hsm-a").policies.values()))
    return facts_of(evidence, (), policy, EvidenceRound(evidence, "sha256:0", 0.0, HostKeys("", "")))


@pytest.mark.parametrize("flags", [*DEVIATIONS[1:], {"id": b"another"}], ids=lambda flags: next(iter(flags)))
def test_strange_key_that_changes_is_another_fact(flags: dict[str, Any]) -> None:
    """A key that nobody accounts for is strange already; that it can do more than before counts as well."""
    evidence = WorldHost("hsm-a").evidence(Selection(Bank.SHA256, (0,)))
    strange = token_key("chat/nobody/signing/1", sensitive=False)
    before = replace(evidence, inventory=(*evidence.inventory, strange))
    after = replace(evidence, inventory=(*evidence.inventory, replace(strange, **flags)))
    assert unchanged(shown(before), shown(before))
    assert not unchanged(shown(before), shown(after))
