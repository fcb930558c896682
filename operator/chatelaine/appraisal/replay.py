"""A stored round, judged again: the evidence is verified anew, the verdict made anew, and held against the stored one.

What is done, in this order:

1. the parts that the round leans on are fetched by digest; without one of them nothing can be told;
2. the policy is that of the stored digest, with the same vendors' certificates and the same reference values, whose
   signatures are verified again;
3. the evidence answers the stored question under the stored identity (`evidence.bundle`), the IMA list goes on from
   where it was left;
4. all of it is appraised, and encoded: the same bytes, or not.

A stored round says of itself whose it is. Whoever draws a conclusion about a host compares `asked.identity` with what
they know of that host: the caller owes that.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass

from chatelaine.appraisal.explain import Boot, pack_log
from chatelaine.appraisal.host import HostCase, appraise_host, appraise_refusal
from chatelaine.appraisal.ima_history import ImaFindings, ImaHistory
from chatelaine.appraisal.stored import Asked, StoredCase, StoredRound, encode_appraisal, spec_of, verify_answer
from chatelaine.evidence import cbor
from chatelaine.evidence.bundle import (
    MAX_BUNDLE_BYTES,
    QuoteEvidence,
    VerifiedEvidence,
    decode_evidence,
    with_ima,
)
from chatelaine.evidence.errors import EvidenceError, EvidencePartMissing, Malformed
from chatelaine.evidence.reference_values import verify_bundle
from chatelaine.model.common import ObjectMeta
from chatelaine.model.material import PolicyMaterial
from chatelaine.model.policy import AttestationPolicy
from chatelaine.model.verdict import Appraisal

Part = Callable[[bytes], bytes]
"""Gives what hashes to a SHA-256; raises `EvidencePartMissing`."""


@dataclass(frozen=True, slots=True)
class Replayed:
    """What judging again gave.

    Attributes:
        policy: the policy, as it was put together again.
        evidence: what was shown; None where the host's own evidence was refused while it was verified.
        boot: what its quote showed; None likewise.
        appraisal: the new verdict.
        encoded: its bytes.
    """

    policy: AttestationPolicy
    evidence: VerifiedEvidence | None
    boot: Boot | None
    appraisal: Appraisal
    encoded: bytes


def replay(round_: StoredRound, part: Part) -> Replayed:
    """Judge again; the steps stand at the top of this module.

    Raises:
        EvidencePartMissing: a part is not at hand: nothing can be told.
        EvidenceError: the evidence is not that of the stored identity, or a part is not what it must be.
    """
    # 1, 2
    return judged_by(round_, host_case(round_, policy_of(round_.case, part)), part)


def judged_by(round_: StoredRound, case: HostCase, part: Part) -> Replayed:
    """Steps 3 and 4 by themselves: the evidence of `round_`, verified anew and appraised by `case`.

    Raises:
        EvidencePartMissing: a part of the evidence is not at hand: nothing can be told.
        EvidenceError: the evidence is not that of the stored identity.
    """
    evidence = decode_evidence(round_.evidence, checked_parts(part))
    # 3, 4
    shown: VerifiedEvidence | None
    try:
        shown = _verified(evidence, round_.asked, case.ima_before)
    except EvidenceError as error:
        if not error.authenticated:
            raise
        shown = None
        appraisal = appraise_refusal(error.reason, str(error), evidence.evidence_digest(), case)
    else:
        appraisal = appraise_host(shown, case)
    boot = _boot(shown, evidence) if shown is not None else None
    return Replayed(case.policy, shown, boot, appraisal, encode_appraisal(appraisal))


def boot_of(round_: StoredRound, part: Part) -> Boot:
    """What the quote of a stored round showed of a boot; its IMA list is not looked at.

    The quote is verified under the identity in the round. That the round was trusted is the word of whoever stored it.

    Raises:
        EvidenceError: the evidence is not that of the stored identity, or its log is missing.
    """
    evidence = decode_evidence(_without_list(round_.evidence), checked_parts(part))
    return _boot(_verified(evidence, round_.asked, None), evidence)


def _boot(shown: VerifiedEvidence, evidence: QuoteEvidence) -> Boot:
    return Boot.of(shown.quote, pack_log(evidence.event_log) if evidence.event_log is not None else None)


def policy_of(case: StoredCase, part: Part) -> AttestationPolicy:
    """The policy with all that it leaned on.

    Raises:
        EvidencePartMissing: a certificate or the reference values are not at hand.
        EvidenceError: the reference values do not verify, or rules and material are not those of the stored digest.
    """
    spec, fetch = spec_of(case), checked_parts(part)
    reference = None
    if case.reference is not None:
        if spec.reference_values is None:
            raise Malformed("the stored policy leans on reference values that it does not name")
        reference = verify_bundle(fetch(case.reference), spec.reference_values, not_below=0)
    meta = ObjectMeta(name=case.stamp.name, uid=case.stamp.uid, generation=case.stamp.generation)
    material = PolicyMaterial(tuple(map(fetch, case.roots)), reference)
    policy = AttestationPolicy(metadata=meta, spec=spec).with_material(material)
    if policy.digest() != case.stamp.digest:
        raise Malformed("the stored rules are not those that judged", expected=case.stamp.digest, found=policy.digest())
    return policy


def checked_parts(part: Part) -> Part:
    """`part`, believed only where it hashes to what it was asked for by."""

    def fetch(digest: bytes) -> bytes:
        data = part(digest)
        if hashlib.sha256(data).digest() != digest:
            raise EvidencePartMissing("a part is another one than was stored", expected=digest)
        return data

    return fetch


def _verified(evidence: QuoteEvidence, asked: Asked, ima: ImaHistory | None) -> VerifiedEvidence:
    shown = verify_answer(evidence, asked)
    return with_ima(shown, evidence, ima.progress if ima is not None else None)


def host_case(round_: StoredRound, policy: AttestationPolicy) -> HostCase:
    """What the round was judged by, with `policy` put together again."""
    case, before = round_.case, round_.case.ima_before
    history = None
    if before is not None:
        known = {case.stamp.digest: before.finding} if before.finding is not None else {}
        history = ImaHistory(before.progress, ImaFindings(known))
    return HostCase(
        subject=round_.asked.subject_uid,
        stamp=case.stamp,
        policy=policy,
        ek_digest=case.ek_digest,
        ek_certificate=case.ek_certificate,
        generation=case.generation,
        issued_at=case.issued_at,
        accounted=frozenset(case.accounted) if case.accounted is not None else None,
        last_epoch=case.last_epoch,
        ima_before=history,
    )


def _without_list(evidence: bytes) -> bytes:
    """The list is bound by PCR 10 alone: evidence without it still answers the question."""
    value = cbor.decode(evidence, limit_bytes=MAX_BUNDLE_BYTES, what="the evidence")
    return cbor.encode({**value, "ima": None}) if isinstance(value, dict) else evidence
