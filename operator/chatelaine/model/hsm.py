"""Hsm: one token of the pool, its host's standing, and who holds a place on it."""

from __future__ import annotations

import enum
from typing import Annotated, Final

from pydantic import ConfigDict, Field, StringConstraints

from chatelaine.model.common import (
    MAX_ALLOCATIONS,
    Conditions,
    LabelSelector,
    Model,
    Name,
    NameRef,
    ObjectMeta,
    Port,
    Sha256Digest,
    ShortName,
    Text,
    Timestamp,
    Uid,
    atomic_list,
    cel,
    map_list,
    set_list,
    validations,
)
from chatelaine.model.keys import KeyState, KeyType, Sensitivity
from chatelaine.model.policy import Compliance
from chatelaine.model.tpm_policy import ReferenceName
from chatelaine.model.verdict import Epoch, Verdict

MAX_SENTENCES: Final = 8
MAX_SENTENCE_CHARACTERS: Final = 512
"""Of an explanation."""
MAX_RETAINED_KEYS: Final = 64
"""Key versions that are kept track of for one claim that is gone."""

HostName = Annotated[
    str, StringConstraints(min_length=1, max_length=253, pattern=r"^[A-Za-z0-9]([-A-Za-z0-9.:]*[A-Za-z0-9])?$")
]
Cidr = Annotated[str, StringConstraints(min_length=3, max_length=43, pattern=r"^[0-9a-fA-F.:]+/[0-9]{1,3}$")]
Pkcs11Uri = Annotated[str, StringConstraints(max_length=512, pattern=r"^pkcs11:[^\s]*$")]


class Cordon(enum.StrEnum):
    """`Enabled`: no new claims are bound; those bound stay."""

    ENABLED = "Enabled"
    DISABLED = "Disabled"


class Mode(enum.StrEnum):
    """How a claim shares its HSM."""

    SHARED = "Shared"
    EXCLUSIVE = "Exclusive"


class ApprovedIdentity(Model):
    """The host that a person approved. Both values stand in the AwaitingApproval message."""

    ek_digest: Annotated[
        Sha256Digest, Field(description="SHA-256 of the TPM endorsement key's SubjectPublicKeyInfo (DER).")
    ]
    attestation_key_thumbprint: Annotated[
        Sha256Digest, Field(description="SHA-256 of the HSM attestation key's SubjectPublicKeyInfo (DER).")
    ]


class GatewayService(Model):
    """A gateway inside the cluster. Its addresses come from the Service's EndpointSlices."""

    namespace: Annotated[ShortName, Field(description="Namespace of Service and pods.")]
    name: Annotated[Name, Field(description="Name of the Service.")]
    pod_selector: Annotated[LabelSelector, Field(description="Labels of the gateway's pods, for NetworkPolicies.")]
    pod_port: Annotated[Port, Field(description="Port of the pod (not of the Service).")]


class GatewayExternal(Model):
    """A gateway outside the cluster."""

    host: Annotated[HostName, Field(description="Host name or address that the operator and clients dial.")]
    port: Annotated[Port, Field(description="TCP port.")]
    cidrs: Annotated[
        list[Cidr] | None,
        Field(
            min_length=1,
            max_length=16,
            description="Addresses for egress rules.",
            json_schema_extra=set_list(
                **validations(cel("self.all(c, isCIDR(c))", "not an address range; write it like 192.0.2.10/32"))
            ),
        ),
    ] = None


class GatewayEndpoint(Model):
    """Exactly one of service and external."""

    model_config = ConfigDict(
        json_schema_extra=validations(
            cel("has(self.service) != has(self.external)", "set exactly one of service and external")
        )
    )
    service: Annotated[GatewayService | None, Field(description="A gateway in this cluster.")] = None
    external: Annotated[GatewayExternal | None, Field(description="A gateway outside this cluster.")] = None


class AgentEndpoint(Model):
    """Where the host's agent listens."""

    host: Annotated[HostName, Field(description="Host name or address that the operator dials.")]
    port: Annotated[Port, Field(description="TCP port.")]


class HsmAttestation(Model):
    """How this host is attested."""

    policy_ref: Annotated[NameRef, Field(description="AttestationPolicy that judges this host.")]
    interval_seconds: Annotated[
        int,
        Field(
            ge=1,
            le=3600,
            description="Longest time between two rounds; must be shorter than the policy's maxAgeSeconds.",
        ),
    ]


class Capacity(Model):
    """How much this token takes."""

    claims: Annotated[int, Field(ge=0, le=MAX_ALLOCATIONS, description="Most claims bound at once.")]


class Offers(Model):
    """What this HSM is offered for. Authors can only narrow what the policy's tables give."""

    compliance: Annotated[
        list[Compliance] | None,
        Field(
            min_length=1,
            max_length=16,
            description="Certificates offered; each must also stand in the policy's table.",
            json_schema_extra=set_list(),
        ),
    ] = None
    max_sensitivity: Annotated[Sensitivity | None, Field(description="Highest sensitivity; absent: Public.")] = None
    key_types: Annotated[
        list[KeyType] | None,
        Field(
            min_length=1,
            max_length=16,
            description="Key types; absent: all that the token can make.",
            json_schema_extra=set_list(),
        ),
    ] = None


class Adoption(Model):
    """An administrator's word that a claim takes over the keys of one that is gone."""

    claim_uid: Annotated[Uid, Field(description="UID of the claim that made the keys, as their labels say.")]
    namespace: Annotated[ShortName, Field(description="Namespace of the claim that takes them over.")]
    name: Annotated[Name, Field(description="Its name.")]
    suspect_since: Annotated[
        Timestamp | None, Field(description="Since when these keys are suspect; a restore must not wash that off.")
    ] = None


class HsmSpec(Model):
    """One token, where its host is reached, and what it is offered for."""

    token: Annotated[
        Pkcs11Uri,
        Field(
            description="RFC 7512 URI of the token; never a PIN.",
            json_schema_extra=validations(
                cel(
                    "!self.contains('pin-value') && !self.contains('pin-source')",
                    "a token URI must not carry a PIN; the gateway reads it from a file",
                ),
                cel(
                    "self.contains('token=') || self.contains('serial=')",
                    "a token URI must name its token by token=… or serial=…; slots change between starts",
                ),
            ),
        ),
    ]
    identity: Annotated[ApprovedIdentity | None, Field(description="The approved host; absent: AwaitingApproval.")] = (
        None
    )
    gateway: Annotated[GatewayEndpoint, Field(description="Where the gateway is reached.")]
    agent: Annotated[AgentEndpoint, Field(description="Where the agent is reached.")]
    attestation: Annotated[HsmAttestation, Field(description="How this host is attested.")]
    cordoned: Annotated[Cordon | None, Field(description="Enabled: no new claims.")] = None
    capacity: Annotated[Capacity | None, Field(description="Absent: 100 claims.")] = None
    offers: Annotated[Offers | None, Field(description="What this HSM is offered for.")] = None
    adoptions: Annotated[
        list[Adoption] | None,
        Field(
            max_length=MAX_ALLOCATIONS,
            description="Which claims take over keys of claims that are gone, as after a restore.",
            json_schema_extra=map_list("claimUid"),
        ),
    ] = None


class AttestationKeyStatus(Model):
    """The HSM's own attestation key."""

    thumbprint: Annotated[Sha256Digest, Field(description="SHA-256 of its SubjectPublicKeyInfo (DER).")]


class EnrolledIdentity(Model):
    """Who this host is, written once."""

    ek_digest: Annotated[Sha256Digest, Field(description="SHA-256 of the endorsement key's SubjectPublicKeyInfo.")]
    ak_name: Annotated[
        str,
        StringConstraints(min_length=68, max_length=100, pattern=r"^[0-9a-f]+$"),
        Field(description="TPM name of the attestation key, hexadecimal."),
    ]
    ak_public: Annotated[
        str,
        StringConstraints(min_length=1, max_length=2048),
        Field(description="TPMT_PUBLIC of the attestation key, base64."),
    ]
    attestation_key: Annotated[AttestationKeyStatus, Field(description="The HSM's attestation key.")]
    attestation_key_public: Annotated[
        str,
        StringConstraints(min_length=1, max_length=1024),
        Field(description="SubjectPublicKeyInfo of the HSM's attestation key, base64."),
    ]
    enrolled_at: Annotated[Timestamp, Field(description="When the identity was written.")]


class TokenStatus(Model):
    """What the token said of itself."""

    manufacturer: Annotated[Text, Field(description="CK_TOKEN_INFO.manufacturerID.")]
    model: Annotated[Text, Field(description="CK_TOKEN_INFO.model.")]
    serial: Annotated[Text, Field(description="CK_TOKEN_INFO.serialNumber, pinned at enrolment.")]
    firmware: Annotated[Text, Field(description="Firmware version.")]
    mechanisms_digest: Annotated[Sha256Digest, Field(description="Digest of the mechanism list.")]
    key_types: Annotated[
        list[KeyType] | None,
        Field(max_length=16, description="Key types that the token can make.", json_schema_extra=set_list()),
    ] = None


class PolicyStatusRef(Model):
    """Which policy judged."""

    name: Annotated[Name, Field(description="Name.")]
    uid: Annotated[Uid, Field(description="UID.")]
    generation: Annotated[int, Field(ge=0, le=2**53, description="Generation.")]
    digest: Annotated[Sha256Digest, Field(description="Digest of the rules.")]


class ReferenceStatus(Model):
    """Which signed reference values judged."""

    name: Annotated[ReferenceName, Field(description="Name of the series.")]
    version: Annotated[int, Field(ge=0, le=2**53, description="Its version.")]
    digest: Annotated[Sha256Digest, Field(description="Digest of the signed payload.")]


class EpochStatus(Model):
    """TPM clock counters and the number of admissions."""

    reset_count: Annotated[int, Field(ge=0, le=2**32 - 1, description="TPM resets.")]
    restart_count: Annotated[int, Field(ge=0, le=2**32 - 1, description="TPM restarts.")]
    generation: Annotated[int, Field(ge=1, le=2**31, description="Admissions of this identity.")]

    def epoch(self) -> Epoch:
        """As the value the pure rooms use."""
        return Epoch(self.reset_count, self.restart_count, self.generation)


class AttestationStatus(Model):
    """The verdict that is in force."""

    verdict: Annotated[Verdict, Field(description="Trusted, Untrusted or Unknown.")]
    reason: Annotated[str, StringConstraints(max_length=64), Field(description="Code of the deciding finding.")] = ""
    policy: Annotated[PolicyStatusRef, Field(description="Which policy judged.")]
    reference: Annotated[
        ReferenceStatus | None, Field(description="Which version of its signed reference values judged; absent: none.")
    ] = None
    evidence_digest: Annotated[
        Sha256Digest, Field(description="Digest of the evidence judged; a refuted one is what readmit must name.")
    ]
    compared: Annotated[
        list[Text], Field(max_length=64, description="What was compared.", json_schema_extra=atomic_list())
    ] = Field(default_factory=list)
    facts: Annotated[
        list[Text],
        Field(
            max_length=64,
            description="What the evidence showed, less nonce and clock: tells a changed host from a changed policy.",
            json_schema_extra=atomic_list(),
        ),
    ] = Field(default_factory=list)
    explanation: Annotated[
        list[Annotated[str, StringConstraints(max_length=MAX_SENTENCE_CHARACTERS)]],
        Field(
            max_length=MAX_SENTENCES,
            description="Of refused evidence: which event of the boot log differs from the last trusted boot, or which"
            " PCR was extended without an event. Names marked as unchecked are the host's own word.",
            json_schema_extra=atomic_list(),
        ),
    ] = Field(default_factory=list)
    epoch: Annotated[EpochStatus, Field(description="Epoch of the evidence.")]
    valid_until: Annotated[
        Timestamp, Field(description="A hard end; stamped at most every 300 s while nothing changes.")
    ]
    suspect_since: Annotated[Timestamp | None, Field(description="Since when keys of this token are suspect.")] = None


class Allocation(Model):
    """A place on this token. The claim's uid is the key; names are for people."""

    claim_uid: Annotated[Uid, Field(description="UID of the claim.")]
    namespace: Annotated[ShortName, Field(description="Namespace of the claim.")]
    name: Annotated[Name, Field(description="Name of the claim.")]
    mode: Annotated[Mode, Field(description="Shared or Exclusive.")]
    sequence: Annotated[
        int | None, Field(ge=1, le=10**6, description="The allocation of the claim that this place was given for.")
    ] = None
    at: Annotated[Timestamp, Field(description="When it was given.")]


class RetainedKey(Model):
    """One key version that outlived its claim."""

    name: Annotated[ShortName, Field(description="Key name.")]
    version: Annotated[int, Field(ge=1, le=10**6, description="Key version.")]
    state: Annotated[KeyState, Field(description="State when it was retained.")]


class Retained(Model):
    """Keys of a claim that is gone."""

    claim_uid: Annotated[Uid, Field(description="UID of the claim that made them.")]
    namespace: Annotated[ShortName, Field(description="Its namespace.")]
    namespace_uid: Annotated[Uid | None, Field(description="UID of its namespace.")] = None
    name: Annotated[Name, Field(description="Its name.")]
    keys: Annotated[
        list[RetainedKey],
        Field(max_length=MAX_RETAINED_KEYS, description="Key versions.", json_schema_extra=map_list("name", "version")),
    ]
    at: Annotated[Timestamp, Field(description="When they were retained.")]
    adopted_by: Annotated[
        Uid | None, Field(description="UID of the one claim that has taken these keys over; no other may.")
    ] = None


class HsmStatus(Model):
    """What the operator knows of this token."""

    observed_generation: Annotated[int, Field(ge=0, le=2**53, description="Generation last examined.")] = 0
    identity: Annotated[EnrolledIdentity | None, Field(description="Who this host is; written once.")] = None
    ek_certificate: Annotated[
        str | None,
        Field(
            min_length=1,
            max_length=12288,
            description="Certificate over the endorsement key (DER, base64), as the TPM showed it.",
        ),
    ] = None
    token: Annotated[TokenStatus | None, Field(description="What the token said of itself.")] = None
    attestation: Annotated[AttestationStatus | None, Field(description="The verdict in force.")] = None
    allocations: Annotated[
        list[Allocation],
        Field(
            max_length=MAX_ALLOCATIONS, description="Claims with a place here.", json_schema_extra=map_list("claimUid")
        ),
    ] = Field(default_factory=list)
    retained: Annotated[
        list[Retained],
        Field(
            max_length=MAX_ALLOCATIONS,
            description="Keys that outlived their claims.",
            json_schema_extra=map_list("claimUid"),
        ),
    ] = Field(default_factory=list)
    conditions: Conditions = Field(default_factory=list)


class Hsm(Model):
    """One Hsm object."""

    metadata: ObjectMeta
    spec: HsmSpec
    status: HsmStatus = Field(default_factory=HsmStatus)
