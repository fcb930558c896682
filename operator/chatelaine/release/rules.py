"""Release rules: deny by default; a policy's `anyOf` of rules, each an `allOf` of matches (trust rules, §8).

Leaves only say what they compare. `AllOf` and `AnyOf` put them together, refuse to hold when empty, and keep every
child's reason, so that a refusal names what was asked, what the rule allows, and of which rule.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol

from chatelaine.model.identifiers import LABEL_NAMESPACE_NAME
from chatelaine.model.keys import KeyType, Sensitivity, Usage
from chatelaine.model.policy import AttestationPolicySpec, ReleaseRule
from chatelaine.model.verdict import Finding, Outcome, all_of, any_of


@dataclass(frozen=True, slots=True)
class ReleaseRequest:
    """What a claim asks of one HSM.

    Attributes:
        namespace: name of the claim's namespace.
        namespace_labels: its labels; the name label is always taken from `namespace`.
        key_types: of all keys asked for.
        usages: of all keys and clients.
        sensitivity: of what the keys protect.
        workload_type: what the keys are for, if said.
        compliance: certificates that the HSM holds by the policy's table, narrowed by its offers.
        bound_claims: other claims of this namespace bound under this policy; None for a claim that has its place
            already, which `maxClaims` does not take away.
    """

    namespace: str
    namespace_labels: Mapping[str, str]
    key_types: frozenset[KeyType]
    usages: frozenset[Usage]
    sensitivity: Sensitivity
    workload_type: str | None
    compliance: frozenset[str]
    bound_claims: int | None


class Rule(Protocol):
    """One question about a request."""

    def check(self, request: ReleaseRequest) -> Finding:
        """The answer, with its reason."""
        ...


def _leaf(check: str, reason: str, holds: bool, detail: str, *, expected: str, found: str) -> Finding:
    if holds:
        return Finding(check, Outcome.HOLDS, "Allowed", expected=expected, found=found)
    return Finding(check, Outcome.REFUTED, reason, detail, expected=expected, found=found)


def _listed(values: Iterable[str]) -> str:
    return ", ".join(sorted(values)) or "none"


@dataclass(frozen=True, slots=True)
class NamespaceLabels:
    """The claim's namespace carries all of these labels with exactly these values."""

    match_labels: Mapping[str, str]

    def check(self, request: ReleaseRequest) -> Finding:
        """A name label that differs from the namespace's name is never believed."""
        labels = {**request.namespace_labels, LABEL_NAMESPACE_NAME: request.namespace}
        wrong = {key: value for key, value in self.match_labels.items() if labels.get(key) != value}
        expected = _listed(f"{key}={value}" for key, value in self.match_labels.items())
        return _leaf(
            "release/namespaces",
            "NamespaceNotAllowed",
            bool(self.match_labels) and not wrong,
            f"namespace {request.namespace} does not carry {_listed(f'{k}={v}' for k, v in wrong.items())}",
            expected=expected,
            found=_listed(f"{key}={labels[key]}" for key in self.match_labels if key in labels),
        )


@dataclass(frozen=True, slots=True)
class KeyTypes:
    """Every key is of one of these types."""

    allowed: frozenset[KeyType]

    def check(self, request: ReleaseRequest) -> Finding:
        """Holds for a claim without keys."""
        return _subset("keyTypes", "KeyTypeNotAllowed", "key types", self.allowed, request.key_types)


@dataclass(frozen=True, slots=True)
class Usages:
    """Keys and clients use nothing but these."""

    allowed: frozenset[Usage]

    def check(self, request: ReleaseRequest) -> Finding:
        """Holds for a claim without keys."""
        return _subset("usages", "UsageNotAllowed", "usages", self.allowed, request.usages)


@dataclass(frozen=True, slots=True)
class WorkloadTypes:
    """The claim says what its keys are for, and it is one of these."""

    allowed: frozenset[str]

    def check(self, request: ReleaseRequest) -> Finding:
        """A claim that does not say is refused."""
        found = request.workload_type
        return _leaf(
            "release/workloadTypes",
            "WorkloadTypeNotAllowed",
            found in self.allowed,
            f"workload type {found or '(none)'} is not allowed",
            expected=_listed(self.allowed),
            found=found or "none",
        )


@dataclass(frozen=True, slots=True)
class MaxSensitivity:
    """What the keys protect is no more sensitive than this."""

    limit: Sensitivity

    def check(self, request: ReleaseRequest) -> Finding:
        """Compares ranks."""
        return _leaf(
            "release/maxSensitivity",
            "SensitivityNotAllowed",
            request.sensitivity.rank <= self.limit.rank,
            f"sensitivity {request.sensitivity} is above {self.limit}",
            expected=f"at most {self.limit}",
            found=request.sensitivity,
        )


@dataclass(frozen=True, slots=True)
class HeldCompliance:
    """The HSM holds all of these certificates."""

    required: frozenset[str]

    def check(self, request: ReleaseRequest) -> Finding:
        """The policy's table decides what is held, never the HSM or the claim."""
        return _leaf(
            "release/compliance",
            "ComplianceMissing",
            self.required <= request.compliance,
            f"the HSM does not hold {_listed(self.required - request.compliance)}",
            expected=_listed(self.required),
            found=_listed(request.compliance),
        )


@dataclass(frozen=True, slots=True)
class MaxClaims:
    """One more claim of this namespace may bind."""

    limit: int

    def check(self, request: ReleaseRequest) -> Finding:
        """A claim that is bound already keeps its place."""
        bound = request.bound_claims
        return _leaf(
            "release/maxClaims",
            "TooManyClaims",
            bound is None or bound < self.limit,
            f"namespace {request.namespace} has {bound} claims bound, {self.limit} are allowed",
            expected=f"at most {self.limit}",
            found="bound already" if bound is None else str(bound),
        )


def _subset(check: str, reason: str, what: str, allowed: Iterable[str], found: Iterable[str]) -> Finding:
    beyond = set(found) - set(allowed)
    return _leaf(
        f"release/{check}",
        reason,
        not beyond,
        f"{what} {_listed(beyond)} are not allowed",
        expected=_listed(allowed),
        found=_listed(found),
    )


@dataclass(frozen=True, slots=True)
class AllOf:
    """Every part must hold."""

    name: str
    parts: tuple[Rule, ...]

    def check(self, request: ReleaseRequest) -> Finding:
        """An empty list never holds."""
        if not self.parts:
            return _empty(self.name)
        return all_of(self.name, [part.check(request) for part in self.parts])


@dataclass(frozen=True, slots=True)
class AnyOf:
    """One part that holds is enough."""

    name: str
    parts: tuple[Rule, ...]

    def check(self, request: ReleaseRequest) -> Finding:
        """An empty list never holds."""
        if not self.parts:
            return _empty(self.name)
        return any_of(self.name, [part.check(request) for part in self.parts])


def _empty(name: str) -> Finding:
    return Finding(name, Outcome.REFUTED, "NoRules", "there are no release rules, so nothing is released")


def compile_rule(index: int, rule: ReleaseRule) -> AllOf:
    """The rule as a tree. An absent `maxSensitivity` means Public; other absent fields do not narrow."""
    parts: list[Rule] = [
        NamespaceLabels(rule.namespaces.match_labels),
        MaxSensitivity(rule.max_sensitivity or Sensitivity.PUBLIC),
    ]
    if rule.key_types is not None:
        parts.append(KeyTypes(frozenset(rule.key_types)))
    if rule.usages is not None:
        parts.append(Usages(frozenset(rule.usages)))
    if rule.workload_types is not None:
        parts.append(WorkloadTypes(frozenset(rule.workload_types)))
    if rule.compliance is not None:
        parts.append(HeldCompliance(frozenset(rule.compliance)))
    if rule.max_claims is not None:
        parts.append(MaxClaims(rule.max_claims))
    return AllOf(f"release/anyOf/{index}", tuple(parts))


def judge_release(policy_name: str, policy: AttestationPolicySpec, request: ReleaseRequest) -> Finding:
    """Does `policy` let the claim bind? HOLDS or REFUTED; a policy without `release` lets nobody."""
    rules = policy.release.any_of if policy.release is not None else []
    tree = AnyOf(f"release/{policy_name}", tuple(compile_rule(index, rule) for index, rule in enumerate(rules)))
    return tree.check(request)
