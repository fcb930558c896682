"""What planning for one claim rests on: a picture of everything about it, frozen."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

from chatelaine.model.claim import HsmClaim
from chatelaine.model.hsm import Adoption, Hsm, Mode
from chatelaine.model.policy import AttestationPolicy
from chatelaine.model.verdict import Outcome
from chatelaine.reconcile.judged import Standing
from chatelaine.reconcile.snapshot import HostObservation, ObservedPolicy


@dataclass(frozen=True)  # no slots: what is looked up by every claim is computed once a view
class HsmView:
    """An Hsm as claims see it. One is made whenever the Hsm or its standing changes, and shared by all snapshots.

    `seats`: claim uid -> mode, from `status.allocations` and from what is about to be committed;
    `pending`: those uids of `seats` whose commit is not confirmed yet;
    `gateway_bound`: a quote of the enrolled host was bound to a key of its gateway.
    """

    hsm: Hsm
    standing: Standing
    policy: AttestationPolicy | None
    host: HostObservation | None
    accounted: frozenset[str] = frozenset()
    seats: Mapping[str, Mode] = field(default_factory=dict)
    pending: frozenset[str] = frozenset()
    gateway_bound: bool = True

    @cached_property
    def exclusive(self) -> frozenset[str]:
        """Uids of the claims that want it alone."""
        return frozenset(uid for uid, mode in self.seats.items() if mode is Mode.EXCLUSIVE)

    @cached_property
    def adoptions(self) -> Mapping[tuple[str, str], tuple[Adoption, ...]]:
        """What its spec lets claims take over, by namespace and name of the claim."""
        found: dict[tuple[str, str], tuple[Adoption, ...]] = {}
        for one in self.hsm.spec.adoptions or ():
            found[one.namespace, one.name] = (*found.get((one.namespace, one.name), ()), one)
        return found

    @cached_property
    def sequences(self) -> Mapping[str, int | None]:
        """The number that each seat was given for, by uid of its claim; one rebuilt from the token may have none."""
        return {seat.claim_uid: seat.sequence for seat in self.hsm.status.allocations}

    @property
    def silent(self) -> bool:
        """Nothing is started there that needs an answer: the last attempt to talk to agent or gateway failed, or
        nobody knows yet whom to believe as its gateway.
        """
        reach = self.host.reach if self.host is not None else None
        return not self.gateway_bound or (reach is not None and reach.status is Outcome.REFUTED)

    @property
    def name(self) -> str:
        """Name of the Hsm."""
        return self.hsm.metadata.name

    @property
    def uid(self) -> str:
        """UID of the Hsm."""
        return self.hsm.metadata.uid


@dataclass(frozen=True, slots=True)
class KeyMadeFacts:
    """A key that the gateway says exists, whole. `spki_pem` is the public half; `at` is when we were told."""

    spki_pem: str
    pkcs11_uri: str
    at: float


@dataclass(frozen=True, slots=True)
class KeyFault:
    """The gateway could not give a key: `damaged` means that an active key is not whole any more."""

    damaged: bool
    message: str


class Presence(enum.StrEnum):
    """What is known of an object. Unknown: no complete list yet; absence must not be acted on."""

    PRESENT = "Present"
    ABSENT = "Absent"
    UNKNOWN = "Unknown"


@dataclass(frozen=True, slots=True)
class ObservedSecret:
    """The Secret of the name that the claim asks for. `owner_uid` and `digest` are read from its metadata."""

    presence: Presence
    owner_uid: str | None = None
    digest: str | None = None


@dataclass(frozen=True, slots=True)
class NamespaceFacts:
    """The claim's namespace."""

    uid: str
    labels: Mapping[str, str]
    deleting: bool = False


@dataclass(frozen=True, slots=True)
class BindingFacts:
    """How workloads reach a gateway: what the binding Secret says. SPKI digests are `sha256:…`, newest first."""

    host: str
    port: int
    ca_bundle_pem: str
    gateway_spkis: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ClaimSnapshot:
    """Everything about one claim.

    `hsms`: all Hsms. `policies`: every AttestationPolicy by name.
    `bound_in_namespace`: policy name -> how many *other* claims of this namespace hold seats on Hsms that it judges.
    `made_keys`, `key_faults`: by key label, from the gateway that is bound now.
    `network_policies`: (namespace, name) -> what stands there, for those labelled with this claim's uid.
    `foreign_allows`: names of policies in the gateway's namespace that let others in (`network.lets_in`).
    `binding`: Hsm name -> how its gateway is reached, at least for the Hsms that this claim has seats on.
    `living`: of the former claims whose keys this one may take over, the uids of those that exist after all.
    """

    now: float
    claim: HsmClaim
    namespace: NamespaceFacts
    hsms: tuple[HsmView, ...]
    policies: Mapping[str, AttestationPolicy] = field(default_factory=dict)
    bound_in_namespace: Mapping[str, int] = field(default_factory=dict)
    made_keys: Mapping[str, KeyMadeFacts] = field(default_factory=dict)
    key_faults: Mapping[str, KeyFault] = field(default_factory=dict)
    secret: ObservedSecret = field(default_factory=lambda: ObservedSecret(Presence.UNKNOWN))
    network_policies: Mapping[tuple[str, str], ObservedPolicy] = field(default_factory=dict)
    foreign_allows: tuple[str, ...] = ()
    binding: Mapping[str, BindingFacts] = field(default_factory=dict)
    living: frozenset[str] = frozenset()
