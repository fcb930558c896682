"""A claim's request, a rule that it meets, and the policy around rules."""

from __future__ import annotations

from typing import Any

from chatelaine.model.keys import KeyType, Sensitivity, Usage
from chatelaine.model.policy import AttestationPolicySpec
from chatelaine.release.rules import ReleaseRequest

REQUEST = ReleaseRequest(
    namespace="payments",
    namespace_labels={"team": "payments", "stage": "live"},
    key_types=frozenset({KeyType.EC_P256}),
    usages=frozenset({Usage.SIGN}),
    sensitivity=Sensitivity.INTERNAL,
    workload_type="PaymentSigning",
    compliance=frozenset({"Fips140_3Level3"}),
    bound_claims=2,
)
RULE: dict[str, Any] = {
    "namespaces": {"matchLabels": {"team": "payments"}},
    "keyTypes": ["EcP256"],
    "usages": ["Sign"],
    "maxSensitivity": "Confidential",
    "workloadTypes": ["PaymentSigning"],
    "compliance": ["Fips140_3Level3"],
    "maxClaims": 3,
}


def policy(*rules: dict[str, Any], release: bool = True) -> AttestationPolicySpec:
    """Rules of release, and the least that a policy must say besides."""
    spec: dict[str, Any] = {
        "freshness": {"maxAgeSeconds": 30},
        "tpm": {"pcrs": {"bank": "Sha256", "values": [{"index": 0, "anyOf": ["0" * 64]}]}},
    }
    if release:
        spec["release"] = {"anyOf": list(rules)}
    return AttestationPolicySpec.model_validate(spec)
