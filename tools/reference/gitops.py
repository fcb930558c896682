"""What GitOps tools make of each reason: which health Argo CD shows, which status Flux and kstatus tell."""

from __future__ import annotations

from typing import Final, NamedTuple

from chatelaine.model.reasons import Reason
from chatelaine.reconcile import claim, hsm, policy
from tools.reference.markdown import page, table


class Shown(NamedTuple):
    """Argo CD's word and Flux' word for the same thing."""

    argo_cd: str
    flux: str


FINE: Final = Shown("Healthy", "Current")
WAITING: Final = Shown("Progressing", "InProgress")
BROKEN: Final = Shown("Degraded", "Failed")
FOR_A_PERSON: Final = Shown("Suspended", "InProgress")

NO_RETRY_HELPS: Final = hsm.NO_RETRY_HELPS | claim.NO_RETRY_HELPS | policy.NO_RETRY_HELPS
GOOD: Final = frozenset({Reason.ALL_READY, Reason.AUDIT_ONLY})
WAITS_FOR_A_PERSON: Final = frozenset({Reason.AWAITING_APPROVAL})
DECIDES_NOTHING: Final = frozenset(
    {
        Reason.ANSWERS,
        Reason.UNREACHABLE,
        Reason.NOT_AUTHENTICATED,
        Reason.EVIDENCE_MALFORMED,
        Reason.EVIDENCE_HOLDS,
        Reason.BOUND,
        Reason.KEYS_ACTIVE,
        Reason.NO_KEYS,
        Reason.KEYS_ADOPTED,
        Reason.KEYS_RETAINED,
        Reason.KEY_DESTROYED,
        Reason.POLICIES_APPLIED,
        Reason.NOT_ENFORCEABLE,
        Reason.EGRESS_MANAGED,
        Reason.READMITTED,
        Reason.RULES_VALID,
        Reason.REFERENCE_VALUES_CHANGED,
        Reason.NOT_READY,
        Reason.PAUSED,
        Reason.RUNNING,
    }
)
"""Reasons of Events and of single conditions: `Ready` never gives them, so they change no health."""

INTRODUCTION = """\
Argo CD asks the Lua checks of `examples/gitops/argo-cd/argocd-cm.yaml`. Flux asks the expressions of
`examples/gitops/flux/kustomizations.yaml`, or, without them, kstatus, which finds the same in our conditions. All of
them look at `Ready` and `Stalled`; which reason `Ready` gives decides as below. Tests ask the checks themselves, in the
tools' own languages, about every status that the operator writes in its tests."""

ORDER = """\
Four things come before the reason:

* An object whose spec the operator has not seen yet (`status.observedGeneration`) is `Progressing` (`InProgress`). A
  new one without any status is `Progressing` too; Flux' expressions tell nothing of it, and Flux waits. kstatus alone
  takes it for `Current`.
* An object that is being deleted is `Progressing` (`Terminating` for kstatus).
* `Stalled=True` is `Degraded` (`Failed`), also under a pause.
* `Paused=True` is otherwise `Suspended` in Argo CD. Flux and kstatus know no such thing and go by `Ready`."""


def shown(reason: Reason) -> Shown | None:
    """What the tools tell where `Ready` gives this reason; None: it never does."""
    if reason in DECIDES_NOTHING:
        return None
    if reason in GOOD:
        return FINE
    if reason in NO_RETRY_HELPS:
        return BROKEN
    return FOR_A_PERSON if reason in WAITS_FOR_A_PERSON else WAITING


def text() -> str:
    """The page."""
    told = [(reason, shown(reason)) for reason in sorted(Reason)]
    return page(
        "operator/chatelaine/model/reasons.py",
        "# Health in Argo CD and Flux",
        INTRODUCTION,
        ORDER,
        "## Reasons of Ready",
        table(
            ("Reason", "Argo CD", "Flux, kstatus"),
            ((f"`{reason}`", found.argo_cd, found.flux) for reason, found in told if found is not None),
        ),
        "## Reasons that change no health",
        "They stand in Events, or in conditions beside `Ready`: "
        + ", ".join(f"`{reason}`" for reason, found in told if found is None)
        + ".",
    )
