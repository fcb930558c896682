"""A quote and its log under a policy that is not in force: what its reference values add counts, and is said."""

from __future__ import annotations

from typing import Any

import pytest
from tools.lab.event_log_writer import SHA256
from tools.lab.firmware import Boot, measured

from chatelaine.appraisal.offline import QuoteCase
from chatelaine.appraisal.policy_trial import try_quote
from chatelaine.model.common import ObjectMeta
from chatelaine.model.material import PolicyMaterial, ReferenceValues
from chatelaine.model.policy import AttestationPolicy, AttestationPolicySpec
from chatelaine.model.tpm_policy import Bank
from chatelaine.model.verdict import Finding, Outcome
from support.paper_tpm import PaperTpm
from support.reference_bundles import ALICE, source

WRITTEN = measured(Boot())
VALUES = {index: value for index, value in WRITTEN.values[SHA256].items() if index < 10}
REVOKED = b"\x99" * 32


def tried(reference: ReferenceValues | None, *, good: bytes = bytes(32)) -> Finding:
    spec = AttestationPolicySpec.model_validate(
        {
            "freshness": {"maxAgeSeconds": 30},
            "tpm": {
                "pcrs": {"bank": "Sha256", "values": [{"index": 4, "anyOf": [good.hex()]}]},
                "eventLog": {"replay": "Required"},
            },
            "referenceValues": source(ALICE).dump(),
        }
    )
    policy = AttestationPolicy(metadata=ObjectMeta(name="edge"), spec=spec).with_material(PolicyMaterial((), reference))
    tpm = PaperTpm()
    attest, signature = tpm.quote(bytes(32), VALUES)
    case = QuoteCase(attest, signature, tpm.public, {"sha256": VALUES})
    return try_quote(case, WRITTEN.data, policy).findings


def values(**parts: Any) -> ReferenceValues:
    empty: dict[str, Any] = {"pcrs": {}, "dbx_at_least": frozenset(), "files": None}
    return ReferenceValues(name="baseline", version=1, digest="sha256:", signed_by=(), **(empty | parts))


def outcomes(finding: Finding, reason: str) -> set[Outcome]:
    return {leaf.outcome for leaf in finding.leaves() if leaf.reason == reason}


def test_good_value_of_the_reference_values_is_good_for_quote_and_log() -> None:
    found = tried(values(pcrs={Bank.SHA256: {4: (VALUES[4].hex(),)}}))
    assert outcomes(found, "PcrMatches") == {Outcome.HOLDS}
    assert not outcomes(found, "PcrMismatch")
    assert outcomes(tried(values()), "PcrMismatch") == {Outcome.REFUTED}


def test_entry_that_the_reference_values_want_in_dbx_is_missed() -> None:
    assert outcomes(tried(values(dbx_at_least=frozenset({REVOKED})), good=VALUES[4]), "DbxTooOld") == {Outcome.REFUTED}
    assert not outcomes(tried(values(), good=VALUES[4]), "DbxTooOld")


@pytest.mark.parametrize("given", [True, False])
def test_reference_values_are_said_to_be_missing_only_where_they_are(given: bool) -> None:
    found = tried(values() if given else None, good=VALUES[4])
    assert outcomes(found, "ReferenceValuesNotFetched") == (set() if given else {Outcome.CANNOT_TELL})


def test_value_that_unfetched_reference_values_may_name_is_not_refuted() -> None:
    found = tried(None)
    assert outcomes(found, "PcrMismatch") == {Outcome.CANNOT_TELL}
    assert found.outcome is Outcome.CANNOT_TELL
