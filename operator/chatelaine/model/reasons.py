"""Every condition type and every reason that is ever written, each with the sentence that explains it.

`docs/reference/conditions.md` is generated from here; a test holds the two together. Findings of appraisal have
reasons of their own (`evidence.errors`), which conditions carry in their message.
"""

from __future__ import annotations

import enum
from typing import Final


class ConditionType(enum.StrEnum):
    """Condition types of our kinds."""

    ENROLLED = "Enrolled"
    REACHABLE = "Reachable"
    ATTESTED = "Attested"
    BOUND = "Bound"
    KEYS_READY = "KeysReady"
    NETWORK_READY = "NetworkReady"
    VALID = "Valid"
    READY = "Ready"
    STALLED = "Stalled"
    PAUSED = "Paused"


CONDITIONS: Final[dict[ConditionType, str]] = {
    ConditionType.ENROLLED: "The host is the one that a person approved, and has proven it.",
    ConditionType.REACHABLE: "Agent and gateway answer, authenticated as this host.",
    ConditionType.ATTESTED: "Fresh evidence meets the policies; on a claim: that of its HSM.",
    ConditionType.BOUND: "The claim has its place on an HSM.",
    ConditionType.KEYS_READY: "Every key asked for is active inside the HSM.",
    ConditionType.NETWORK_READY: "Exactly the claim's clients reach the gateway.",
    ConditionType.VALID: "The policy can be enforced as it is written.",
    ConditionType.READY: "Sums up: the object does what its spec asks.",
    ConditionType.STALLED: "True: no retry will help, a person must act. False: fine, or work goes on.",
    ConditionType.PAUSED: "True: changes are held back by annotation; revocation still acts.",
}


class Reason(enum.StrEnum):
    """Reasons of conditions and Events."""

    PENDING = "Pending"
    # Enrolled
    AWAITING_APPROVAL = "AwaitingApproval"
    AWAITING_READMISSION = "AwaitingReadmission"
    IDENTITY_APPROVED = "IdentityApproved"
    IDENTITY_CONFLICT = "IdentityConflict"
    ENDORSEMENT_REFUSED = "EndorsementRefused"
    ACTIVATION_FAILED = "ActivationFailed"
    READMITTED = "Readmitted"
    # Reachable
    ANSWERS = "Answers"
    UNREACHABLE = "Unreachable"
    NOT_AUTHENTICATED = "NotAuthenticated"
    EVIDENCE_MALFORMED = "EvidenceMalformed"
    # Attested
    EVIDENCE_HOLDS = "EvidenceHolds"
    EVIDENCE_REFUTED = "EvidenceRefuted"
    EVIDENCE_UNDECIDED = "EvidenceUndecided"
    EVIDENCE_EXPIRED = "EvidenceExpired"
    POLICY_CHANGED = "PolicyChanged"
    POLICY_NOT_FOUND = "PolicyNotFound"
    POLICY_INVALID = "PolicyInvalid"
    NOT_ENROLLED = "NotEnrolled"
    AUDIT_ONLY = "AuditOnly"
    # Bound
    BOUND = "Bound"
    NO_SUITABLE_HSM = "NoSuitableHsm"
    WAITING_FOR_ATTESTATION = "WaitingForAttestation"
    RELEASE_REFUSED = "ReleaseRefused"
    HSM_GONE = "HsmGone"
    ADOPTION_PENDING = "AdoptionPending"
    REBINDING = "Rebinding"
    # KeysReady
    KEYS_ACTIVE = "KeysActive"
    KEYS_PENDING = "KeysPending"
    KEY_DAMAGED = "KeyDamaged"
    KEYS_SUSPECT = "KeysSuspect"
    NO_KEYS = "NoKeys"
    KEY_TYPE_CHANGED = "KeyTypeChanged"
    KEYS_RETAINED = "KeysRetained"
    KEY_DESTROYED = "KeyDestroyed"
    KEYS_ADOPTED = "KeysAdopted"
    # NetworkReady
    POLICIES_APPLIED = "PoliciesApplied"
    POLICIES_REMOVED = "PoliciesRemoved"
    NOT_ENFORCEABLE = "NotEnforceable"
    FOREIGN_ALLOW = "ForeignAllow"
    EGRESS_MANAGED = "EgressManaged"
    # Binding Secret
    SECRET_NAME_TAKEN = "SecretNameTaken"  # noqa: S105 - the name of a reason, no secret
    # Valid
    RULES_VALID = "RulesValid"
    RULES_INVALID = "RulesInvalid"
    MATERIAL_UNUSABLE = "MaterialUnusable"
    REFERENCE_VALUES_CHANGED = "ReferenceValuesChanged"
    # Ready, Stalled, Paused
    ALL_READY = "AllReady"
    NOT_READY = "NotReady"
    PROGRESSING = "Progressing"
    DEADLINES_CONTRADICT = "DeadlinesContradict"
    DELETING = "Deleting"
    ALLOCATIONS_REMAIN = "AllocationsRemain"
    PAUSED = "Paused"
    RUNNING = "Running"


EXPLAINED: Final[dict[Reason, str]] = {
    Reason.PENDING: "Not examined yet.",
    Reason.AWAITING_APPROVAL: (
        "The host has shown its identity; a person commits the two digests of the message to spec.identity."
    ),
    Reason.AWAITING_READMISSION: (
        "The token holds keys of ours but the status was lost; re-admit the host by annotation."
    ),
    Reason.IDENTITY_APPROVED: "The approved TPM and HSM attestation key proved themselves by credential activation.",
    Reason.IDENTITY_CONFLICT: (
        "The host shows another identity than the one enrolled; a person decides by changing spec.identity."
    ),
    Reason.ENDORSEMENT_REFUSED: "The policy's endorsement rules do not admit this TPM.",
    Reason.ACTIVATION_FAILED: "The host could not open the credential made for its TPM.",
    Reason.READMITTED: "A person re-admitted the host, and it passed the checks of a first admission.",
    Reason.ANSWERS: "Agent and gateway answer.",
    Reason.UNREACHABLE: "Agent or gateway did not answer in time; it is asked again.",
    Reason.NOT_AUTHENTICATED: "Something answered that is not this host; its answer was dropped.",
    Reason.EVIDENCE_MALFORMED: "The host answered with bytes that are no evidence; it is asked again.",
    Reason.EVIDENCE_HOLDS: "Fresh evidence meets every rule.",
    Reason.EVIDENCE_REFUTED: "Evidence of the enrolled identity proves a deviation; access is cut until re-admission.",
    Reason.EVIDENCE_UNDECIDED: "The evidence does not decide a rule; nothing is released.",
    Reason.EVIDENCE_EXPIRED: "The last proof is older than the policy allows.",
    Reason.POLICY_CHANGED: "Unchanged evidence fails a changed policy; mending the policy restores access.",
    Reason.POLICY_NOT_FOUND: "The named AttestationPolicy does not exist.",
    Reason.POLICY_INVALID: "The named AttestationPolicy is not valid.",
    Reason.NOT_ENROLLED: "The host is not enrolled yet.",
    Reason.AUDIT_ONLY: "A rule fails, but the policy says Audit: nothing is cut.",
    Reason.BOUND: "The claim has its place on an attested HSM.",
    Reason.NO_SUITABLE_HSM: "No Hsm meets the requirements; the message names per Hsm what fails.",
    Reason.WAITING_FOR_ATTESTATION: "A suitable Hsm must first prove itself again.",
    Reason.RELEASE_REFUSED: "No release rule of the policies in force lets this claim bind.",
    Reason.HSM_GONE: "The bound Hsm does not exist any more.",
    Reason.ADOPTION_PENDING: (
        "The claim takes over keys of one that is gone (Hsm.spec.adoptions), and waits for the Hsm that holds them."
    ),
    Reason.REBINDING: "The bound HSM was cut; the claim moves to another one.",
    Reason.KEYS_ACTIVE: "All keys exist inside the HSM.",
    Reason.KEYS_PENDING: "Keys are being made inside the HSM.",
    Reason.KEY_DAMAGED: "A key that was active is not whole in the token any more.",
    Reason.KEYS_SUSPECT: "Keys were in a token whose host was refuted; they are unusable until it is re-admitted.",
    Reason.NO_KEYS: "The claim asks for no keys.",
    Reason.KEY_TYPE_CHANGED: "A key of that name and another type exists; choose another name for the new type.",
    Reason.KEYS_ADOPTED: "Keys of a claim that is gone were taken over.",
    Reason.KEYS_RETAINED: "The keys could not be destroyed; they stand in the Hsm's retained list.",
    Reason.KEY_DESTROYED: "A deactivated key version was destroyed, as asked for by annotation.",
    Reason.POLICIES_APPLIED: "The NetworkPolicies of this claim are in place.",
    Reason.POLICIES_REMOVED: "The network path is closed while the HSM is not trusted.",
    Reason.NOT_ENFORCEABLE: "NetworkPolicies cannot govern this gateway (outside the cluster).",
    Reason.FOREIGN_ALLOW: "Another NetworkPolicy still lets traffic in; the message names it.",
    Reason.EGRESS_MANAGED: (
        "The namespace asks for managed egress: its client pods now reach this gateway and DNS only."
    ),
    Reason.SECRET_NAME_TAKEN: "A Secret of that name exists and is not this claim's; choose another name.",
    Reason.RULES_VALID: "The policy can be enforced.",
    Reason.RULES_INVALID: "The policy contradicts itself; the message says where.",
    Reason.MATERIAL_UNUSABLE: (
        "What the policy names (certificates, signed reference values) is absent or refused, as the message says."
        " It trusts nothing anew."
    ),
    Reason.REFERENCE_VALUES_CHANGED: "The policy judges by another version of its signed reference values.",
    Reason.ALL_READY: "Every condition of this object that must hold does.",
    Reason.NOT_READY: "A condition of this object does not hold; the message names it.",
    Reason.PROGRESSING: "A retry may help; work goes on.",
    Reason.DEADLINES_CONTRADICT: "intervalSeconds must be shorter than the policy's maxAgeSeconds.",
    Reason.DELETING: "The object is being deleted.",
    Reason.ALLOCATIONS_REMAIN: "Deletion waits for the claims that are bound here.",
    Reason.PAUSED: "The annotation chatelaine.dev/paused stops changes; revocation still acts.",
    Reason.RUNNING: "Not paused.",
}
