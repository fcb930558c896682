"""What ran, judged: every entry of the accepted part of IMA's list must be accounted for by the policy.

An entry is good if its content is listed for its path (by the policy, or by its reference values at the stated time),
or if one of the policy's keys signed the file. A path may be left unjudged only where the policy says so, and whoever
can make a file run from there is then not judged either. SHA-1 is never good. A violation (a file that was being
written while it was measured) has no path that anything vouches for, so no list and no glob excuses it.

Only what is new since the last accepted entry is handed in, and judged: whoever keeps that progress starts over when
the policy or its reference values change, and when a grace of theirs has ended (`ImaRule.ended_since`). A grace that
has ended refuses older contents from then on, also those that ran before: its end is a time by which hosts have started
anew. That time has passed is no change of the host (`by_time_alone`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, NamedTuple

from chatelaine.appraisal.path_globs import PathGlob
from chatelaine.evidence.bundle import VerifiedEvidence
from chatelaine.evidence.errors import EvidenceError
from chatelaine.evidence.ima import BOOT_AGGREGATE, IMA_PCR, ImaEntry, VerifiedIma
from chatelaine.evidence.ima_signature import SigningKey, signing_key, verify_file_signature
from chatelaine.evidence.tpm_algorithms import BANKS
from chatelaine.evidence.tpm_quote import VerifiedQuote
from chatelaine.model.material import FileAllowList
from chatelaine.model.printable import printable
from chatelaine.model.tpm_policy import ImaRules, Violations
from chatelaine.model.verdict import Finding, Outcome, all_of

MAX_NAMED_FILES: Final = 16
"""Offending files that are named one by one; the rest is counted."""

MAX_FAILED_SIGNATURES: Final = 1024
"""File signatures that may fail in one list before no more are tried: each costs up to sixteen verifications."""

MAX_SHOWN_CHARACTERS: Final = 160

GRACE_ENDED: Final = "ImaGraceEnded"
"""Reason against a content that was good until its grace ended."""

STRONG_DIGESTS: Final = ("sha256:", "sha384:", "sha512:")
AGGREGATE_PCRS: Final = tuple(range(10))
"""Over which the kernel computes the boot aggregate."""


class Offence(NamedTuple):
    """An entry that nothing accounts for. `why` ends a sentence about it."""

    entry: ImaEntry
    reason: str
    why: str


@dataclass(frozen=True, slots=True)
class ListedFiles:
    """A small allow-list: good digests (`sha256:…`) by path, without an end. A `FileAllowList`."""

    files: Mapping[str, frozenset[str]]

    def allows(self, path: str, digest: str, *, at: int) -> bool:
        """Is `digest` listed for `path`?"""
        return digest in self.files.get(path, ())

    def ended(self, *, after: int, until: int) -> bool:
        """Nothing here has an end."""
        return False

    def __len__(self) -> int:
        return sum(map(len, self.files.values()))


def ima_rule(rules: ImaRules, files: FileAllowList | None, *, at: int) -> ImaRule:
    """The rule that a policy asks for.

    Args:
        rules: the policy's own words.
        files: what its reference values list, if they are usable.
        at: seconds since the epoch; decides which graces have ended.
    """
    own = ListedFiles({file.path: frozenset(file.digests) for file in rules.allow or ()})
    usable, unusable = [], []
    for number, pem in enumerate(rules.signing_keys or (), 1):
        found = _signing_key(pem)
        if isinstance(found, SigningKey):
            usable.append(found)
        else:
            unusable.append(f"signing key {number} of the policy cannot be used ({found})")
    return ImaRule(
        lists=(own,) if files is None else (own, files),
        unjudged=tuple(map(_glob, rules.unjudged_paths or ())),
        keys=tuple(usable),
        unusable=tuple(unusable),
        violations=rules.violations or Violations.REFUSE,
        at=at,
    )


@dataclass(frozen=True, slots=True)
class ImaRule:
    """Everything in the list is accounted for.

    Attributes:
        lists: allow-lists; one of them is enough.
        unjudged: paths whose content is not judged.
        keys: whose file signatures count.
        unusable: a sentence for each key of the policy that cannot be used.
        violations: whether they refute.
        at: seconds since the epoch.
    """

    lists: tuple[FileAllowList, ...]
    unjudged: tuple[PathGlob, ...]
    keys: tuple[SigningKey, ...]
    unusable: tuple[str, ...]
    violations: Violations
    at: int

    def ended_since(self, at: int) -> bool:
        """Has a grace ended since `at`, so that what was good then may be refused now?"""
        return any(files.ended(after=at, until=self.at) for files in self.lists)

    def judge(self, evidence: VerifiedEvidence) -> Finding:
        """Go through the list of `evidence`."""
        if evidence.ima is None:
            return Finding(
                "ima",
                Outcome.REFUTED,
                "ImaListMissing",
                "the policy judges what ran, and the host answered without its list of measurements: switch IMA on"
                " (ima_policy=tcb) and let the agent read binary_runtime_measurements",
            )
        return self.judge_ima(evidence.ima, evidence.quote)

    def judge_ima(self, ima: VerifiedIma, quote: VerifiedQuote | None = None) -> Finding:
        """The same for a list without an HSM behind it; without `quote` the boot aggregate is not judged."""
        aggregate = _aggregate(quote)
        findings = [_boot_finding(ima, aggregate), self._violations(ima.entries), self._files(ima, aggregate)]
        others = [entry for entry in ima.entries if entry.pcr != IMA_PCR]
        if others:
            findings.append(_other_pcrs(others))
        return all_of("ima", findings)

    def offences(self, entries: Iterable[ImaEntry], aggregate: str | None = None) -> Iterator[Offence]:
        """Every entry that nothing accounts for. Violations and other PCRs are judged elsewhere.

        Args:
            entries: a part of the list.
            aggregate: digest over the quoted PCRs 0 to 9, as the boot aggregate has it; None where not all were quoted.
        """
        failed_signatures = 0
        for entry in entries:
            if entry.violation or entry.pcr != IMA_PCR or self._accounted(entry, aggregate):
                continue
            reason, why = self._unlisted(entry, failed_signatures < MAX_FAILED_SIGNATURES)
            if reason:
                failed_signatures += entry.signature is not None
                if self._listed(entry, at=0):
                    reason, why = GRACE_ENDED, "was good until a grace of the reference values ended"
                yield Offence(entry, reason, why)

    def _accounted(self, entry: ImaEntry, aggregate: str | None) -> bool:
        """By a list, by a glob, or as a boot aggregate: the first is judged by itself, further ones follow a kexec."""
        if entry.flaw:
            return False
        if entry.path == BOOT_AGGREGATE and (entry.number == 0 or entry.digest == aggregate):
            return True
        if self._listed(entry, at=self.at):
            return True
        if not self.unjudged:
            return False
        parts = entry.path.split("/")
        return any(glob.fits(parts) for glob in self.unjudged)

    def _listed(self, entry: ImaEntry, *, at: int) -> bool:
        """At 0 every grace still runs."""
        if not entry.digest.startswith(STRONG_DIGESTS):
            return False
        return any(files.allows(entry.path, entry.digest, at=at) for files in self.lists)

    def _unlisted(self, entry: ImaEntry, try_signature: bool) -> tuple[str, str]:
        """Reason and detail against an entry that no list has; empty if its signature holds."""
        if entry.flaw:
            return "ImaEntryUnreadable", f"cannot be judged: {entry.flaw}"
        if entry.digest.startswith("verity:"):
            return "ImaVerityDigest", "was measured by its fs-verity digest, which is not judged"
        if not entry.digest.startswith(STRONG_DIGESTS):
            return "ImaWeakDigest", "was measured by a weak hash: start the kernel with ima_hash=sha256"
        if entry.signature is None:
            return "ImaFileNotAllowed", "is not listed with this content, and is not signed"
        if not self.keys:
            return "ImaFileNotAllowed", "is not listed with this content, and no usable signing key is named"
        if not try_signature:
            return (
                "ImaFileNotAllowed",
                "is not listed with this content; its signature was not tried after so many failed",
            )
        try:
            verify_file_signature(entry.signature, entry.digest, self.keys)
        except EvidenceError as error:
            return error.reason, f"is not listed with this content; its signature: {error.detail}"
        return "", ""

    def _violations(self, entries: Sequence[ImaEntry]) -> Finding:
        found = [entry for entry in entries if entry.violation and entry.pcr == IMA_PCR]
        if not found:
            return Finding("violations", Outcome.HOLDS, "ImaNoViolations")
        first = found[0]
        detail = (
            f"{_count(len(found), 'violation')}: a file was open for writing while it was measured, so what ran is not"
            f" known; the first is entry {first.number}, said to be {shown_path(first.path) or 'unreadable'}"
        )
        if self.violations is Violations.RECORD:
            return Finding("violations", Outcome.HOLDS, "ImaViolationsRecorded", detail)
        return Finding("violations", Outcome.REFUTED, "ImaViolation", detail, expected="none", found=str(len(found)))

    def _files(self, ima: VerifiedIma, aggregate: str | None) -> Finding:
        offences = list(self.offences(ima.entries, aggregate))
        if not offences:
            detail = f"{_count(len(ima.entries), 'new entry', 'new entries')} from entry {ima.from_entry} on"
            return Finding("files", Outcome.HOLDS, "ImaFilesAllowed", detail)
        # A broken policy refutes nobody: what its unusable key might have signed is not known.
        certain = [offence for offence in offences if not self.unusable or offence.entry.signature is None]
        if not certain:
            detail = f"{self.unusable[0]}; {_count(len(offences), 'signed file')} may rest on it: mend the policy"
            return Finding("files", Outcome.CANNOT_TELL, "ImaSigningKeyUnusable", detail)
        # What is refused for more than the passing of time decides, and is named first.
        certain.sort(key=lambda offence: offence.reason == GRACE_ENDED)
        named = _named(certain)
        rest = len(certain) - len(named)
        children = tuple(self._finding(offence) for offence in named)
        detail = children[0].detail + (f" (and {_count(rest, 'entry', 'entries')} more than are named)" if rest else "")
        return Finding("files", Outcome.REFUTED, children[0].reason, detail, children=children)

    def _finding(self, offence: Offence) -> Finding:
        entry = offence.entry
        name = shown_path(entry.path) or f"entry {entry.number}"
        what = "buffer" if entry.buffer is not None else "file"
        own = (files.files.get(entry.path, ()) for files in self.lists if isinstance(files, ListedFiles))
        good = sorted(digest for digests in own for digest in digests)
        detail = (
            f"{name} (entry {entry.number}) {offence.why}; if it belongs on this host, list it in the reference values"
            " or under tpm.ima.allow, otherwise find out what ran it"
        )
        return Finding(
            f"{what} {name}",
            Outcome.REFUTED,
            offence.reason,
            detail,
            expected=" or ".join(good[:2]) or None,
            found=entry.digest or None,
        )


def by_time_alone(finding: Finding) -> bool:
    """Does it refuse nothing but contents whose grace has ended? They may have run while they were good."""
    reasons = {leaf.reason for leaf in finding.leaves() if leaf.outcome is Outcome.REFUTED}
    return reasons == {GRACE_ENDED}


def _named(offences: Sequence[Offence]) -> list[Offence]:
    """The first ones, each content of a path once."""
    named: dict[tuple[str, str], Offence] = {}
    for offence in offences:
        named.setdefault((offence.entry.path, offence.entry.digest), offence)
        if len(named) == MAX_NAMED_FILES:
            break
    return list(named.values())


def _aggregate(quote: VerifiedQuote | None) -> str | None:
    """The boot aggregate as kernels since 5.8 compute it, from PCRs 0 to 9; None where not all of them were quoted."""
    if quote is None or not all(index in quote.pcrs for index in AGGREGATE_PCRS):
        return None
    hash_ = BANKS[quote.selection.bank]
    digest: str = hash_.new(b"".join(quote.pcrs[index] for index in AGGREGATE_PCRS)).hexdigest()
    return f"{hash_.name.lower()}:{digest}"


def _boot_finding(ima: VerifiedIma, aggregate: str | None) -> Finding:
    """A list begins with the boot aggregate, which ties it to what booted."""
    check = "boot aggregate"
    if ima.from_entry > 0:
        return Finding(check, Outcome.HOLDS, "BootAggregateJudgedBefore")
    if not ima.entries:
        detail = "nothing was measured into PCR 10: IMA is not at work on this host (boot it with ima_policy=tcb)"
        return Finding(check, Outcome.REFUTED, "ImaNothingMeasured", detail)
    first = ima.entries[0]
    if first.path != BOOT_AGGREGATE or first.violation or first.flaw or first.pcr != IMA_PCR:
        found = shown_path(first.path) or "something unreadable"
        detail = f"the list does not begin with the boot aggregate, but with {found}"
        return Finding(check, Outcome.REFUTED, "BootAggregateMissing", detail)
    if aggregate is None or first.digest.partition(":")[0] != aggregate.partition(":")[0]:
        detail = "PCRs 0 to 9 were not all quoted in a bank of its hash: not recomputed; name them all in the policy"
        return Finding(check, Outcome.HOLDS, "BootAggregateNotJudged", detail, found=first.digest)
    if first.digest != aggregate:
        detail = "the list begins with another boot than the quoted one"
        return Finding(check, Outcome.REFUTED, "BootAggregateMismatch", detail, expected=aggregate, found=first.digest)
    return Finding(check, Outcome.HOLDS, "BootAggregateMatches", expected=aggregate, found=first.digest)


def _other_pcrs(entries: Sequence[ImaEntry]) -> Finding:
    first = entries[0]
    detail = (
        f"{_count(len(entries), 'entry', 'entries')} (the first is {first.number}) were measured into another PCR, as"
        f" PCR {first.pcr}, and PCR {IMA_PCR} does not vouch for them: take pcr= out of the host's IMA policy"
    )
    return Finding("other PCRs", Outcome.CANNOT_TELL, "ImaOtherPcr", detail)


def _count(number: int, one: str, many: str | None = None) -> str:
    return f"{number} {one if number == 1 else many or one + 's'}"


def shown_path(path: str) -> str:
    """A path for people, bounded and printable: paths are hostile input."""
    return printable(path, MAX_SHOWN_CHARACTERS)


@lru_cache(maxsize=1024)
def _glob(text: str) -> PathGlob:
    return PathGlob(text)


@lru_cache(maxsize=256)
def _signing_key(pem: str) -> SigningKey | str:
    """The key, or why it cannot be used."""
    try:
        return signing_key(pem)
    except EvidenceError as error:
        return str(error)
