"""A host that deviates in the very moment in which a policy is edited has deviated all the same."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from chatelaine.appraisal.appraise import pcrs_of
from chatelaine.appraisal.ima_history import ImaFindings
from chatelaine.evidence.bundle import VerifiedEvidence
from chatelaine.evidence.tpm_types import Selection
from chatelaine.model.policy import AttestationPolicy
from chatelaine.model.tpm_policy import Bank
from chatelaine.model.verdict import Finding, Outcome
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


# --- logs -------------------------------------------------------------------------------------------------------

DIGEST = "sha256:" + "a" * 64


def policy(*, log: bool = False, ima: bool = False, pcr10: bool = False) -> AttestationPolicy:
    values = [{"index": index, "anyOf": ["00" * 32]} for index in ((0, 10) if pcr10 else (0,))]
    tpm: dict[str, Any] = {"pcrs": {"bank": "Sha256", "values": values}}
    if log:
        tpm["eventLog"] = {"replay": "Required"}
    if ima:
        tpm["ima"] = {}
    spec = {"freshness": {"maxAgeSeconds": 30}, "tpm": tpm}
    return AttestationPolicy.model_validate({"metadata": {"name": "p", "uid": "u"}, "spec": spec})


def round_of(judged: AttestationPolicy, **changed: Any) -> EvidenceRound:
    evidence = WorldHost("hsm-a").evidence(Selection(Bank.SHA256, tuple(sorted(pcrs_of(judged.spec)))))
    return EvidenceRound(evidence, DIGEST, 0.0, HostKeys("", ""), **changed)


def facts(judged: AttestationPolicy, round_: EvidenceRound) -> set[str]:
    assert isinstance(round_.evidence, VerifiedEvidence)
    return set(facts_of(round_.evidence, (), judged, round_))


def test_pcr_10_is_no_fact_where_it_moves_with_every_file_that_runs() -> None:
    watched = policy(ima=True)
    assert not any(fact.startswith("Sha256:10=") for fact in facts(watched, round_of(watched)))


def test_pcr_10_is_a_fact_where_a_policy_pins_it() -> None:
    pinned = policy(ima=True, pcr10=True)
    assert any(fact.startswith("Sha256:10=") for fact in facts(pinned, round_of(pinned)))


def test_a_log_that_is_withheld_is_another_fact_than_one_that_is_shown() -> None:
    asks = policy(log=True)
    round_ = round_of(asks, wanted_log=True)
    assert isinstance(round_.evidence, VerifiedEvidence)
    statement = replace(round_.evidence.statement, log_digest=b"\x01" * 32)
    shown_log = replace(round_, evidence=replace(round_.evidence, statement=statement))
    before, after = sorted(facts(asks, shown_log)), sorted(facts(asks, round_))
    assert "eventLog=absent" in after
    assert not unchanged(before, after)


def test_a_log_that_was_never_asked_for_is_no_fact() -> None:
    asks = policy(log=True)
    before, after = facts(policy(), round_of(policy())), facts(asks, round_of(asks, wanted_log=True))
    assert unchanged(sorted(before), sorted(after))


def test_a_file_that_ran_since_the_policy_changed_is_a_change_of_the_host() -> None:
    watched = policy(ima=True)
    refused = Finding("ima", Outcome.REFUTED, "ImaFileNotAllowed")
    old = round_of(watched, ima=ImaFindings({watched.digest(): refused}))
    new = round_of(watched, ima=ImaFindings({watched.digest(): refused}, frozenset({watched.digest()})))
    before = sorted(facts(policy(), round_of(policy())))
    assert unchanged(before, sorted(facts(watched, old)))
    assert not unchanged(before, sorted(facts(watched, new)))


def test_a_round_covers_a_policy_only_if_all_that_it_judges_was_asked_for() -> None:
    holds = Finding("ima", Outcome.HOLDS, "x")
    for asks in (policy(), policy(log=True), policy(ima=True), policy(log=True, ima=True)):
        wants = asks.spec.tpm
        ima = ImaFindings({asks.digest(): holds} if wants.ima is not None else {})
        whole = round_of(asks, wanted_log=wants.event_log is not None, ima=ima)
        assert whole.covers(asks)
        if wants.event_log is not None:
            assert not replace(whole, wanted_log=False).covers(asks)
        if wants.ima is not None:
            assert not replace(whole, ima=ImaFindings({DIGEST: holds})).covers(asks)
        assert round_of(policy()).covers(asks) == (asks == policy())
