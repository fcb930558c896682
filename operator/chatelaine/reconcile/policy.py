"""AttestationPolicy: can it be enforced, and who leans on it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Final

from chatelaine.appraisal.unasked import unasked
from chatelaine.model.conditions import set_condition
from chatelaine.model.material import ReferenceValues
from chatelaine.model.policy import (
    AttestationPolicy,
    AttestationPolicySpec,
    AttestationPolicyStatus,
    PolicyUse,
    ReferenceValuesStatus,
)
from chatelaine.model.reasons import ConditionType, Reason
from chatelaine.model.tpm_policy import Bank
from chatelaine.reconcile.plan import Action, EmitEvent, EventType, ObjectRef, Plan, SetPolicyStatus
from chatelaine.reconcile.snapshot import PolicySnapshot

NAMED_FAULTS: Final = 4
NO_RETRY_HELPS: Final = frozenset({Reason.RULES_INVALID})
"""What a policy leans on may still come; rules that contradict themselves stay so until a person edits them."""
HEX_LENGTHS: Final = {Bank.SHA256: 64, Bank.SHA384: 96}


def faults(policy: AttestationPolicy) -> list[str]:
    """What keeps this policy from being enforced, each as a sentence; empty: it can be."""
    return [*contradictions(policy.spec), *policy.material.missing]


def contradictions(spec: AttestationPolicySpec) -> list[str]:
    """What in the rules themselves keeps them from being enforced, each as a sentence."""
    return [*_pcrs(spec), *_hsm(spec), *_endorsement(spec), *_reference_values(spec)]


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
    if not endorsement.listed and not endorsement.roots:
        return ["tpm.endorsement lists neither TPMs nor roots, so no host could enrol; list some or remove it"]
    return [
        f"tpm.endorsement.listed names {digest} twice"
        for digest in _twice(listed.ek_digest for listed in endorsement.listed or ())
    ]


def _reference_values(spec: AttestationPolicySpec) -> list[str]:
    """A threshold counts people: one key under two names would be one person twice."""
    source = spec.reference_values
    if source is None:
        return []
    found = [f"referenceValues.keys names {name} twice" for name in _twice(key.name for key in source.keys)]
    if _twice("".join(key.public_key.split()) for key in source.keys):
        found.append("referenceValues.keys holds one key under two names")
    if source.threshold > len(source.keys):
        found.append(f"referenceValues.threshold is {source.threshold}, but there are {len(source.keys)} keys")
    return found


def _twice(values: Iterable[object]) -> list[object]:
    return [value for value, count in Counter(values).items() if count > 1]


def reconcile(snapshot: PolicySnapshot) -> Plan:
    """Digest, uses and conditions; a write only if one of them differs from what stands there."""
    policy, now = snapshot.policy, snapshot.now
    meta, before = policy.metadata, policy.status
    wrong = faults(policy)
    # A rule that contradicts itself comes first; until it is mended, nobody looks at what it leans on.
    why = Reason.RULES_INVALID if contradictions(policy.spec) else Reason.MATERIAL_UNUSABLE
    conditions = list(before.conditions)

    def put(type_: ConditionType, status: str, reason: Reason, message: str) -> None:
        conditions[:] = set_condition(
            conditions, type_.value, status, reason, message, generation=meta.generation, now=now
        )

    if wrong:
        message = "; ".join(wrong[:NAMED_FAULTS])
        put(ConditionType.VALID, "False", why, message)
        put(ConditionType.READY, "False", why, message)
        if why in NO_RETRY_HELPS:
            put(ConditionType.STALLED, "True", why, message)
        else:
            put(ConditionType.STALLED, "False", Reason.PROGRESSING, "")
    else:
        put(ConditionType.VALID, "True", Reason.RULES_VALID, _not_judged(policy))
        put(ConditionType.READY, "True", Reason.ALL_READY, "")
        put(ConditionType.STALLED, "False", Reason.ALL_READY, "")
    after = AttestationPolicyStatus(
        observed_generation=meta.generation,
        digest=policy.digest(),
        used_by=PolicyUse(hsms=snapshot.hsms, claims=snapshot.claims),
        reference_values=_highest(before.reference_values, used_of(policy.material.reference)),
        conditions=conditions,
    )
    if after == before:
        return Plan()
    ref = ObjectRef("AttestationPolicy", meta.name, meta.uid)
    actions: list[Action] = [SetPolicyStatus(ref, after)]
    was = next(((c.status, c.reason) for c in before.conditions if c.type == ConditionType.VALID.value), None)
    if wrong and was != ("False", why.value):
        actions.append(EmitEvent(ref, EventType.WARNING, why, "; ".join(wrong[:NAMED_FAULTS])))
    if after.reference_values is not None and after.reference_values != before.reference_values:
        news = _news(before.reference_values, after.reference_values)
        actions.append(EmitEvent(ref, EventType.NORMAL, Reason.REFERENCE_VALUES_CHANGED, news))
    return Plan(tuple(actions))


def used_of(reference: ReferenceValues | None) -> ReferenceValuesStatus | None:
    """Reference values in force, as the status keeps them."""
    if reference is None:
        return None
    return ReferenceValuesStatus(
        name=reference.name,
        version=reference.version,
        digest=reference.digest,
        signed_by=sorted(reference.signed_by),
    )


def _not_judged(policy: AttestationPolicy) -> str:
    """What was signed, and is looked at by no rule: its signers may believe that it is."""
    parts = unasked(policy.spec, policy.material.reference)
    return f"No rule asks for these reference values, so they judge nothing: {'; '.join(parts)}." if parts else ""


def _highest(before: ReferenceValuesStatus | None, used: ReferenceValuesStatus | None) -> ReferenceValuesStatus | None:
    """The highest version that was used stays, whatever lies there now. A process that was away may hold an older one,
    or another content of it, until it has looked again: it must not write that over what another process has used.
    """
    if before is None or used is None:
        return used or before
    passed = used.version < before.version or (used.version == before.version and used.digest != before.digest)
    return before if used.name == before.name and passed else used


def _news(before: ReferenceValuesStatus | None, after: ReferenceValuesStatus) -> str:
    was = f", before: version {before.version}" if before is not None else ""
    signers = ", ".join(after.signed_by)
    return f"Reference values {after.name} version {after.version} ({after.digest}), signed by {signers}{was}."
