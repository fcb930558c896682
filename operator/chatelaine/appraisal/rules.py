"""The rules of a policy, one small object each: it looks at verified evidence and says what it found.

Leaves only declare what they compare; `model.verdict.all_of` and `any_of` compose them and keep every reason.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Final, Protocol

from chatelaine.evidence.bundle import LogFlaw, VerifiedEvidence
from chatelaine.evidence.inventory import InventoryKey
from chatelaine.evidence.tpm_quote import VerifiedQuote
from chatelaine.model.identifiers import key_id, service_key_label
from chatelaine.model.policy import FirmwareRule, StatementLevel
from chatelaine.model.printable import printable
from chatelaine.model.tpm_policy import Bank
from chatelaine.model.verdict import Finding, Outcome

MAX_NAMED_KEYS: Final = 16
"""Offending keys that are named one by one; the rest is counted."""

MAX_LABEL_CHARACTERS: Final = 80

SERVICE_LABELS: Final = frozenset(service_key_label(purpose) for purpose in ("attestation", "token"))

USAGES_OF_OURS: Final = {"private": frozenset({"CKA_SIGN"}), "public": frozenset({"CKA_VERIFY"})}
"""What keys that we make may do, by class. One that unwraps or derives as well could bring other keys out."""

Accounted = AbstractSet[str] | Callable[[str], bool] | None
"""Which key labels are accounted for: a set, a test, or None where that is not known (yet)."""


class Rule(Protocol):
    """One check of a policy."""

    def judge(self, evidence: VerifiedEvidence) -> Finding:
        """What this rule finds in `evidence`."""
        ...


@dataclass(frozen=True, slots=True)
class PcrRule:
    """A PCR has one of the good values. A PCR that is named but was not quoted refutes."""

    bank: Bank
    index: int
    any_of: tuple[str, ...]

    def judge(self, evidence: VerifiedEvidence) -> Finding:
        """Compare the quoted value with the good ones."""
        return self.judge_quote(evidence.quote)

    def judge_quote(self, quote: VerifiedQuote) -> Finding:
        """The same for a quote without an HSM behind it."""
        check = f"pcr {self.bank.value}:{self.index}"
        value = quote.pcrs.get(self.index) if quote.selection.bank is self.bank else None
        expected = " or ".join(self.any_of)
        if value is None:
            return Finding(
                check,
                Outcome.REFUTED,
                "PcrNotQuoted",
                f"PCR {self.index} of bank {self.bank.value} was not quoted",
                expected=expected,
                found=str(quote.selection),
            )
        found = value.hex()
        if found not in self.any_of:
            detail = f"PCR {self.index} is {found}; expected {expected}"
            return Finding(check, Outcome.REFUTED, "PcrMismatch", detail, expected=expected, found=found)
        return Finding(check, Outcome.HOLDS, "PcrMatches", expected=expected, found=found)


def flawed(check: str, flaw: LogFlaw) -> Finding:
    """A log or list that shows nothing; one that cannot be read, or lacks the bank, does not speak against the host."""
    outcome = Outcome.REFUTED if flaw.refutes else Outcome.CANNOT_TELL
    return Finding(check, outcome, flaw.reason, flaw.detail, expected=flaw.expected, found=flaw.found)


def normal_model(text: str) -> str:
    """A token model as policies write it: trimmed, in lower case."""
    return text.strip().lower()


@dataclass(frozen=True, slots=True)
class FirmwareTable:
    """The token's model has a row, and its firmware stands in it."""

    rows: tuple[FirmwareRule, ...]

    def judge(self, evidence: VerifiedEvidence) -> Finding:
        """Look the token's model and firmware up."""
        statement = evidence.statement
        model, firmware = normal_model(statement.model), statement.firmware.strip()
        said_model, said_firmware = printable(model), printable(firmware)
        good = [version for row in self.rows if normal_model(row.model) == model for version in row.any_of]
        if not good:
            known = ", ".join(sorted(row.model for row in self.rows))
            return Finding(
                "firmware",
                Outcome.REFUTED,
                "ModelNotListed",
                f"the policy has no row for model {said_model}; it lists {known}",
                expected=known,
                found=said_model,
            )
        expected = " or ".join(good)
        if firmware not in good:
            return Finding(
                "firmware",
                Outcome.REFUTED,
                "FirmwareNotListed",
                f"{said_model} runs firmware {said_firmware}; the policy lists {expected}",
                expected=expected,
                found=said_firmware,
            )
        return Finding("firmware", Outcome.HOLDS, "FirmwareListed", expected=expected, found=firmware)


@dataclass(frozen=True, slots=True)
class StatementRule:
    """Who vouches for what the token says of itself. No vendor's attestation of keys can be verified yet, so it is the
    host alone, whatever level the statement gives itself: that is a word of the host like all others in it.
    """

    level: StatementLevel

    def judge(self, evidence: VerifiedEvidence) -> Finding:
        """Compare the level reached with the level asked for."""
        reached = StatementLevel.HOST_ASSERTED
        holds = self.level is reached
        detail = f"the HSM statement is {reached.value}; the policy asks for {self.level.value}"
        if evidence.statement.level != reached.value:
            detail += f". It calls itself {printable(evidence.statement.level)}, and no vendor is shown to vouch for it"
        return Finding(
            "statement",
            Outcome.HOLDS if holds else Outcome.REFUTED,
            "StatementLevelReached" if holds else "StatementLevelTooLow",
            "" if holds else detail,
            expected=self.level.value,
            found=reached.value,
        )


@dataclass(frozen=True, slots=True)
class InventoryRule:
    """Every key in the token is ours and as we make it; a key that nobody accounts for refutes.

    `accounted` holds the labels of all key versions of claims, of retained keys and of intents. Our service keys
    are known here. A label alone is not believed: CKA_ID must be the one that belongs to it, no second object of the
    same class may carry it, and a key that could leave the token, or do more than sign, is not ours.
    """

    accounted: Accounted

    def judge(self, evidence: VerifiedEvidence) -> Finding:
        """Go through the token's keys."""
        if self.accounted is None:
            return Finding(
                "inventory",
                Outcome.CANNOT_TELL,
                "AccountsUnknown",
                "which keys are accounted for is not known yet",
            )
        offending = list(self._findings(evidence.inventory))
        if not offending:
            detail = f"all {len(evidence.inventory)} key objects are accounted for"
            return Finding("inventory", Outcome.HOLDS, "InventoryAccounted", detail)
        rest = len(offending) - MAX_NAMED_KEYS
        detail = offending[0].detail + (f" (and {rest} more than are listed)" if rest > 0 else "")
        return Finding(
            "inventory", Outcome.REFUTED, offending[0].reason, detail, children=tuple(offending[:MAX_NAMED_KEYS])
        )

    def offending(self, keys: Iterable[InventoryKey]) -> Iterable[tuple[InventoryKey, str, str]]:
        """Every key of `keys` that refutes, with reason and detail."""
        seen: set[tuple[str, str]] = set()
        for key in keys:
            reason, detail = self._refusal(key, seen)
            seen.add((key.label, key.object_class))
            if reason:
                yield key, reason, detail

    def _findings(self, keys: Iterable[InventoryKey]) -> Iterable[Finding]:
        for key, reason, detail in self.offending(keys):
            check = f"key {key.object_class} {_shown(key)}"
            yield Finding(check, Outcome.REFUTED, reason, detail, found=_shown(key))

    def _refusal(self, key: InventoryKey, seen: AbstractSet[tuple[str, str]]) -> tuple[str, str]:
        name = f"{key.object_class} key {_shown(key)}"
        if key.label not in SERVICE_LABELS and not self._known(key.label):
            return "KeyUnaccounted", f"{name} belongs to no claim, no retained key and no service of ours"
        if key.id != key_id(key.label):
            return "KeyUnaccounted", f"{name} carries a label of ours under another id"
        if (key.label, key.object_class) in seen:
            return "KeyDuplicated", f"{name} exists twice"
        if key.object_class != "public" and (key.extractable or not key.sensitive):
            return "KeyExposed", f"{name} can leave the token"
        if key.object_class != "public" and not (key.local and key.never_extractable):
            return "KeyForeign", f"{name} was not made inside the token, or was extractable once"
        usual = USAGES_OF_OURS.get(key.object_class)
        if usual is None or not usual.issuperset(key.usages):
            shown = ", ".join(printable(usage, MAX_LABEL_CHARACTERS) for usage in key.usages) or "nothing"
            return "KeyMisused", f"{name} is not as we make keys: it may do {shown}"
        return "", ""

    def _known(self, label: str) -> bool:
        if self.accounted is None:
            return False
        return label in self.accounted if isinstance(self.accounted, AbstractSet) else self.accounted(label)


def _shown(key: InventoryKey) -> str:
    """Label and id, bounded and printable: labels are hostile input."""
    return f"'{printable(key.label, MAX_LABEL_CHARACTERS)}' (id {key.id[:32].hex() or 'none'})"


def compared_by(rules: Sequence[Rule], evidence: VerifiedEvidence) -> tuple[str, ...]:
    """What was compared, for the verdict: banks and PCR indices, components."""
    pcrs: dict[str, list[int]] = {}
    others: set[str] = set()
    for rule in rules:
        if isinstance(rule, PcrRule):
            pcrs.setdefault(rule.bank.value, []).append(rule.index)
        elif isinstance(rule, FirmwareTable):
            others.add(f"firmware of {printable(normal_model(evidence.statement.model), MAX_LABEL_CHARACTERS)}")
        elif isinstance(rule, InventoryRule):
            others.add("inventory")
        elif isinstance(rule, StatementRule):
            others.add("statement")
    banks = (f"pcr {bank}:{','.join(map(str, sorted(set(indices))))}" for bank, indices in sorted(pcrs.items()))
    return (*banks, *sorted(others))
