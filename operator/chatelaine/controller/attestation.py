"""The prober of one host: asks for evidence at its interval and on every signal, and remembers what came.

It judges nothing: an authenticated round becomes the new observation, everything else only a note on how the host is
reached, and is counted. `Surroundings.observed` is told of both; the verdict follows from there in the same turn of
the loop.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Final

from chatelaine.appraisal.appraise import pcrs_of, selection_of
from chatelaine.appraisal.ima_history import rule_of
from chatelaine.controller.effort import Effort
from chatelaine.controller.gateways import GatewayLink
from chatelaine.controller.hosts import HostMemory, KnownLogs, Surroundings, agent_client
from chatelaine.controller.ima_reading import ImaQuestion
from chatelaine.controller.interrogation import (
    ActivationRefused,
    Question,
    Told,
    check_hierarchy,
    enrolled_of,
    interrogate,
    present,
)
from chatelaine.controller.pace import MeasurementPace
from chatelaine.evidence.bundle import EnrolledIdentity, VerifiedEvidence
from chatelaine.evidence.errors import AttestationKeyMismatch, EvidenceError, Malformed, StatementPcrMismatch
from chatelaine.evidence.ima import IMA_PCR
from chatelaine.model.backoff import backoff_seconds
from chatelaine.model.hsm import Hsm
from chatelaine.model.identifiers import agent_server_name, digest_of
from chatelaine.model.reasons import Reason
from chatelaine.model.verdict import Outcome
from chatelaine.reconcile.enrolment import same
from chatelaine.reconcile.snapshot import EvidenceRound, HostKeys
from chatelaine.telemetry.log import logger
from chatelaine.wire.messages import MAX_EVIDENCE_BODY_BYTES, SILENCE_SECONDS, Change, ChangeKind
from chatelaine.wire.peer import PeerClient, PeerError, PeerMalformed, PeerNotAuthenticated

FIRST_PAUSE_SECONDS: Final = 0.25
LONGEST_PAUSE_SECONDS: Final = 10.0
LEAST_GAP_SECONDS: Final = 0.02
"""Between two rounds, and two lines of a change stream, however a host cries; what a round costs makes the gap before
the next longer (`Effort`)."""
IDENTITY_PAUSE_SECONDS: Final = 2.0
"""Least time between two looks at an identity; doubled up to the longest pause while it stays the same and is not
the enrolled one."""
RACES: Final = 3
"""A PCR may honestly move between statement and quote; so often the host is asked again at once."""

_log = logger(__name__)


class Prober:
    """Runs while its Hsm exists."""

    def __init__(self, memory: HostMemory, link: GatewayLink, around: Surroundings) -> None:
        self._memory = memory
        self._link = link
        self._around = around
        self._signal = asyncio.Event()
        self._identity_wanted = False
        self._identity_at = float("-inf")
        self._identity_pause = IDENTITY_PAUSE_SECONDS
        self._failures = 0
        self._agent: tuple[object, PeerClient] | None = None
        self._pace = MeasurementPace()
        self._measured: asyncio.TimerHandle | None = None
        self._effort = Effort()
        self.last_round_at: float = around.clock()
        """Monotonic end of the last round, with or without a usable answer; before the first one, our start."""

    def ask(self, *, identity: bool = False) -> None:
        """Make a round now (after the one under way); with `identity` a whole look at who the host is."""
        if identity:
            self._identity_wanted = True
            if self._around.clock() - self._identity_at < self._identity_pause:
                return
        self._signal.set()

    async def run(self) -> None:
        """Ask until cancelled."""
        await self._recall()
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._rounds())
                group.create_task(self._changes())
        finally:
            if self._measured is not None:
                self._measured.cancel()
            if self._agent is not None:
                await self._agent[1].close()

    async def _recall(self) -> None:
        """What was trusted before we began: the first round may already have to be explained by it."""
        hsm = self._around.hsm(self._memory.name)
        boot = await self._around.recall(hsm) if hsm is not None else None
        if boot is not None and self._memory.observation.last_trusted is None:
            self._memory.observation = replace(self._memory.observation, last_trusted=boot)

    # --- when

    async def _rounds(self) -> None:
        while True:
            await self._round()
            await asyncio.sleep(max(LEAST_GAP_SECONDS, self._effort.rest_seconds))
            try:
                async with asyncio.timeout(self._pause()):
                    await self._signal.wait()
            except TimeoutError:
                pass
            self._signal.clear()

    def _pause(self) -> float:
        hsm = self._around.hsm(self._memory.name)
        interval = float(hsm.spec.attestation.interval_seconds) if hsm is not None else LONGEST_PAUSE_SECONDS
        pause = interval * (0.8 + 0.2 * self._around.jitter())
        if self._failures:
            pause = min(pause, self._back_off(self._failures))
        if hsm is not None and self._wants_identity(hsm):
            due = self._identity_at + self._identity_pause - self._around.clock()
            pause = min(pause, max(0.0, due))
        return pause

    def _back_off(self, failures: int) -> float:
        return backoff_seconds(
            failures,
            first_seconds=FIRST_PAUSE_SECONDS,
            longest_seconds=LONGEST_PAUSE_SECONDS,
            jitter=self._around.jitter(),
        )

    async def _changes(self) -> None:
        """The agent's own word that something changed."""
        failures = 0
        while True:
            # Another process may count from the same number again: a new stream says nothing of what was before it.
            counter = -1
            try:
                agent = await self._client()
                if agent is not None:
                    async for change in agent.lines("/v1/changes", Change, silence_seconds=SILENCE_SECONDS):
                        failures = 0
                        if change.only_ima:
                            self._file_measured()
                        elif change.kind is not ChangeKind.ALIVE or change.counter != counter:
                            # The first line too: whatever was missed before it, a round tells.
                            self._signal.set()
                        counter = change.counter
                        # Lines that nobody waits for fill up on the host's side: one that never stops takes no more.
                        await asyncio.sleep(LEAST_GAP_SECONDS)
            except PeerError as error:
                _log.debug("change stream ended", hsm=self._memory.name, error=str(error))
            except Exception as error:  # noqa: BLE001 - a stream that breaks something is opened anew; rounds go on by the interval
                _log.exception("fault in a change stream", error, hsm=self._memory.name)
            failures += 1
            await asyncio.sleep(self._back_off(failures))

    def _file_measured(self) -> None:
        """A file was measured on the host, and nothing else: of interest if a policy looks at PCR 10, and at a pace."""
        hsm = self._around.hsm(self._memory.name)
        policies = self._around.policies(self._memory.name)
        if hsm is None or self._measured is not None or not any(IMA_PCR in pcrs_of(p.spec) for p in policies):
            return
        longest = float(hsm.spec.attestation.interval_seconds)
        delay = self._pace.delay_seconds(self._around.clock(), longest)
        self._measured = asyncio.get_running_loop().call_later(delay, self._look_at_measured)

    def _look_at_measured(self) -> None:
        self._measured = None
        self._signal.set()

    # --- one round

    async def _round(self) -> None:
        started = self._around.clock()
        self._effort = Effort()
        try:
            await self._ask(started)
        except ActivationRefused as refused:
            self._note_activation(str(refused), started)
        except EvidenceError as error:
            reason = Reason.EVIDENCE_MALFORMED if isinstance(error, Malformed) else Reason.NOT_AUTHENTICATED
            if isinstance(error, AttestationKeyMismatch):
                # Another TPM, or a cleared one: whoever it is shows itself, and a person sees the conflict.
                self._identity_wanted = True
            self._drop(error.reason, reason, str(error), started)
        except PeerError as error:
            if isinstance(error, PeerMalformed):
                # It was read to its bound, or to its end, before it was refused.
                self._effort.received(MAX_EVIDENCE_BODY_BYTES)
            self._drop(type(error).__name__, _reach_reason(error), str(error), started)
        except Exception as error:  # noqa: BLE001 - whatever one host's answer breaks, the others are asked on
            _log.exception("fault in a round", error, hsm=self._memory.name)
            said = f"the answer could not be handled ({type(error).__name__}); the operator's log says more"
            self._drop("Fault", Reason.EVIDENCE_MALFORMED, said, started)
        else:
            self._failures = 0
        self.last_round_at = self._around.clock()

    async def _ask(self, started: float) -> None:
        hsm = self._around.hsm(self._memory.name)
        agent = await self._client()
        if hsm is None or agent is None or hsm.metadata.uid != self._memory.uid:
            return
        spki = await self._link.proven_key()
        if not self._wants_identity(hsm):
            await self._interrogate(hsm, agent, spki, started)
        elif started - self._identity_at >= self._identity_pause:
            await self._identify(hsm, agent, spki, started)
        elif not self._conflicts(hsm):
            await self._interrogate(hsm, agent, spki, started)

    def _conflicts(self, hsm: Hsm) -> bool:
        """Another identity than the enrolled one was shown: until it shows the enrolled one, no quote can be its."""
        enrolled, presented = hsm.status.identity, self._memory.observation.presented
        return enrolled is not None and presented is not None and not same(enrolled, presented)

    def _wants_identity(self, hsm: Hsm) -> bool:
        return self._identity_wanted or self._conflicts(hsm)

    async def _identify(self, hsm: Hsm, agent: PeerClient, spki: bytes, started: float) -> None:
        self._identity_wanted = False
        self._identity_at = started
        presented = await present(agent, spki)
        before = self._memory.observation.presented
        again = before is not None and replace(before, agent_spki=presented.agent_spki) == presented
        enrolled = hsm.status.identity
        if again and (enrolled is None or not same(enrolled, presented)):
            self._identity_pause = min(LONGEST_PAUSE_SECONDS, self._identity_pause * 2)
        else:
            # The enrolled host is only asked for a re-admission, and a person waits for that.
            self._identity_pause = IDENTITY_PAUSE_SECONDS
        identity = EnrolledIdentity(
            ak_public=presented.ak_public,
            ak_name=bytes.fromhex(presented.ak_name_hex),
            attestation_key_spki=presented.attestation_key_spki,
        )
        told = await self._evidence(hsm, agent, spki, identity)
        proof: EvidenceRound | None = None
        if told is not None:
            if told.verified is not None:
                check_hierarchy(told.verified, presented)
            proof = replace(told.round, presented=presented)
        # Only now: what is remembered of an identity has passed every check that its evidence can pass.
        self._memory.observation = replace(
            self._memory.observation, presented=presented, admission=proof, activation_failed=None
        )
        if proof is not None and told is not None and not self._conflicts(hsm):
            await self._remember(hsm, agent, replace(told, round=proof), spki, started)
        else:
            self._memory.reached(Outcome.HOLDS, Reason.ANSWERS, "Agent and gateway answer.", self._around.wall())
            self._around.observed(self._memory.name, started)

    async def _interrogate(self, hsm: Hsm, agent: PeerClient, spki: bytes, started: float) -> None:
        enrolled = hsm.status.identity
        if enrolled is None:
            # Nothing can be authenticated yet; who the host is comes first.
            if self._memory.observation.presented is None:
                await self._identify(hsm, agent, spki, started)
            return
        serial = hsm.status.token.serial if hsm.status.token is not None else None
        told = await self._evidence(hsm, agent, spki, enrolled_of(enrolled, serial))
        if told is not None:
            await self._remember(hsm, agent, told, spki, started)

    async def _evidence(self, hsm: Hsm, agent: PeerClient, spki: bytes, identity: EnrolledIdentity) -> Told | None:
        for attempt in range(RACES):
            now = self._around.wall()
            question = self._question(hsm, spki, identity, now)
            if question is None:
                return None
            try:
                return await interrogate(agent, question, identity, now=now)
            except StatementPcrMismatch:
                if attempt == RACES - 1:
                    raise
        return None

    def _question(self, hsm: Hsm, spki: bytes, identity: EnrolledIdentity, now: float) -> Question | None:
        name = hsm.metadata.name
        policies = self._around.policies(name)
        selection = selection_of([policy.spec for policy in policies])
        if selection is None:
            return None
        policies = [policy for policy in policies if policy.spec.tpm.pcrs.bank is selection.bank]
        known = self._memory.logs
        if known is None or known.keys != _keys(identity):
            known = KnownLogs(_keys(identity))
        # A list is not read by rules that lack a part: it would be for nothing, and where it was left would be lost.
        whole = [policy for policy in policies if not policy.material.missing]
        found = ((policy, rule_of(policy, at=int(now))) for policy in whole)
        rules = {policy.digest(): rule for policy, rule in found if rule is not None}
        wants_log = any(policy.spec.tpm.event_log is not None for policy in policies)
        return Question(
            hsm.metadata.uid,
            spki,
            selection,
            self._around.accounted(name),
            wants_log=wants_log,
            known_log=known.log() if wants_log else None,
            ima=ImaQuestion(rules, known.ima) if rules else None,
            effort=self._effort,
        )

    # --- what is remembered

    async def _remember(self, hsm: Hsm, agent: PeerClient, told: Told, spki: bytes, started: float) -> None:
        """A round of the enrolled identity, or of the first one shown while none is enrolled."""
        memory, metrics = self._memory, self._around.metrics
        memory.observation = replace(memory.observation, last_round=_sharing(memory.observation.last_round, told.round))
        enrolled = hsm.status.identity
        proven = told.verified is not None and enrolled is not None and told.round.keys == HostKeys.enrolled(enrolled)
        if proven and enrolled is not None:
            memory.attested(enrolled, spki)
            self._keep_logs(told)
        memory.reached(Outcome.HOLDS, Reason.ANSWERS, "Agent and gateway answer.", self._around.wall())
        metrics.rounds.labels("authenticated" if told.verified is not None else "refused").inc()
        metrics.attest_seconds.observe(self._around.clock() - started)
        memory.told = told
        with self._effort.counted():
            self._around.observed(memory.name, started)
        if proven:
            # Only over a key that the enrolled host has just bound in a quote: a stolen leaf ends with its day.
            name = agent_server_name(memory.name)
            await self._around.renew(agent, "/v1/leaf", name, told.agent_spki, told.agent_not_after)

    def _keep_logs(self, told: Told) -> None:
        """What the enrolled host need not send again; where its list shows nothing now, it was left where it was."""
        known, log = self._memory.logs, told.evidence.event_log
        mine = known if known is not None and known.keys == told.round.keys else None
        ima = told.ima or (mine.ima if mine is not None else None)
        if mine is not None and log is not None and mine.log() == log:
            self._memory.logs = replace(mine, ima=ima)
        else:
            self._memory.logs = KnownLogs.after(told.round.keys, log, ima)

    def _note_activation(self, why: str, started: float) -> None:
        self._failures += 1
        self._around.metrics.dropped.labels("ActivationRefused").inc()
        self._memory.observation = replace(self._memory.observation, activation_failed=why)
        self._around.observed(self._memory.name, started)

    def _drop(self, code: str, reason: Reason, message: str, started: float) -> None:
        """What is not shown to be this host's changes how it is reached, and nothing else."""
        self._failures += 1
        self._around.metrics.rounds.labels("dropped").inc()
        self._around.metrics.dropped.labels(code).inc()
        self._link.doubt()
        if self._memory.reached(Outcome.REFUTED, reason, message, self._around.wall()):
            _log.warning("no usable answer", hsm=self._memory.name, reason=reason.value, error=message)
            self._around.observed(self._memory.name, started)

    async def _client(self) -> PeerClient | None:
        hsm, context = self._around.hsm(self._memory.name), self._around.context()
        if hsm is None or context is None:
            return None
        where = (hsm.spec.agent, id(context))
        if self._agent is None or self._agent[0] != where:
            old, self._agent = self._agent, (where, agent_client(hsm, context))
            if old is not None:
                await old[1].close()
        return self._agent[1]


def _sharing(before: EvidenceRound | None, now: EvidenceRound) -> EvidenceRound:
    """`now`, with the boot log that is in memory already: the events of one take a hundred kilobytes."""
    old, new = before.evidence if before is not None else None, now.evidence
    if not isinstance(old, VerifiedEvidence) or not isinstance(new, VerifiedEvidence):
        return now
    if old.boot_log is None or old.boot_log != new.boot_log:
        return now
    return replace(now, evidence=replace(new, boot_log=old.boot_log))


def _keys(identity: EnrolledIdentity) -> HostKeys:
    return HostKeys(identity.ak_name.hex(), digest_of(identity.attestation_key_spki))


def _reach_reason(error: PeerError) -> Reason:
    if isinstance(error, PeerNotAuthenticated):
        return Reason.NOT_AUTHENTICATED
    return Reason.EVIDENCE_MALFORMED if isinstance(error, PeerMalformed) else Reason.UNREACHABLE
