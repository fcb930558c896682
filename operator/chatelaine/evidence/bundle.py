"""Evidence of an HSM host for one nonce: the quote, the token's statement and inventory, judged together.

`verify_evidence` does, in this order:

1. the attestation key that came with the evidence is the enrolled one, by name;
2. the binding is computed from what the verifier itself knows: subject, the keys seen on TLS, and the statement's
   bytes; the quote must carry it (`tpm_quote`, steps 1 to 7);
3. the statement is signed by the enrolled HSM attestation key, over this nonce and the quoted PCR digest, by the
   pinned token (`hsm_statement`);
4. the inventory is the one that the statement names.

The caller owes what `tpm_quote` lists; comparing epochs; and the appraisal, which alone judges deviations.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

from chatelaine.evidence import cbor
from chatelaine.evidence.binding import Binding, quote_extra_data
from chatelaine.evidence.errors import AttestationKeyMismatch, InventoryMismatch, KeyRefused, Malformed, NonceRefused
from chatelaine.evidence.hsm_statement import HsmStatement, verify_statement
from chatelaine.evidence.ima import VerifiedIma
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

_FIELDS: Final = (
    "attest", "signature", "bank", "pcrs", "ak_public", "statement", "statement_signature", "inventory",
)  # fmt: skip
_MAX_ITEMS: Final = 1 + 2 * len(_FIELDS) + 3 * MAX_PCRS


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
    """

    attest: bytes
    signature: bytes
    bank: str
    pcrs: Mapping[int, bytes]
    ak_public: bytes
    statement: bytes
    statement_signature: bytes
    inventory: bytes

    def encode(self) -> bytes:
        """Deterministic CBOR, for the evidence digest and for storing."""
        value: dict[str, Any] = {name: getattr(self, name) for name in _FIELDS}
        value["pcrs"] = [[index, self.pcrs[index]] for index in sorted(self.pcrs)]
        return cbor.encode(value)

    def evidence_digest(self) -> str:
        """`sha256:` over `encode`. This is what a verdict, and a re-admission, name."""
        return digest_of(self.encode())


def decode_evidence(data: bytes) -> QuoteEvidence:
    """Stored evidence, to be verified again.

    Raises:
        Oversized: longer than the bound.
        Malformed: a defect of form.
    """
    value = cbor.decode(data, limit_bytes=MAX_BUNDLE_BYTES, what="the evidence", max_items=_MAX_ITEMS)
    item: dict[str, Any] = dict(cbor.fields(value, _FIELDS, "the evidence"))
    if type(item["bank"]) is not str or any(type(item[n]) is not bytes for n in _FIELDS if n not in ("bank", "pcrs")):
        raise Malformed("a field of the evidence is of another kind")
    item["pcrs"] = _decode_pcrs(item["pcrs"])
    evidence = QuoteEvidence(**item)
    if evidence.encode() != data:
        raise Malformed("PCRs of the evidence are not sorted, or named twice")
    return evidence


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
class VerifiedEvidence:
    """Evidence shown to be the enrolled identity's, fresh and whole. What it means is for the appraisal to say.

    `ima` is None where no list of measurements came along.
    """

    quote: VerifiedQuote
    statement: HsmStatement
    inventory: tuple[InventoryKey, ...]
    evidence_digest: str
    ak_name: bytes
    ima: VerifiedIma | None = None


def verify_evidence(
    evidence: QuoteEvidence,
    *,
    nonce: bytes,
    subject_uid: str,
    identity: EnrolledIdentity,
    agent_spki: bytes,
    gateway_spki: bytes,
    selection: Selection,
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
    return VerifiedEvidence(quote, statement, keys, evidence.evidence_digest(), identity.ak_name)


@lru_cache(maxsize=CACHED_INVENTORIES)
def _remembered(inventory: bytes) -> tuple[InventoryKey, ...]:
    return decode_inventory(inventory)


def _bare(public: bytes) -> bytes:
    """TPMT_PUBLIC, whether or not a TPM2B was put around it."""
    if len(public) >= 2 and struct.unpack_from(">H", public)[0] == len(public) - 2:
        return public[2:]
    return public
