"""Signed reference values that no rule of the policy looks at: nobody may believe that they judge."""

from __future__ import annotations

from typing import Any

import pytest

from chatelaine.appraisal.unasked import unasked
from chatelaine.evidence.reference_files import CompactAllowList, GoodFile
from chatelaine.model.material import PolicyMaterial, ReferenceValues
from chatelaine.model.policy import AttestationPolicySpec
from chatelaine.model.tpm_policy import Bank
from support.reference_bundles import ALICE, SERIES
from support.world_hosts import GOOD_PCR
from support.world_objects import condition, message, stage

SOURCE = {"series": SERIES, "file": "bundle", "keys": [ALICE.listed().dump()], "threshold": 1}


def reference(**parts: Any) -> ReferenceValues:
    files = CompactAllowList(GoodFile(path, ("sha256:" + "a" * 64,)) for path in parts.pop("files", ()))
    held: dict[str, Any] = {"pcrs": {}, "dbx_at_least": frozenset(), **parts}
    return ReferenceValues(SERIES, 1, "sha256:" + "1" * 64, ("alice",), files=files, **held)


def spec(**tpm: Any) -> AttestationPolicySpec:
    pcrs = {"bank": "Sha256", "values": [{"index": 7, "anyOf": [GOOD_PCR]}]}
    return AttestationPolicySpec.model_validate(
        {"freshness": {"maxAgeSeconds": 30}, "tpm": {"pcrs": pcrs, **tpm}, "referenceValues": SOURCE}
    )


@pytest.mark.parametrize(
    ("parts", "word"),
    [
        ({"pcrs": {Bank.SHA256: {4: (GOOD_PCR,), 7: (GOOD_PCR,), 9: (GOOD_PCR,)}}}, "PCR 4, 9"),
        ({"pcrs": {Bank.SHA384: {7: ("0" * 96,)}}}, "bank Sha384"),
        ({"dbx_at_least": frozenset({b"d" * 32})}, "tpm.eventLog"),
        ({"files": ["/usr/bin/sh"]}, "tpm.ima"),
    ],
)
def test_value_that_no_rule_asks_for_is_named(parts: dict[str, Any], word: str) -> None:
    (said,) = unasked(spec(), reference(**parts))
    assert word in said


def test_values_that_rules_ask_for_are_not_named() -> None:
    whole = reference(pcrs={Bank.SHA256: {7: (GOOD_PCR,)}}, dbx_at_least=frozenset({b"d" * 32}), files=["/usr/bin/sh"])
    assert unasked(spec(eventLog={"replay": "Required"}, ima={}), whole) == ()
    assert unasked(spec(), None) == ()


def test_policy_says_which_of_its_reference_values_judge_nothing() -> None:
    held = reference(pcrs={Bank.SHA256: {7: (GOOD_PCR,), 9: (GOOD_PCR,)}})
    world = stage("hsm-a", referenceValues=SOURCE, material=PolicyMaterial(reference=held))
    assert condition(world.policies["baseline"], "Valid")[0] == "True"
    assert "judge nothing: values of PCR 9" in message(world.policies["baseline"], "Valid")
