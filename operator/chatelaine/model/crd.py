"""The CustomResourceDefinitions of our kinds, as plain data; `tools/generate_crds.py` writes them to files."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from pydantic import BaseModel

from chatelaine.model.claim import HsmClaimSpec, HsmClaimStatus
from chatelaine.model.common import cel
from chatelaine.model.hsm import HsmSpec, HsmStatus
from chatelaine.model.identifiers import GROUP, VERSION
from chatelaine.model.policy import AttestationPolicySpec, AttestationPolicyStatus
from chatelaine.model.schema import VALIDATIONS, structural

CATEGORY: Final = "chatelaine"
NAME_LIMIT: Final = 63
"""Names of our objects go into labels and DNS names, which hold no more."""


@dataclass(frozen=True, slots=True)
class Column:
    """One column of `kubectl get`; those that are not `wide` are always shown."""

    name: str
    path: str
    type: str = "string"
    wide: bool = False
    description: str = ""

    def as_dict(self) -> dict[str, Any]:
        """As the definition wants it."""
        out: dict[str, Any] = {"name": self.name, "type": self.type, "jsonPath": self.path}
        if self.description:
            out["description"] = self.description
        if self.wide:
            out["priority"] = 1
        return out


@dataclass(frozen=True, slots=True)
class Kind:
    """What the API server needs to know of a kind besides its fields."""

    name: str
    plural: str
    short: str
    namespaced: bool
    description: str
    spec: type[BaseModel]
    status: type[BaseModel]
    columns: tuple[Column, ...]
    selectable: tuple[str, ...] = ()

    @property
    def definition_name(self) -> str:
        """Name of the CustomResourceDefinition."""
        return f"{self.plural}.{GROUP}"


def _condition(column: str, type_: str, part: str = "status") -> Column:
    return Column(column, f'.status.conditions[?(@.type=="{type_}")].{part}')


AGE: Final = Column("Age", ".metadata.creationTimestamp", "date")
REASON: Final = _condition("Reason", "Ready", "reason")

KINDS: Final = (
    Kind(
        name="Hsm",
        plural="hsms",
        short="hsm",
        namespaced=False,
        description="One token of the pool, and what its host has proven.",
        spec=HsmSpec,
        status=HsmStatus,
        columns=(
            Column("Verdict", ".status.attestation.verdict"),
            _condition("Enrolled", "Enrolled"),
            _condition("Ready", "Ready"),
            REASON,
            Column("Epoch", ".status.attestation.epoch.generation", "integer", description="Admissions of this host."),
            Column("Valid-Until", ".status.attestation.validUntil", wide=True),
            Column("Policy", ".spec.attestation.policyRef.name", wide=True),
            Column("Capacity", ".spec.capacity.claims", "integer", wide=True),
            Column("Cordoned", ".spec.cordoned", wide=True),
            AGE,
        ),
        selectable=(".spec.attestation.policyRef.name", ".status.attestation.verdict"),
    ),
    Kind(
        name="HsmClaim",
        plural="hsmclaims",
        short="hsmc",
        namespaced=True,
        description="A team's wish for keys inside an HSM that has proven itself.",
        spec=HsmClaimSpec,
        status=HsmClaimStatus,
        columns=(
            Column("HSM", ".status.allocation.hsm.name"),
            _condition("Bound", "Bound"),
            _condition("Attested", "Attested"),
            _condition("Keys", "KeysReady"),
            _condition("Ready", "Ready"),
            REASON,
            Column("Network", '.status.conditions[?(@.type=="NetworkReady")].status', wide=True),
            Column("Policy", ".spec.policyRef.name", wide=True),
            Column("Secret", ".status.binding.name", wide=True),
            AGE,
        ),
        selectable=(".spec.policyRef.name", ".spec.hsmRef.name", ".status.allocation.hsm.name"),
    ),
    Kind(
        name="AttestationPolicy",
        plural="attestationpolicies",
        short="attpol",
        namespaced=False,
        description="What a platform must prove, and who may then use which keys.",
        spec=AttestationPolicySpec,
        status=AttestationPolicyStatus,
        columns=(
            Column("Enforcement", ".spec.enforcement", description="Enforce when empty."),
            Column("Hsms", ".status.usedBy.hsms", "integer"),
            Column("Claims", ".status.usedBy.claims", "integer"),
            _condition("Valid", "Valid"),
            Column("Digest", ".status.digest", wide=True),
            AGE,
        ),
    ),
)


def definition(kind: Kind) -> dict[str, Any]:
    """The whole `apiextensions.k8s.io/v1` CustomResourceDefinition."""
    version: dict[str, Any] = {
        "name": VERSION,
        "served": True,
        "storage": True,
        "schema": {"openAPIV3Schema": _object(kind)},
        "subresources": {"status": {}},
        "additionalPrinterColumns": [column.as_dict() for column in kind.columns],
    }
    if kind.selectable:
        version["selectableFields"] = [{"jsonPath": path} for path in kind.selectable]
    names = {
        "kind": kind.name,
        "listKind": f"{kind.name}List",
        "plural": kind.plural,
        "singular": kind.name.lower(),
        "categories": [CATEGORY],
    }
    if kind.short != kind.name.lower():
        names["shortNames"] = [kind.short]
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": kind.definition_name},
        "spec": {
            "group": GROUP,
            "names": names,
            "scope": "Namespaced" if kind.namespaced else "Cluster",
            "versions": [version],
        },
    }


def _object(kind: Kind) -> dict[str, Any]:
    meta = {
        "apiVersion": {"type": "string", "description": "Version of this schema.", "maxLength": 63},
        "kind": {"type": "string", "description": "Kind of this object.", "maxLength": 63},
        "metadata": {"type": "object"},
    }
    spec, status = structural(kind.spec), structural(kind.status)
    rule = cel(
        f"self.metadata.name.size() <= {NAME_LIMIT}",
        f"the name has more than {NAME_LIMIT} characters; it must fit into labels",
    )
    return {
        "description": kind.description,
        "type": "object",
        "required": ["spec"],
        "properties": {**meta, "spec": spec, "status": status},
        VALIDATIONS: [rule],
    }
