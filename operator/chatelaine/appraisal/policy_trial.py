"""Stored evidence under a policy that is not in force: would it be accepted? For pipelines, before anything is applied.

Only what the evidence shows is judged, not how old it is. What the policy asks for and nobody asked the host for when
the evidence was made cannot be told, and never counts as refused; whatever can be judged, is.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Final

from chatelaine.appraisal.appraise import pcrs_of
from chatelaine.appraisal.offline import QuoteCase, Report, judge_quote, refusal
from chatelaine.appraisal.offline_log import LogCase, judge_event_log
from chatelaine.appraisal.replay import Part, host_case, judged_by
from chatelaine.appraisal.stored import StoredRound, spec_of
from chatelaine.evidence.errors import EvidenceError, EvidencePartMissing
from chatelaine.model.policy import AttestationPolicy, AttestationPolicySpec, InventoryRule, StatementLevel
from chatelaine.model.tpm_policy import Bank
from chatelaine.model.verdict import Finding, Outcome, PolicyStamp, all_of

CHECK: Final = "policy test"
NOT_JUDGED: Final = Finding(
    "freshness", Outcome.HOLDS, "FreshnessNotJudged", "what the evidence shows is judged, not when it was made"
)


@dataclass(frozen=True, slots=True)
class _Fitted:
    """What of a policy some evidence can be judged by, and what is missing."""

    spec: AttestationPolicySpec
    gaps: tuple[Finding, ...]


def try_round(round_: StoredRound, part: Part, policy: AttestationPolicy, *, at: int) -> Report:
    """A stored round under `policy`.

    Args:
        round_: the round.
        part: gives the parts of its evidence.
        policy: with what it leans on.
        at: seconds since the epoch, for what ends at a time.
    """
    facts = {"hsm": round_.hsm, "akName": round_.asked.identity.ak_name.hex()}
    gaps: list[Finding] = list(_missing(policy))
    try:
        fitted = _fit(policy.spec, _seen_by(round_))
        gaps += fitted.gaps
        if round_.case.ima_before is not None and policy.spec.tpm.ima is not None:
            gaps.append(_gap("ima", "the round holds only what was measured since the one before it"))
        stamp = PolicyStamp(policy.metadata.name, policy.metadata.uid, policy.metadata.generation, policy.digest())
        tried = AttestationPolicy(metadata=policy.metadata, spec=fitted.spec).with_material(policy.material)
        again = judged_by(round_, replace(host_case(round_, tried), stamp=stamp, issued_at=at), part)
    except EvidencePartMissing as error:
        missing = Finding("parts", Outcome.CANNOT_TELL, error.reason, error.detail, found=error.found)
        return Report(all_of(CHECK, [missing, *gaps]), facts)
    except EvidenceError as error:
        return Report(all_of(CHECK, [refusal("evidence", error), *gaps]), facts)
    return Report(all_of(CHECK, [NOT_JUDGED, *gaps, again.appraisal.findings]), facts)


def try_quote(case: QuoteCase, log: bytes | None, policy: AttestationPolicy) -> Report:
    """A quote under `policy`.

    Args:
        case: the quote; its own policy and bank are not looked at.
        log: the boot event log that came with it, if one did.
        policy: with what it leans on.
    """
    bank = policy.spec.tpm.pcrs.bank
    values = next((found for name, found in case.pcrs.items() if name.lower() == bank.value.lower()), {})
    fitted = _fit(policy.spec, _Seen(bank, frozenset(values), log=log is not None, ima=False))
    spec, reference = fitted.spec.model_copy(update={"hsm": None}), policy.material.reference
    rules = spec if spec.tpm.pcrs.values else None
    report = judge_quote(replace(case, policy=rules, reference=reference, bank=bank.value))
    findings = [finding for finding in report.findings.children if finding.check != NOT_JUDGED.check]
    if log is not None and spec.tpm.event_log is not None:
        findings.append(judge_event_log(LogCase(log, {bank.value.lower(): values}, spec, reference)).findings)
    gaps = (*_missing(policy), *fitted.gaps, *_beyond_quotes(policy.spec))
    return Report(all_of(CHECK, [NOT_JUDGED, *gaps, *findings]), report.facts)


# --- what evidence can be judged by -----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Seen:
    """What a host was asked for when the evidence was made."""

    bank: Bank
    pcrs: frozenset[int]
    log: bool
    ima: bool


def _fit(spec: AttestationPolicySpec, seen: _Seen) -> _Fitted:
    """`spec` without what the evidence was never asked for; each such part is a finding that cannot be told."""
    tpm, gaps = spec.tpm, []
    if tpm.pcrs.bank is not seen.bank:
        gaps.append(_gap("pcrs", f"the evidence quotes bank {seen.bank.value}, the policy names {tpm.pcrs.bank.value}"))
        return _Fitted(_reduced(spec, frozenset(), log=False, ima=False), tuple(gaps))
    named = {value.index for value in tpm.pcrs.values}
    gaps += [
        _gap(f"pcr {tpm.pcrs.bank.value}:{index}", f"PCR {index} was not quoted when this was made")
        for index in sorted(named - seen.pcrs)
    ]
    log = tpm.event_log is not None
    if log and not seen.log:
        gaps.append(_gap("event log", "no boot event log was asked for when this was made"))
        log = False
    elif log:
        for_rules = spec.model_copy(update={"tpm": tpm.model_copy(update={"ima": None})})
        unquoted = pcrs_of(for_rules) - named - seen.pcrs
        if unquoted:
            listed = ", ".join(map(str, sorted(unquoted)))
            gaps.append(_gap("event log", f"its rules need PCRs that were not quoted when this was made: {listed}"))
            log = False
    if tpm.ima is not None and not seen.ima:
        gaps.append(_gap("ima", "no list of measurements was asked for when this was made"))
    return _Fitted(_reduced(spec, seen.pcrs, log=log, ima=tpm.ima is not None and seen.ima), tuple(gaps))


def _reduced(spec: AttestationPolicySpec, pcrs: frozenset[int], *, log: bool, ima: bool) -> AttestationPolicySpec:
    tpm = spec.tpm
    values = [value for value in tpm.pcrs.values if value.index in pcrs]
    changes = {
        "pcrs": tpm.pcrs.model_copy(update={"values": values}),
        "event_log": tpm.event_log if log else None,
        "ima": tpm.ima if ima else None,
    }
    return spec.model_copy(update={"tpm": tpm.model_copy(update=changes)})


def _gap(check: str, detail: str) -> Finding:
    return Finding(check, Outcome.CANNOT_TELL, "NotInEvidence", detail)


def _beyond_quotes(spec: AttestationPolicySpec) -> Iterator[Finding]:
    """Rules about the token, and about who made the TPM. That a token says nothing but what its host asserts is no rule
    that a quote could fail.
    """
    hsm, needs = spec.hsm, "a round of `evidence export` shows it, a bare quote does not"
    if hsm is not None and hsm.statement is StatementLevel.VENDOR_ATTESTED:
        yield _gap("hsm statement", f"the policy asks for a statement that a vendor attests: {needs}")
    if hsm is not None and hsm.firmware:
        yield _gap("firmware", f"the policy judges the token's model and firmware: {needs}")
    if hsm is not None and hsm.inventory is InventoryRule.ACCOUNTED:
        yield _gap("inventory", f"the policy judges which keys are in the token: {needs}")
    if spec.tpm.endorsement is not None:
        yield _gap("endorsement", f"the policy judges whose TPM it is: {needs}")


def _missing(policy: AttestationPolicy) -> Iterator[Finding]:
    """What the policy leans on and was not given."""
    for sentence in policy.material.missing:
        yield Finding("material", Outcome.CANNOT_TELL, "MaterialMissing", sentence)


def _seen_by(round_: StoredRound) -> _Seen:
    """A host was asked for its list where the policy that judged had rules for it."""
    asked = round_.asked
    ima = spec_of(round_.case).tpm.ima is not None
    return _Seen(asked.selection.bank, frozenset(asked.selection.indices), log=asked.wants_log, ima=ima)
