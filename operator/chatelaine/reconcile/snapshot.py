"""What a reconcile looks at: frozen pictures of the world, made by the controller from its cache and memory.

Nothing here is read twice from elsewhere and nothing is fetched: a decision rests on one snapshot. Times are seconds
since the epoch (UTC). Snapshots hold references to shared cached objects, so 10,000 of them cost little.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from chatelaine.appraisal.appraise import pcrs_of
from chatelaine.appraisal.explain import Boot
from chatelaine.appraisal.ima_history import ImaFindings, ImaHistory
from chatelaine.evidence.bundle import VerifiedEvidence
from chatelaine.model.hsm import EnrolledIdentity, Hsm, Mode, TokenStatus
from chatelaine.model.policy import AttestationPolicy
from chatelaine.model.reasons import Reason
from chatelaine.model.verdict import Outcome

NOTHING_READ: Final = ImaFindings({})

# --- hosts: the controller's memory, empty right after a start ------------------------------------------------


class HostKeys(NamedTuple):
    """The two keys that evidence is verified under: TPM name of the AK (hexadecimal), thumbprint of the HSM's key."""

    ak_name_hex: str
    attestation_key_thumbprint: str

    @classmethod
    def enrolled(cls, identity: EnrolledIdentity) -> HostKeys:
        """Those that stand in the status."""
        return cls(identity.ak_name, identity.attestation_key.thumbprint)


@dataclass(frozen=True, slots=True)
class PresentedIdentity:
    """What a host showed of itself over its authenticated connection.

    `activated`: credential activation has just proven that exactly this AK lives beside exactly this EK.
    Public areas are TPMT_PUBLIC, SPKIs and certificates are DER, digests and thumbprints are `sha256:…`.
    `ek_certificate` is as it was shown, not verified; None: the TPM has none.
    """

    ek_digest: str
    ek_public: bytes
    ak_public: bytes
    ak_name_hex: str
    attestation_key_spki: bytes
    attestation_key_thumbprint: str
    token: TokenStatus
    agent_spki: bytes
    gateway_spki: bytes
    activated: bool
    ek_certificate: bytes | None = None

    @property
    def keys(self) -> HostKeys:
        """The keys that evidence of this identity is verified under."""
        return HostKeys(self.ak_name_hex, self.attestation_key_thumbprint)


@dataclass(frozen=True, slots=True)
class AuthenticatedRefusal:
    """Evidence that is the enrolled identity's own and yet was refused while it was being verified.

    Made from an `evidence.errors.EvidenceError` whose `authenticated` is true (another token's serial, another PCR
    selection). Errors that are not authenticated never come here: they end in `Reach`.
    """

    reason: str
    detail: str


@dataclass(frozen=True, slots=True)
class EvidenceRound:
    """A round whose evidence was authenticated under `keys`, whatever appraisal then says of it.

    Whose host that is, only a comparison of `keys` with an identity tells: see `HostObservation.round_of`.
    `presented` is set when the round was made together with a new look at the identity (enrolment, re-admission).
    `accounted`: `standing.accounted_labels` when the evidence was asked for. A round outlives the keys in its
    inventory: one that has rightly been destroyed since must not count against the host.
    `wanted_log`: the boot event log was asked for.
    `ima`: what the IMA list shows, by digest of each policy that asked; judged when the list was read, and its entries
    are not kept. `ima_before`: where the list was left before this round; None: it was read from its beginning.
    `flawed_log`: a boot event log that does not replay, packed (`appraisal.explain.pack_log`), to be explained.
    """

    evidence: VerifiedEvidence | AuthenticatedRefusal
    evidence_digest: str
    received_at: float
    keys: HostKeys
    presented: PresentedIdentity | None = None
    accounted: frozenset[str] = frozenset()
    wanted_log: bool = False
    ima: ImaFindings = NOTHING_READ
    ima_before: ImaHistory | None = None
    flawed_log: bytes | None = None

    def covers(self, policy: AttestationPolicy) -> bool:
        """Was everything asked for that `policy` judges? A refusal covers all."""
        if isinstance(self.evidence, AuthenticatedRefusal):
            return True
        tpm, selection = policy.spec.tpm, self.evidence.quote.selection
        quoted = selection.bank is tpm.pcrs.bank and pcrs_of(policy.spec) <= set(selection.indices)
        logged = tpm.event_log is None or self.wanted_log
        return quoted and logged and (tpm.ima is None or policy.digest() in self.ima.by_policy)


class TrustedBoot(NamedTuple):
    """What the last trusted evidence under these keys showed of a boot: a later refusal is explained by it."""

    keys: HostKeys
    boot: Boot


@dataclass(frozen=True, slots=True)
class Reach:
    """How the last attempt to talk to agent and gateway ended. Strangers, garbage and silence end here.

    `reason` is one of Answers, Unreachable, NotAuthenticated, EvidenceMalformed.
    """

    status: Outcome
    reason: Reason
    message: str
    since: float


@dataclass(frozen=True, slots=True)
class HostObservation:
    """All that this process has learnt of one host since it started."""

    presented: PresentedIdentity | None = None
    last_round: EvidenceRound | None = None
    admission: EvidenceRound | None = None
    """The last round that was made with a `presented` of its own (the answer to `RequestIdentity`): a plain round
    that follows at once must not take the proof away that a re-admission waits for."""
    reach: Reach | None = None
    proven_until: float | None = None
    """`Standing.valid_until` of the last Trusted judgement that this process made; it outlives the round itself."""
    own_policies_until: Mapping[str, float] = field(default_factory=dict)
    """By uid of each policy that claims here have of their own: until when evidence holds under it that was judged. It
    outlives a round, or material, that leaves such a policy undecided (`served.proofs`)."""
    activation_failed: str | None = None
    """Why the last credential activation failed, as a sentence."""
    last_trusted: TrustedBoot | None = None
    """Of this process, or of one before it that stored its evidence."""

    def round_of(self, identity: EnrolledIdentity | None) -> EvidenceRound | None:
        """The newest round verified under exactly the keys of `identity`; what anybody else has shown is not its."""
        if identity is None:
            return None
        keys = HostKeys.enrolled(identity)
        own = [found for found in (self.last_round, self.admission) if found is not None and found.keys == keys]
        return max(own, key=lambda found: found.received_at, default=None)

    def proof_of(self, presented: PresentedIdentity) -> EvidenceRound | None:
        """The round that proves both keys of `presented`: verified evidence, made when it was presented."""
        proof = self.admission
        if proof is None or proof.presented is None or not isinstance(proof.evidence, VerifiedEvidence):
            return None
        shown = (proof.presented.ek_digest, proof.presented.keys, proof.keys)
        return proof if shown == (presented.ek_digest, presented.keys, presented.keys) else None


# --- hsm ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class BoundClaim:
    """A claim that has, had, or may have keys on this token.

    `key_labels` are the labels of all its versions on this token that are not Destroyed, intents included.
    `exists` is False for an allocation whose claim is proven gone (after the first complete list).
    `allocated_to`, `sequence`: uid of the Hsm and number in the claim's `status.allocation`, None without one.
    """

    uid: str
    namespace: str
    name: str
    exists: bool
    mode: Mode = Mode.SHARED
    key_labels: frozenset[str] = frozenset()
    allocated_to: str | None = None
    sequence: int | None = None
    allocation_generation: int = 0
    """`status.allocation.epoch.generation`: how many admissions of the host this claim has seen."""


@dataclass(frozen=True, slots=True)
class ObservedPolicy:
    """A NetworkPolicy of ours as it stands. `digest` is our annotation; `drifted`: its spec is not what we applied."""

    digest: str
    drifted: bool = False


@dataclass(frozen=True, slots=True)
class OperatorPods:
    """Where the operator runs, so that gateways let it in."""

    namespace: str
    match_labels: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class HsmSnapshot:
    """Everything about one Hsm.

    `watching_since`: when this process began to ask this host. Right after a start nothing is known, and what stands
    in the status may be stamped up to 300 s ago; nothing is cut for that before one `maxAgeSeconds` of watching.
    `token_labels`: labels of the keys in the token, None while unknown.
    `claims`: every claim in `status.allocations`, every claim with key versions here, and every claim whose uid
    stands in a label of `token_labels`.
    `claims_read`: all claims are known. Until then a key that no known claim has may be one of theirs.
    `network_policies`: (namespace, name) -> what stands there, for those that belong to this Hsm.
    `gateway_shared`: another Hsm names the same gateway pods.
    `readmission_asked_at`: when the readmit annotation's present value was first seen. What a host showed before a
    person asked, perhaps in the middle of its repair, neither admits nor refutes it.
    """

    now: float
    hsm: Hsm
    policy: AttestationPolicy | None
    host: HostObservation | None
    watching_since: float
    claims: tuple[BoundClaim, ...] = ()
    token_labels: frozenset[str] | None = None
    operator: OperatorPods | None = None
    network_policies: Mapping[tuple[str, str], ObservedPolicy] = field(default_factory=dict)
    gateway_shared: bool = False
    readmission_asked_at: float = 0.0
    claims_read: bool = True


# --- policies -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class PolicySnapshot:
    """One AttestationPolicy and how many objects name it."""

    now: float
    policy: AttestationPolicy
    hsms: int = 0
    claims: int = 0
