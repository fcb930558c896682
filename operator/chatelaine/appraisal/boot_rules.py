"""What booted, judged: the rules of `tpm.eventLog` over the facts of a boot log that replays to the quote.

A rule asks for something to be *shown*. What the log leaves open (`boot_facts`: a PCR that was not quoted, an event
that is not what its data says) does not hold, or a host could hide what it likes behind a broken event. The log is
judged first: one that is missing, or does not replay, shows nothing.

Rules compare digests and the content that these bear out, never the type of an event.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, Protocol

from chatelaine.appraisal.argument_globs import ArgumentPattern, argument_pattern
from chatelaine.appraisal.rules import flawed
from chatelaine.evidence.boot_facts import IMAGE_PCR, OPTION_ROM_PCR, BootFacts
from chatelaine.evidence.boot_log import CACHED_LOGS, VerifiedBootLog
from chatelaine.evidence.bundle import VerifiedEvidence
from chatelaine.evidence.event_log import NO_ACTION
from chatelaine.evidence.ima_entry import IMA_PCR
from chatelaine.evidence.tpm_algorithms import BANKS
from chatelaine.evidence.uefi_command_line import COMMAND_LINE_PCRS, CommandLine
from chatelaine.evidence.uefi_secure_boot import SECURE_BOOT_PCR, Authority, SecureBootFacts, SecureBootState
from chatelaine.model.material import ReferenceValues
from chatelaine.model.printable import printable
from chatelaine.model.tpm_policy import AuthorityRules, EventLogRules, OptionRoms, SecureBoot, TpmRules
from chatelaine.model.verdict import Finding, Outcome, all_of

CHECK: Final = "event log"
MAX_NAMED: Final = 8
"""Things of one kind that a sentence names; the rest is counted."""
MAX_SHOWN_CHARACTERS: Final = 160

MAX_REMEMBERED_CHARACTERS: Final = 4096
"""Of command lines whose findings are kept; two of the longest that a kernel takes."""

REQUIRED_ALONE: Final = "the policy gives no allowed authorities; software can add the required ones after the boot"
IMAGES_NOT_JUDGED: Final = (
    f"the policy gives no good value of PCR {IMAGE_PCR}: a boot loader that measures no command line could have told"
    " the kernel another one"
)


class LogRule(Protocol):
    """One thing that a boot log must show."""

    def judge_log(self, log: VerifiedBootLog) -> Finding:
        """What this rule finds."""
        ...


def boot_rules(spec: TpmRules, reference: ReferenceValues | None) -> tuple[BootLogRule, ...]:
    """The rule that `spec.event_log` asks for; none if it asks for nothing.

    Args:
        spec: what a policy asks of a TPM.
        reference: the verified bundle that the policy names; its list for dbx adds to the policy's.
    """
    rules = spec.event_log
    if rules is None:
        return ()
    found: list[LogRule] = []
    if rules.secure_boot is SecureBoot.ENABLED:
        found.append(SecureBootRule())
    if rules.authorities is not None:
        found.append(AuthoritiesRule.of(rules.authorities))
    revoked = _revoked(rules, reference)
    if revoked:
        found.append(ForbiddenSignaturesRule(revoked))
    if rules.option_roms is OptionRoms.REFUSE:
        found.append(OptionRomRule())
    if rules.forbidden_images:
        found.append(ForbiddenImagesRule(_digests(tuple(rules.forbidden_images))))
    if rules.kernel_command_line is not None:
        line = rules.kernel_command_line
        required, forbidden = (tuple(map(argument_pattern, globs or ())) for globs in (line.required, line.forbidden))
        images_judged = any(value.index == IMAGE_PCR for value in spec.pcrs.values)
        found.append(CommandLineRule(required, forbidden, images_judged))
    return (BootLogRule(tuple(found)),)


def boot_pcrs(spec: TpmRules, reference: ReferenceValues | None) -> frozenset[int]:
    """PCRs that a quote must cover besides those of `spec.pcrs`, so that these rules can be judged."""
    rules = spec.event_log
    if rules is None:
        return frozenset()
    found: set[int] = set()
    if rules.secure_boot or rules.authorities or _revoked(rules, reference):
        found.add(SECURE_BOOT_PCR)
    if rules.option_roms:
        found.add(OPTION_ROM_PCR)
    if rules.forbidden_images:
        found |= {OPTION_ROM_PCR, IMAGE_PCR}
    if rules.kernel_command_line:
        found.update(COMMAND_LINE_PCRS)
    return frozenset(found)


def _revoked(rules: EventLogRules, reference: ReferenceValues | None) -> frozenset[bytes]:
    own = _digests(tuple(rules.dbx_at_least or ()))
    if reference is None or not reference.dbx_at_least:
        return own
    return own | reference.dbx_at_least if own else reference.dbx_at_least


@lru_cache(maxsize=64)
def _digests(listed: tuple[str, ...]) -> frozenset[bytes]:
    """Rules are made for every round, policies change seldom."""
    return frozenset(map(bytes.fromhex, listed))


@dataclass(frozen=True, slots=True)
class BootLogRule:
    """The log replays to the quoted PCRs, and shows what `rules` ask for."""

    rules: tuple[LogRule, ...]

    def judge(self, evidence: VerifiedEvidence) -> Finding:
        """Look at the log of `evidence`; none where the policy asks for one refutes."""
        if evidence.boot_log is not None:
            return self.judge_log(evidence.boot_log)
        if evidence.boot_log_flaw is not None:
            return flawed(CHECK, evidence.boot_log_flaw)
        detail = "the policy asks for the boot event log; the host answered without one"
        return Finding(CHECK, Outcome.REFUTED, "EventLogMissing", detail)

    def judge_log(self, log: VerifiedBootLog) -> Finding:
        """The same for a log that was verified on its own."""
        quoted = ", ".join(map(str, log.facts.quoted))
        detail = f"{len(log.log.events)} events replay to the quoted PCRs ({quoted})"
        replays = Finding("replay", Outcome.HOLDS, "EventLogReplays", detail)
        if not log.facts.quoted:
            detail = f"no PCR was quoted that a boot log leads to; PCR {IMA_PCR} is IMA's"
            replays = Finding("replay", Outcome.CANNOT_TELL, "EventLogNotAnchored", detail)
        return all_of(CHECK, [replays, *(rule.judge_log(log) for rule in self.rules)])


def _holds(check: str, reason: str, detail: str = "", *, found: str | None = None) -> Finding:
    return Finding(check, Outcome.HOLDS, reason, detail, found=found)


def _refuted(check: str, reason: str, detail: str, *, expected: str | None = None, found: str | None = None) -> Finding:
    return Finding(check, Outcome.REFUTED, reason, detail, expected=expected, found=found)


@dataclass(frozen=True, slots=True)
class SecureBootRule:
    """Secure Boot was on, and what it started verified in its turn."""

    def judge_log(self, log: VerifiedBootLog) -> Finding:
        """Look at what PCR 7 shows."""
        check, facts = "secure boot", log.facts.secure_boot
        if facts.state is SecureBootState.NOT_SHOWN:
            return _refuted(check, "SecureBootNotShown", facts.gap)
        return _unverified(check, facts) or _holds(check, "SecureBootEnabled", found=facts.state.value)


def _unverified(check: str, facts: SecureBootFacts) -> Finding | None:
    """Why not everything that was started had to be verified; the state was shown."""
    if facts.state is not SecureBootState.ENABLED:
        expected, found = SecureBootState.ENABLED.value, facts.state.value
        return _refuted(check, "SecureBootDisabled", "Secure Boot was off", expected=expected, found=found)
    if facts.debug_mode:
        return _refuted(check, "FirmwareDebugMode", "the firmware runs in its debug mode")
    if facts.validation_off:
        return _refuted(check, "BootLoaderValidationOff", "the boot loader was told to verify nothing")
    return None


@dataclass(frozen=True, slots=True)
class AuthoritiesRule:
    """Who verified what booted, each named by the SHA-256 of its certificate; an entry that is a digest by itself.

    Only where nothing can have booted unverified: software that did could append any authority afterwards.
    """

    required: frozenset[str]
    allowed: frozenset[str] | None
    forbidden: frozenset[str]

    @classmethod
    def of(cls, rules: AuthorityRules) -> AuthoritiesRule:
        """The rule of a policy."""
        allowed = None if rules.allowed is None else frozenset(rules.allowed)
        return cls(frozenset(rules.required or ()), allowed, frozenset(rules.forbidden or ()))

    def judge_log(self, log: VerifiedBootLog) -> Finding:
        """Go through the authorities."""
        check, facts = "authorities", log.facts.secure_boot
        if facts.authorities_gap:
            return _refuted(check, "AuthoritiesNotShown", facts.authorities_gap)
        unverified = _unverified(check, facts)
        if unverified is not None:
            return unverified
        if not facts.authorities:
            return _refuted(check, "AuthoritiesNotShown", "the log names nobody who verified what booted")
        by_digest = {authority_name(authority): authority for authority in facts.authorities}
        for name, authority in by_digest.items():
            if name in self.forbidden:
                return _refuted(check, "AuthorityForbidden", _verified_something(authority, "is forbidden"), found=name)
            if self.allowed is not None and name not in self.allowed:
                detail = _verified_something(authority, "is not among those allowed")
                return _refuted(check, "AuthorityNotAllowed", detail, expected=_some(self.allowed), found=name)
        missing = self.required - set(by_digest)
        if missing:
            detail = f"{min(missing)} verified nothing that booted"
            return _refuted(check, "AuthorityMissing", detail, expected=_some(missing), found=_some(by_digest))
        caution = REQUIRED_ALONE if self.required and self.allowed is None else ""
        return _holds(check, "AuthoritiesAccepted", caution, found=_some(by_digest))


def authority_name(authority: Authority) -> str:
    """How a policy names an authority."""
    return f"sha256:{authority.signature.digest.hex()}"


def _verified_something(authority: Authority, verdict: str) -> str:
    return f"event {authority.number}: {authority_name(authority)} (from {_shown(authority.variable)}) {verdict}"


@dataclass(frozen=True, slots=True)
class ForbiddenSignaturesRule:
    """The forbidden-signatures database (dbx) holds at least these."""

    at_least: frozenset[bytes]

    def judge_log(self, log: VerifiedBootLog) -> Finding:
        """Compare the measured database with the set."""
        check, facts = "dbx", log.facts.secure_boot
        if facts.forbidden is None:
            return _refuted(check, "DbxNotShown", facts.gap or "dbx was not measured, or cannot be read")
        missing = self.at_least - facts.forbidden_digests
        found = f"{len(facts.forbidden)} entries"
        if missing:
            detail = f"dbx lacks {len(missing)} of {len(self.at_least)} entries: {_some(map(bytes.hex, missing))}"
            return _refuted(check, "DbxTooOld", detail, expected=f"{len(self.at_least)} entries at least", found=found)
        return _holds(check, "DbxComplete", found=found)


@dataclass(frozen=True, slots=True)
class OptionRomRule:
    """Nothing but separators was measured into PCR 2."""

    def judge_log(self, log: VerifiedBootLog) -> Finding:
        """Look at PCR 2."""
        check, images = "option ROMs", log.facts.option_roms
        if images is None:
            return _refuted(check, "OptionRomsNotShown", _not_shown(log.facts, OPTION_ROM_PCR))
        if images:
            first = images[0]
            more = f" (and {len(images) - 1} more)" if len(images) > 1 else ""
            detail = f"event {first.number}: an option ROM was measured into PCR {OPTION_ROM_PCR}{more}"
            return _refuted(check, "OptionRomMeasured", detail, expected="none", found=first.digest.hex())
        return _holds(check, "NoOptionRom")


def _not_shown(facts: BootFacts, pcr: int) -> str:
    """Why nothing can be said of what was not measured into this PCR."""
    if pcr not in facts.quoted:
        return f"PCR {pcr} was not quoted"
    return f"PCR {pcr} has no separator: the firmware's part of it did not end"


@dataclass(frozen=True, slots=True)
class ForbiddenImagesRule:
    """No event carries one of these digests, whatever it is called."""

    digests: frozenset[bytes]

    def judge_log(self, log: VerifiedBootLog) -> Finding:
        """Go through the events of all quoted PCRs."""
        check, bank = "forbidden images", BANKS[log.bank]
        for event in log.log.events:
            if event.type != NO_ACTION and event.pcr in log.facts.quoted:
                digest = event.digest(bank.tpm_id)
                if digest in self.digests:
                    detail = f"event {event.number} of PCR {event.pcr} carries a forbidden digest"
                    return _refuted(check, "ImageForbidden", detail, found=digest.hex())
        left_out = {OPTION_ROM_PCR, IMAGE_PCR} - log.facts.separators
        if left_out:
            return _refuted(check, "ImagesNotShown", _not_shown(log.facts, min(left_out)))
        others = sum(len(digest) != bank.size_bytes for digest in self.digests)
        if others:
            detail = f"{others} forbidden digests are not of the quoted bank {log.bank.value}; nothing is known of them"
            return Finding(check, Outcome.CANNOT_TELL, "ImagesOfOtherBank", detail)
        return _holds(check, "NoForbiddenImage")


@dataclass(frozen=True, slots=True)
class CommandLineRule:
    """Every kernel command line has the required arguments, and none a forbidden one.

    Attributes:
        required, forbidden: globs.
        images_judged: does the policy give good values of PCR 4?
    """

    required: tuple[ArgumentPattern, ...]
    forbidden: tuple[ArgumentPattern, ...]
    images_judged: bool

    def judge_log(self, log: VerifiedBootLog) -> Finding:
        """Go through the command lines."""
        check, facts = "kernel command line", log.facts.command_lines
        if facts.gap:
            return _refuted(check, "CommandLineNotShown", facts.gap)
        if not facts.lines:
            return _refuted(check, "CommandLineNotShown", "the log shows no kernel command line")
        short = sum(len(line.text) for line in facts.lines) <= MAX_REMEMBERED_CHARACTERS
        refusal = _remembered_refusal(self, facts.lines) if short else _refused_line(self, facts.lines)
        caution = "" if self.images_judged else IMAGES_NOT_JUDGED
        return refusal or _holds(check, "CommandLineAccepted", caution, found=_shown(facts.lines[-1].text))


@lru_cache(maxsize=CACHED_LOGS)
def _remembered_refusal(rule: CommandLineRule, lines: tuple[CommandLine, ...]) -> Finding | None:
    """A host shows the same ones until it boots again."""
    return _refused_line(rule, lines)


def _refused_line(rule: CommandLineRule, lines: tuple[CommandLine, ...]) -> Finding | None:
    """Why the first of `lines` that is refused is."""
    check = "kernel command line"
    for line in lines:
        found = _shown(line.text)
        told = tuple(dict.fromkeys(line.arguments))
        obeyed = tuple(dict.fromkeys(line.effective_arguments))
        for pattern in rule.forbidden:
            bad = next(filter(pattern.matches, told), None)
            if bad is not None:
                detail = f"event {line.number}: the kernel was told {_shown(bad)}, which {pattern.text} forbids"
                return _refuted(check, "ArgumentForbidden", detail, found=found)
        for pattern in rule.required:
            if not any(map(pattern.matches, obeyed)):
                detail = f"event {line.number}: the kernel was not told {pattern.text}"
                return _refuted(check, "ArgumentMissing", detail, expected=pattern.text, found=found)
    return None


def _some(names: Iterable[str]) -> str:
    """A few of them, in order; how many more there are."""
    ordered: Sequence[str] = sorted(names)
    rest = len(ordered) - MAX_NAMED
    return ", ".join(ordered[:MAX_NAMED]) + (f" and {rest} more" if rest > 0 else "")


def _shown(text: str) -> str:
    """What a log says, for people: whoever wrote the log chose it."""
    return printable(text, MAX_SHOWN_CHARACTERS)
