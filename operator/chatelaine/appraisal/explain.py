"""Why a PCR has another value: which event of the boot log differs from the last trusted boot, or that none explains
it.

An explanation decides nothing. It rests on a verified quote, on a log of which it says where it does not replay to that
quote, and on the last evidence of the same TPM that was trusted. It is short, whatever the host has logged.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from chatelaine.appraisal.event_words import words_of
from chatelaine.evidence import tpm_algorithms as alg
from chatelaine.evidence.errors import Malformed
from chatelaine.evidence.event_log import MAX_LOG_BYTES, Event, EventLog, parse_event_log, replay, replay_steps
from chatelaine.evidence.ima import IMA_PCR
from chatelaine.evidence.tpm_quote import VerifiedQuote
from chatelaine.model.hsm import MAX_SENTENCE_CHARACTERS, MAX_SENTENCES
from chatelaine.model.tpm_policy import Bank
from chatelaine.model.verdict import Finding, Outcome

NOTHING_CHANGED: Final = "What the host measures has not changed since its last trusted evidence; the policy has."

_PCR_CHECK: Final = re.compile(r"pcr [A-Za-z0-9]+:([0-9]{1,2})", re.ASCII)
_NAMES_EVENT: Final = re.compile(r"[Ee]vent [0-9]+ of PCR", re.ASCII)
_Step = tuple[Event, bytes]


@dataclass(frozen=True, slots=True)
class Boot:
    """What one verified quote showed of a boot.

    Attributes:
        bank: the quoted bank.
        pcrs: quoted values by index.
        reset_count: boots of this TPM.
        log: the log that came with it, whether it replays or not: read, or packed (`pack_log`); None: none came.
    """

    bank: Bank
    pcrs: Mapping[int, bytes]
    reset_count: int
    log: EventLog | bytes | None = field(default=None, repr=False)

    @classmethod
    def of(cls, quote: VerifiedQuote, log: EventLog | bytes | None) -> Boot:
        """As quoted."""
        return cls(quote.selection.bank, quote.pcrs, quote.reset_count, log)

    def events(self) -> EventLog | None:
        """The log, if it can be read and has the quoted bank."""
        if self.log is None:
            return None
        try:
            log = self.log if isinstance(self.log, EventLog) else _unpacked(self.log)
        except (Malformed, zlib.error):
            return None
        return log if _bank_id(self.bank) in log.banks else None


def pack_log(log: bytes) -> bytes:
    """A log as it is kept in memory, one for each host: a fifth of its length."""
    return zlib.compress(log, 1)


def _unpacked(log: bytes) -> EventLog:
    return parse_event_log(zlib.decompressobj().decompress(log, MAX_LOG_BYTES + 1))


def refuted_pcrs(findings: Finding) -> frozenset[int]:
    """PCRs that a rule of the policy refused."""
    matches = (_PCR_CHECK.fullmatch(leaf.check) for leaf in findings.leaves() if leaf.outcome is Outcome.REFUTED)
    return frozenset(int(found[1]) for found in matches if found is not None)


def explain(now: Boot, trusted: Boot | None, refused: Collection[int], *, log_asked: bool) -> tuple[str, ...]:
    """At most eight sentences, most important first; none where no PCR has anything to say.

    Args:
        now: the boot that was judged.
        trusted: the last trusted one of this TPM; None: none is known.
        refused: PCRs that the policy refused.
        log_asked: did the policy ask for an event log?
    """
    if trusted is not None and trusted.bank is not now.bank:
        trusted = None
    log = now.events()
    strange = _unexplained(now, log) if log is not None else frozenset()
    moved = {i for i, value in now.pcrs.items() if trusted is not None and trusted.pcrs.get(i, value) != value}
    moved -= {IMA_PCR} - set(refused)
    telling = [
        *sorted(strange),
        *sorted(set(refused) & now.pcrs.keys() - strange),
        *sorted(moved - set(refused) - strange),
    ]
    if not telling:
        return ()
    told = _Told(now, trusted, log, strange)
    sentences = [sentence for index in telling for sentence in told.of(index)]
    sentences += told.at_end(telling, log_asked=log_asked)
    if len(sentences) > MAX_SENTENCES:
        # Whoever extends many PCRs must not push out which event of one of them differs.
        sentences.sort(key=lambda sentence: _NAMES_EVENT.search(sentence) is None)
        left = ", ".join(map(str, telling))
        sentences = [*sentences[: MAX_SENTENCES - 1], f"There is more to say; these PCRs are concerned: {left}."]
    return tuple(map(_bounded, sentences))


class _Told:
    """Sentences about single PCRs."""

    def __init__(self, now: Boot, trusted: Boot | None, log: EventLog | None, strange: Collection[int]) -> None:
        self._now, self._trusted, self._log, self._strange = now, trusted, log, strange
        self._alg = _bank_id(now.bank)
        self._log_before = trusted.events() if trusted is not None else None

    def of(self, index: int) -> list[str]:
        if self._log is None:
            return [self._without_log(index)]
        steps = replay_steps(self._log, self._alg, index)
        if index in self._strange:
            return self._not_explained(index, self._log, steps)
        if self._log_before is None:
            return [self._explained(index, steps)]
        return self._compared(index, steps, self._log_before)

    def at_end(self, telling: Sequence[int], *, log_asked: bool) -> list[str]:
        """What holds for all of them."""
        found = []
        if self._log is None:
            found.append(_no_log(asked=log_asked, sent=self._now.log is not None, bank=self._now.bank))
        if self._trusted is None:
            found.append("No earlier trusted evidence of this TPM is known that it could be compared with.")
        elif any(self._trusted.pcrs.get(index) != self._now.pcrs[index] for index in telling):
            found.append(_between(self._trusted.reset_count, self._now.reset_count))
        return found

    # --- without a log

    def _without_log(self, index: int) -> str:
        value, before = self._now.pcrs[index].hex(), self._before(index)
        if before is None:
            return f"PCR {index} holds {value}."
        if before == self._now.pcrs[index]:
            return f"PCR {index} holds {value}, as at the last trusted evidence."
        return f"PCR {index} holds {value}; at the last trusted evidence it held {before.hex()}."

    def _before(self, index: int) -> bytes | None:
        return self._trusted.pcrs.get(index) if self._trusted is not None else None

    # --- a log that does not replay

    def _not_explained(self, index: int, log: EventLog, steps: Sequence[_Step]) -> list[str]:
        quoted = self._now.pcrs[index]
        reached = next((number for number, (_, value) in enumerate(steps) if value == quoted), None)
        start = replay(EventLog(log.algorithms, (), log.startup_locality, log.digest), self._alg)[index]
        if reached is not None or (steps and quoted == start):
            after = steps[0 if reached is None else reached + 1][0]
            found = (
                f"PCR {index} holds a value that its log does not end with: {self._event(after)} and what follows it"
                " in the log were never extended into the TPM; the log was written to."
            )
            return [found]
        ends = f"the log has no event of it, so it should still hold {start.hex()}"
        if steps:
            ends = f"the log ends at event {steps[-1][0].number} with {steps[-1][1].hex()}"
        said = (
            f"PCR {index} holds a value that its log does not explain: {ends}, the TPM holds {quoted.hex()};"
            " something extended it without an event."
        )
        return [said, *(self._same_events(index, steps, self._log_before) if self._log_before is not None else ())]

    def _same_events(self, index: int, steps: Sequence[_Step], before: EventLog) -> list[str]:
        differing = self._compared(index, steps, before)
        if differing:
            return differing
        return [
            f"The log's events of PCR {index} are those of the last trusted boot, so it was extended after all of them."
        ]

    # --- a log that does

    def _explained(self, index: int, steps: Sequence[_Step]) -> str:
        return (
            f"PCR {index} is what its log leads to ({len(steps)} events), and no log of a trusted boot is known to"
            " compare it with."
        )

    def _compared(self, index: int, steps: Sequence[_Step], before: EventLog) -> list[str]:
        """The first place where the events of one PCR differ, and how much follows."""
        new = [event for event, _ in steps]
        old = [event for event, _ in replay_steps(before, self._alg, index)]
        begin = _common(new, old, self._alg)
        end = _common(new[begin:][::-1], old[begin:][::-1], self._alg)
        added, gone = new[begin : len(new) - end], old[begin : len(old) - end]
        if added and gone:
            more = max(len(added), len(gone)) - 1
            found = (
                f"{self._event(added[0])} has digest {self._digest(added[0])}, at the last trusted boot"
                f" {self._digest(gone[0])}{self._renamed(added[0], gone[0])}"
            )
            return [f"{_capital(found)}{_and_more(more)}."]
        if added:
            found = f"{self._event(added[0])}, digest {self._digest(added[0])}, was not there at the last trusted boot"
            return [f"{_capital(found)}{_and_more(len(added) - 1)}."]
        if gone:
            found = f"{self._event(gone[0])}, digest {self._digest(gone[0])}, of the last trusted boot is missing"
            return [f"{_capital(found)}{_and_more(len(gone) - 1)}."]
        return []

    def _event(self, event: Event) -> str:
        return f"event {event.number} of PCR {event.pcr} ({words_of(event, self._alg)})"

    def _renamed(self, new: Event, old: Event) -> str:
        before = words_of(old, self._alg)
        return f" ({before})" if before != words_of(new, self._alg) else ""

    def _digest(self, event: Event) -> str:
        return event.digest(self._alg).hex()


def _unexplained(now: Boot, log: EventLog) -> frozenset[int]:
    """Quoted PCRs that the log does not lead to."""
    values = replay(log, _bank_id(now.bank))
    return frozenset(index for index, value in now.pcrs.items() if index != IMA_PCR and values[index] != value)


def _common(one: Sequence[Event], other: Sequence[Event], tpm_id: int) -> int:
    """How many events from the start have the same digests."""
    count = 0
    for left, right in zip(one, other, strict=False):
        if left.digest(tpm_id) != right.digest(tpm_id):
            break
        count += 1
    return count


def _no_log(*, asked: bool, sent: bool, bank: Bank) -> str:
    if sent:
        return f"The host's event log cannot be read in bank {bank.value}, so what was measured cannot be told."
    if asked:
        return "The host sent no event log, so what was measured cannot be told."
    return "What was measured cannot be told: the policy asks for no event log (tpm.eventLog)."


def _between(before: int, now: int) -> str:
    if now == before:
        return "The host was not rebooted since its last trusted evidence."
    return f"The host was rebooted since its last trusted evidence (resets of the TPM: {before} then, {now} now)."


def _and_more(count: int) -> str:
    return f"; {count} more of its events differ from there on" if count > 0 else ""


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _bounded(sentence: str) -> str:
    return sentence if len(sentence) <= MAX_SENTENCE_CHARACTERS else f"{sentence[: MAX_SENTENCE_CHARACTERS - 1]}…"


def _bank_id(bank: Bank) -> int:
    return alg.BANKS[bank].tpm_id
