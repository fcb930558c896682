"""HsmClaim: a team's wish for keys in an HSM that has proven itself."""

from __future__ import annotations

import enum
from typing import Annotated

from pydantic import ConfigDict, Field, StringConstraints

from chatelaine.model.common import (
    MAX_CLAIM_KEYS,
    MAX_KEY_VERSIONS,
    Conditions,
    LabelSelector,
    Later,
    Model,
    Name,
    NameRef,
    ObjectMeta,
    Sha256Digest,
    ShortName,
    Text,
    Timestamp,
    Uid,
    atomic_list,
    cel,
    entries,
    map_list,
    not_yet,
    set_list,
    validations,
)
from chatelaine.model.hsm import EpochStatus, Mode, Pkcs11Uri, PolicyStatusRef
from chatelaine.model.identifiers import key_label
from chatelaine.model.keys import WORKING_KEY_TYPE_RULE, WORKING_USAGES_RULE, KeyState, KeyType, Sensitivity, Usage
from chatelaine.model.policy import Compliance, WorkloadType


class Failover(enum.StrEnum):
    """`Hold`: wait for the same HSM. `Rebind`: take another one (with new keys)."""

    HOLD = "Hold"
    REBIND = "Rebind"


class ReclaimPolicy(enum.StrEnum):
    """What happens to the keys when the claim goes."""

    RETAIN = "Retain"
    DESTROY = "Destroy"


class Requirements(Model):
    """What the HSM must offer."""

    compliance: Annotated[
        list[Compliance] | None,
        entries(16, "Certificates that the HSM must hold.", set_list()),
    ] = None
    sensitivity: Annotated[
        Sensitivity | None, Field(description="Sensitivity of what the keys protect; absent: Public.")
    ] = None
    workload_type: Annotated[WorkloadType | None, Field(description="What the keys are for.")] = None


class KeySpec(Model):
    """One named key."""

    model_config = ConfigDict(json_schema_extra=validations(not_yet("rotation")))
    name: Annotated[ShortName, Field(description="Name of the key within the claim.")]
    type: Annotated[
        KeyType, Field(description="Type; immutable for a name.", json_schema_extra=validations(WORKING_KEY_TYPE_RULE))
    ]
    usages: Annotated[
        list[Usage],
        entries(8, "What the key is for.", set_list(**validations(WORKING_USAGES_RULE))),
    ]
    rotation: Annotated[Later | None, Field(description="Rotation (later).")] = None


class ClientSpec(Model):
    """A workload that may use keys of this claim."""

    model_config = ConfigDict(json_schema_extra=validations(not_yet("component")))
    service_account: Annotated[Name, Field(description="Service account of the pods, in the claim's namespace.")]
    pod_selector: Annotated[LabelSelector, Field(description="Labels of the pods.")]
    keys: Annotated[
        list[ShortName],
        entries(16, "Names of keys of this claim.", set_list()),
    ]
    usages: Annotated[
        list[Usage],
        entries(8, "Operations allowed.", set_list(**validations(WORKING_USAGES_RULE))),
    ]
    component: Annotated[Name | None, Field(description="Measured component (later).")] = None


class BindingSpec(Model):
    """The Secret that a workload mounts. It holds no key material."""

    secret_name: Annotated[Name, Field(description="Name of the Secret, in the claim's namespace.")]


class HsmClaimSpec(Model):
    """What a team asks for."""

    model_config = ConfigDict(
        json_schema_extra=validations(
            not_yet("adopt"),
            cel("has(self.selector) != has(self.hsmRef)", "set exactly one of selector and hsmRef"),
            cel(
                "has(self.selector) == has(oldSelf.selector)"
                " && (!has(self.selector) || self.selector == oldSelf.selector)",
                "selector is immutable; create a new claim instead",
            ),
            cel(
                "has(self.hsmRef) == has(oldSelf.hsmRef) && (!has(self.hsmRef) || self.hsmRef == oldSelf.hsmRef)",
                "hsmRef is immutable; create a new claim instead",
            ),
            cel(
                "has(self.requirements) == has(oldSelf.requirements)"
                " && (!has(self.requirements) || self.requirements == oldSelf.requirements)",
                "requirements are immutable; create a new claim instead",
            ),
            cel(
                "has(self.mode) == has(oldSelf.mode) && (!has(self.mode) || self.mode == oldSelf.mode)",
                "mode is immutable; create a new claim instead",
            ),
            cel(
                "!has(self.keys) || !has(oldSelf.keys)"
                " || self.keys.all(k, oldSelf.keys.all(o, o.name != k.name || o.type == k.type))",
                "the type of a key is immutable; add a key of another name instead",
            ),
            cel(
                "!has(self.clients)"
                " || self.clients.all(c, c.keys.all(k, has(self.keys) && self.keys.exists(x, x.name == k)))",
                "a client names a key that this claim does not have",
            ),
        )
    )
    selector: Annotated[
        LabelSelector | None, Field(description="Labels of the Hsms that may serve; or use hsmRef.")
    ] = None
    requirements: Annotated[Requirements | None, Field(description="What the HSM must offer.")] = None
    mode: Annotated[Mode | None, Field(description="Shared (when absent) or Exclusive.")] = None
    hsm_ref: Annotated[NameRef | None, Field(description="One Hsm by name, instead of selector.")] = None
    policy_ref: Annotated[NameRef | None, Field(description="A policy that must hold besides the Hsm's own.")] = None
    failover: Annotated[Failover | None, Field(description="Hold (when absent) or Rebind.")] = None
    adopt: Annotated[Later | None, Field(description="Adoption of retained keys (later).")] = None
    keys: Annotated[
        list[KeySpec] | None,
        Field(max_length=16, description="Keys to make inside the HSM.", json_schema_extra=map_list("name")),
    ] = None
    clients: Annotated[
        list[ClientSpec] | None, Field(max_length=16, description="Who may use them.", json_schema_extra=atomic_list())
    ] = None
    binding: Annotated[BindingSpec | None, Field(description="Secret for workloads.")] = None
    reclaim_policy: Annotated[ReclaimPolicy | None, Field(description="Retain (when absent) or Destroy.")] = None


class HsmRefStatus(Model):
    """The Hsm bound, by name and uid."""

    name: Annotated[Name, Field(description="Name.")]
    uid: Annotated[Uid, Field(description="UID; a new Hsm of the same name is another HSM.")]


class ClaimAllocation(Model):
    """The binding. It changes only as a whole, with sequence + 1."""

    sequence: Annotated[int, Field(ge=1, le=10**6, description="Counts bindings of this claim.")]
    hsm: Annotated[HsmRefStatus, Field(description="The Hsm.")]
    at: Annotated[Timestamp, Field(description="When it was bound.")]
    policies: Annotated[
        list[PolicyStatusRef], Field(max_length=2, description="Policies that held.", json_schema_extra=atomic_list())
    ]
    evidence_digest: Annotated[Sha256Digest, Field(description="Evidence that they held on.")]
    epoch: Annotated[EpochStatus, Field(description="Epoch of that evidence.")]


class KeyVersionStatus(Model):
    """One version of a key. PreActive is an intent: written before the key is made."""

    version: Annotated[int, Field(ge=1, le=10**6, description="Counts up.")]
    state: Annotated[KeyState, Field(description="SP 800-57 state.")]
    sequence: Annotated[int, Field(ge=1, le=10**6, description="The allocation under which it was made.")]
    hsm: Annotated[HsmRefStatus, Field(description="The Hsm that holds it.")]
    pkcs11_uri: Annotated[Pkcs11Uri | None, Field(description="RFC 7512 URI of the private key.")] = None
    public_key: Annotated[
        str | None, StringConstraints(max_length=2048), Field(description="SubjectPublicKeyInfo, PEM.")
    ] = None
    created_at: Annotated[Timestamp | None, Field(description="When the token made it.")] = None
    suspect_since: Annotated[Timestamp | None, Field(description="Since when this version is suspect.")] = None
    reason: Annotated[Text | None, Field(description="Why it is in this state.")] = None
    made_by: Annotated[
        Uid | None, Field(description="UID of the claim that made it, where this one has taken it over.")
    ] = None

    def label(self, claim_uid: str, key: str) -> str:
        """`CKA_LABEL` of this version of `key`, which the claim with `claim_uid` has in its status."""
        return key_label(self.made_by or claim_uid, key, self.version)


class KeyStatus(Model):
    """A key and its versions."""

    name: Annotated[ShortName, Field(description="Key name.")]
    type: Annotated[KeyType, Field(description="Type.")]
    versions: Annotated[
        list[KeyVersionStatus],
        Field(
            max_length=MAX_KEY_VERSIONS, description="Versions, oldest first.", json_schema_extra=map_list("version")
        ),
    ]


class NetworkPolicyRef(Model):
    """A NetworkPolicy that we emitted."""

    namespace: Annotated[ShortName, Field(description="Namespace.")]
    name: Annotated[Name, Field(description="Name.")]


class BindingStatus(Model):
    """Service Binding 'Provisioned Service'."""

    name: Annotated[Name, Field(description="Name of the Secret.")]


class HsmClaimStatus(Model):
    """What was given."""

    observed_generation: Annotated[int, Field(ge=0, le=2**53, description="Generation last examined.")] = 0
    allocation: Annotated[ClaimAllocation | None, Field(description="The binding.")] = None
    binding: Annotated[BindingStatus | None, Field(description="Secret for workloads.")] = None
    keys: Annotated[
        list[KeyStatus],
        Field(max_length=MAX_CLAIM_KEYS, description="Keys and versions.", json_schema_extra=map_list("name")),
    ] = Field(default_factory=list)
    network_policies: Annotated[
        list[NetworkPolicyRef],
        Field(max_length=32, description="NetworkPolicies emitted.", json_schema_extra=map_list("namespace", "name")),
    ] = Field(default_factory=list)
    conditions: Conditions = Field(default_factory=list)


class HsmClaim(Model):
    """One HsmClaim object."""

    metadata: ObjectMeta
    spec: HsmClaimSpec
    status: HsmClaimStatus = Field(default_factory=HsmClaimStatus)
