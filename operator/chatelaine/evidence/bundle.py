"""Evidence of an HSM host for one nonce: the quote, the token's statement and inventory, judged together.

`verify_evidence` does, in this order:

1. the attestation key that came with the evidence is the enrolled one, by name;
2. the binding is computed from what the verifier itself knows: subject, the keys seen on TLS, and the statement's
   bytes; the quote must carry it (`tpm_quote`, steps 1 to 7);
3. the statement is signed by the enrolled HSM attestation key, over this nonce and the quoted PCR digest, by the
   pinned token (`hsm_statement`);
4. the inventory is the one that the statement names;
5. the boot event log, where one is asked for, is the one that the statement names, and replays to the quoted PCRs.
   A log that does not is a fact about the host, and goes to the appraisal as such.

`with_ima` adds the list of measured files. The caller owes what `tpm_quote` lists; comparing epochs; and the
appraisal, which alone judges deviations.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, Final

from chatelaine.evidence import cbor
from chatelaine.evidence.binding import Binding, quote_extra_data
from chatelaine.evidence.boot_log import VerifiedBootLog, verify_boot_log
from chatelaine.evidence.errors import (
    AttestationKeyMismatch,
    EvidenceError,
    EvidencePartMissing,
    ImaProgressLost,
    InventoryMismatch,
    KeyRefused,
    Malformed,
    NonceRefused,
    StatementLogMismatch,
)
from chatelaine.evidence.hsm_statement import HsmStatement, verify_statement
from chatelaine.evidence.ima import MAX_IMA_BYTES, ImaProgress, VerifiedIma, verify_ima
from chatelaine.evidence.inventory import MAX_INVENTORY_BYTES, InventoryKey, decode_inventory
from chatelaine.evidence.reader import bounded
from chatelaine.evidence.tpm_quote import VerifiedQuote, attestation_key, verify_quote
from chatelaine.evidence.tpm_types import MAX_PCRS, Selection
from chatelaine.model.identifiers import digest_of

MAX_BUNDLE_BYTES: Final = MAX_INVENTORY_BYTES + 64 * 1024
MAX_PCR_BYTES: Final = 64
CACHED_INVENTORIES: Final = 512
CACHED_INVENTORY_BYTES: Final = 64 * 1024
"""Decoded inventories that are kept, by their bytes: tokens change seldom, hosts are asked every few seconds.
Longer ones are decoded each time, or the cache could hold gigabytes."""

_BYTES: Final = ("attest", "signature", "ak_public", "statement", "statement_signature", "inventory")
_FIELDS: Final = (*_BYTES, "bank", "pcrs", "event_log", "ima")
_MAX_ITEMS: Final = 1 + 2 * len(_FIELDS) + 3 * MAX_PCRS + 2
_DIGEST_BYTES: Final = 32


@dataclass(frozen=True, slots=True)
class QuoteEvidence:
    """What an agent returns for one nonce. Nothing in it is believed yet.

    Attributes:
        attest: TPMS_ATTEST.
        signature: TPMT_SIGNATURE.
        bank: name of the quoted bank, as in policies (`Sha256`).
        pcrs: reported values by index.
        ak_public: TPMT_PUBLIC of the attestation key.
        statement: the HSM statement's CBOR.
        statement_signature: r and s, 32 bytes each.
        inventory: CBOR of the token's keys.
        event_log: the boot event log; None where none is asked for or there.
        ima_list: the IMA list from byte `ima_offset` on; None likewise.
    """

    attest: bytes
    signature: bytes
    bank: str
    pcrs: Mapping[int, bytes]
    ak_public: bytes
    statement: bytes
    statement_signature: bytes
    inventory: bytes
    event_log: bytes | None = None
    ima_list: bytes | None = None
    ima_offset: int = 0

    def encode(self) -> bytes:
        """Deterministic CBOR, for the evidence digest and for storing. Log and list stand in it by their SHA-256: they
        are long, and the same in many rounds.
        """
        value: dict[str, Any] = {name: getattr(self, name) for name in _BYTES}
        value["bank"] = self.bank
        value["pcrs"] = [[index, self.pcrs[index]] for index in sorted(self.pcrs)]
        value["event_log"] = hashlib.sha256(self.event_log).digest() if self.event_log is not None else None
        value["ima"] = None
        if self.ima_list is not None:
            value["ima"] = [self.ima_offset, hashlib.sha256(self.ima_list).digest()]
        return cbor.encode(value)

    def evidence_digest(self) -> str:
        """`sha256:` over `encode`. This is what a verdict, and a re-admission, name."""
        return digest_of(self.encode())


def _no_part(digest: bytes) -> bytes:
    raise EvidencePartMissing("the evidence names a part that was not stored with it", found=digest)


def decode_evidence(data: bytes, part: Callable[[bytes], bytes] = _no_part) -> QuoteEvidence:
    """Stored evidence, to be verified again.

    Args:
        data: what `QuoteEvidence.encode` gave.
        part: gives the log or list of a SHA-256; raises `EvidencePartMissing` for one that it has not.

    Raises:
        Oversized: longer than the bound.
        EvidencePartMissing: a part is not at hand.
        Malformed: a defect of form, or a part of another digest.
    """
    value = cbor.decode(data, limit_bytes=MAX_BUNDLE_BYTES, what="the evidence", max_items=_MAX_ITEMS)
    item: dict[str, Any] = dict(cbor.fields(value, _FIELDS, "the evidence"))
    if type(item["bank"]) is not str or any(type(item[name]) is not bytes for name in _BYTES):
        raise Malformed("a field of the evidence is of another kind")
    item["pcrs"] = _decode_pcrs(item["pcrs"])
    log, ima = item["event_log"], item.pop("ima")
    item["event_log"] = part(_digest(log)) if log is not None else None
    if ima is not None:
        if not isinstance(ima, list) or len(ima) != 2 or type(ima[0]) is not int:
            raise Malformed("the IMA list of the evidence is not named by offset and digest")
        if not 0 <= ima[0] <= MAX_IMA_BYTES:
            raise Malformed("the IMA list of the evidence begins nowhere")
        item["ima_offset"], item["ima_list"] = ima[0], part(_digest(ima[1]))
    evidence = QuoteEvidence(**item)
    if evidence.encode() != data:
        raise Malformed("PCRs of the evidence are not sorted or named twice, or a part has another digest")
    return evidence


def _digest(value: object) -> bytes:
    if not isinstance(value, bytes) or len(value) != _DIGEST_BYTES:
        raise Malformed("a part of the evidence is not named by its SHA-256")
    return value


def _decode_pcrs(value: object) -> dict[int, bytes]:
    if not isinstance(value, list) or len(value) > MAX_PCRS:
        raise Malformed("PCRs of the evidence are no short list")
    pcrs: dict[int, bytes] = {}
    for pair in value:
        if not isinstance(pair, list) or [type(part) for part in pair] != [int, bytes]:
            raise Malformed("a PCR of the evidence is not a pair of index and value")
        index, digest = pair
        if not 0 <= index < MAX_PCRS or len(digest) > MAX_PCR_BYTES:
            raise Malformed("a PCR of the evidence has no such index or length")
        pcrs[index] = digest
    return pcrs


@dataclass(frozen=True, slots=True)
class EnrolledIdentity:
    """Who must have made the evidence, read once together with the decision that rests on it.

    Attributes:
        ak_public: TPMT_PUBLIC of the enrolled attestation key.
        ak_name: its TPM name (34 bytes for SHA-256).
        attestation_key_spki: SubjectPublicKeyInfo of the HSM's attestation key (DER).
        serial: pinned serial of the token; None while the host is being enrolled.
    """

    ak_public: bytes
    ak_name: bytes
    attestation_key_spki: bytes
    serial: str | None = None


@dataclass(frozen=True, slots=True)
class LogFlaw:
    """Why a log or list that is the enrolled host's own shows nothing. `refutes`: that is a fact about the host;
    else nothing can be told. The texts are those of an `EvidenceError`.
    """

    reason: str
    detail: str
    refutes: bool
    expected: str | None = None
    found: str | None = None

    @classmethod
    def of(cls, error: EvidenceError) -> LogFlaw:
        """Of what verification said."""
        return cls(error.reason, error.detail, error.authenticated, error.expected, error.found)


@dataclass(frozen=True, slots=True)
class VerifiedEvidence:
    """Evidence shown to be the enrolled identity's, fresh and whole. What it means is for the appraisal to say.

    Attributes:
        quote: PCRs and clock.
        statement: what the token says of itself.
        inventory: keys in the token.
        evidence_digest: names this evidence.
        ak_name: TPM name of the key that signed.
        boot_log: what booted; None where no log is asked for, the host sent none, or `boot_log_flaw` says why.
        ima: what ran; None likewise.
    """

    quote: VerifiedQuote
    statement: HsmStatement
    inventory: tuple[InventoryKey, ...]
    evidence_digest: str
    ak_name: bytes
    boot_log: VerifiedBootLog | None = None
    boot_log_flaw: LogFlaw | None = None
    ima: VerifiedIma | None = None
    ima_flaw: LogFlaw | None = None


def verify_evidence(
    evidence: QuoteEvidence,
    *,
    nonce: bytes,
    subject_uid: str,
    identity: EnrolledIdentity,
    agent_spki: bytes,
    gateway_spki: bytes,
    selection: Selection,
    wants_log: bool = False,
) -> VerifiedEvidence:
    """Show that `evidence` is the subject's own answer to `nonce`.

    Args:
        evidence: what came over the wire.
        nonce: the verifier's 32 bytes, used for nothing else.
        subject_uid: UID of the judged object.
        identity: the enrolled identity.
        agent_spki: the agent's TLS key as seen by the verifier (SubjectPublicKeyInfo, DER).
        gateway_spki: the gateway's TLS key, likewise.
        selection: the PCRs that were asked for.
        wants_log: the boot event log was asked for; what the statement says of it must be what came.

    Raises:
        EvidenceError: its subclass tells what failed; `authenticated` tells whether it may count against the subject.
    """
    if not agent_spki or not gateway_spki or not subject_uid:
        raise NonceRefused("evidence is bound to a subject and to both TLS keys; one of them is missing")
    # 1
    ak = attestation_key(identity.ak_public)
    if ak.name != identity.ak_name:
        raise KeyRefused("the enrolled public area has another name", expected=identity.ak_name, found=ak.name)
    if _bare(evidence.ak_public) != _bare(identity.ak_public):
        raise AttestationKeyMismatch("another attestation key than the enrolled one", expected=identity.ak_name)
    # 2
    binding = Binding.of_hsm_host(
        subject_uid=subject_uid, agent_spki=agent_spki, gateway_spki=gateway_spki, statement=evidence.statement
    )
    if evidence.bank != selection.bank.value:
        raise Malformed("the evidence is of another bank", expected=selection.bank.value, found=evidence.bank)
    quote = verify_quote(
        evidence.attest,
        evidence.signature,
        ak=ak,
        expected_extra_data=quote_extra_data(nonce, binding),
        selection=selection,
        pcrs=evidence.pcrs,
    )
    # 3
    statement = verify_statement(
        evidence.statement,
        evidence.statement_signature,
        identity.attestation_key_spki,
        nonce=nonce,
        pcr_digest=quote.pcr_digest,
        serial=identity.serial,
    )
    # 4
    inventory = bounded(evidence.inventory, MAX_INVENTORY_BYTES, "the inventory")
    if hashlib.sha256(inventory).digest() != statement.inventory_digest:
        raise InventoryMismatch("the inventory is not the one that the statement names")
    keys = _remembered(inventory) if len(inventory) <= CACHED_INVENTORY_BYTES else decode_inventory(inventory)
    verified = VerifiedEvidence(quote, statement, keys, evidence.evidence_digest(), identity.ak_name)
    # 5
    if evidence.event_log is None and not wants_log:
        return verified
    return _with_boot_log(verified, evidence.event_log)


def _with_boot_log(verified: VerifiedEvidence, log: bytes | None) -> VerifiedEvidence:
    found = hashlib.sha256(log).digest() if log is not None else None
    if found != verified.statement.log_digest:
        raise StatementLogMismatch(
            "the boot event log is not the one that the HSM statement names",
            expected=verified.statement.log_digest or "none",
            found=found or "none",
        )
    if log is None:
        return verified
    try:
        return replace(verified, boot_log=verify_boot_log(log, verified.quote))
    except EvidenceError as error:
        return replace(verified, boot_log_flaw=LogFlaw.of(error))


def with_ima(verified: VerifiedEvidence, evidence: QuoteEvidence, progress: ImaProgress | None) -> VerifiedEvidence:
    """`verified` with what the IMA list of `evidence` shows from `progress` on: the entries up to the quoted PCR 10.

    A list that does not go on from `progress` (None: from its beginning), or that leads nowhere, shows nothing, and
    the flaw says why. Without a list nothing is added.
    """
    if evidence.ima_list is None:
        return verified
    try:
        begins = progress.offset_bytes if progress is not None else 0
        if evidence.ima_offset != begins:
            raise ImaProgressLost("the list goes on from elsewhere", expected=begins, found=evidence.ima_offset)
        return replace(verified, ima=verify_ima(evidence.ima_list, verified.quote, progress))
    except EvidenceError as error:
        return replace(verified, ima_flaw=LogFlaw.of(error))


@lru_cache(maxsize=CACHED_INVENTORIES)
def _remembered(inventory: bytes) -> tuple[InventoryKey, ...]:
    return decode_inventory(inventory)


def _bare(public: bytes) -> bytes:
    """TPMT_PUBLIC, whether or not a TPM2B was put around it."""
    if len(public) >= 2 and struct.unpack_from(">H", public)[0] == len(public) - 2:
        return public[2:]
    return public
