"""Claims that have a place already, under the release rules of a policy that is not applied yet. Nothing is written."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from chatelaine.appraisal.policy_words import shown
from chatelaine.kube.errors import NotFound
from chatelaine.kube.port import NAMESPACES, POLICIES, KubePort
from chatelaine.model.claim import HsmClaim
from chatelaine.model.hsm import Hsm
from chatelaine.model.policy import AttestationPolicy
from chatelaine.model.verdict import Finding, Outcome
from chatelaine.reconcile.served import held_compliance, request_of
from chatelaine.release.rules import judge_release


@dataclass(frozen=True, slots=True)
class ClaimOutlook:
    """What would become of one claim that is bound.

    Attributes:
        namespace, claim, hsm: their names.
        finding: of the policy's release rules.
    """

    namespace: str
    claim: str
    hsm: str
    finding: Finding

    @property
    def refused(self) -> bool:
        """Its access would be cut. `enforcement: Audit` does not help: it is about evidence."""
        return self.finding.outcome is not Outcome.HOLDS

    @property
    def why(self) -> str:
        """One sentence; empty where the claim keeps its access. Of several rules, what each of them says."""
        if not self.refused:
            return ""
        leaves = [leaf for leaf in self.finding.leaves() if leaf.outcome is not Outcome.HOLDS]
        return shown(" / ".join(dict.fromkeys(leaf.detail or leaf.reason for leaf in leaves)))

    def as_dict(self) -> dict[str, object]:
        """Plain JSON value."""
        told = {"namespace": self.namespace, "claim": self.claim, "hsm": self.hsm}
        return {**told, "refused": self.refused, "why": self.why, "findings": self.finding.as_dict()}


async def claims_under(
    kube: KubePort, policy: AttestationPolicy, hosts: Iterable[Hsm], claims: Sequence[HsmClaim]
) -> list[ClaimOutlook]:
    """Every claim with a place on one of `hosts` that `policy` has to release.

    Raises:
        KubeError: the API server did not answer.
    """
    name = policy.metadata.name
    by_uid = {claim.metadata.uid: claim for claim in claims}
    labels: dict[str, Mapping[str, str]] = {}
    found = []
    for hsm in hosts:
        own = hsm.spec.attestation.policy_ref.name
        seated = (by_uid[seat.claim_uid] for seat in hsm.status.allocations if seat.claim_uid in by_uid)
        concerned = [claim for claim in seated if own == name or _names(claim, name)]
        # What a claim may ask of an HSM's certificates, the Hsm's own policy says.
        judging = policy if own == name or not concerned else await _policy(kube, own)
        for claim in concerned:
            namespace = claim.metadata.namespace or ""
            if namespace not in labels:
                labels[namespace] = await _labels(kube, namespace)
            request = request_of(claim, labels[namespace], held_compliance(hsm, judging), None)
            finding = judge_release(name, policy.spec, request)
            found.append(ClaimOutlook(namespace, claim.metadata.name, hsm.metadata.name, finding))
    return sorted(found, key=lambda outlook: (outlook.namespace, outlook.claim))


def _names(claim: HsmClaim, policy: str) -> bool:
    return claim.spec.policy_ref is not None and claim.spec.policy_ref.name == policy


async def _policy(kube: KubePort, name: str) -> AttestationPolicy | None:
    try:
        return AttestationPolicy.model_validate(await kube.get(POLICIES, name))
    except NotFound:
        return None


async def _labels(kube: KubePort, namespace: str) -> Mapping[str, str]:
    try:
        found = (await kube.get(NAMESPACES, namespace))["metadata"].get("labels")
    except NotFound:
        return {}
    return {str(key): str(value) for key, value in found.items()} if isinstance(found, dict) else {}
