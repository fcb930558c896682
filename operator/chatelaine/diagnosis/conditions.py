"""Conditions as checks: what the operator found, in its own words, with what to do."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from chatelaine.diagnosis.advice import advice_on
from chatelaine.diagnosis.check import Advice, Check
from chatelaine.diagnosis.names import Names
from chatelaine.diagnosis.outlook import outcome_of
from chatelaine.diagnosis.sight import LeaseSight, Sight, Unread
from chatelaine.model.common import Condition, ObjectMeta
from chatelaine.model.conditions import find
from chatelaine.model.identifiers import ANNOTATION_PAUSED
from chatelaine.model.reasons import EXPLAINED, ConditionType, Reason
from chatelaine.model.verdict import Outcome

HARMLESS: Final = frozenset({Reason.AUDIT_ONLY.value, Reason.NOT_ENFORCEABLE.value})
"""Reasons of conditions that do not hold, and yet keep nothing from being Ready."""
STALE_SECONDS: Final = 60.0
"""A leader renews its Lease every 2 s; clocks of people's machines are off by more than that."""
_DIGEST: Final = re.compile(r"sha256:[0-9a-f]{64}")


def says(reason: str) -> str:
    """What a reason means; empty for one that this version does not know."""
    try:
        return EXPLAINED[Reason(reason)]
    except ValueError:
        return ""


def condition_check(
    name: str,
    conditions: Sequence[Condition],
    type_: ConditionType,
    expected: str,
    names: Names,
    *,
    generation: int,
) -> Check:
    """One condition. What it does not say itself, the explanation of its reason does."""
    condition = find(conditions, type_.value)
    if condition is None:
        found = f"The operator has not written the condition {type_} yet."
        advice = advice_on(Reason.PENDING.value, names)
        return Check(name, Outcome.CANNOT_TELL, Reason.PENDING.value, expected, found, advice=advice)
    outcome = outcome_of(condition)
    if outcome is not Outcome.HOLDS and condition.reason in HARMLESS:
        outcome = Outcome.HOLDS
    found = condition.message or says(condition.reason)
    names = with_digests(names, condition.message)
    advice = advice_on(condition.reason, names) if outcome is not Outcome.HOLDS or _warns(condition) else ()
    check = Check(name, outcome, condition.reason, expected, found, advice=advice)
    if condition.observed_generation < generation:
        return check.with_notes(
            f"Judged of generation {condition.observed_generation}; the object is at {generation} by now."
        )
    return check


def _warns(condition: Condition) -> bool:
    return condition.reason in HARMLESS


def with_digests(names: Names, message: str) -> Names:
    """`AwaitingApproval` names two digests; the command that approves them needs both."""
    found = _DIGEST.findall(message)
    return replace(names, ek=found[0], thumbprint=found[1]) if len(found) == 2 else names


def object_check(name: str, meta: ObjectMeta, observed_generation: int, names: Names) -> Check:
    """The object itself: seen by an operator as it stands, not paused, not being deleted."""
    expected = "An operator has examined the object as it stands now; nobody deletes it or holds it back."
    if meta.deletion_timestamp is not None:
        found = f"It is being deleted since {meta.deletion_timestamp}."
        advice = advice_on(Reason.DELETING.value, names)
        return Check(name, Outcome.REFUTED, Reason.DELETING.value, expected, found, advice=advice)
    if observed_generation < meta.generation:
        seen = f"generation {observed_generation}" if observed_generation else "none"
        found = f"It is at generation {meta.generation}; examined was {seen}."
        advice = advice_on(Reason.PENDING.value, names)
        return Check(name, Outcome.CANNOT_TELL, "NotExamined", expected, found, advice=advice)
    check = Check(name, Outcome.HOLDS, "Examined", expected, f"Generation {meta.generation} was examined.")
    if meta.annotations.get(ANNOTATION_PAUSED) == "true":
        advice = advice_on(Reason.PAUSED.value, names)
        return replace(check, reason=Reason.PAUSED.value, advice=advice).with_notes(says(Reason.PAUSED.value))
    return check


def operator_check(sight: Sight, names: Names) -> Check:
    """Does anybody keep up to date what stands below? Without a Lease nobody can tell, and it is only said."""
    expected = "One operator leads, and renews its Lease."
    lease = sight.lease
    if isinstance(lease, Unread):
        return Check("operator", None, lease.why.value, expected, f"Not known: {lease}.", decides=False)
    if lease is None:
        found = f"There is no Lease in namespace {names.system}, so it cannot be told whether an operator runs."
        advice = Advice("If the operator runs in another namespace, name it with --system-namespace.")
        return Check("operator", None, "NoLease", expected, found, advice=(advice,), decides=False)
    return _led(lease, sight, expected, names)


def _led(lease: LeaseSight, sight: Sight, expected: str, names: Names) -> Check:
    age = sight.now - (sight.skew_seconds or 0.0) - lease.renewed_at
    advice = (
        Advice(
            "Start the operator, or see why it does not run; what is said here was last true when it stopped.",
            tuple(
                filter(
                    None,
                    (
                        names.fill("kubectl -n {system} get pods"),
                        names.fill("kubectl -n {system} logs deploy/chatelaine-operator"),
                    ),
                )
            ),
        ),
    )
    if not lease.holder:
        return Check("operator", Outcome.CANNOT_TELL, "NobodyLeads", expected, "Nobody holds the Lease.", advice=advice)
    if age > STALE_SECONDS:
        found = f"{lease.holder} renewed it {age:.0f} s ago, and nobody since."
        return Check("operator", Outcome.CANNOT_TELL, "LeaseStale", expected, found, advice=advice)
    return Check("operator", Outcome.HOLDS, "Leads", expected, f"{lease.holder} leads, in term {lease.term}.")
