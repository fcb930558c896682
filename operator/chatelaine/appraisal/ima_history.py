"""What a host's IMA list has shown so far: it is judged part by part, and judged entries are not kept.

A list only grows within one boot, so what it has refuted under a policy stays refuted under that very policy, and an
accepted entry need not be looked at again until a grace ends. Entries are judged in groups that are counted from the
list's beginning: the answer does not depend on the pieces in which the list came.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from chatelaine.appraisal.ima_rules import ImaRule, by_time_alone, ima_rule
from chatelaine.appraisal.rules import flawed
from chatelaine.evidence.bundle import VerifiedEvidence
from chatelaine.evidence.ima import ImaEntry, ImaProgress, VerifiedIma
from chatelaine.evidence.tpm_quote import VerifiedQuote
from chatelaine.model.policy import AttestationPolicy
from chatelaine.model.verdict import Finding, Outcome

GROUP_ENTRIES: Final = 4096
CHECK: Final = "ima"


@dataclass(frozen=True, slots=True)
class ImaFindings:
    """What the list shows, by digest of the policy that judged.

    Attributes:
        by_policy: the finding over the whole list so far.
        deviates: digests of policies that refuse an entry which was measured after the last one that was seen before
            the policy changed, or a grace ended: the host has changed, not only what is asked of it.
    """

    by_policy: Mapping[str, Finding]
    deviates: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class ImaHistory:
    """Where a list was left, and what it had shown by then. Small, whatever the list's length.

    Attributes:
        progress: where it was left.
        findings: over all of it so far.
        judged_at: seconds since the epoch; graces that end later may refuse what was good. 0: not known.
    """

    progress: ImaProgress
    findings: ImaFindings
    judged_at: int = 0


def rule_of(policy: AttestationPolicy, *, at: int) -> ImaRule | None:
    """How `policy` judges what ran; None if it does not."""
    rules, reference = policy.spec.tpm.ima, policy.material.reference
    if rules is None:
        return None
    return ima_rule(rules, reference.files if reference is not None else None, at=at)


@dataclass(slots=True)
class ImaFold:
    """Judges the parts of a list as they come.

    Attributes:
        rules: by digest of the policy.
        quote: of the boot that the list belongs to.
        from_entry: number of the first entry that will come.
        before: what the entries before that one have shown.
        seen_entries: entries below this number had been seen before the policies changed.
    """

    rules: Mapping[str, ImaRule]
    quote: VerifiedQuote
    from_entry: int
    before: ImaFindings = ImaFindings({})
    seen_entries: int = 0
    _waiting: list[ImaEntry] = field(default_factory=list)
    _found: dict[str, Finding] = field(default_factory=dict)
    _deviates: set[str] = field(default_factory=set)

    def take(self, entries: Iterable[ImaEntry]) -> None:
        """The next entries, in order."""
        for entry in entries:
            self._waiting.append(entry)
            if (entry.number + 1) % GROUP_ENTRIES == 0:
                self._judge()

    def end(self) -> ImaFindings:
        """Nothing comes any more for now."""
        if self._waiting or self.from_entry == 0:
            self._judge()
        judged = {digest: self._finding(digest) for digest in self.rules}
        still = {digest for digest in self.before.deviates if digest in self.rules}
        return ImaFindings(judged, frozenset(self._deviates | still))

    def _finding(self, digest: str) -> Finding:
        found = [part for part in (self.before.by_policy.get(digest), self._found.get(digest)) if part is not None]
        return worst(found)

    def _judge(self) -> None:
        group, self._waiting = tuple(self._waiting), []
        if not group and self._found:
            return
        first = group[0].number if group else self.from_entry
        new = tuple(entry for entry in group if entry.number >= self.seen_entries)
        for digest, rule in self.rules.items():
            known = self._found.get(digest)
            decided = known is not None and known.outcome is Outcome.REFUTED and not by_time_alone(known)
            if decided and (digest in self._deviates or not new):
                continue
            finding = self._judged(rule, group, first)
            self._found[digest] = finding if known is None else worst((known, finding))
            if finding.outcome is Outcome.REFUTED and (len(new) == len(group) or self._refutes(rule, new)):
                self._deviates.add(digest)

    def _refutes(self, rule: ImaRule, entries: tuple[ImaEntry, ...]) -> bool:
        return bool(entries) and self._judged(rule, entries, entries[0].number).outcome is Outcome.REFUTED

    def _judged(self, rule: ImaRule, entries: tuple[ImaEntry, ...], first: int) -> Finding:
        progress = ImaProgress.at_start_of(self.quote)
        return rule.judge_ima(VerifiedIma(entries, progress, first), self.quote)


def worst(findings: Iterable[Finding]) -> Finding:
    """The first that refutes (for more than the passing of time, if there is one), else the first that cannot tell,
    else the last.
    """
    found = tuple(findings)
    refuted = [finding for finding in found if finding.outcome is Outcome.REFUTED]
    undecided = [finding for finding in found if finding.outcome is Outcome.CANNOT_TELL]
    lasting = [finding for finding in refuted if not by_time_alone(finding)]
    return next(iter((*lasting, *refuted, *undecided)), found[-1])


def shown(evidence: VerifiedEvidence, rules: Mapping[str, ImaRule], before: ImaFindings | None) -> ImaFindings:
    """What the list in `evidence` shows, after what its beginning has shown."""
    before = before or ImaFindings({})
    if evidence.ima is None:
        return unread(rules, before, evidence)
    fold = ImaFold(rules, evidence.quote, evidence.ima.from_entry, before)
    fold.take(evidence.ima.entries)
    return fold.end()


def unread(rules: Mapping[str, ImaRule], before: ImaFindings, evidence: VerifiedEvidence) -> ImaFindings:
    """Of a round whose list shows nothing: what was refuted stays so, all else is as the flaw, or the want of a list,
    says.
    """
    found = {}
    for digest, rule in rules.items():
        flaw, known = evidence.ima_flaw, before.by_policy.get(digest)
        new = flawed(CHECK, flaw) if flaw is not None else rule.judge(evidence)
        found[digest] = new if known is None else worst((known, new))
    return ImaFindings(found, before.deviates)
