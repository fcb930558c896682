"""What evidence shows apart from nonce and clock, so that a changed host can be told from a changed policy."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import asdict

from chatelaine.appraisal.rules import InventoryRule
from chatelaine.evidence.bundle import VerifiedEvidence
from chatelaine.evidence.tpm_types import Selection
from chatelaine.model.identifiers import canonical_json
from chatelaine.model.policy import AttestationPolicySpec


def facts_of(evidence: VerifiedEvidence, accounted: Iterable[str]) -> tuple[str, ...]:
    """`name=value` texts, sorted. Keys that claims rightly make and destroy do not count; every key that the rule
    for inventories would refuse does, with all that the token says of it, whether this policy has that rule or not.
    """
    quote, statement = evidence.quote, evidence.statement
    refused = InventoryRule(frozenset(accounted)).offending(evidence.inventory)
    strange = [{**asdict(key), "id": key.id.hex()} for key, _, _ in refused]
    pcrs = [f"{quote.selection.bank.value}:{index}={value.hex()}" for index, value in quote.pcrs.items()]
    token = [
        f"serial={statement.serial[:64]}",
        f"model={statement.model[:64]}",
        f"firmware={statement.firmware[:64]}",
        f"mechanisms={statement.mechanisms_digest.hex()}",
        f"unaccounted={hashlib.sha256(canonical_json(strange)).hexdigest()}",
    ]
    return tuple(sorted([*pcrs, *token]))


def unchanged(before: Sequence[str], after: Sequence[str]) -> bool:
    """Every fact that both name is the same. What only one names was not looked at by the other policy."""
    old = dict(text.split("=", 1) for text in before if "=" in text)
    new = dict(text.split("=", 1) for text in after if "=" in text)
    if "refused" in new or not old:
        return False
    return all(new[name] == value for name, value in old.items() if name in new)


def covers(selection: Selection, policy: AttestationPolicySpec) -> bool:
    """Did a quote of `selection` include every PCR that the policy names?"""
    pcrs = policy.tpm.pcrs
    return selection.bank is pcrs.bank and {value.index for value in pcrs.values} <= set(selection.indices)
