"""Reads a host's IMA list for one round: from where it was left, piece by piece, off the event loop.

1. a round is asked for from the offset that is known; its quote tells boot and bank;
2. an offset of another boot, or one that the host has lost, or policies that have not judged the beginning, or a grace
   that has ended since: the whole list is read;
3. what is longer than one piece is fetched first, then a round is asked for again, over the little that came since;
4. some prefix of what came must replay to the quoted PCR 10; none: asked again, from the beginning.

Nothing that is read here is believed before step 4, and nothing of it is kept but where it ended and what it showed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

from chatelaine.appraisal.ima_history import ImaFindings, ImaFold, ImaHistory, unread
from chatelaine.appraisal.ima_rules import ImaRule
from chatelaine.controller.effort import Effort
from chatelaine.evidence.bundle import LogFlaw, QuoteEvidence, VerifiedEvidence
from chatelaine.evidence.errors import EvidenceError, ImaNoPrefix, ImaProgressLost, Malformed, Oversized
from chatelaine.evidence.ima import (
    MAX_IMA_BYTES,
    MAX_IMA_CHUNK_BYTES,
    ImaProgress,
    VerifiedIma,
    extend,
    verify_ima,
)
from chatelaine.wire.messages import ImaRequest, ImaResponse
from chatelaine.wire.peer import PeerClient, PeerUnreachable

MAX_PIECES: Final = 2 * MAX_IMA_BYTES // MAX_IMA_CHUNK_BYTES
LIST_SECONDS: Final = 60.0
"""Bound on what fetching one whole list takes the host. What it takes us is not its fault: after a restart hundreds of
hosts show their lists at once, and if waiting for each other counted, none would ever be done."""
_UNSEEN: Final = 2**62


@dataclass(frozen=True, slots=True)
class ImaQuestion:
    """How a list is judged, by digest of the policy, and what is known of it."""

    rules: Mapping[str, ImaRule]
    history: ImaHistory | None = None


class ImaReading:
    """One round's way through a list. `offset_bytes` and `epoch` are what the next answer must go on from."""

    def __init__(self, agent: PeerClient, question: ImaQuestion, effort: Effort) -> None:
        self._agent = agent
        self._effort = effort
        self._rules = question.rules
        self._known = question.history
        self.before: ImaHistory | None = self._known if self._known is not None and self._counts(self._known) else None
        """From where this round reads; None: from the list's beginning."""
        self._at: ImaProgress | None = self.before.progress if self.before is not None else None
        self._pieces: list[bytes] = []
        self._fold: ImaFold | None = None
        self._flaw: EvidenceError | None = None
        self.history: ImaHistory | None = None
        """Where the list is left now, once a quote has vouched for it."""

    def _counts(self, known: ImaHistory) -> bool:
        """Have all of today's rules judged what came before, and would they say the same today?"""
        judged = known.findings.by_policy.keys() >= self._rules.keys()
        return judged and not any(rule.ended_since(known.judged_at) for rule in self._rules.values())

    @property
    def offset_bytes(self) -> int:
        """Where the next piece begins."""
        return self._at.offset_bytes if self._at is not None else 0

    @property
    def epoch(self) -> str:
        """The boot in which the offset counts."""
        return f"{self._at.reset_count}.{self._at.restart_count}" if self._at is not None else ""

    async def follow(self, verified: VerifiedEvidence, evidence: QuoteEvidence, *, more: bool) -> bool:
        """Take a round's answer in; False: ask again, from where this now stands.

        Raises:
            PeerError: the list is not to be had.
        """
        if evidence.ima_list is None:
            return True
        try:
            return await self._follow(verified, evidence, evidence.ima_list, more=more)
        except EvidenceError as error:
            # What was read on does not fit: only the whole list can tell, and it is read once.
            self._flaw, whole = error, self.before is None
            self._start_anew()
            return whole

    async def _follow(self, verified: VerifiedEvidence, evidence: QuoteEvidence, piece: bytes, *, more: bool) -> bool:
        if self._at is not None and not self._at.belongs_to(verified.quote):
            self._start_anew()
        if evidence.ima_offset != self.offset_bytes:
            if evidence.ima_offset:
                raise Malformed(
                    "the IMA list goes on from elsewhere", expected=self.offset_bytes, found=evidence.ima_offset
                )
            self._start_anew()
        if len(piece) > MAX_IMA_CHUNK_BYTES:
            raise Oversized("a piece of the IMA list is too long", expected=f"at most {MAX_IMA_CHUNK_BYTES} bytes")
        at = self._at = self._at or ImaProgress.at_start_of(verified.quote)
        fold = self._fold = self._fold or self._new_fold(verified, at)
        try:
            found = await self._effort.look_at(len(piece), verify_ima, piece, verified.quote, at)
        except EvidenceError:
            if not more:
                raise
            await self._catch_up(at, fold)
            return False
        self._pieces.append(piece)
        findings = await self._effort.look_at(len(piece), _judged, fold, found)
        judged_at = max((rule.at for rule in self._rules.values()), default=0)
        self.history, self._flaw = ImaHistory(found.progress, findings, judged_at), None
        return True

    async def _catch_up(self, at: ImaProgress, fold: ImaFold) -> None:
        """Everything that is there by now, piece by piece. What comes after that fits the next answer."""
        await self._effort.take_turn()
        left = LIST_SECONDS
        for _ in range(MAX_PIECES):
            said, took = await self._piece(at.offset_bytes, left)
            left -= took
            if said.offset != at.offset_bytes:
                raise ImaProgressLost("the list began anew while it was read")
            before = at
            at = await self._effort.look_at(len(said.piece), _extended, fold, before, said.piece)
            self._pieces.append(said.piece[: at.offset_bytes - before.offset_bytes])
            self._at = at
            if not said.more:
                return
            if at == before:
                raise Malformed("an entry of the IMA list is longer than a piece of it")
        raise Oversized("the IMA list comes in too many pieces", expected=f"at most {MAX_PIECES}")

    async def _piece(self, offset_bytes: int, left_seconds: float) -> tuple[ImaResponse, float]:
        """One piece, and the seconds that the host took for it."""
        clock = asyncio.get_running_loop().time
        began = clock()
        try:
            async with asyncio.timeout(left_seconds):
                said = await self._agent.call("POST", "/v1/ima", ImaRequest(offset=offset_bytes), ImaResponse)
        except TimeoutError as error:
            raise PeerUnreachable(f"the IMA list did not come within {LIST_SECONDS:g} s") from error
        self._effort.received(said.size_bytes)
        return said.message, clock() - began

    def _new_fold(self, verified: VerifiedEvidence, at: ImaProgress) -> ImaFold:
        if self.before is not None:
            return ImaFold(self._rules, verified.quote, at.entries, self.before.findings)
        same_boot = self._known is not None and self._known.progress.belongs_to(verified.quote)
        # What was never seen in this boot may be as old as the boot: a changed policy refuses it, not a changed host.
        seen = self._known.progress.entries if self._known is not None and same_boot else _UNSEEN
        return ImaFold(self._rules, verified.quote, 0, seen_entries=seen)

    def _start_anew(self) -> None:
        self.before = self._at = self._fold = None
        self._pieces = []

    async def result(
        self, verified: VerifiedEvidence, evidence: QuoteEvidence
    ) -> tuple[VerifiedEvidence, QuoteEvidence, ImaFindings]:
        """The round with all that was read for it, and what the list shows. Judged entries are not in it."""
        if self.history is None:
            if self._flaw is None and evidence.ima_list is not None:
                self._flaw = ImaNoPrefix("the list of measurements grew faster than it was read")
            flaw = LogFlaw.of(self._flaw) if self._flaw is not None else None
            shown = replace(verified, ima_flaw=flaw)
            known = self._known.findings if self._known is not None and self._same_boot(verified) else ImaFindings({})
            return shown, evidence, unread(self._rules, known, shown)
        begins = self.before.progress if self.before is not None else ImaProgress.at_start_of(verified.quote)
        ima = VerifiedIma((), self.history.progress, begins.entries)
        read = b"".join(self._pieces)
        whole = replace(evidence, ima_offset=begins.offset_bytes, ima_list=read)
        digest = await self._effort.look_at(len(read), whole.evidence_digest)
        return replace(verified, ima=ima, evidence_digest=digest), whole, self.history.findings

    def _same_boot(self, verified: VerifiedEvidence) -> bool:
        return self._known is not None and self._known.progress.belongs_to(verified.quote)


def _extended(fold: ImaFold, at: ImaProgress, piece: bytes) -> ImaProgress:
    after, entries = extend(at, piece)
    fold.take(entries)
    return after


def _judged(fold: ImaFold, found: VerifiedIma) -> ImaFindings:
    fold.take(found.entries)
    return fold.end()
