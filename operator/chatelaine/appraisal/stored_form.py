"""The encoding of stored rounds: deterministic CBOR, bounded, one encoding for one round."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, Final

from chatelaine.appraisal.stored import (
    DIGEST_BYTES,
    MAX_APPRAISAL_BYTES,
    MAX_LABELS,
    MAX_PARTS,
    MAX_ROUND_BYTES,
    MAX_SPEC_BYTES,
    Asked,
    RoundKind,
    StoredCase,
    StoredIma,
    StoredRound,
    decode_finding,
)
from chatelaine.evidence import cbor
from chatelaine.evidence.bundle import MAX_BUNDLE_BYTES, MAX_PCR_BYTES, EnrolledIdentity
from chatelaine.evidence.errors import EvidenceError, Malformed
from chatelaine.evidence.ima import ImaProgress
from chatelaine.evidence.tpm_types import MAX_PCRS, Selection
from chatelaine.model.identifiers import canonical_json
from chatelaine.model.tpm_policy import Bank
from chatelaine.model.verdict import Epoch, PolicyStamp

VERSION: Final = "chatelaine/stored-round/v1"
MAX_NONCE_BYTES: Final = 64
MAX_NAME_BYTES: Final = 68
MAX_KEY_BYTES: Final = 4096
MAX_CERTIFICATE_BYTES: Final = 16 * 1024
MAX_TEXT_CHARACTERS: Final = 256
MAX_NUMBER: Final = 2**53
_OBJECT_NAME: Final = re.compile(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?", re.ASCII)
_MAX_ITEMS: Final = 256 + MAX_LABELS + 3 * MAX_PARTS

_ROUND: Final = (
    "v", "hsm", "kind", "received_ms", "build", "asked", "evidence", "parts", "left_out", "case", "appraisal",
)  # fmt: skip
_ASKED: Final = ("nonce", "subject_uid", "agent_spki", "gateway_spki", "bank", "indices", "wants_log", "identity")
_IDENTITY: Final = ("ak_public", "ak_name", "attestation_key_spki", "serial")
_CASE: Final = (
    "policy", "spec", "roots", "reference", "ek_digest", "ek_certificate", "generation", "issued_at", "accounted",
    "last_epoch", "ima_before",
)  # fmt: skip
_IMA: Final = ("reset_count", "restart_count", "bank", "offset_bytes", "entries", "pcr10", "finding")
_POLICY: Final = ("name", "uid", "generation", "digest")
_EPOCH: Final = ("reset_count", "restart_count", "generation")


def encode_round(round_: StoredRound) -> bytes:
    """Deterministic CBOR."""
    asked, case = round_.asked, round_.case
    return cbor.encode(
        {
            "v": VERSION,
            "hsm": round_.hsm,
            "kind": round_.kind.value,
            "received_ms": round_.received_ms,
            "build": round_.build,
            "asked": {
                "nonce": asked.nonce,
                "subject_uid": asked.subject_uid,
                "agent_spki": asked.agent_spki,
                "gateway_spki": asked.gateway_spki,
                "bank": asked.selection.bank.value,
                "indices": list(asked.selection.indices),
                "wants_log": asked.wants_log,
                "identity": {name: getattr(asked.identity, name) for name in _IDENTITY},
            },
            "evidence": round_.evidence,
            "parts": list(round_.parts),
            "left_out": list(round_.left_out),
            "case": {
                "policy": {name: getattr(case.stamp, name) for name in _POLICY},
                "spec": case.spec,
                "roots": list(case.roots),
                "reference": case.reference,
                "ek_digest": case.ek_digest,
                "ek_certificate": case.ek_certificate,
                "generation": case.generation,
                "issued_at": case.issued_at,
                "accounted": list(case.accounted) if case.accounted is not None else None,
                "last_epoch": (
                    {name: getattr(case.last_epoch, name) for name in _EPOCH} if case.last_epoch is not None else None
                ),
                "ima_before": _encoded_ima(case.ima_before),
            },
            "appraisal": round_.appraisal,
        }
    )


def _encoded_ima(ima: StoredIma | None) -> dict[str, Any] | None:
    if ima is None:
        return None
    found: dict[str, Any] = {name: getattr(ima.progress, name) for name in _IMA[:-1]}
    found["bank"] = ima.progress.bank.value
    found["finding"] = canonical_json(ima.finding.as_dict()) if ima.finding is not None else None
    return found


def decode_round(data: bytes) -> StoredRound:
    """A stored round. Nothing in it is believed yet.

    Raises:
        Oversized: longer than the bound.
        Malformed: a defect of form.
    """
    value = cbor.decode(data, limit_bytes=MAX_ROUND_BYTES, what="the stored round", max_items=_MAX_ITEMS)
    found = _Fields(value, _ROUND, "the stored round")
    if found.text("v") != VERSION:
        raise Malformed("the stored round is of another version", expected=VERSION, found=found.text("v"))
    if found.text("kind") not in {kind.value for kind in RoundKind}:
        raise Malformed("the stored round is of no kind that is known", found=found.text("kind"))
    parts, left_out = found.digests("parts"), found.digests("left_out")
    case = _case(found.item("case"))
    leans_on = {*case.roots, *([case.reference] if case.reference is not None else ())}
    if not set(left_out) | leans_on <= set(parts):
        raise Malformed("the stored round leans on a part that it does not name")
    return StoredRound(
        hsm=found.object_name("hsm"),
        kind=RoundKind(found.text("kind")),
        received_ms=found.number("received_ms"),
        build=found.text("build"),
        asked=_asked(found.item("asked")),
        evidence=found.octets("evidence", MAX_BUNDLE_BYTES),
        parts=parts,
        left_out=left_out,
        case=case,
        appraisal=found.octets("appraisal", MAX_APPRAISAL_BYTES),
    )


def parts_of(data: bytes) -> tuple[bytes, ...]:
    """The parts that must be stored beside an encoded round.

    Raises:
        ValueError: it is none.
    """
    try:
        round_ = decode_round(data)
    except EvidenceError as error:
        raise ValueError(str(error)) from error
    return tuple(part for part in round_.parts if part not in round_.left_out)


def _asked(value: object) -> Asked:
    found = _Fields(value, _ASKED, "the stored question")
    identity = _Fields(found.item("identity"), _IDENTITY, "the stored identity")
    bank, indices, wants_log = found.bank("bank"), found.item("indices"), found.item("wants_log")
    if not isinstance(indices, list) or len(indices) > MAX_PCRS or type(wants_log) is not bool:
        raise Malformed("the stored question is of another form")
    if any(type(index) is not int for index in indices) or indices != sorted(indices):
        raise Malformed("the stored question names PCRs that are none")
    try:
        selection = Selection(bank, tuple(indices))
    except ValueError as error:
        raise Malformed("the stored question names PCRs that are none") from error
    return Asked(
        nonce=found.octets("nonce", MAX_NONCE_BYTES),
        subject_uid=found.text("subject_uid"),
        identity=EnrolledIdentity(
            ak_public=identity.octets("ak_public", MAX_KEY_BYTES),
            ak_name=identity.octets("ak_name", MAX_NAME_BYTES),
            attestation_key_spki=identity.octets("attestation_key_spki", MAX_KEY_BYTES),
            serial=identity.text("serial") if identity.item("serial") is not None else None,
        ),
        agent_spki=found.octets("agent_spki", MAX_KEY_BYTES),
        gateway_spki=found.octets("gateway_spki", MAX_KEY_BYTES),
        selection=selection,
        wants_log=wants_log,
    )


def _case(value: object) -> StoredCase:
    found = _Fields(value, _CASE, "the stored case")
    policy = _Fields(found.item("policy"), _POLICY, "the stored policy's name")
    reference, certificate = found.item("reference"), found.item("ek_certificate")
    return StoredCase(
        stamp=PolicyStamp(
            policy.object_name("name"), policy.text("uid"), policy.number("generation"), policy.text("digest")
        ),
        spec=found.octets("spec", MAX_SPEC_BYTES),
        roots=found.digests("roots"),
        reference=found.digest("reference") if reference is not None else None,
        ek_digest=found.text("ek_digest"),
        ek_certificate=found.octets("ek_certificate", MAX_CERTIFICATE_BYTES) if certificate is not None else None,
        generation=found.number("generation"),
        issued_at=found.number("issued_at"),
        accounted=_labels(found.item("accounted")),
        last_epoch=_epoch(found.item("last_epoch")),
        ima_before=_ima(found.item("ima_before")),
    )


def _labels(value: object) -> tuple[str, ...] | None:
    if value is None:
        return None
    if not isinstance(value, list) or len(value) > MAX_LABELS or any(type(label) is not str for label in value):
        raise Malformed("the stored labels are no bounded list of texts")
    if value != sorted(set(value)):
        raise Malformed("the stored labels are not sorted, or named twice")
    return tuple(value)


def _epoch(value: object) -> Epoch | None:
    if value is None:
        return None
    found = _Fields(value, _EPOCH, "the stored epoch")
    return Epoch(*(found.number(name) for name in _EPOCH))


def _ima(value: object) -> StoredIma | None:
    if value is None:
        return None
    found = _Fields(value, _IMA, "the stored IMA list")
    progress = ImaProgress(
        reset_count=found.number("reset_count"),
        restart_count=found.number("restart_count"),
        bank=found.bank("bank"),
        offset_bytes=found.number("offset_bytes"),
        entries=found.number("entries"),
        pcr10=found.octets("pcr10", MAX_PCR_BYTES),
    )
    text = found.octets("finding", MAX_APPRAISAL_BYTES) if found.item("finding") is not None else None
    return StoredIma(progress, decode_finding(text) if text is not None else None)


class _Fields:
    """A decoded map with exactly the wanted fields, read with their kind and bound."""

    def __init__(self, value: object, names: Iterable[str], what: str) -> None:
        self._value = cbor.fields(value, names, what)
        self._what = what

    def item(self, name: str) -> Any:
        return self._value[name]

    def octets(self, name: str, limit_bytes: int) -> bytes:
        value = self._value[name]
        if type(value) is not bytes or len(value) > limit_bytes:
            raise Malformed(f"{self._what}: {name} is no bytes of allowed length", expected=f"at most {limit_bytes}")
        return value

    def text(self, name: str) -> str:
        value = self._value[name]
        if type(value) is not str or len(value) > MAX_TEXT_CHARACTERS:
            raise Malformed(f"{self._what}: {name} is no text of allowed length")
        return value

    def object_name(self, name: str) -> str:
        """Of a cluster-scoped object: such names are put into commands that people are told to type."""
        value = self.text(name)
        if not _OBJECT_NAME.fullmatch(value):
            raise Malformed(f"{self._what}: {name} is the name of no object", found=value)
        return value

    def number(self, name: str) -> int:
        value = self._value[name]
        if type(value) is not int or not 0 <= value <= MAX_NUMBER:
            raise Malformed(f"{self._what}: {name} is no number of allowed size")
        return value

    def bank(self, name: str) -> Bank:
        value = self.text(name)
        if value not in {known.value for known in Bank}:
            raise Malformed(f"{self._what}: {name} is no bank that is known", found=value)
        return Bank(value)

    def digest(self, name: str) -> bytes:
        value = self._value[name]
        if type(value) is not bytes or len(value) != DIGEST_BYTES:
            raise Malformed(f"{self._what}: {name} is no SHA-256")
        return value

    def digests(self, name: str) -> tuple[bytes, ...]:
        value = self._value[name]
        if not isinstance(value, list) or len(value) > MAX_PARTS:
            raise Malformed(f"{self._what}: {name} is no bounded list")
        if any(type(digest) is not bytes or len(digest) != DIGEST_BYTES for digest in value):
            raise Malformed(f"{self._what}: {name} is no list of SHA-256")
        if value != sorted(set(value)):
            raise Malformed(f"{self._what}: {name} is not sorted, or names one twice")
        return tuple(value)
