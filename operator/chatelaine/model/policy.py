"""AttestationPolicy: what a platform must prove, and who may then do what with which key."""

from __future__ import annotations

import enum
from typing import Annotated, Final

from pydantic import ConfigDict, Field, PrivateAttr, StringConstraints

from chatelaine.model.common import (
    Conditions,
    LabelSelector,
    Later,
    Model,
    Name,
    ObjectMeta,
    Sha256Digest,
    atomic_list,
    cel,
    entries,
    map_list,
    not_yet,
    set_list,
    validations,
)
from chatelaine.model.identifiers import canonical_json, digest_of
from chatelaine.model.keys import WORKING_KEY_TYPES_RULE, WORKING_USAGES_RULE, KeyType, Sensitivity, Usage
from chatelaine.model.material import NO_MATERIAL, PolicyMaterial
from chatelaine.model.tpm_policy import ReferenceName, ReferenceValuesSource, TpmRules

Compliance = Annotated[str, StringConstraints(min_length=1, max_length=63, pattern=r"^[A-Z][A-Za-z0-9_]*$")]
MAX_TOKEN_TEXT_CHARACTERS: Final = 63
"""Of a token's model, and of its firmware."""
Firmware = Annotated[str, StringConstraints(min_length=1, max_length=MAX_TOKEN_TEXT_CHARACTERS)]
ModelName = Annotated[str, StringConstraints(min_length=1, max_length=MAX_TOKEN_TEXT_CHARACTERS)]
WorkloadType = Annotated[str, StringConstraints(min_length=1, max_length=63, pattern=r"^[A-Z][A-Za-z0-9]*$")]


class Enforcement(enum.StrEnum):
    """`Audit` computes and shows everything and cuts nothing."""

    ENFORCE = "Enforce"
    AUDIT = "Audit"


class InventoryRule(enum.StrEnum):
    """`Accounted`: every key in the token belongs to a claim, to a retained list, or to us."""

    ACCOUNTED = "Accounted"
    ANY = "Any"


class StatementLevel(enum.StrEnum):
    """Who vouches for what the token says of itself."""

    HOST_ASSERTED = "HostAsserted"
    VENDOR_ATTESTED = "VendorAttested"


class Freshness(Model):
    """How old proof may grow."""

    max_age_seconds: Annotated[int, Field(ge=2, le=86400, description="A verdict older than this releases nothing.")]


class FirmwareRule(Model):
    """Good firmware of one model."""

    model: Annotated[ModelName, Field(description="CK_TOKEN_INFO.model, trimmed, in lower case.")]
    any_of: Annotated[
        list[Firmware],
        entries(32, "Good firmware versions.", set_list()),
    ]


class ComplianceRow(Model):
    """A certificate held by one model and firmware. HSMs and claims never assert compliance of themselves."""

    model: Annotated[ModelName, Field(description="CK_TOKEN_INFO.model, trimmed, in lower case.")]
    firmware: Annotated[Firmware, Field(description="Firmware version that the certificate covers.")]
    holds: Annotated[
        list[Compliance],
        entries(16, "Certificates held.", set_list()),
    ]


class HsmRules(Model):
    """What the token's statement must show."""

    model_config = ConfigDict(
        json_schema_extra=validations(
            cel(
                "!has(self.statement) || self.statement == 'HostAsserted'",
                "statement: VendorAttested is not enforced by this release yet; use HostAsserted",
            ),
        )
    )
    firmware: Annotated[
        list[FirmwareRule] | None,
        entries(32, "Good firmware by model; a model without a row is refused.", map_list("model")),
    ] = None
    inventory: Annotated[
        InventoryRule | None, Field(description="Accounted: a key that nobody accounts for refutes.")
    ] = None
    statement: Annotated[StatementLevel | None, Field(description="Who must vouch for the statement.")] = None
    compliance: Annotated[
        list[ComplianceRow] | None,
        entries(64, "Which model and firmware holds which certificate.", map_list("model", "firmware")),
    ] = None


class ReleaseRule(Model):
    """One way to be allowed. Every field that is present must match; namespaces must be present."""

    namespaces: Annotated[LabelSelector, Field(description="Labels of the namespaces whose claims may bind.")]
    max_claims: Annotated[
        int | None, Field(ge=0, le=10000, description="Most claims of one namespace bound under this rule.")
    ] = None
    key_types: Annotated[
        list[KeyType] | None,
        entries(16, "Key types; absent: all.", set_list(**validations(WORKING_KEY_TYPES_RULE))),
    ] = None
    usages: Annotated[
        list[Usage] | None,
        entries(16, "Usages; absent: all.", set_list(**validations(WORKING_USAGES_RULE))),
    ] = None
    max_sensitivity: Annotated[Sensitivity | None, Field(description="Highest sensitivity; absent: Public only.")] = (
        None
    )
    workload_types: Annotated[
        list[WorkloadType] | None,
        entries(32, "Workload types; absent: all.", set_list()),
    ] = None
    compliance: Annotated[
        list[Compliance] | None,
        entries(16, "Certificates that the HSM must hold for this rule.", set_list()),
    ] = None


class Release(Model):
    """Who may bind. Deny by default: no rule, no claim."""

    any_of: Annotated[
        list[ReleaseRule],
        entries(64, "One rule that matches is enough.", atomic_list()),
    ]


class AttestationPolicySpec(Model):
    """What must be proven, and what that releases."""

    model_config = ConfigDict(json_schema_extra=validations(not_yet("components"), not_yet("tee"), not_yet("grants")))
    enforcement: Annotated[Enforcement | None, Field(description="Enforce (when absent) or Audit.")] = None
    freshness: Annotated[Freshness, Field(description="How old proof may grow.")]
    tpm: Annotated[TpmRules, Field(description="Rules for the host's TPM.")]
    hsm: Annotated[HsmRules | None, Field(description="Rules for the token's statement.")] = None
    release: Annotated[Release | None, Field(description="Who may bind; absent: nobody through this policy.")] = None
    components: Annotated[
        list[Later] | None,
        Field(max_length=64, description="Runtime components (later).", json_schema_extra=atomic_list()),
    ] = None
    tee: Annotated[
        list[Later] | None,
        Field(max_length=16, description="Enclave evidence (later).", json_schema_extra=atomic_list()),
    ] = None
    grants: Annotated[
        list[Later] | None, Field(max_length=64, description="Enclave grants (later).", json_schema_extra=atomic_list())
    ] = None
    reference_values: Annotated[
        ReferenceValuesSource | None, Field(description="Signed reference values that add to these rules.")
    ] = None

    def digest(self) -> str:
        """Digest over the canonical JSON of the rules alone; `AttestationPolicy.digest` adds what they lean on."""
        return digest_of(canonical_json(self.dump()))


class PolicyUse(Model):
    """Who leans on this policy."""

    hsms: Annotated[int, Field(ge=0, le=10**6, description="Hsms judged by this policy.")] = 0
    claims: Annotated[int, Field(ge=0, le=10**6, description="HsmClaims that name this policy.")] = 0


class ReferenceValuesStatus(Model):
    """The newest signed reference values that were used. An older version of them is never used again."""

    name: Annotated[ReferenceName, Field(description="Name of the series.")]
    version: Annotated[int, Field(ge=0, le=2**53, description="Highest version used.")]
    digest: Annotated[Sha256Digest, Field(description="Digest of its signed payload.")]
    signed_by: Annotated[
        list[Name],
        Field(max_length=16, description="Keys of the policy that signed it.", json_schema_extra=set_list()),
    ]


class AttestationPolicyStatus(Model):
    """What the operator makes of it."""

    observed_generation: Annotated[int, Field(ge=0, le=2**53, description="Generation last examined.")] = 0
    digest: Annotated[Sha256Digest | None, Field(description="Digest of the rules in force; verdicts name it.")] = None
    used_by: Annotated[PolicyUse | None, Field(description="How many objects lean on this policy.")] = None
    reference_values: Annotated[
        ReferenceValuesStatus | None, Field(description="The newest signed reference values that were used.")
    ] = None
    conditions: Conditions = Field(default_factory=list)


class AttestationPolicy(Model):
    """One AttestationPolicy object, and what it leans on besides its own text.

    The material is no field: it comes from whoever looked it up and verified it, never with the object.
    """

    metadata: ObjectMeta
    spec: AttestationPolicySpec
    status: AttestationPolicyStatus = Field(default_factory=AttestationPolicyStatus)
    _material: PolicyMaterial = PrivateAttr(default=NO_MATERIAL)

    @property
    def material(self) -> PolicyMaterial:
        """Vendors' certificates and signed reference values that the policy names, as of now."""
        return self._material

    def with_material(self, material: PolicyMaterial) -> AttestationPolicy:
        """The same policy leaning on `material`."""
        policy = self.model_copy()
        policy._material = material  # noqa: SLF001 - of our own copy
        return policy

    def digest(self) -> str:
        """Digest over everything that judges: the rules, and what they lean on. Verdicts name it."""
        leans_on = self._material.digests()
        return digest_of(canonical_json({"spec": self.spec.dump(), **leans_on})) if leans_on else self.spec.digest()
