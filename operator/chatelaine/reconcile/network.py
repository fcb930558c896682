"""NetworkPolicies, rendered. The same input gives the same bytes; a digest of the spec stands in an annotation.

1. For each gateway: its pods are closed in both directions, but for DNS out and the operator in.
2. For each bound claim: its client pods, by namespace and pod labels, may reach the gateway's pod port.
3. Where the namespace is labelled for managed egress: those pods may reach that gateway and DNS, and nothing else.

Quarantine is the absence of 2. Policies match pod ports, never Service ports. A gateway outside the cluster gets no
policy of kind 1 and 2, and address blocks in 3.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from chatelaine.model.claim import HsmClaim
from chatelaine.model.hsm import GatewayEndpoint, GatewayService, Hsm
from chatelaine.model.identifiers import (
    GROUP,
    LABEL_CLAIM_NAME,
    LABEL_CLAIM_NAMESPACE,
    LABEL_CLAIM_UID,
    LABEL_EGRESS,
    LABEL_HSM,
    LABEL_MANAGED_BY,
    LABEL_NAMESPACE_NAME,
    MANAGED_BY,
    canonical_json,
    digest_of,
)
from chatelaine.reconcile.snapshot import OperatorPods

ANNOTATION_DIGEST: Final = f"{GROUP}/digest"
EGRESS_MANAGED: Final = "Managed"
UID_PREFIX: Final = 13
"""Characters of a claim's uid in names: 48 random bits, so that two claims of a namespace do not meet."""

DNS: Final[dict[str, Any]] = {"ports": [{"protocol": "UDP", "port": 53}, {"protocol": "TCP", "port": 53}]}
"""To anywhere: resolvers on the node have addresses that no selector names."""


@dataclass(frozen=True, slots=True)
class Rendered:
    """One NetworkPolicy as it shall stand."""

    namespace: str
    name: str
    digest: str
    manifest: Mapping[str, Any]

    @property
    def key(self) -> tuple[str, str]:
        """Namespace and name."""
        return self.namespace, self.name


def gateway_policies(hsm: Hsm, operator: OperatorPods) -> tuple[Rendered, ...]:
    """Default deny for the gateway's pods, and the operator's way in to gateway and agent; none outside the cluster."""
    service = hsm.spec.gateway.service
    if service is None:
        return ()
    selector = {"matchLabels": dict(service.pod_selector.match_labels)}
    ports = sorted({service.pod_port, hsm.spec.agent.port})
    deny = _render(
        service.namespace,
        deny_name(service),
        {},
        {"podSelector": selector, "policyTypes": ["Ingress", "Egress"], "ingress": [], "egress": [DNS]},
    )
    let_in = _render(
        service.namespace,
        f"chat-{hsm.metadata.uid[:UID_PREFIX]}-operator",
        {LABEL_HSM: hsm.metadata.name},
        {
            "podSelector": selector,
            "policyTypes": ["Ingress"],
            "ingress": [
                {
                    "from": [_peer(operator.namespace, operator.match_labels)],
                    "ports": [{"protocol": "TCP", "port": port} for port in ports],
                }
            ],
        },
    )
    return deny, let_in


def deny_name(service: GatewayService) -> str:
    """Once for each gateway selector: Hsms that share gateway pods share the policy."""
    selector = canonical_json([service.namespace, dict(service.pod_selector.match_labels)])
    return f"chat-gateway-{hashlib.sha256(selector).hexdigest()[:16]}"


def claim_ingress(claim: HsmClaim, gateway: GatewayEndpoint) -> Rendered | None:
    """The claim's client pods may reach the gateway's port; None where there is no client or no pod to protect."""
    service, namespace = gateway.service, claim.metadata.namespace or ""
    clients = _client_selectors(claim)
    if service is None or not clients:
        return None
    return _render(
        service.namespace,
        f"chat-{claim.metadata.uid[:UID_PREFIX]}-in",
        _claim_labels(claim),
        {
            "podSelector": {"matchLabels": dict(service.pod_selector.match_labels)},
            "policyTypes": ["Ingress"],
            "ingress": [
                {
                    "from": [_peer(namespace, labels) for labels in clients],
                    "ports": [{"protocol": "TCP", "port": service.pod_port}],
                }
            ],
        },
    )


def egress_managed(namespace_labels: Mapping[str, str]) -> bool:
    """Does this namespace ask for policies of kind 3?"""
    return namespace_labels.get(LABEL_EGRESS) == EGRESS_MANAGED


def claim_egress(claim: HsmClaim, gateway: GatewayEndpoint) -> tuple[Rendered, ...]:
    """The claim's client pods may reach that gateway and DNS, nothing else. One policy a selector of pods.

    Empty for a gateway outside the cluster whose address blocks are not named: it would cut the clients off.
    """
    to = _egress_target(gateway)
    if to is None:
        return ()
    namespace, prefix = claim.metadata.namespace or "", claim.metadata.uid[:UID_PREFIX]
    return tuple(
        _render(
            namespace,
            f"chat-{prefix}-out-{hashlib.sha256(canonical_json(labels)).hexdigest()[:8]}",
            _claim_labels(claim),
            {"podSelector": {"matchLabels": labels}, "policyTypes": ["Egress"], "egress": [to, DNS]},
        )
        for labels in _client_selectors(claim)
    )


def _egress_target(gateway: GatewayEndpoint) -> dict[str, Any] | None:
    if gateway.service is not None:
        service = gateway.service
        return {
            "to": [_peer(service.namespace, service.pod_selector.match_labels)],
            "ports": [{"protocol": "TCP", "port": service.pod_port}],
        }
    external = gateway.external
    if external is None or not external.cidrs:
        return None
    return {
        "to": [{"ipBlock": {"cidr": cidr}} for cidr in sorted(external.cidrs)],
        "ports": [{"protocol": "TCP", "port": external.port}],
    }


def _client_selectors(claim: HsmClaim) -> list[dict[str, str]]:
    """Distinct pod selectors of the clients, in a fixed order."""
    found = {canonical_json(c.pod_selector.match_labels): c.pod_selector.match_labels for c in claim.spec.clients or ()}
    return [dict(found[key]) for key in sorted(found)]


def _peer(namespace: str, labels: Mapping[str, str]) -> dict[str, Any]:
    """Both selectors in one element: the pods with these labels *in* that namespace."""
    return {
        "namespaceSelector": {"matchLabels": {LABEL_NAMESPACE_NAME: namespace}},
        "podSelector": {"matchLabels": dict(labels)},
    }


def _claim_labels(claim: HsmClaim) -> dict[str, str]:
    meta = claim.metadata
    return {LABEL_CLAIM_UID: meta.uid, LABEL_CLAIM_NAME: meta.name, LABEL_CLAIM_NAMESPACE: meta.namespace or ""}


def _render(namespace: str, name: str, labels: Mapping[str, str], spec: Mapping[str, Any]) -> Rendered:
    all_labels = {**labels, LABEL_MANAGED_BY: MANAGED_BY}
    digest = digest_of(canonical_json({"labels": all_labels, "spec": spec}))
    manifest = {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {
            "name": name,
            "namespace": namespace,
            "labels": all_labels,
            "annotations": {ANNOTATION_DIGEST: digest},
        },
        "spec": dict(spec),
    }
    return Rendered(namespace, name, digest, manifest)


# --- other people's policies ----------------------------------------------------------------------------------


def lets_in(spec: Mapping[str, Any], service: GatewayService, pods: Sequence[Mapping[str, str]] = ()) -> bool:
    """Does somebody else's NetworkPolicy of the gateway's namespace let anybody in to the gateway's port?

    Policies only add. `pods`: labels of the gateway's pods as they run; without them its own selector is taken.
    What cannot be decided (a named port) counts as letting in.
    """
    if "Ingress" not in spec.get("policyTypes", ["Ingress"]):
        return False
    gateways = list(pods) or [service.pod_selector.match_labels]
    if not any(_selects(spec.get("podSelector") or {}, labels) for labels in gateways):
        return False
    return any(_port_matches(rule.get("ports") or [], service.pod_port) for rule in spec.get("ingress") or [])


def _port_matches(ports: Sequence[Mapping[str, Any]], wanted: int) -> bool:
    if not ports:
        return True
    for entry in ports:
        port = entry.get("port")
        if entry.get("protocol", "TCP") != "TCP":
            continue
        if not isinstance(port, int) or port <= wanted <= int(entry.get("endPort", port)):
            return True
    return False


def _selects(selector: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    if any(labels.get(key) != value for key, value in (selector.get("matchLabels") or {}).items()):
        return False
    return all(_expression_holds(expression, labels) for expression in selector.get("matchExpressions") or [])


def _expression_holds(expression: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    key, values = expression.get("key", ""), expression.get("values") or []
    match expression.get("operator"):
        case "In":
            return labels.get(key) in values
        case "NotIn":
            return labels.get(key) not in values
        case "Exists":
            return key in labels
        case "DoesNotExist":
            return key not in labels
        case _:
            return True
