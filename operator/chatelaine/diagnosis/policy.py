"""Why an AttestationPolicy is not Ready: does it exist, do its rules hold together, is what it names usable."""

from __future__ import annotations

from dataclasses import replace

from chatelaine.diagnosis.advice import advice_on
from chatelaine.diagnosis.check import Advice, Check, Diagnosis, State
from chatelaine.diagnosis.conditions import condition_check, object_check, operator_check
from chatelaine.diagnosis.names import Names
from chatelaine.diagnosis.outlook import outcome_of, reason_of
from chatelaine.diagnosis.sight import Sight, Unread
from chatelaine.model.common import Condition
from chatelaine.model.conditions import find
from chatelaine.model.hsm import Hsm
from chatelaine.model.policy import AttestationPolicy, Enforcement
from chatelaine.model.reasons import ConditionType, Reason
from chatelaine.model.verdict import Outcome
from chatelaine.reconcile.policy import contradictions

EXPECTED = "The AttestationPolicy exists, and can be enforced as it is written."


def explain_policy(policy: AttestationPolicy, sight: Sight, names: Names) -> Diagnosis:
    """Every link of the chain, whether it holds or not."""
    meta = policy.metadata
    names = replace(names, kind="attestationpolicy", name=meta.name, policy=meta.name)
    object_ = object_check("policy", meta, policy.status.observed_generation, names)
    checks = (operator_check(sight, names), object_, _rules(policy, names), _release(policy), _use(policy, sight))
    ready = outcome_of(find(policy.status.conditions, ConditionType.READY.value))
    stale = any(check.name == "operator" and check.fails for check in checks)
    failing = any(check.decides and check.fails for check in checks)
    if ready is Outcome.HOLDS:
        state = State.CANNOT_TELL if failing else State.READY
    else:
        state = State.CANNOT_TELL if stale else State.NOT_READY
    return Diagnosis(f"AttestationPolicy {meta.name}", state, checks)


def policy_check(name: str, found: AttestationPolicy | Unread | None, names: Names) -> Check:
    """A policy that something else leans on."""
    names = replace(names, policy=name)
    if isinstance(found, Unread):
        return Check("policy", None, found.why.value, EXPECTED, f"Not known: {found}.", decides=False)
    if found is None:
        reason = Reason.POLICY_NOT_FOUND.value
        text = f"There is no AttestationPolicy {name}."
        return Check("policy", Outcome.REFUTED, reason, EXPECTED, text, advice=advice_on(reason, names))
    check = _rules(found, names)
    audit = "It only watches (enforcement: Audit): what fails cuts nothing."
    check = replace(check, name="policy", expected=EXPECTED, found=check.found or f"AttestationPolicy {name}.")
    return check.with_notes(audit) if found.spec.enforcement is Enforcement.AUDIT else check


def _rules(policy: AttestationPolicy, names: Names) -> Check:
    """What the operator found; where it has not looked yet, what the rules themselves show."""
    meta, conditions = policy.metadata, policy.status.conditions
    expected = "The rules do not contradict each other, and what they name is there."
    check = condition_check("rules", conditions, ConditionType.VALID, expected, names, generation=meta.generation)
    wrong = contradictions(policy.spec)
    valid = find(conditions, ConditionType.VALID.value)
    if wrong and (check.outcome is not Outcome.REFUTED or reason_of(valid) is Reason.RULES_INVALID):
        reason = Reason.RULES_INVALID.value
        advice = advice_on(reason, names)
        return Check("rules", Outcome.REFUTED, reason, expected, "; ".join(wrong) + ".", advice=advice)
    return check


def _release(policy: AttestationPolicy) -> Check:
    """Deny by default: a policy without release rules judges hosts, and lets nobody in."""
    rules = policy.spec.release.any_of if policy.spec.release is not None else []
    if not rules:
        advice = Advice("If claims are to use HSMs under this policy, say which, under spec.release.anyOf.")
        found = "It has no release rules, so no claim can bind under it."
        return Check("release", Outcome.HOLDS, "NoRules", "", found, advice=(advice,), decides=False)
    return Check("release", Outcome.HOLDS, "Rules", "", f"It has {len(rules)} release rules.", decides=False)


def _use(policy: AttestationPolicy, sight: Sight) -> Check:
    """Who leans on it, and how they fare."""
    name, used = policy.metadata.name, policy.status.used_by
    if isinstance(sight.hsms, Unread):
        found = f"Which Hsms it judges is not known: {sight.hsms}."
        if used is not None:
            found = f"{used.hsms} Hsms and {used.claims} claims name it. {found}"
        return Check("use", Outcome.HOLDS, "Used", "", found, decides=False)
    judged = [hsm for hsm in sight.hsms if hsm.spec.attestation.policy_ref.name == name]
    claims = f", {used.claims} claims" if used is not None else ""
    if not judged:
        return Check("use", Outcome.HOLDS, "Unused", "", f"No Hsm names it{claims}.", decides=False)
    bad = [hsm for hsm in judged if outcome_of(_attested(hsm)) is not Outcome.HOLDS]
    check = Check("use", Outcome.HOLDS, "Used", "", f"It judges {len(judged)} Hsms{claims}.", decides=False)
    return check.with_notes(*(f"Hsm {hsm.metadata.name}: {reason_of(_attested(hsm))}." for hsm in bad[:20]))


def _attested(hsm: Hsm) -> Condition | None:
    return find(hsm.status.conditions, ConditionType.ATTESTED.value)
