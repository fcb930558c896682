"""Verified evidence against policies: one verdict, with the whole tree of what was found.

A subject may stand under several policies (its own, and that of each claim): all of them must hold. Whether a policy
in `Audit` cuts anything is decided by whoever acts on the verdict, not here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from chatelaine.appraisal import boot_rules, ima_history
from chatelaine.appraisal.errors import NoPolicy
from chatelaine.appraisal.ima_history import ImaFindings
from chatelaine.appraisal.ima_rules import ima_rule
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
from chatelaine.evidence.ima import IMA_PCR
from chatelaine.evidence.tpm_types import Selection
from chatelaine.model.material import PolicyMaterial, ReferenceValues
from chatelaine.model.policy import AttestationPolicySpec, StatementLevel
from chatelaine.model.policy import InventoryRule as InventoryMode
from chatelaine.model.tpm_policy import ImaRules
from chatelaine.model.verdict import Appraisal, Epoch, Finding, Outcome, PolicyStamp, all_of, verdict_of

BOOT_PCRS: Final = frozenset(range(10))
"""Quoted wherever a boot event log is asked for: all that a firmware and a boot loader measure."""


def appraise(
    verified: VerifiedEvidence,
    policies: Sequence[tuple[PolicyStamp, AttestationPolicySpec, PolicyMaterial]],
    *,
    subject: str,
    generation: int,
    issued_at: int,
    accounted: Accounted,
    ima: ImaFindings | None = None,
) -> Appraisal:
    """Judge `verified` by all `policies`.

    Args:
        verified: evidence of the subject itself, fresh and whole.
        policies: each with the stamp that names it in the verdict, and what it leans on.
        subject: identity that the verdict is about.
        generation: how often this identity was admitted; part of the epoch.
        issued_at: seconds since the epoch.
        accounted: labels of keys that claims, retained lists and intents account for; None: not known, which
            leaves a policy that asks for it undecided.
        ima: what the whole IMA list has shown, judged when it was read; a policy that is not in it is undecided.
            None: the list in `verified` is judged here, and begins where the list begins.

    Raises:
        NoPolicy: `policies` is empty.
    """
    if not policies:
        raise NoPolicy("no policy was given; nothing holds without one")
    findings = []
    compared: dict[str, None] = {}
    for stamp, spec, material in policies:
        rules = rules_of(spec, accounted, material.reference)
        found = [rule.judge(verified) for rule in rules]
        compared.update(dict.fromkeys(compared_by(rules, verified)))
        if spec.tpm.event_log is not None:
            compared[boot_rules.CHECK] = None
        if spec.tpm.ima is not None:
            found.append(_what_ran(verified, stamp.digest, spec.tpm.ima, material.reference, issued_at, ima))
            compared[ima_history.CHECK] = None
        findings.append(all_of(f"policy {stamp.name}", found))
    tree = all_of("appraisal", findings)
    return Appraisal(
        subject=subject,
        verdict=verdict_of(tree.outcome),
        findings=tree,
        policies=tuple(stamp for stamp, _, _ in policies),
        evidence_digest=verified.evidence_digest,
        epoch=Epoch(verified.quote.reset_count, verified.quote.restart_count, generation),
        issued_at=issued_at,
        valid_until=issued_at + min(spec.freshness.max_age_seconds for _, spec, _ in policies),
        reference_digest=next((part.reference.digest for _, _, part in policies if part.reference is not None), None),
        compared=tuple(compared),
    )


def _what_ran(
    verified: VerifiedEvidence,
    digest: str,
    rules: ImaRules,
    reference: ReferenceValues | None,
    at: int,
    known: ImaFindings | None,
) -> Finding:
    if known is None:
        rule = ima_rule(rules, reference.files if reference is not None else None, at=at)
        known = ima_history.shown(verified, {digest: rule}, None)
    found = known.by_policy.get(digest)
    if found is not None:
        return found
    detail = "the list of measurements has not been judged by this policy yet"
    return Finding(ima_history.CHECK, Outcome.CANNOT_TELL, "ImaNotJudged", detail)


def rules_of(
    spec: AttestationPolicySpec, accounted: Accounted, reference: ReferenceValues | None = None
) -> tuple[Rule, ...]:
    """The rules that `spec` asks for, in a fixed order. PCRs are always among them; what ran is judged as it is read
    (`ima_history`). `reference` adds to the good values.
    """
    rules: list[Rule] = [*pcr_rules(spec, reference), *boot_rules.boot_rules(spec.tpm, reference)]
    hsm = spec.hsm
    rules.append(StatementRule((hsm and hsm.statement) or StatementLevel.HOST_ASSERTED))
    if hsm is not None and hsm.firmware:
        rules.append(FirmwareTable(tuple(hsm.firmware)))
    if hsm is not None and hsm.inventory is InventoryMode.ACCOUNTED:
        rules.append(InventoryRule(accounted))
    return tuple(rules)


def pcr_rules(spec: AttestationPolicySpec, reference: ReferenceValues | None = None) -> tuple[PcrRule, ...]:
    """The rules about PCRs, by rising index. `reference` adds good values to PCRs that the policy names."""
    pcrs = spec.tpm.pcrs
    more = reference.pcrs.get(pcrs.bank, {}) if reference is not None else {}
    ordered = sorted(pcrs.values, key=lambda value: value.index)
    return tuple(
        PcrRule(pcrs.bank, value.index, tuple(dict.fromkeys((*value.any_of, *more.get(value.index, ())))))
        for value in ordered
    )


def pcrs_of(spec: AttestationPolicySpec) -> frozenset[int]:
    """The PCRs that must be quoted for `spec`."""
    named = frozenset(value.index for value in spec.tpm.pcrs.values)
    if spec.tpm.event_log is not None:
        named |= BOOT_PCRS | boot_rules.boot_pcrs(spec.tpm, None)
    return named | {IMA_PCR} if spec.tpm.ima is not None else named


def selection_of(policies: Sequence[AttestationPolicySpec]) -> Selection | None:
    """PCRs that a quote must cover for all `policies`; the first one's bank decides, None without policies.

    One quote covers one bank; a policy of another bank finds its PCRs missing and says so.
    """
    if not policies:
        return None
    bank = policies[0].tpm.pcrs.bank
    indices = frozenset[int]().union(*(pcrs_of(spec) for spec in policies if spec.tpm.pcrs.bank is bank))
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
