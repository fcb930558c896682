"""Judging stored rounds by hand: is the evidence genuine and good, and does the stored verdict follow from it?

What `chatelaine verify bundle` and `verify replay` print. Whose host it is that the round speaks of, no round can say
of itself: give the TPM name of the attestation key (`Hsm.status.identity.akName`), else it cannot be told.
"""

from __future__ import annotations

import datetime
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from chatelaine.appraisal.explain import NOTHING_CHANGED, Boot, explain, refuted_pcrs
from chatelaine.appraisal.offline import Report, refusal
from chatelaine.appraisal.replay import Part, Replayed, replay
from chatelaine.appraisal.stored import RoundKind, StoredRound
from chatelaine.evidence.errors import EvidenceError, EvidencePartMissing
from chatelaine.model.identifiers import ANNOTATION_READMIT, digest_of
from chatelaine.model.printable import printable
from chatelaine.model.verdict import Finding, Outcome, Verdict, all_of

MAX_DIFFERENCES: Final = 16
MAX_SHOWN_CHARACTERS: Final = 400


@dataclass(frozen=True, slots=True)
class BundleCase:
    """A stored round and what to judge it by.

    Attributes:
        round: the round.
        part: gives its parts.
        ak_names: TPM names (hexadecimal) of the attestation keys one of which must have signed; empty: nobody said.
        trusted: an earlier boot that was trusted, to compare with; None: there is none.
    """

    round: StoredRound
    part: Part
    ak_names: tuple[str, ...] = ()
    trusted: Boot | None = None


def judge_bundle(case: BundleCase) -> Report:
    """Is the evidence genuine, and does it meet the policy that it was judged by? What was stored of the verdict is
    not looked at.
    """
    try:
        again = replay(case.round, case.part)
    except EvidenceError as error:
        return Report(all_of("evidence bundle", [_refused(error)]), _facts(case.round))
    findings = [_genuine(again), _anchor(case), again.appraisal.findings]
    told = explanation(case, again)
    facts = {**_facts(case.round), "verdict": again.appraisal.verdict.value, "explanation": list(told)}
    report = Report(all_of("evidence bundle", findings), facts)
    advice = _advice(case, again, report)
    return replace(report, facts={**facts, "advice": advice}) if advice else report


def judge_replay(case: BundleCase) -> Report:
    """Does judging again give the stored verdict, byte for byte?"""
    stored = case.round.appraisal
    facts = {**_facts(case.round), "storedDigest": digest_of(stored)}
    try:
        again = replay(case.round, case.part)
    except EvidenceError as error:
        return Report(all_of("replay", [_refused(error)]), facts)
    facts["replayedDigest"] = digest_of(again.encoded)
    findings = [_genuine(again), _kind(case, again)]
    if case.ak_names:
        # A verdict follows from its inputs or not, whoever made them.
        findings.append(_anchor(case))
    if again.encoded == stored:
        detail = f"the verdict is {again.appraisal.verdict.value}, then and now"
        findings.append(Finding("same bytes", Outcome.HOLDS, "ReplayMatches", detail, found=digest_of(stored)))
    else:
        findings.append(
            Finding(
                "same bytes",
                Outcome.REFUTED,
                "ReplayDiffers",
                f"the stored verdict does not follow from what was stored with it (stored by version"
                f" {case.round.build[:64]})",
                expected=digest_of(stored),
                found=digest_of(again.encoded),
                children=tuple(_differences(stored, again.encoded)),
            )
        )
    return Report(all_of("replay", findings), facts)


def explanation(case: BundleCase, again: Replayed) -> tuple[str, ...]:
    """What a person needs to know of the boot, in sentences."""
    if _blocked(case, again):
        return (NOTHING_CHANGED,)
    refused = refuted_pcrs(again.appraisal.findings)
    if again.boot is None or (not refused and case.trusted is None):
        return ()
    return explain(again.boot, case.trusted, refused, log_asked=case.round.asked.wants_log)


def _blocked(case: BundleCase, again: Replayed) -> bool:
    """Was the policy changed, and not the host? A round says so of itself; a trusted boot of the host may belie it."""
    if case.round.kind is not RoundKind.BLOCKED:
        return False
    if case.trusted is None or again.boot is None or case.trusted.bank is not again.boot.bank:
        return True
    then, now = case.trusted.pcrs, again.boot.pcrs
    return all(then.get(index, now.get(index)) == now.get(index) for index in refuted_pcrs(again.appraisal.findings))


def _refused(error: EvidenceError) -> Finding:
    if isinstance(error, EvidencePartMissing):
        return Finding("parts", Outcome.CANNOT_TELL, error.reason, error.detail, found=error.found)
    return refusal("evidence", error)


def _genuine(again: Replayed) -> Finding:
    detail = "the quote, the HSM statement and what they bind are the stored identity's answer to the stored question"
    if again.evidence is None:
        detail = "signed by the stored identity, and refused for what it says"
    return Finding("evidence", Outcome.HOLDS, "EvidenceGenuine", detail)


def _anchor(case: BundleCase) -> Finding:
    found = case.round.asked.identity.ak_name.hex()
    if not case.ak_names:
        detail = "whose TPM this is, the bundle cannot say; give --ak-name, from Hsm.status.identity"
        return Finding("identity", Outcome.CANNOT_TELL, "IdentityNotAnchored", detail, found=found)
    if found not in (name.lower() for name in case.ak_names):
        detail, expected = "the evidence is another TPM's", " or ".join(case.ak_names)
        return Finding("identity", Outcome.REFUTED, "IdentityMismatch", detail, expected=expected, found=found)
    return Finding("identity", Outcome.HOLDS, "IdentityMatches", found=found)


def _kind(case: BundleCase, again: Replayed) -> Finding:
    """Was it stored as what it is? People look at the kind first."""
    kind, verdict = case.round.kind, again.appraisal.verdict
    meant = Verdict.TRUSTED if kind is RoundKind.TRUSTED else Verdict.UNTRUSTED
    if verdict is meant:
        return Finding("kind", Outcome.HOLDS, "KindMatches", found=kind.value)
    detail = f"it was stored as {kind.value}, and the verdict is {verdict.value}"
    return Finding("kind", Outcome.REFUTED, "KindDiffers", detail, expected=meant.value, found=verdict.value)


# --- facts and advice -----------------------------------------------------------------------------------------


def _facts(round_: StoredRound) -> dict[str, object]:
    asked, case = round_.asked, round_.case
    moment = datetime.datetime.fromtimestamp(round_.received_ms / 1000, tz=datetime.UTC)
    return {
        "hsm": round_.hsm,
        "subject": asked.subject_uid,
        "kind": round_.kind.value,
        "receivedAt": moment.strftime("%Y-%m-%dT%H:%M:%SZ"),
        "akName": asked.identity.ak_name.hex(),
        "ekDigest": case.ek_digest,
        "policy": {"name": case.stamp.name, "generation": case.stamp.generation, "digest": case.stamp.digest},
        "quoted": {"bank": asked.selection.bank.value, "indices": list(asked.selection.indices)},
        "evidenceDigest": digest_of(round_.evidence),
        "storedBy": round_.build,
        "leftOut": [f"sha256:{digest.hex()}" for digest in round_.left_out],
    }


def _advice(case: BundleCase, again: Replayed, report: Report) -> list[str]:
    """What to do; nothing where nothing is refuted."""
    round_ = case.round
    if report.findings.outcome is not Outcome.REFUTED:
        return []
    if _blocked(case, again):
        return [f"Compare AttestationPolicy {round_.case.stamp.name} with its earlier version: chatelaine policy diff."]
    evidence = digest_of(round_.evidence)
    if refuted_pcrs(again.appraisal.findings) or "event log" in _refuted_checks(again.appraisal.findings):
        return [
            "Find out what was measured: an update that nobody announced, or somebody at the machine.",
            "If it was an update, add its values to the policy or its reference values: chatelaine policy test.",
            "If not, install the host anew; keys of its HSM are suspect since then.",
            f"Then re-admit the host: kubectl annotate hsm {round_.hsm} {ANNOTATION_READMIT}={evidence}",
        ]
    return [
        "Look at the finding that refutes, and mend what it names.",
        f"Then re-admit the host: kubectl annotate hsm {round_.hsm} {ANNOTATION_READMIT}={evidence}",
    ]


def _refuted_checks(findings: Finding) -> set[str]:
    found = {findings.check} if findings.outcome is Outcome.REFUTED else set()
    return found.union(*(_refuted_checks(child) for child in findings.children))


# --- what differs ---------------------------------------------------------------------------------------------


def _differences(stored: bytes, replayed: bytes) -> Sequence[Finding]:
    """Each place where two verdicts differ, up to a bound."""
    try:
        one = json.loads(stored)
    except (ValueError, RecursionError):
        return [Finding("stored verdict", Outcome.REFUTED, "NoVerdict", "the stored verdict cannot be read")]
    found = [
        Finding(f"verdict{where}", Outcome.REFUTED, "Differs", expected=_shown(old), found=_shown(new))
        for where, old, new in sorted(_places(one, json.loads(replayed), ""), key=_depth)
    ]
    if not found:
        return [Finding("stored verdict", Outcome.REFUTED, "OtherEncoding", "the same verdict, in other bytes")]
    rest = len(found) - MAX_DIFFERENCES
    if rest > 0:
        more = Finding("verdict", Outcome.REFUTED, "Differs", f"{rest} more places differ")
        return [*found[:MAX_DIFFERENCES], more]
    return found


def _places(one: Any, other: Any, where: str) -> list[tuple[str, Any, Any]]:
    if isinstance(one, dict) and isinstance(other, dict):
        keys = sorted(one.keys() | other.keys())
        return [
            found for key in keys for found in _places(one.get(key), other.get(key), f"{where}.{printable(key, 64)}")
        ]
    if isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        pairs = enumerate(zip(one, other, strict=True))
        return [found for number, (a, b) in pairs for found in _places(a, b, f"{where}[{number}]")]
    return [] if one == other else [(where, one, other)]


def _depth(place: tuple[str, Any, Any]) -> int:
    """What stands at the top says most."""
    return place[0].count(".") + place[0].count("[")


def _shown(value: Any) -> str:
    """Nothing is known of a stored verdict: it may hold what is no Unicode, and no number."""
    text = json.dumps(value, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
    return printable(text, MAX_SHOWN_CHARACTERS)
