"""Rules for boot logs, held against logs on paper."""

from __future__ import annotations

from collections.abc import Iterable

from chatelaine.appraisal.boot_rules import boot_rules
from chatelaine.model.material import ReferenceValues
from chatelaine.model.tpm_policy import TpmRules
from chatelaine.model.verdict import Finding, Outcome
from support.paper_boot import verified


def spec(**rules: object) -> TpmRules:
    """Rules of a policy for the boot log."""
    pcrs = {"bank": "Sha256", "values": [{"index": 0, "anyOf": ["00" * 32]}]}
    return TpmRules.model_validate({"pcrs": pcrs, "eventLog": {"replay": "Required", **rules}})


def found(
    log: bytes, quoted: Iterable[int] = range(24), reference: ReferenceValues | None = None, **rules: object
) -> Finding:
    """What they find in `log`, of which these PCRs were quoted."""
    (rule,) = boot_rules(spec(**rules), reference)
    return rule.judge_log(verified(log, quoted))


def reason(
    log: bytes, quoted: Iterable[int] = range(24), reference: ReferenceValues | None = None, **rules: object
) -> str:
    """Why they refuse it."""
    finding = found(log, quoted, reference, **rules)
    assert finding.outcome is Outcome.REFUTED
    return finding.reason


def holds(
    log: bytes, quoted: Iterable[int] = range(24), reference: ReferenceValues | None = None, **rules: object
) -> None:
    """They hold."""
    finding = found(log, quoted, reference, **rules)
    assert finding.outcome is Outcome.HOLDS, finding
