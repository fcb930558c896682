"""What this process knows of one HSM host, and how it is reached. All of it may be lost: it is learnt again."""

from __future__ import annotations

import ssl
import zlib
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from chatelaine.appraisal.explain import Boot, pack_log
from chatelaine.appraisal.ima_history import ImaHistory
from chatelaine.controller.interrogation import Told
from chatelaine.evidence.bundle import VerifiedEvidence
from chatelaine.model.hsm import EnrolledIdentity, Hsm
from chatelaine.model.identifiers import ANNOTATION_READMIT, agent_server_name, gateway_server_name
from chatelaine.model.policy import AttestationPolicy
from chatelaine.model.reasons import Reason
from chatelaine.model.verdict import Outcome
from chatelaine.reconcile.claim_snapshot import KeyFault, KeyMadeFacts
from chatelaine.reconcile.snapshot import HostKeys, HostObservation, Reach, TrustedBoot
from chatelaine.telemetry.metrics import OperatorMetrics
from chatelaine.wire.messages import MAX_CONTROL_BODY_BYTES, MAX_EVIDENCE_BODY_BYTES
from chatelaine.wire.peer import PeerClient, Target

AGENT_SECONDS: Final = 5.0
"""Bound on one answer of an agent; a slow TPM takes one second for a quote."""
GATEWAY_SECONDS: Final = 3.0
KEY_SECONDS: Final = 30.0
"""Bound on making one key: RSA on a slow token."""
OLD_GATEWAY_KEYS: Final = 1
"""Gateway keys that are named beside the present one in binding Secrets."""


async def nothing_stored(_: Hsm) -> TrustedBoot | None:
    """What is remembered without a store."""
    return None


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What hosts need of the operator. Callbacks are synchronous and return at once.

    Attributes:
        hsm: the Hsm object as cached.
        policies: the policies whose PCRs a quote of this Hsm must cover, the Hsm's own first.
        accounted: labels of the keys that rightly are in the token of this Hsm, as far as is known now.
        addresses: where the gateway of this Hsm answers: host and port, best first.
        recall: what was trusted last before this process began, of an Hsm that is enrolled.
        observed: the observation changed: Hsm name, and the moment (monotonic) of the answer that changed it.
        context: TLS client context with our leaf; None while there is none.
        renew: renew the peer's leaf if two thirds of its life are over: client, path, server name, the key and the
            end of the certificate that it has just shown. Failures are noted, not raised.
        clock: monotonic seconds. wall: seconds since the epoch. jitter: random number in [0, 1).
    """

    hsm: Callable[[str], Hsm | None]
    policies: Callable[[str], Sequence[AttestationPolicy]]
    accounted: Callable[[str], frozenset[str]]
    addresses: Callable[[Hsm], Sequence[tuple[str, int]]]
    observed: Callable[[str, float], None]
    context: Callable[[], ssl.SSLContext | None]
    renew: Callable[[PeerClient, str, str, bytes, int], Awaitable[None]]
    clock: Callable[[], float]
    wall: Callable[[], float]
    jitter: Callable[[], float]
    metrics: OperatorMetrics
    recall: Callable[[Hsm], Awaitable[TrustedBoot | None]] = nothing_stored


@dataclass(frozen=True, slots=True)
class KnownLogs:
    """What a host need not send again. Whose it is, `keys` say: nobody else's log or list is taken for it.

    `event_log`: packed; a log of 50 KB takes 10. `ima`: where its list was left.
    """

    keys: HostKeys
    event_log: bytes | None = None
    ima: ImaHistory | None = None

    @classmethod
    def after(cls, keys: HostKeys, event_log: bytes | None, ima: ImaHistory | None) -> KnownLogs:
        """What an authenticated round has shown."""
        return cls(keys, zlib.compress(event_log, 1) if event_log is not None else None, ima)

    def log(self) -> bytes | None:
        """The boot event log."""
        return zlib.decompress(self.event_log) if self.event_log is not None else None


@dataclass(slots=True)
class HostMemory:
    """One host. Frozen pictures of it go into snapshots."""

    name: str
    uid: str
    watching_since: float
    observation: HostObservation = field(default_factory=HostObservation)
    gateway_spkis: tuple[bytes, ...] = ()
    """Attested keys of the enrolled host's gateway, newest first."""
    made_keys: dict[str, KeyMadeFacts] = field(default_factory=dict)
    key_faults: dict[str, KeyFault] = field(default_factory=dict)
    logs: KnownLogs | None = None
    told: Told | None = None
    """The last round as it came, until it was judged: what is stored of it is more than a judgement needs."""
    _labels: tuple[object, frozenset[str]] | None = None
    _readmission: tuple[str, float] = ("", 0.0)
    _attested_as: HostKeys | None = None

    @property
    def token_labels(self) -> frozenset[str] | None:
        """Labels of the keys in the token by the last evidence; None while unknown."""
        seen = self.observation
        round_ = seen.last_round or seen.admission
        if round_ is None or not isinstance(round_.evidence, VerifiedEvidence):
            return None
        inventory = round_.evidence.inventory
        # Decoded inventories are shared between rounds as long as the token's keys stay the same.
        if self._labels is None or self._labels[0] is not inventory:
            self._labels = (inventory, frozenset(key.label for key in inventory))
        return self._labels[1]

    def trusted_boot(self) -> TrustedBoot | None:
        """What the last round showed of the boot, now that it was judged and is trusted."""
        round_ = self.observation.last_round
        if round_ is None or not isinstance(round_.evidence, VerifiedEvidence):
            return self.observation.last_trusted
        boot_log, logs = round_.evidence.boot_log, self.logs
        packed = logs.event_log if logs is not None and logs.keys == round_.keys else None
        log = (packed or boot_log.log) if boot_log is not None else None
        return TrustedBoot(round_.keys, Boot.of(round_.evidence.quote, log))

    def packed_log(self, told: Told) -> bytes | None:
        """The boot event log of a round, the one that is in memory anyhow if it can be."""
        log, known = told.evidence.event_log, self.logs
        if log is None:
            return None
        if told.verified is not None and known is not None and known.keys == told.round.keys:
            return known.event_log
        return pack_log(log)

    def readmission_asked_at(self, hsm: Hsm, now: float) -> float:
        """When this process first saw the readmit annotation's present value."""
        value = hsm.metadata.annotations.get(ANNOTATION_READMIT, "")
        if value != self._readmission[0]:
            self._readmission = (value, now)
        return self._readmission[1]

    def attested(self, identity: EnrolledIdentity, gateway_spki: bytes) -> None:
        """A quote of the enrolled `identity` was bound to this key; keys of an earlier identity are forgotten."""
        if self._attested_as != HostKeys.enrolled(identity):
            self.gateway_spkis, self._attested_as = (), HostKeys.enrolled(identity)
        if not self.gateway_spkis or self.gateway_spkis[0] != gateway_spki:
            older = tuple(spki for spki in self.gateway_spkis if spki != gateway_spki)
            self.gateway_spkis = (gateway_spki, *older[:OLD_GATEWAY_KEYS])

    def reached(self, status: Outcome, reason: Reason, message: str, now: float) -> bool:
        """Note how the last attempt ended; tells whether that is news."""
        before = self.observation.reach
        if before is not None and (before.status, before.reason) == (status, reason):
            return False
        self.observation = replace(self.observation, reach=Reach(status, reason, message[:512], now))
        return True


def agent_client(hsm: Hsm, context: ssl.SSLContext) -> PeerClient:
    """A client of the host's agent."""
    endpoint = hsm.spec.agent
    target = Target(endpoint.host, endpoint.port, agent_server_name(hsm.metadata.name))
    return PeerClient(target, context, timeout_seconds=AGENT_SECONDS, max_answer_bytes=MAX_EVIDENCE_BODY_BYTES)


def gateway_client(
    name: str,
    address: tuple[str, int],
    context: ssl.SSLContext,
    *,
    seconds: float,
    admits: Callable[[bytes], bool] | None = None,
) -> PeerClient:
    """A client of the host's gateway at one of its addresses; `admits`: see `PeerClient`."""
    target = Target(address[0], address[1], gateway_server_name(name))
    return PeerClient(target, context, timeout_seconds=seconds, max_answer_bytes=MAX_CONTROL_BODY_BYTES, admits=admits)
