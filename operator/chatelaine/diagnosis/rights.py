"""What the operator needs to be allowed, and what of it roles do not give. A test holds it to the chart's."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from chatelaine.model.identifiers import GROUP

ANY: Final = "*"


@dataclass(frozen=True, slots=True)
class Right:
    """One verb on one resource, everywhere or in the operator's namespace."""

    group: str
    resource: str
    verb: str
    own_namespace: bool = False

    def __str__(self) -> str:
        group = f".{self.group}" if self.group else ""
        where = " in the operator's namespace" if self.own_namespace else ""
        return f"{self.verb} {self.resource}{group}{where}"


@dataclass(frozen=True, slots=True)
class Rule:
    """A rule of a role. `names`: it is good for objects of these names alone."""

    groups: frozenset[str]
    resources: frozenset[str]
    verbs: frozenset[str]
    names: frozenset[str] = frozenset()
    own_namespace: bool = False

    def gives(self, right: Right) -> bool:
        """Is this right a part of the rule? What is given everywhere is given in our namespace as well."""
        if self.names or (self.own_namespace and not right.own_namespace):
            return False
        return (
            bool({ANY, right.group} & self.groups)
            and bool({ANY, right.resource} & self.resources)
            and bool({ANY, right.verb} & self.verbs)
        )


def _rights(group: str, resources: str, verbs: str, *, own_namespace: bool = False) -> Iterator[Right]:
    for resource in resources.split():
        for verb in verbs.split():
            yield Right(group, resource, verb, own_namespace)


_KINDS: Final = "hsms hsmclaims attestationpolicies"
NEEDED: Final[tuple[Right, ...]] = (
    *_rights(GROUP, _KINDS, "get list watch"),
    *_rights(GROUP, "hsms hsmclaims", "patch"),
    *_rights(GROUP, "hsms/status hsmclaims/status attestationpolicies/status", "get patch"),
    *_rights("networking.k8s.io", "networkpolicies", "get list watch create patch delete"),
    *_rights("", "secrets", "get list watch create patch delete"),
    *_rights("", "pods namespaces", "get list watch"),
    *_rights("discovery.k8s.io", "endpointslices", "get list watch"),
    *_rights("events.k8s.io", "events", "create"),
    *_rights("coordination.k8s.io", "leases", "get create update", own_namespace=True),
    *_rights("", "secrets", "get create update delete", own_namespace=True),
    *_rights("", "configmaps", "get list watch create patch", own_namespace=True),
)


def lacking(rules: Iterable[Rule]) -> tuple[Right, ...]:
    """Those of `NEEDED` that no rule gives."""
    rules = tuple(rules)
    return tuple(right for right in NEEDED if not any(rule.gives(right) for rule in rules))
