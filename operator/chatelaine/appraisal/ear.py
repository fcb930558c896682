"""A verdict as an EAT Attestation Result: a claims set of draft-ietf-rats-ear-04, to be signed by whoever issues it.

Statuses and vector values are those of AR4SI (draft-ietf-rats-ar4si). What EAR has no word for goes under names of
our own: the whole tree of findings, epoch, policies and digests, so that the verdict can be replayed.
"""

from __future__ import annotations

from typing import Final

from chatelaine.appraisal import boot_rules, ima_history
from chatelaine.model.identifiers import GROUP
from chatelaine.model.verdict import Appraisal, Finding, Outcome, Verdict

EAR_PROFILE: Final = "tag:ietf.org,2026:rats/ear#04"
DEVELOPER: Final = f"https://{GROUP}"

AFFIRMING: Final = 2
NONE: Final = 0
CONTRAINDICATED: Final = 96

_STATUS: Final = {
    Verdict.TRUSTED: "affirming",
    Verdict.UNKNOWN: "none",
    Verdict.UNTRUSTED: "contraindicated",
}
_VALUE: Final = {Outcome.HOLDS: AFFIRMING, Outcome.CANNOT_TELL: NONE, Outcome.REFUTED: CONTRAINDICATED}
_OUTCOME_STATUS: Final = {
    Outcome.HOLDS: "affirming",
    Outcome.CANNOT_TELL: "none",
    Outcome.REFUTED: "contraindicated",
}

PLATFORM: Final = "tpm"
HSM: Final = "hsm"


def ear_claims(appraisal: Appraisal, *, build: str, enrolled: bool = True) -> dict[str, object]:
    """The claims set: one submodule for the platform (TPM), one for the token (HSM statement).

    Args:
        appraisal: the verdict.
        build: version of the verifier.
        enrolled: the keys that signed are known to be the subject's; else nothing is claimed of its identity.
    """
    policies = [f"{stamp.name}/{stamp.uid}/{stamp.generation}/{stamp.digest}" for stamp in appraisal.policies]
    submods: dict[str, object] = {}
    for name in (PLATFORM, HSM):
        outcome = _part(appraisal.findings, name)
        if outcome is not None:
            submods[name] = {
                "ear_status": _OUTCOME_STATUS[outcome],
                "ear_trustworthiness_vector": {
                    "instance-identity": AFFIRMING if enrolled else NONE,
                    _ASPECT[name]: _VALUE[outcome],
                },
                "ear_appraisal_policy_ids": policies,
            }
    epoch = appraisal.epoch
    return {
        "eat_profile": EAR_PROFILE,
        "iat": appraisal.issued_at,
        "exp": appraisal.valid_until,
        "ear_verifier_id": {"build": build, "developer": DEVELOPER},
        "submods": submods,
        f"{GROUP}/status": _STATUS[appraisal.verdict],
        f"{GROUP}/verdict": appraisal.verdict.value,
        f"{GROUP}/subject": appraisal.subject,
        f"{GROUP}/evidence-digest": appraisal.evidence_digest,
        f"{GROUP}/reference-digest": appraisal.reference_digest,
        f"{GROUP}/compared": list(appraisal.compared),
        f"{GROUP}/epoch": {
            "resetCount": epoch.reset_count,
            "restartCount": epoch.restart_count,
            "generation": epoch.generation,
        },
        f"{GROUP}/policies": [
            {"name": stamp.name, "uid": stamp.uid, "generation": stamp.generation, "digest": stamp.digest}
            for stamp in appraisal.policies
        ],
        f"{GROUP}/findings": appraisal.findings.as_dict(),
    }


_ASPECT: Final = {PLATFORM: "executables", HSM: "configuration"}


def _of_platform(check: str) -> bool:
    return check.startswith("pcr ") or check in (boot_rules.CHECK, ima_history.CHECK)


def _part(tree: Finding, name: str) -> Outcome | None:
    """The worst outcome among what speaks about this part; None where nothing does.

    Children of the tree that have children are policies; the others are checks of the TPM's evidence itself. Those
    alone compare nothing with a good value, so that they can refute, but affirm nothing.
    """
    rules = [rule for policy in tree.children for rule in policy.children]
    outcomes = {rule.outcome for rule in rules if _of_platform(rule.check) == (name == PLATFORM)}
    if name == PLATFORM:
        checks = {check.outcome for check in tree.children if not check.children}
        outcomes |= checks if outcomes or Outcome.REFUTED in checks else checks and {Outcome.CANNOT_TELL}
    for worst in (Outcome.REFUTED, Outcome.CANNOT_TELL, Outcome.HOLDS):
        if worst in outcomes:
            return worst
    return None
