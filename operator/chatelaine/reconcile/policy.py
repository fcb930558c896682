"""AttestationPolicy: can it be enforced, and who leans on it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Final

from chatelaine.model.conditions import set_condition
from chatelaine.model.policy import AttestationPolicySpec, AttestationPolicyStatus, PolicyUse
from chatelaine.model.reasons import ConditionType, Reason
from chatelaine.model.tpm_policy import Bank
from chatelaine.reconcile.plan import Action, EmitEvent, EventType, ObjectRef, Plan, SetPolicyStatus
from chatelaine.reconcile.snapshot import PolicySnapshot

HEX_LENGTHS: Final = {Bank.SHA256: 64, Bank.SHA384: 96}


def contradictions(spec: AttestationPolicySpec) -> list[str]:
    """What keeps this policy from being enforced, each as a sentence; empty: it can be."""
    return [*_pcrs(spec), *_hsm(spec), *_endorsement(spec)]


def _pcrs(spec: AttestationPolicySpec) -> list[str]:
    pcrs, found = spec.tpm.pcrs, []
    if not pcrs.values:
        found.append("tpm.pcrs.values is empty; a policy must name at least one PCR")
    found += [f"tpm.pcrs.values names PCR {index} twice" for index in _twice(value.index for value in pcrs.values)]
    length = HEX_LENGTHS[pcrs.bank]
    for value in pcrs.values:
        if not value.any_of:
            found.append(f"tpm.pcrs.values: PCR {value.index} has no good value")
        if any(len(digest) != length for digest in value.any_of):
            found.append(f"tpm.pcrs.values: PCR {value.index} has a value that is not {length} hexadecimal digits")
        found += [f"tpm.pcrs.values: PCR {value.index} lists {digest} twice" for digest in _twice(value.any_of)]
    return found


def _hsm(spec: AttestationPolicySpec) -> list[str]:
    if spec.hsm is None:
        return []
    models = _twice(rule.model for rule in spec.hsm.firmware or ())
    rows = _twice(f"{row.model} {row.firmware}" for row in spec.hsm.compliance or ())
    return [
        *(f"hsm.firmware names model {model} twice" for model in models),
        *(f"hsm.compliance has two rows for {row}" for row in rows),
    ]


def _endorsement(spec: AttestationPolicySpec) -> list[str]:
    endorsement = spec.tpm.endorsement
    if endorsement is None:
        return []
    if not endorsement.listed:
        return ["tpm.endorsement lists no TPM, so no host could enrol; list EK digests or remove it"]
    return [
        f"tpm.endorsement.listed names {digest} twice"
        for digest in _twice(listed.ek_digest for listed in endorsement.listed)
    ]


def _twice(values: Iterable[object]) -> list[object]:
    return [value for value, count in Counter(values).items() if count > 1]


def reconcile(snapshot: PolicySnapshot) -> Plan:
    """Digest, uses and conditions; a write only if one of them differs from what stands there."""
    policy, now = snapshot.policy, snapshot.now
    meta, before = policy.metadata, policy.status
    wrong = contradictions(policy.spec)
    conditions = list(before.conditions)

    def put(type_: ConditionType, status: str, reason: Reason, message: str) -> None:
        conditions[:] = set_condition(
            conditions, type_.value, status, reason, message, generation=meta.generation, now=now
        )

    if wrong:
        message = "; ".join(wrong[:4])
        put(ConditionType.VALID, "False", Reason.RULES_INVALID, message)
        put(ConditionType.READY, "False", Reason.RULES_INVALID, message)
    else:
        put(ConditionType.VALID, "True", Reason.RULES_VALID, "")
        put(ConditionType.READY, "True", Reason.ALL_READY, "")
    after = AttestationPolicyStatus(
        observed_generation=meta.generation,
        digest=policy.digest(),
        used_by=PolicyUse(hsms=snapshot.hsms, claims=snapshot.claims),
        conditions=conditions,
    )
    if after == before:
        return Plan()
    ref = ObjectRef("AttestationPolicy", meta.name, meta.uid)
    actions: list[Action] = [SetPolicyStatus(ref, after)]
    was = next((c.status for c in before.conditions if c.type == ConditionType.VALID.value), None)
    if wrong and was != "False":
        actions.append(EmitEvent(ref, EventType.WARNING, Reason.RULES_INVALID, "; ".join(wrong[:4])))
    return Plan(tuple(actions))
