"""Verified evidence against policies: one verdict, with the whole tree of what was found.

A subject may stand under several policies (its own, and that of each claim): all of them must hold. Whether a policy
in `Audit` cuts anything is decided by whoever acts on the verdict, not here.
"""

from __future__ import annotations

from collections.abc import Sequence

from chatelaine.appraisal.errors import NoPolicy
from chatelaine.appraisal.rules import (
    Accounted,
    FirmwareTable,
    InventoryRule,
    PcrRule,
    Rule,
    StatementRule,
    compared_by,
    normal_model,
)
from chatelaine.evidence.bundle import VerifiedEvidence
from chatelaine.evidence.tpm_types import Selection
from chatelaine.model.policy import AttestationPolicySpec, StatementLevel
from chatelaine.model.policy import InventoryRule as InventoryMode
from chatelaine.model.verdict import Appraisal, Epoch, PolicyStamp, all_of, verdict_of


def appraise(
    verified: VerifiedEvidence,
    policies: Sequence[tuple[PolicyStamp, AttestationPolicySpec]],
    *,
    subject: str,
    generation: int,
    issued_at: int,
    accounted: Accounted,
) -> Appraisal:
    """Judge `verified` by all `policies`.

    Args:
        verified: evidence of the subject itself, fresh and whole.
        policies: each with the stamp that names it in the verdict.
        subject: identity that the verdict is about.
        generation: how often this identity was admitted; part of the epoch.
        issued_at: seconds since the epoch.
        accounted: labels of keys that claims, retained lists and intents account for; None: not known, which
            leaves a policy that asks for it undecided.

    Raises:
        NoPolicy: `policies` is empty.
    """
    if not policies:
        raise NoPolicy("no policy was given; nothing holds without one")
    findings = []
    compared: dict[str, None] = {}
    for stamp, spec in policies:
        rules = rules_of(spec, accounted)
        findings.append(all_of(f"policy {stamp.name}", [rule.judge(verified) for rule in rules]))
        compared.update(dict.fromkeys(compared_by(rules, verified)))
    tree = all_of("appraisal", findings)
    return Appraisal(
        subject=subject,
        verdict=verdict_of(tree.outcome),
        findings=tree,
        policies=tuple(stamp for stamp, _ in policies),
        evidence_digest=verified.evidence_digest,
        epoch=Epoch(verified.quote.reset_count, verified.quote.restart_count, generation),
        issued_at=issued_at,
        valid_until=issued_at + min(spec.freshness.max_age_seconds for _, spec in policies),
        compared=tuple(compared),
    )


def rules_of(spec: AttestationPolicySpec, accounted: Accounted) -> tuple[Rule, ...]:
    """The rules that `spec` asks for, in a fixed order. PCRs are always among them."""
    rules: list[Rule] = [*pcr_rules(spec)]
    hsm = spec.hsm
    rules.append(StatementRule((hsm and hsm.statement) or StatementLevel.HOST_ASSERTED))
    if hsm is not None and hsm.firmware:
        rules.append(FirmwareTable(tuple(hsm.firmware)))
    if hsm is not None and hsm.inventory is InventoryMode.ACCOUNTED:
        rules.append(InventoryRule(accounted))
    return tuple(rules)


def pcr_rules(spec: AttestationPolicySpec) -> tuple[PcrRule, ...]:
    """The rules about PCRs, by rising index."""
    pcrs = spec.tpm.pcrs
    ordered = sorted(pcrs.values, key=lambda value: value.index)
    return tuple(PcrRule(pcrs.bank, value.index, tuple(value.any_of)) for value in ordered)


def selection_of(policies: Sequence[AttestationPolicySpec]) -> Selection | None:
    """PCRs that a quote must cover for all `policies`; the first one's bank decides, None without policies.

    One quote covers one bank; a policy of another bank finds its PCRs missing and says so.
    """
    if not policies:
        return None
    bank = policies[0].tpm.pcrs.bank
    indices = {value.index for spec in policies if spec.tpm.pcrs.bank is bank for value in spec.tpm.pcrs.values}
    return Selection(bank, tuple(sorted(indices)))


def compliance_of(policy: AttestationPolicySpec, token_model: str, firmware: str) -> frozenset[str]:
    """Certificates that a token of this model and firmware holds, by the policy's table and nothing else."""
    rows = policy.hsm.compliance if policy.hsm is not None else None
    model = normal_model(token_model)
    return frozenset(
        certificate
        for row in rows or ()
        if normal_model(row.model) == model and row.firmware == firmware.strip()
        for certificate in row.holds
    )
