"""The verdict over one round of one host: may its TPM be enrolled, and does its evidence meet the policy?

It is a function of the evidence and of one `HostCase` and nothing else: stored together, both give the same verdict
again, byte for byte.
"""

from __future__ import annotations

from dataclasses import dataclass

from chatelaine.appraisal.appraise import appraise
from chatelaine.appraisal.endorsement import endorsement_finding
from chatelaine.appraisal.ima_history import ImaFindings, ImaHistory, rule_of, shown
from chatelaine.appraisal.rules import Accounted
from chatelaine.evidence.bundle import VerifiedEvidence
from chatelaine.model.policy import AttestationPolicy, AttestationPolicySpec
from chatelaine.model.verdict import Appraisal, Epoch, Finding, Outcome, PolicyStamp, all_of, verdict_of


@dataclass(frozen=True, slots=True)
class HostCase:
    """What a round is judged by.

    Attributes:
        subject: UID of the Hsm.
        stamp: names the policy in the verdict.
        policy: its rules, and what they lean on.
        ek_digest: of the enrolled endorsement key; empty where none is enrolled.
        ek_certificate: over it, as `endorsement_finding` takes it.
        generation: admissions of this identity.
        issued_at: seconds since the epoch.
        accounted: labels of keys that rightly are in the token.
        last_epoch: of the last verdict; a refusal has no epoch of its own.
        ima_before: where the IMA list was left, and what it had shown by then; None: the list is there from its
            beginning.
    """

    subject: str
    stamp: PolicyStamp
    policy: AttestationPolicy
    ek_digest: str
    ek_certificate: bytes | None
    generation: int
    issued_at: int
    accounted: Accounted
    last_epoch: Epoch | None = None
    ima_before: ImaHistory | None = None

    @property
    def spec(self) -> AttestationPolicySpec:
        """The policy's rules."""
        return self.policy.spec

    @property
    def valid_until(self) -> int:
        """Hard end of a verdict, seconds since the epoch."""
        return self.issued_at + self.spec.freshness.max_age_seconds


def appraise_host(evidence: VerifiedEvidence, case: HostCase, *, ima: ImaFindings | None = None) -> Appraisal:
    """Judge evidence of the host itself, the endorsement rules included: a policy may have dropped this TPM.

    `ima`: what the IMA list has shown, where it was judged when it was read; its entries are then not in `evidence`.
    """
    if ima is None:
        before = case.ima_before.findings if case.ima_before is not None else None
        rule = rule_of(case.policy, at=case.issued_at)
        ima = shown(evidence, {case.stamp.digest: rule} if rule is not None else {}, before)
    found = appraise(
        evidence, ((case.stamp, case.spec, case.policy.material),), subject=case.subject,
        generation=case.generation, issued_at=case.issued_at, accounted=case.accounted, ima=ima,
    )  # fmt: skip
    endorsed = endorsement_finding(case.ek_digest, case.ek_certificate, case.policy, at=case.issued_at)
    return _verdict(
        all_of("host", (endorsed, found.findings)), found.evidence_digest, found.epoch, found.compared, case
    )


def appraise_refusal(reason: str, detail: str, evidence_digest: str, case: HostCase) -> Appraisal:
    """The verdict over evidence that is the host's own, and was refused while it was being verified."""
    last = case.last_epoch or Epoch(0, 0)
    epoch = Epoch(last.reset_count, last.restart_count, case.generation)
    return _verdict(Finding("evidence", Outcome.REFUTED, reason, detail), evidence_digest, epoch, (), case)


def _verdict(
    findings: Finding, evidence_digest: str, epoch: Epoch, compared: tuple[str, ...], case: HostCase
) -> Appraisal:
    reference = case.policy.material.reference
    return Appraisal(
        subject=case.subject,
        verdict=verdict_of(findings.outcome),
        findings=findings,
        policies=(case.stamp,),
        evidence_digest=evidence_digest,
        epoch=epoch,
        issued_at=case.issued_at,
        valid_until=case.valid_until,
        reference_digest=reference.digest if reference is not None else None,
        compared=compared,
    )
