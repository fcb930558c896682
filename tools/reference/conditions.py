"""Conditions and reasons of all kinds, from `model/reasons.py`."""

from __future__ import annotations

from chatelaine.model.crd import KINDS
from chatelaine.model.reasons import CONDITIONS, EXPLAINED, ConditionType
from tools.reference.markdown import page, table

CARRIED_BY = {
    "Hsm": ("Enrolled", "Reachable", "Attested", "Ready", "Stalled", "Paused"),
    "HsmClaim": ("Bound", "Attested", "KeysReady", "NetworkReady", "Ready", "Stalled", "Paused"),
    "AttestationPolicy": ("Valid", "Ready", "Stalled"),
}

INTRODUCTION = """\
Every kind reports by `status.conditions`, in the form that all of Kubernetes uses. A condition is `True`, `False` or
`Unknown`; `Unknown` means that it cannot be told (yet), and releases nothing. `reason` is one of the codes below and
never anything else; `message` says what was expected, what was found and what to do."""


def carriers(type_: ConditionType) -> str:
    """The kinds that carry a condition."""
    return ", ".join(f"`{kind.name}`" for kind in KINDS if type_ in CARRIED_BY[kind.name])


def text() -> str:
    """The page."""
    return page(
        "operator/chatelaine/model/reasons.py",
        "# Conditions and reasons",
        INTRODUCTION,
        "`kubectl wait --for=condition=Ready hsmclaim/NAME` waits for the whole.",
        "## Conditions",
        table(
            ("Condition", "On", "Says"),
            ((f"`{type_}`", carriers(type_), said) for type_, said in CONDITIONS.items()),
        ),
        "## Reasons",
        table(("Reason", "Says"), ((f"`{reason}`", said) for reason, said in sorted(EXPLAINED.items()))),
    )
