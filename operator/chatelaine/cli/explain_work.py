"""Reads, and lets the pure room reason: one function a kind."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path

from chatelaine.cli.explain_access import PersonAdapter
from chatelaine.cli.explain_reading import Missing, NotRead, one, sight_of_claim, sight_of_host
from chatelaine.diagnosis.check import Advice, Check, Diagnosis, State
from chatelaine.diagnosis.claim import explain_claim
from chatelaine.diagnosis.hsm import explain_hsm
from chatelaine.diagnosis.names import Names
from chatelaine.diagnosis.policy import explain_policy
from chatelaine.kube.port import CLAIMS, HSMS, POLICIES, Resource
from chatelaine.model.claim import HsmClaim
from chatelaine.model.hsm import Hsm
from chatelaine.model.policy import AttestationPolicy
from chatelaine.model.verdict import Outcome

Work = Callable[[PersonAdapter], Awaitable[Diagnosis]]


async def explained_claim(
    kubeconfig: Path | None, namespace: str, name: str, system: str, chatelaine: str
) -> Diagnosis:
    """See `diagnosis.claim.explain_claim`.

    Raises:
        LoginFailed: no usable credentials.
        ValueError: `name` or `namespace` is none that Kubernetes has.
    """

    async def work(kube: PersonAdapter) -> Diagnosis:
        found = await one(kube, CLAIMS, HsmClaim, name, namespace)
        return explain_claim(found, await sight_of_claim(kube, found, system), Names(chatelaine, system))

    return await _explained(kubeconfig, CLAIMS, name, namespace, work)


async def explained_hsm(kubeconfig: Path | None, name: str, system: str, chatelaine: str) -> Diagnosis:
    """See `diagnosis.hsm.explain_hsm`.

    Raises:
        LoginFailed: no usable credentials.
        ValueError: `name` is none that Kubernetes has.
    """

    async def work(kube: PersonAdapter) -> Diagnosis:
        found = await one(kube, HSMS, Hsm, name, None)
        return explain_hsm(found, await sight_of_host(kube, system), Names(chatelaine, system))

    return await _explained(kubeconfig, HSMS, name, None, work)


async def explained_policy(kubeconfig: Path | None, name: str, system: str, chatelaine: str) -> Diagnosis:
    """See `diagnosis.policy.explain_policy`.

    Raises:
        LoginFailed: no usable credentials.
        ValueError: `name` is none that Kubernetes has.
    """

    async def work(kube: PersonAdapter) -> Diagnosis:
        found = await one(kube, POLICIES, AttestationPolicy, name, None)
        return explain_policy(found, await sight_of_host(kube, system), Names(chatelaine, system))

    return await _explained(kubeconfig, POLICIES, name, None, work)


async def _explained(
    kubeconfig: Path | None, resource: Resource, name: str, namespace: str | None, work: Work
) -> Diagnosis:
    """Also of an object that is not there, or that the caller may not see."""
    subject = f"{resource.kind} {namespace}/{name}" if namespace else f"{resource.kind} {name}"
    scope = f" --namespace {namespace}" if namespace else ""
    expected = f"{subject} exists, and you may read it."
    async with await PersonAdapter.of(kubeconfig) as kube:
        try:
            return await work(kube)
        except Missing as missing:
            advice = Advice("See which there are.", (f"kubectl{scope} get {resource.plural}",))
            check = Check("object", Outcome.REFUTED, "NotFound", expected, str(missing), advice=(advice,))
            return Diagnosis(subject, State.NOT_READY, (check,))
        except NotRead as error:
            advice = Advice("See what you may do.", (f"kubectl{scope} auth can-i get {resource.plural}",))
            found = f"Not known: {error.unread}."
            check = Check("object", Outcome.CANNOT_TELL, error.unread.why.value, expected, found, advice=(advice,))
            return Diagnosis(subject, State.CANNOT_TELL, (check,))
