"""Rounds on paper, judged and stored as the operator does it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from tools.lab import event_log_writer as tcg
from tools.lab import firmware

from chatelaine.appraisal.host import HostCase, appraise_host, appraise_refusal
from chatelaine.appraisal.stored import Asked, RoundKind, StoredCase, StoredRound, encode_appraisal
from chatelaine.evidence.bundle import QuoteEvidence, verify_evidence, with_ima
from chatelaine.evidence.errors import EvidenceError, EvidencePartMissing
from chatelaine.evidence.tpm_types import Selection
from chatelaine.model.common import ObjectMeta
from chatelaine.model.identifiers import digest_of
from chatelaine.model.material import PolicyMaterial
from chatelaine.model.policy import AttestationPolicy, AttestationPolicySpec
from chatelaine.model.tpm_policy import Bank
from chatelaine.model.verdict import PolicyStamp
from support.paper_host import AGENT_SPKI, GATEWAY_SPKI, SUBJECT, PaperHost
from support.paper_tpm import NONCE

QUOTED = tuple(range(10))
EK_DIGEST = digest_of(b"an endorsement key")
HOST = PaperHost()
Json = dict[str, Any]


def sha(data: bytes) -> bytes:
    """SHA-256."""
    return hashlib.sha256(data).digest()


def policy(boot: firmware.Boot | None = None, *, pinned: Iterable[int] = (0, 4, 7), log: bool = True) -> Json:
    """Rules that pin PCRs to a boot; the spec as people write it."""
    values = firmware.pcr_values(boot or firmware.Boot())
    tpm: Json = {"pcrs": {"bank": "Sha256", "values": [{"index": i, "anyOf": [values[i]]} for i in pinned]}}
    if log:
        tpm["eventLog"] = {"replay": "Required", "secureBoot": "Enabled"}
    return {"freshness": {"maxAgeSeconds": 30}, "tpm": tpm}


@dataclass(frozen=True)
class Told:
    """A stored round and what it leans on."""

    round: StoredRound
    parts: Mapping[bytes, bytes]

    def part(self, digest: bytes) -> bytes:
        """As a store gives it."""
        if digest not in self.parts:
            raise EvidencePartMissing("not there", found=digest)
        return self.parts[digest]

    def changed(self, **fields: Any) -> Told:
        """With other fields."""
        return replace(self, round=replace(self.round, **fields))


def answer(
    boot: firmware.Boot, *, extended: Mapping[int, bytes] | None = None, log: bytes | None = None
) -> QuoteEvidence:
    """What a host of that boot answers; `extended`: what was extended behind its log."""
    written = firmware.measured(boot)
    values = {index: written.values[tcg.SHA256].get(index, bytes(32)) for index in QUOTED}
    for index, what in (extended or {}).items():
        values[index] = sha(values[index] + sha(what))
    log = written.data if log is None else log
    return replace(HOST.answer(pcrs=values, statement={"log_digest": sha(log)}), event_log=log)


def stored(
    boot: firmware.Boot | None = None,
    *,
    spec: Json | None = None,
    material: PolicyMaterial | None = None,
    reference: bytes | None = None,
    kind: RoundKind = RoundKind.TRUSTED,
    evidence: QuoteEvidence | None = None,
    serial: str | None = None,
    quoted: tuple[int, ...] = QUOTED,
    **case: Any,
) -> Told:
    """Judge the answer of a host as the operator does, and store it. `reference`: envelope of reference values."""
    evidence = evidence or answer(boot or firmware.Boot())
    rules = AttestationPolicySpec.model_validate(spec or policy())
    judging = AttestationPolicy(metadata=ObjectMeta(name="base", uid="uid-base", generation=3), spec=rules)
    judging = judging.with_material(material or PolicyMaterial())
    identity = replace(HOST.identity, serial=serial) if serial is not None else HOST.identity
    asked = Asked(
        nonce=NONCE, subject_uid=SUBJECT, identity=identity, agent_spki=AGENT_SPKI, gateway_spki=GATEWAY_SPKI,
        selection=Selection(Bank.SHA256, quoted), wants_log=evidence.event_log is not None,
    )  # fmt: skip
    values: Json = {
        "accounted": frozenset(),
        "generation": 2,
        "ek_certificate": None,
        "issued_at": 1_780_000_000,
        **case,
    }
    stamp = PolicyStamp("base", "uid-base", 3, judging.digest())
    host_case = HostCase(subject=SUBJECT, stamp=stamp, policy=judging, ek_digest=EK_DIGEST, **values)
    try:
        shown = verify_evidence(
            evidence, nonce=NONCE, subject_uid=SUBJECT, identity=identity, agent_spki=AGENT_SPKI,
            gateway_spki=GATEWAY_SPKI, selection=asked.selection, wants_log=asked.wants_log,
        )  # fmt: skip
        before = host_case.ima_before
        shown = with_ima(shown, evidence, before.progress if before is not None else None)
        appraisal = appraise_host(shown, host_case)
    except EvidenceError as error:
        appraisal = appraise_refusal(error.reason, str(error), evidence.evidence_digest(), host_case)
    roots = judging.material.endorsement_roots
    long = [part for part in (evidence.event_log, evidence.ima_list, reference, *roots) if part is not None]
    parts = {sha(part): part for part in long}
    round_ = StoredRound(
        hsm="hsm-a",
        kind=kind,
        received_ms=1_780_000_000_123,
        build="0.1",
        asked=asked,
        evidence=evidence.encode(),
        parts=tuple(sorted(parts)),
        left_out=(),
        case=StoredCase.of(
            host_case,
            (key.label for key in HOST.keys),
            reference=sha(reference) if reference is not None else None,
            roots=map(sha, roots),
        ),
        appraisal=encode_appraisal(appraisal),
    )
    return Told(round_, parts)
