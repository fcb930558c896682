"""Judging a boot event log by hand. What `chatelaine verify event-log` prints.

A log is nothing by itself: anybody can write one. It counts once it replays to PCR values that come from a quote that
was verified; the values given are believed. SHA-1 values are compared as well, and show nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from chatelaine.appraisal.appraise import pcr_rules
from chatelaine.appraisal.boot_rules import authority_name, boot_rules
from chatelaine.appraisal.event_words import words_of
from chatelaine.appraisal.offline import Report, refusal, unless_fetched
from chatelaine.appraisal.rules import PcrRule
from chatelaine.evidence import tpm_algorithms as alg
from chatelaine.evidence.boot_log import VerifiedBootLog, match_boot_log
from chatelaine.evidence.errors import EventLogBankMissing, EvidenceError
from chatelaine.evidence.event_log import NO_ACTION, Event, EventLog, parse_event_log, replay
from chatelaine.evidence.ima import IMA_PCR
from chatelaine.evidence.tpm_algorithms import BANKS
from chatelaine.evidence.uefi_checked import checked, checked_text, separator
from chatelaine.evidence.uefi_signatures import Signature
from chatelaine.model.material import ReferenceValues
from chatelaine.model.policy import AttestationPolicySpec
from chatelaine.model.printable import printable
from chatelaine.model.tpm_policy import Bank
from chatelaine.model.verdict import Finding, Outcome, all_of

CHECK: Final = "event-log"
BANK_IDS: Final = {"sha1": alg.SHA1, "sha256": alg.SHA256, "sha384": alg.SHA384, "sha512": alg.SHA512}
_BANK_NAMES: Final = {tpm_id: name for name, tpm_id in BANK_IDS.items()}

PcrsByBank = Mapping[str, Mapping[int, bytes]]


@dataclass(frozen=True, slots=True)
class LogCase:
    """A log and what to judge it by.

    Attributes:
        data: the log.
        pcrs: values by bank (`sha256`) and index that it must replay to; None: nothing anchors it.
        policy: its `tpm.eventLog` and its PCR values judge; None: only the replay is judged.
        reference: the reference values that the policy leans on; None: none, or they are not at hand.
    """

    data: bytes
    pcrs: PcrsByBank | None = None
    policy: AttestationPolicySpec | None = None
    reference: ReferenceValues | None = None


def judge_event_log(case: LogCase) -> Report:
    """Does the log replay to the values, and does it show what the policy asks for?"""
    try:
        log = parse_event_log(case.data)
    except EvidenceError as error:
        return Report(all_of(CHECK, [refusal("log", error)]), {})
    banks = ", ".join(_name(tpm_id) for tpm_id, _ in log.algorithms)
    bank = _judged_bank(case, log)
    findings = [
        Finding("log", Outcome.HOLDS, "EventLogRead", f"{len(log.events)} events; banks: {banks}"),
        _replay_finding(log, case.pcrs, bank),
    ]
    replayed = {_name(tpm_id): replay(log, tpm_id) for tpm_id in log.banks}
    shown = _shown(case, bank, replayed)
    if case.policy is not None:
        values = _values(case, case.policy.tpm.pcrs.bank, replayed)
        findings.append(_policy_finding(case.policy, case.reference, shown, values))
    return Report(all_of(CHECK, findings), _facts(log, replayed, shown))


# --- replay ---------------------------------------------------------------------------------------------------


def _replay_finding(log: EventLog, pcrs: PcrsByBank | None, bank: Bank) -> Finding:
    if not pcrs:
        detail = "no PCR values were given; whether this is the log of a boot cannot be told"
        return Finding("replay", Outcome.CANNOT_TELL, "EventLogNotAnchored", detail)
    findings = [_bank_finding(log, name, pcrs[name]) for name in sorted(pcrs)]
    if bank.value.lower() not in pcrs and set(pcrs) != {"sha1"}:
        # What is judged would rest on digests that no value given bears out.
        detail = f"no PCR values of the bank {bank.value} were given, by which the log is judged"
        findings.append(Finding(bank.value.lower(), Outcome.CANNOT_TELL, "EventLogNotAnchored", detail))
    if all(finding.outcome is Outcome.HOLDS for finding in findings) and set(pcrs) == {"sha1"}:
        detail = "only SHA-1 values were compared; they show nothing"
        findings.append(Finding("sha1", Outcome.CANNOT_TELL, "Sha1ShowsNothing", detail))
    return all_of("replay", findings)


def _bank_finding(log: EventLog, name: str, given: Mapping[int, bytes]) -> Finding:
    tpm_id = BANK_IDS.get(name)
    if tpm_id is None or tpm_id not in log.banks:
        detail = "the log has no digests of this bank"
        return Finding(name, Outcome.CANNOT_TELL, EventLogBankMissing.reason, detail)
    found = replay(log, tpm_id)
    wrong = [
        Finding(
            f"pcr {name}:{index}",
            Outcome.REFUTED,
            "EventLogMismatch",
            f"the log does not replay to PCR {index} of bank {name}",
            expected=value.hex(),
            found=found[index].hex(),
        )
        for index, value in sorted(given.items())
        if found[index] != value and index != IMA_PCR
    ]
    if wrong:
        return all_of(name, wrong)
    compared = [index for index in sorted(given) if index != IMA_PCR]
    if not compared:
        detail = f"no value was given that a boot log leads to; PCR {IMA_PCR} is IMA's"
        return Finding(name, Outcome.CANNOT_TELL, "EventLogNotAnchored", detail)
    return Finding(name, Outcome.HOLDS, "EventLogReplays", f"replays to PCRs {', '.join(map(str, compared))}")


# --- policy ---------------------------------------------------------------------------------------------------


def _judged_bank(case: LogCase, log: EventLog) -> Bank:
    """The policy's bank; else one whose values are given; else one that the log has."""
    if case.policy is not None:
        return case.policy.tpm.pcrs.bank
    for names in (case.pcrs or {}, [_name(tpm_id) for tpm_id in log.banks]):
        for bank in Bank:
            if bank.value.lower() in names:
                return bank
    return Bank.SHA256


def _values(case: LogCase, bank: Bank, replayed: PcrsByBank) -> Mapping[int, bytes]:
    """The values that rules look at: those given, else what the log stands for."""
    name = bank.value.lower()
    return (case.pcrs or {}).get(name) or replayed.get(name, {})


def _shown(case: LogCase, bank: Bank, replayed: PcrsByBank) -> VerifiedBootLog | EvidenceError:
    try:
        return match_boot_log(case.data, bank, _values(case, bank, replayed))
    except EvidenceError as error:
        return error


def _policy_finding(
    policy: AttestationPolicySpec,
    reference: ReferenceValues | None,
    shown: VerifiedBootLog | EvidenceError,
    values: Mapping[int, bytes],
) -> Finding:
    unfetched = policy.reference_values is not None and reference is None
    compared = _pcr_findings(pcr_rules(policy, reference), values)
    findings = [all_of("pcrs", [unless_fetched(finding, policy, reference) for finding in compared])]
    findings += [
        rule.judge_log(shown) if isinstance(shown, VerifiedBootLog) else _unusable(shown)
        for rule in boot_rules(policy.tpm, reference)
    ]
    if unfetched:
        detail = "the policy's reference values were not fetched; what they ask for besides cannot be told"
        findings.append(Finding("reference values", Outcome.CANNOT_TELL, "ReferenceValuesNotFetched", detail))
    return all_of("policy", findings)


def _unusable(error: EvidenceError) -> Finding:
    outcome = Outcome.CANNOT_TELL if isinstance(error, EventLogBankMissing) else Outcome.REFUTED
    return Finding("event log", outcome, error.reason, error.detail, expected=error.expected, found=error.found)


def _pcr_findings(rules: Iterable[PcrRule], values: Mapping[int, bytes]) -> list[Finding]:
    findings = []
    for rule in rules:
        check, expected = f"pcr {rule.bank.value}:{rule.index}", " or ".join(rule.any_of)
        value = values.get(rule.index)
        if value is None or rule.index == IMA_PCR:
            detail = f"PCR {rule.index} cannot be judged by a boot log and the values given"
            findings.append(Finding(check, Outcome.CANNOT_TELL, "PcrNotShown", detail, expected=expected))
        elif value.hex() in rule.any_of:
            findings.append(Finding(check, Outcome.HOLDS, "PcrMatches", expected=expected, found=value.hex()))
        else:
            detail = f"PCR {rule.index} has none of the good values"
            findings.append(Finding(check, Outcome.REFUTED, "PcrMismatch", detail, expected, value.hex()))
    return findings


# --- facts ----------------------------------------------------------------------------------------------------


def _facts(log: EventLog, replayed: PcrsByBank, shown: VerifiedBootLog | EvidenceError) -> dict[str, object]:
    touched = sorted(log.touched())
    return {
        "digest": f"sha256:{log.digest.hex()}",
        "startupLocality": log.startup_locality,
        "pcrs": {bank: {str(index): values[index].hex() for index in touched} for bank, values in replayed.items()},
        **(_boot_facts(shown) if isinstance(shown, VerifiedBootLog) else {"secureBoot": "NotShown"}),
        "events": [_event(event, log, shown) for event in log.events],
    }


def _boot_facts(shown: VerifiedBootLog) -> dict[str, object]:
    facts = shown.facts
    boot = facts.secure_boot
    return {
        "bank": shown.bank.value.lower(),
        "secureBoot": boot.state.value,
        "secureBootGap": boot.gap or None,
        "databases": {
            "PK": _signatures(boot.platform_key),
            "KEK": _signatures(boot.key_exchange_keys),
            "db": _signatures(boot.allowed),
            "dbx": _signatures(boot.forbidden),
        },
        "authorities": [authority_name(authority) for authority in boot.authorities],
        "authoritiesGap": boot.authorities_gap or None,
        "images": [f"event {image.number}, PCR {image.pcr}: {image.digest.hex()}" for image in facts.images],
        "disks": [table.disk_guid for table in facts.partition_tables],
        "commandLines": list(dict.fromkeys(printable(line.text) for line in facts.command_lines.lines)),
        "commandLinesGap": facts.command_lines.gap or None,
    }


def _signatures(entries: Sequence[Signature] | None) -> list[str] | None:
    return None if entries is None else [f"{entry.kind.value}:{entry.digest.hex()}" for entry in entries]


def _words_bank(log: EventLog, shown: VerifiedBootLog | EvidenceError) -> int | None:
    """The bank by which data is checked, for what is said of an event."""
    if isinstance(shown, VerifiedBootLog):
        return BANKS[shown.bank].tpm_id
    return max(log.banks, default=None)


def _event(event: Event, log: EventLog, shown: VerifiedBootLog | EvidenceError) -> dict[str, object]:
    """`checked`: the words rest on data that hashes to the digest, and this on a PCR that was compared."""
    tpm_id = _words_bank(log, shown)
    words, borne_out = f"event of type 0x{event.type:08x}", False
    if tpm_id is not None:
        words = words_of(event, tpm_id)
        borne_out = event.type != NO_ACTION and (
            separator(event, tpm_id) is not None or (checked(event, tpm_id) or checked_text(event, tpm_id)) is not None
        )
    if event.type != NO_ACTION and isinstance(shown, VerifiedBootLog) and event.pcr not in shown.facts.quoted:
        words, borne_out = f"not compared: {words}", False
    return {
        "number": event.number,
        "pcr": event.pcr,
        "type": f"0x{event.type:08x}",
        "measures": words,
        "checked": borne_out,
        "digests": {_name(found): event.digest(found).hex() for found, _ in log.algorithms},
    }


def _name(tpm_id: int) -> str:
    return _BANK_NAMES.get(tpm_id, alg.name_of(tpm_id))
