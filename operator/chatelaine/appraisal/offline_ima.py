"""Judging a list of measurements by hand, against a value of PCR 10. What `chatelaine verify ima` prints.

The value is believed: it should come from a quote that was verified. Where no prefix gives it, the list may be older
than the value, or another host's; which of these cannot be told, here as in the operator.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from chatelaine.appraisal.ima_rules import ImaRule, Offence, ima_rule, shown_path
from chatelaine.appraisal.offline import Report, refusal
from chatelaine.evidence.errors import EvidenceError, ImaLineAmbiguous, ImaNoPrefix, Malformed
from chatelaine.evidence.ima import ImaEntry, ImaProgress, VerifiedIma, match_ascii_prefix, match_prefix
from chatelaine.evidence.ima_ascii import is_ascii_list
from chatelaine.evidence.tpm_algorithms import BANKS, bank_of
from chatelaine.model.material import FileAllowList
from chatelaine.model.printable import printable
from chatelaine.model.tpm_policy import ImaRules
from chatelaine.model.verdict import Finding, Outcome, all_of

MAX_REPORTED_FILES: Final = 256
"""Unknown files among the facts; the rest is counted."""


@dataclass(frozen=True, slots=True)
class ImaCase:
    """A list and what to judge it by.

    Attributes:
        data: the binary or the ASCII list, from its beginning.
        pcr10: the value that it must lead to.
        bank: the value's bank.
        rules: a policy's rules; None: those that allow only `files`.
        files: an allow-list; None with no `rules`: only the replay is judged.
        at: seconds since the epoch, for graces.
    """

    data: bytes
    pcr10: bytes
    bank: str
    rules: ImaRules | None = None
    files: FileAllowList | None = None
    at: int = 0


def judge_ima_list(case: ImaCase) -> Report:
    """Does a prefix replay to the value, and is everything in it accounted for?"""
    try:
        ima = _replayed(case)
    except (ImaNoPrefix, ImaLineAmbiguous) as error:
        finding = Finding("replay", Outcome.CANNOT_TELL, error.reason, error.detail, error.expected, error.found)
        return Report(all_of("ima-list", [finding]), {"form": _form(case)})
    except EvidenceError as error:
        return Report(all_of("ima-list", [refusal("replay", error)]), {"form": _form(case)})
    detail = f"PCR 10 has its value after {len(ima.entries)} entries; what follows is not judged"
    findings = [Finding("replay", Outcome.HOLDS, "ImaPrefixMatches", detail, found=case.pcr10.hex())]
    if case.rules is None and case.files is None and not ima.entries:
        detail = "PCR 10 was never extended: whatever is given as a list has this beginning, and nothing of it shows"
        finding = Finding("replay", Outcome.CANNOT_TELL, "ImaNothingMeasured", detail, found=case.pcr10.hex())
        return Report(all_of("ima-list", [finding]), _facts(case, ima))
    if case.rules is None and case.files is None:
        detail = "neither an allow-list nor a policy was given: the files were not judged"
        findings.append(Finding("files", Outcome.HOLDS, "ImaFilesNotJudged", detail))
        return Report(all_of("ima-list", findings), _facts(case, ima))
    rule = ima_rule(case.rules if case.rules is not None else ImaRules(), case.files, at=case.at)
    findings.append(rule.judge_ima(ima))
    return Report(all_of("ima-list", findings), _facts(case, ima) | _unknown_files(rule, ima.entries))


def _replayed(case: ImaCase) -> VerifiedIma:
    bank = bank_of(case.bank)
    size_bytes = BANKS[bank].size_bytes
    if len(case.pcr10) != size_bytes:
        raise Malformed("the value of PCR 10 is not one of this bank", expected=f"{size_bytes} bytes", found=case.pcr10)
    match = match_ascii_prefix if is_ascii_list(case.data) else match_prefix
    progress, entries = match(ImaProgress.start(reset_count=0, restart_count=0, bank=bank), case.data, case.pcr10)
    return VerifiedIma(entries, progress, 0)


def _form(case: ImaCase) -> str:
    return "Ascii" if is_ascii_list(case.data) else "Binary"


def _facts(case: ImaCase, ima: VerifiedIma) -> dict[str, object]:
    matched = ima.progress.offset_bytes
    return {
        "form": _form(case),
        "bank": ima.progress.bank.value.lower(),
        "prefix": {"entries": len(ima.entries), "bytes": matched, "bytesBehind": len(case.data) - matched},
        "templates": dict(sorted(Counter(printable(entry.template) for entry in ima.entries).items())),
        "violations": sum(entry.violation for entry in ima.entries),
    }


def _unknown_files(rule: ImaRule, entries: Iterable[ImaEntry]) -> dict[str, object]:
    """How many, and the first of them by path."""
    offences = list(rule.offences(entries))
    named: dict[str, dict[str, None]] = {}
    for offence in offences[:MAX_REPORTED_FILES]:
        named.setdefault(_name(offence), {})[offence.entry.digest] = None
    return {"unknown": {"count": len(offences), "files": {name: list(digests) for name, digests in named.items()}}}


def _name(offence: Offence) -> str:
    return shown_path(offence.entry.path) or f"entry {offence.entry.number}"
