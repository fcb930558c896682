"""Which rounds of an Hsm are stored. No I/O, no clock.

A host is asked every few seconds and mostly shows the same, so:

* of each boot under each policy the first trusted round is stored at once, and the newest one when trust ends, when a
  PCR moved, or when the stored one is an hour old; in between it waits in memory;
* every refuting round is stored, after the trusted one before it; so is one that a changed policy refuses, or that a
  policy in Audit would refuse, unless the last stored one showed the same.
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

from chatelaine.appraisal.stored import Asked, RoundKind, StoredCase, StoredRound, encode_appraisal
from chatelaine.evidence.bundle import QuoteEvidence
from chatelaine.evidence.ima import IMA_PCR
from chatelaine.evidence.inventory import InventoryKey
from chatelaine.model.identifiers import canonical_json
from chatelaine.model.verdict import Verdict
from chatelaine.reconcile.judged import Judged, Standing

LAST_TRUSTED_SECONDS: Final = 3600.0
"""How old the newest stored trusted round grows; an operator that is killed loses no more than that."""
MAX_TRUSTED_LIST_BYTES: Final = 256 * 1024
"""A longer IMA list of a trusted round is left out: a thousand hosts show one after each start."""
GROUP_CHARACTERS: Final = 16


@dataclass(frozen=True, slots=True)
class JudgedRound:
    """A round that was judged, as it waits in memory.

    Attributes:
        hsm: name of the Hsm.
        kind: what it led to.
        asked: the question.
        evidence: the answer, without its boot event log.
        packed_log: the log, packed; shared with what is known of the host anyhow.
        envelope: signed reference values that the policy leaned on; None: it leans on none.
        judged: the verdict, and what it rests on.
        inventory: the keys in the token.
        facts: what the evidence showed, as in the status.
        received_at: seconds since the epoch.
    """

    hsm: str
    kind: RoundKind
    asked: Asked
    evidence: QuoteEvidence
    packed_log: bytes | None
    envelope: bytes | None
    judged: Judged
    inventory: tuple[InventoryKey, ...]
    facts: tuple[str, ...]
    received_at: float

    @property
    def group(self) -> str:
        """The same for rounds of one boot under one policy."""
        epoch, policy = self.judged.appraisal.epoch, self.judged.case.stamp.digest
        told = canonical_json([epoch.reset_count, epoch.restart_count, epoch.generation, policy])
        return hashlib.sha256(told).hexdigest()[:GROUP_CHARACTERS]

    @property
    def boot(self) -> Mapping[int, bytes]:
        """Reported PCRs that do not move by themselves."""
        return {index: value for index, value in self.evidence.pcrs.items() if index != IMA_PCR}


def kind_of(standing: Standing) -> RoundKind | None:
    """What a round that was judged now led to; None where there is nothing to keep."""
    if standing.judged is None:
        return None
    found = standing.judged.appraisal.verdict
    if found is Verdict.TRUSTED:
        return RoundKind.TRUSTED if standing.verdict is Verdict.TRUSTED else None
    if found is not Verdict.UNTRUSTED:
        return None
    if standing.blocked_by_policy:
        return RoundKind.BLOCKED
    return RoundKind.REFUTED if standing.sticky else RoundKind.AUDITED


@dataclass(slots=True)
class Course:
    """What of one Hsm is stored, and the newest trusted round that is not yet."""

    group: str = ""
    boot: Mapping[int, bytes] | None = None
    stored_at: float = 0.0
    waiting: JudgedRound | None = None
    _other: object = None

    def take(self, round_: JudgedRound) -> tuple[JudgedRound, ...]:
        """The next round of this Hsm; what is to be stored now, in this order."""
        if round_.kind is RoundKind.TRUSTED:
            return self._trusted(round_)
        shown = (round_.kind, round_.group, round_.facts)
        if round_.kind is not RoundKind.REFUTED and shown == self._other:
            return ()
        self._other = shown
        before, self.waiting = self.waiting, None
        return (before, round_) if before is not None else (round_,)

    def _trusted(self, round_: JudgedRound) -> tuple[JudgedRound, ...]:
        self._other = None
        same_boot = self.boot is None or round_.boot == self.boot
        fresh = round_.received_at - self.stored_at < LAST_TRUSTED_SECONDS
        if round_.group == self.group and same_boot and fresh:
            self.boot, self.waiting = round_.boot, round_
            return ()
        # The last one of another boot, or of another policy.
        before = self.waiting if self.waiting is not None and self.waiting.group == self.group != round_.group else None
        self.group, self.boot, self.stored_at, self.waiting = round_.group, round_.boot, round_.received_at, None
        return (before, round_) if before is not None else (round_,)


def to_store(round_: JudgedRound, build: str, *, with_list: bool = True) -> tuple[StoredRound, tuple[bytes, ...]]:
    """A round and its parts, as they are stored by version `build` of this program; `with_list`: its IMA list, too."""
    log = zlib.decompress(round_.packed_log) if round_.packed_log is not None else None
    evidence, case = replace(round_.evidence, event_log=log), round_.judged.case
    roots = case.policy.material.endorsement_roots
    reference = round_.envelope if case.policy.material.reference is not None else None
    listed = evidence.ima_list
    too_long = round_.kind is RoundKind.TRUSTED and len(listed or b"") > MAX_TRUSTED_LIST_BYTES
    long = {hashlib.sha256(part).digest(): part for part in (log, listed, reference, *roots) if part is not None}
    left_out = (hashlib.sha256(listed).digest(),) if listed is not None and (too_long or not with_list) else ()
    stored = StoredRound(
        hsm=round_.hsm,
        kind=round_.kind,
        received_ms=int(round_.received_at * 1000),
        build=build,
        asked=round_.asked,
        evidence=evidence.encode(),
        parts=tuple(sorted(long)),
        left_out=left_out,
        case=StoredCase.of(
            case,
            (key.label for key in round_.inventory),
            reference=hashlib.sha256(reference).digest() if reference is not None else None,
            roots=[hashlib.sha256(root).digest() for root in roots],
        ),
        appraisal=encode_appraisal(round_.judged.appraisal),
    )
    return stored, tuple(part for digest, part in long.items() if digest not in left_out)
