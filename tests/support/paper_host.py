"""An HSM host on paper: a TPM and a token whose answers tests can bend in every place."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, replace
from typing import Any

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, utils

from chatelaine.evidence import tpm_algorithms as alg
from chatelaine.evidence.binding import Binding, quote_extra_data
from chatelaine.evidence.bundle import EnrolledIdentity, QuoteEvidence, VerifiedEvidence, verify_evidence
from chatelaine.evidence.hsm_statement import HsmStatement, statement_to_sign
from chatelaine.evidence.inventory import InventoryKey, encode_inventory, inventory_digest
from chatelaine.model.identifiers import key_id, service_key_label
from chatelaine.wire.messages import EvidenceResponse
from support.paper_tpm import NONCE, PCRS, SELECTION, PaperTpm, ecc_key

SUBJECT = "6f1c0e7a-8a51-4d58-9d3f-1f6f0c2c1a11"
AGENT_SPKI = b"agent key"
GATEWAY_SPKI = b"gateway key"


def spki(key: ec.EllipticCurvePrivateKey) -> bytes:
    """SubjectPublicKeyInfo, DER."""
    return key.public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)


def raw_sign(key: ec.EllipticCurvePrivateKey, message: bytes) -> bytes:
    """r and s as PKCS#11's CKM_ECDSA gives them."""
    r, s = utils.decode_dss_signature(key.sign(message, ec.ECDSA(hashes.SHA256())))
    return r.to_bytes(32, "big") + s.to_bytes(32, "big")


def token_key(label: str, object_class: str = "private", **fields: Any) -> InventoryKey:
    """A key as the gateway makes it."""
    private = object_class == "private"
    key = InventoryKey(
        id=key_id(label),
        label=label,
        object_class=object_class,
        key_type="EC",
        usages=("CKA_SIGN",) if private else ("CKA_VERIFY",),
        sensitive=private,
        extractable=not private,
        local=True,
        never_extractable=private,
    )
    return replace(key, **fields)


SERVICE_KEYS = tuple(
    token_key(service_key_label(purpose), object_class)
    for purpose in ("attestation", "token")
    for object_class in ("private", "public")
)


def response_of(evidence: QuoteEvidence) -> EvidenceResponse:
    """As an agent sends it."""
    log = evidence.event_log
    return EvidenceResponse(
        attest=evidence.attest,
        signature=evidence.signature,
        ak_public=evidence.ak_public,
        bank=evidence.bank,
        pcrs={str(index): value for index, value in evidence.pcrs.items()},
        statement=evidence.statement,
        statement_signature=evidence.statement_signature,
        inventory=evidence.inventory,
        event_log=log,
        log_digest=hashlib.sha256(log).digest() if log is not None else None,
        ima_list=evidence.ima_list,
        ima_offset=evidence.ima_offset,
    )


@dataclass
class PaperHost:
    """Answers one nonce. Fields starting in `statement_` or handed to `answer` override what an honest host says."""

    tpm: PaperTpm = field(default_factory=PaperTpm)
    hsm_key: ec.EllipticCurvePrivateKey = field(default_factory=lambda: ecc_key(alg.NIST_P256, 50))
    keys: tuple[InventoryKey, ...] = SERVICE_KEYS
    serial: str = "a1b2c3d4"

    @property
    def identity(self) -> EnrolledIdentity:
        """What enrolment wrote down."""
        return EnrolledIdentity(self.tpm.public, self.tpm.name, spki(self.hsm_key), self.serial)

    def statement(self, nonce: bytes, pcrs: dict[int, bytes], /, **changed: Any) -> HsmStatement:
        """What the token says of itself."""
        honest = HsmStatement(
            serial=self.serial,
            manufacturer="SoftHSM project",
            model="SoftHSM v2",
            firmware="2.6",
            hardware_version="2.6",
            flags=1069,
            mechanisms_digest=b"\x4d" * 32,
            pcr_digest=hashlib.sha256(b"".join(pcrs[index] for index in sorted(pcrs))).digest(),
            inventory_digest=inventory_digest(self.keys),
            nonce=nonce,
        )
        return replace(honest, **changed)

    def answer(
        self,
        nonce: bytes = NONCE,
        *,
        subject: str = SUBJECT,
        agent_spki: bytes = AGENT_SPKI,
        gateway_spki: bytes = GATEWAY_SPKI,
        pcrs: dict[int, bytes] = PCRS,
        statement: dict[str, Any] | None = None,
        quote: dict[str, Any] | None = None,
        event_log: bytes | None = None,
        ima: tuple[int, bytes] | None = None,
    ) -> QuoteEvidence:
        """Evidence for `nonce`, with a boot event log, and an IMA list from some byte on."""
        log_digest = hashlib.sha256(event_log).digest() if event_log is not None else None
        raw = self.statement(nonce, pcrs, **({"log_digest": log_digest} | (statement or {})))
        binding = Binding.of_hsm_host(
            subject_uid=subject, agent_spki=agent_spki, gateway_spki=gateway_spki, statement=raw.encode()
        )
        attest, signature = self.tpm.quote(quote_extra_data(nonce, binding), pcrs, **(quote or {}))
        return QuoteEvidence(
            attest=attest,
            signature=signature,
            bank="Sha256",
            pcrs=pcrs,
            ak_public=self.tpm.public,
            statement=raw.encode(),
            statement_signature=raw_sign(self.hsm_key, statement_to_sign(raw)),
            inventory=encode_inventory(self.keys),
            event_log=event_log,
            ima_offset=ima[0] if ima is not None else 0,
            ima_list=ima[1] if ima is not None else None,
        )

    def judged(self, evidence: QuoteEvidence | None = None, **changed: Any) -> VerifiedEvidence:
        """What the verifier says of `evidence` (or of an honest answer)."""
        arguments: dict[str, Any] = {
            "nonce": NONCE,
            "subject_uid": SUBJECT,
            "identity": self.identity,
            "agent_spki": AGENT_SPKI,
            "gateway_spki": GATEWAY_SPKI,
            "selection": SELECTION,
        }
        return verify_evidence(evidence or self.answer(), **(arguments | changed))
