"""What two pods found out about NetworkPolicies."""

from __future__ import annotations

from typing import Final

from chatelaine.diagnosis.check import Advice, Check, Diagnosis, State, state_of
from chatelaine.model.verdict import Outcome

SUBJECT: Final = "This cluster's network"
_CNI: Final = Advice(
    "Install a network plugin that enforces NetworkPolicies (Calico, Cilium and others do; flannel alone does not), or"
    " turn its enforcement on. Until then a pod that has no claim can reach gateways; they still ask for tokens and"
    " keys, but one of two fences is missing."
)
_BROKEN: Final = Advice("Pods of one namespace cannot reach each other at all: mend the cluster's network first.")


def unstarted(name: str, why: str) -> Diagnosis:
    """A pod did not start, so nothing was tried."""
    advice = Advice(
        "See whether the cluster has nodes with room, and whether they can pull the image (--image names another).",
        ("kubectl get nodes", "kubectl get events --all-namespaces --field-selector reason=FailedScheduling"),
    )
    expected = "Two small pods start, as restricted as Pod Security has them."
    check = Check("pods", Outcome.CANNOT_TELL, "NotStarted", expected, f"Pod {name}: {why}", advice=(advice,))
    return Diagnosis(SUBJECT, State.CANNOT_TELL, (check,))


def judged(before: bool | None, stranger: bool | None, named: bool | None) -> Diagnosis:
    """From what each client found.

    Args:
        before: it could connect while there was no policy.
        stranger: it was cut off by a policy that does not name it.
        named: it could connect under the same policy, which names it.
        Each None: the pod did not say.
    """
    checks = [_check("without a policy", before, "Connected", "NotConnected",
        "Without a NetworkPolicy one pod reaches the other.", _BROKEN)]  # fmt: skip
    if before:
        checks.append(_check("not named", stranger, "Cut", "StillConnects",
            "A pod that the policy does not name is cut off.", _CNI))  # fmt: skip
    if before and stranger:
        checks.append(_check("named", named, "Connected", "NotConnected",
            "A pod that the policy names still connects.", _CNI))  # fmt: skip
    state = state_of(checks)
    # A network on which nothing connects has shown nothing about policies.
    return Diagnosis(SUBJECT, State.CANNOT_TELL if before is False else state, tuple(checks))


def _check(name: str, found: bool | None, good: str, bad: str, expected: str, advice: Advice) -> Check:
    if found is None:
        return Check(name, Outcome.CANNOT_TELL, "NotSaid", expected, "The pod did not say in time what it found.")
    if found:
        return Check(name, Outcome.HOLDS, good, expected, expected)
    return Check(name, Outcome.REFUTED, bad, expected, "It is not so.", advice=(advice,))
