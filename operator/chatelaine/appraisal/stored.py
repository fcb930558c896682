"""A judged round as it is stored: the question, the evidence, what it was judged by, and the verdict.

What is long and the same in many rounds (boot event log, IMA list, vendors' certificates, signed reference values) is
not in it but named by its SHA-256: a *part*, stored once beside it. `stored_form.py` has the
encoding; `replay.py` judges again.

Stored bytes are hostile input: whoever can write the folder that they lie in can write anything. They are bounded
before they are read, decoded strictly, and prove nothing before they were verified again under an identity that the
reader knows from elsewhere.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from chatelaine.appraisal.host import HostCase
from chatelaine.evidence import strict_json
from chatelaine.evidence.bundle import (
    MAX_BUNDLE_BYTES,
    EnrolledIdentity,
    QuoteEvidence,
    VerifiedEvidence,
    verify_evidence,
)
from chatelaine.evidence.errors import Malformed
from chatelaine.evidence.ima import ImaProgress
from chatelaine.evidence.tpm_types import Selection
from chatelaine.model.identifiers import canonical_json
from chatelaine.model.policy import AttestationPolicySpec
from chatelaine.model.verdict import Appraisal, Epoch, Finding, Outcome, PolicyStamp

MAX_SPEC_BYTES: Final = 1024 * 1024
MAX_APPRAISAL_BYTES: Final = 1024 * 1024
MAX_ROUND_BYTES: Final = MAX_BUNDLE_BYTES + MAX_SPEC_BYTES + MAX_APPRAISAL_BYTES + 2 * 1024 * 1024
MAX_LABELS: Final = 16384
MAX_PARTS: Final = 256
DIGEST_BYTES: Final = 32
MAX_FINDING_DEPTH: Final = 8
_FINDING: Final = frozenset(("check", "outcome", "reason", "detail", "expected", "found", "children"))


class RoundKind(enum.StrEnum):
    """What a stored round led to."""

    TRUSTED = "Trusted"
    BLOCKED = "Blocked"
    """Cut because the policy changed, not the host."""
    AUDITED = "Audited"
    """Refuted under a policy that only looks."""
    REFUTED = "Refuted"


@dataclass(frozen=True, slots=True)
class Asked:
    """One question to one host, and who has to answer it.

    Attributes:
        nonce: the verifier's 32 bytes.
        subject_uid: UID of the Hsm.
        identity: the enrolled identity at that time.
        agent_spki: the agent's TLS key that was seen (SubjectPublicKeyInfo, DER).
        gateway_spki: the gateway's, likewise.
        selection: the PCRs that were asked for.
        wants_log: the boot event log was asked for.
    """

    nonce: bytes
    subject_uid: str
    identity: EnrolledIdentity
    agent_spki: bytes
    gateway_spki: bytes
    selection: Selection
    wants_log: bool = False


def verify_answer(evidence: QuoteEvidence, asked: Asked) -> VerifiedEvidence:
    """The evidence as the answer to the question, live and in every replay; its IMA list is not looked at.

    Raises:
        EvidenceError: as in `verify_evidence`.
    """
    return verify_evidence(
        evidence,
        nonce=asked.nonce,
        subject_uid=asked.subject_uid,
        identity=asked.identity,
        agent_spki=asked.agent_spki,
        gateway_spki=asked.gateway_spki,
        selection=asked.selection,
        wants_log=asked.wants_log,
    )


@dataclass(frozen=True, slots=True)
class StoredIma:
    """Where the IMA list was left before the round, and what it had shown by then under the policy that judges."""

    progress: ImaProgress
    finding: Finding | None


@dataclass(frozen=True, slots=True)
class StoredCase:
    """A `HostCase`, with what the policy leans on named by digest.

    Attributes:
        stamp: names the policy.
        spec: its rules, canonical JSON.
        roots: SHA-256 of each vendor's certificate.
        reference: SHA-256 of the envelope of its signed reference values; None: it leans on none.
        ek_digest, ek_certificate, generation, issued_at, last_epoch: as in `HostCase`.
        accounted: labels of keys *in the token* that were accounted for, sorted; None: that was not known.
        ima_before: what was known of the IMA list; None: the round has it from its beginning.
    """

    stamp: PolicyStamp
    spec: bytes
    roots: tuple[bytes, ...]
    reference: bytes | None
    ek_digest: str
    ek_certificate: bytes | None
    generation: int
    issued_at: int
    accounted: tuple[str, ...] | None
    last_epoch: Epoch | None
    ima_before: StoredIma | None

    @classmethod
    def of(
        cls, case: HostCase, labels: Iterable[str], *, reference: bytes | None, roots: Iterable[bytes]
    ) -> StoredCase:
        """`case` for a token with keys of these labels: others cannot be refuted, so they need not be kept."""
        accounted: tuple[str, ...] | None = None
        if case.accounted is not None:
            known = case.accounted if callable(case.accounted) else case.accounted.__contains__
            accounted = tuple(sorted({label for label in labels if known(label)}))
        return cls(
            stamp=case.stamp,
            spec=canonical_json(case.spec.dump()),
            roots=tuple(sorted(roots)),
            reference=reference,
            ek_digest=case.ek_digest,
            ek_certificate=case.ek_certificate,
            generation=case.generation,
            issued_at=case.issued_at,
            accounted=accounted,
            last_epoch=case.last_epoch,
            ima_before=_ima(case),
        )


def _ima(case: HostCase) -> StoredIma | None:
    before = case.ima_before
    return StoredIma(before.progress, before.findings.by_policy.get(case.stamp.digest)) if before is not None else None


@dataclass(frozen=True, slots=True)
class StoredRound:
    """A round, judged.

    Attributes:
        hsm: name of the Hsm, for people.
        kind: what it led to.
        received_ms: when the evidence came, milliseconds since the epoch.
        build: version of the verifier.
        asked: the question.
        evidence: `QuoteEvidence.encode`.
        parts: SHA-256 of everything long that the round leans on, sorted.
        left_out: those of `parts` that were too long to be stored.
        case: what it was judged by.
        appraisal: the verdict, `encode_appraisal`.
    """

    hsm: str
    kind: RoundKind
    received_ms: int
    build: str
    asked: Asked
    evidence: bytes
    parts: tuple[bytes, ...]
    left_out: tuple[bytes, ...]
    case: StoredCase
    appraisal: bytes


def encode_appraisal(appraisal: Appraisal) -> bytes:
    """A verdict as canonical JSON: the bytes that a replay has to give again."""
    epoch = appraisal.epoch
    return canonical_json(
        {
            "subject": appraisal.subject,
            "verdict": appraisal.verdict.value,
            "findings": appraisal.findings.as_dict(),
            "policies": [
                {"name": stamp.name, "uid": stamp.uid, "generation": stamp.generation, "digest": stamp.digest}
                for stamp in appraisal.policies
            ],
            "evidenceDigest": appraisal.evidence_digest,
            "referenceDigest": appraisal.reference_digest,
            "epoch": {
                "resetCount": epoch.reset_count,
                "restartCount": epoch.restart_count,
                "generation": epoch.generation,
            },
            "issuedAt": appraisal.issued_at,
            "validUntil": appraisal.valid_until,
            "compared": list(appraisal.compared),
        }
    )


def spec_of(case: StoredCase) -> AttestationPolicySpec:
    """The rules.

    Raises:
        Malformed: they are none.
    """
    try:
        return AttestationPolicySpec.model_validate_json(case.spec)
    except ValueError as error:
        raise Malformed("the stored policy is none") from error


def decode_finding(data: bytes) -> Finding:
    """A stored tree of findings.

    Raises:
        Malformed: it is none, or none of ours.
    """
    try:
        return _finding(strict_json.loads(data), 0)
    except (strict_json.NotStrict, ValueError) as error:
        raise Malformed("the stored finding is none") from error


def _finding(value: object, depth: int) -> Finding:
    if not isinstance(value, dict) or depth > MAX_FINDING_DEPTH or not value.keys() <= _FINDING:
        raise Malformed("the stored finding has other members")
    children = value.get("children", [])
    texts = {name: value[name] for name in _FINDING - {"children", "outcome"} if name in value}
    if not isinstance(children, list) or not {"check", "outcome", "reason"} <= value.keys():
        raise Malformed("the stored finding has other members")
    if not all(isinstance(text, str) for text in texts.values()):
        raise Malformed("a text of the stored finding is none")
    below = tuple(_finding(child, depth + 1) for child in children)
    return Finding(outcome=Outcome(value["outcome"]), children=below, **texts)
