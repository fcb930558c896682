"""What evidence shows apart from nonce and clock, so that a changed host can be told from a changed policy."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict

from chatelaine.appraisal.rules import InventoryRule
from chatelaine.evidence.bundle import VerifiedEvidence
from chatelaine.evidence.ima import IMA_PCR
from chatelaine.model.identifiers import canonical_json
from chatelaine.model.policy import AttestationPolicy
from chatelaine.reconcile.snapshot import EvidenceRound


def facts_of(
    evidence: VerifiedEvidence, accounted: Iterable[str], policy: AttestationPolicy, round_: EvidenceRound
) -> tuple[str, ...]:
    """`name=value` texts, sorted: PCRs, what booted, whether there is a list of what ran, the token.

    Keys that claims rightly make and destroy do not count; every key that the rule
    for inventories would refuse does, with all that the token says of it, whether this policy has that rule or not.
    """
    quote, statement = evidence.quote, evidence.statement
    refused = InventoryRule(frozenset(accounted)).offending(evidence.inventory)
    strange = [{**asdict(key), "id": key.id.hex()} for key, _, _ in refused]
    pcrs = [
        f"{quote.selection.bank.value}:{index}={value.hex()}"
        for index, value in quote.pcrs.items()
        if index != IMA_PCR or _pins(policy, IMA_PCR)
    ]
    token = [
        f"serial={statement.serial[:64]}",
        f"model={statement.model[:64]}",
        f"firmware={statement.firmware[:64]}",
        f"mechanisms={statement.mechanisms_digest.hex()}",
        f"unaccounted={hashlib.sha256(canonical_json(strange)).hexdigest()}",
    ]
    return tuple(sorted([*pcrs, *token, *_logs(evidence, policy, round_)]))


def _pins(policy: AttestationPolicy, index: int) -> bool:
    return any(value.index == index for value in policy.spec.tpm.pcrs.values)


def _logs(evidence: VerifiedEvidence, policy: AttestationPolicy, round_: EvidenceRound) -> Iterator[str]:
    """PCR 10 moves with every file that runs, so it is no fact unless a policy pins it; that something ran which the
    policy refuses, and had not run when the policy changed, is one.
    """
    if round_.wanted_log:
        log = evidence.statement.log_digest
        yield f"eventLog={log.hex() if log is not None else 'absent'}"
    if policy.spec.tpm.ima is not None:
        yield f"ima={'present' if evidence.ima is not None or evidence.ima_flaw is not None else 'absent'}"
        if policy.digest() in round_.ima.deviates:
            yield "refused=ima"


def unchanged(before: Sequence[str], after: Sequence[str]) -> bool:
    """Every fact that both name is the same. What only one names was not looked at by the other policy."""
    old = dict(text.split("=", 1) for text in before if "=" in text)
    new = dict(text.split("=", 1) for text in after if "=" in text)
    if "refused" in new or not old:
        return False
    return all(new[name] == value for name, value in old.items() if name in new)
