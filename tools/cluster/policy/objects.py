"""What the engine keeps of pods, namespaces and policies, and the label selectors among them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

Object = Mapping[str, Any]
Labels = Mapping[str, str]

_ENDED = ("Succeeded", "Failed")


@dataclasses.dataclass(frozen=True)
class Pod:
    """A pod with an address of its own."""

    namespace: str
    labels: Labels
    address: str
    """IPv4."""
    ports: Mapping[tuple[str, str], int]
    """Port numbers by name and protocol (TCP, UDP, SCTP)."""


@dataclasses.dataclass(frozen=True)
class Policy:
    """A NetworkPolicy, its rules as they were written."""

    namespace: str
    selector: Object
    ingress: tuple[Object, ...] | None
    """None: it says nothing of what may come in."""
    egress: tuple[Object, ...] | None


@dataclasses.dataclass(frozen=True)
class World:
    """All that decides who may reach whom."""

    pods: tuple[Pod, ...] = ()
    namespaces: Mapping[str, Labels] = dataclasses.field(default_factory=dict)
    """Labels by name."""
    policies: tuple[Policy, ...] = ()


def pod_of(obj: Object) -> Pod | None:
    """The pod, unless it has no address (yet), shares the node's, or has ended."""
    spec, status = obj["spec"], obj.get("status", {})
    address = str(status.get("podIP", ""))
    if not address or ":" in address or spec.get("hostNetwork") or status.get("phase") in _ENDED:
        return None
    # Sidecars stand among the init containers.
    containers = (*spec["containers"], *spec.get("initContainers", ()))
    declared = [port for container in containers for port in container.get("ports", ()) if "name" in port]
    ports = {(str(port["name"]), str(port.get("protocol", "TCP"))): int(port["containerPort"]) for port in declared}
    return Pod(obj["metadata"]["namespace"], labels_of(obj), address, ports)


def policy_of(obj: Object) -> Policy:
    """The policy. One without types is about what comes in, and about what goes out only if it has such rules."""
    spec = obj["spec"]
    ingress, egress = tuple(spec.get("ingress") or ()), tuple(spec.get("egress") or ())
    types = spec.get("policyTypes") or (["Ingress", "Egress"] if egress else ["Ingress"])
    return Policy(
        obj["metadata"]["namespace"],
        spec.get("podSelector") or {},
        ingress if "Ingress" in types else None,
        egress if "Egress" in types else None,
    )


def labels_of(obj: Object) -> Labels:
    """Labels of any object."""
    return dict(obj["metadata"].get("labels") or {})


def selects(selector: Object, labels: Labels) -> bool:
    """Does a label selector fit? An empty one fits everything."""
    equal = (selector.get("matchLabels") or {}).items()
    expressions = selector.get("matchExpressions") or ()
    return all(labels.get(key) == value for key, value in equal) and all(_fits(one, labels) for one in expressions)


def _fits(expression: Object, labels: Labels) -> bool:
    value, values = labels.get(expression["key"]), expression.get("values") or ()
    match expression["operator"]:
        case "In":
            return value is not None and value in values
        case "NotIn":
            return value is None or value not in values
        case "Exists":
            return value is not None
        case "DoesNotExist":
            return value is None
        case other:
            raise ValueError(f"a label selector has the unknown operator {other!r}")
