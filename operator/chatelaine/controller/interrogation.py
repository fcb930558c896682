"""One conversation with one host: its identity proven by credential activation, its evidence for a fresh nonce.

Nonces are 32 bytes of the operating system's, made inside one call, sent once and compared in that call: a nonce that
outlives its round does not exist, so none can be used twice.
"""

from __future__ import annotations

import base64
import hmac
import os
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from chatelaine.evidence.bundle import EnrolledIdentity, QuoteEvidence, VerifiedEvidence, verify_evidence
from chatelaine.evidence.credential import ENTROPY_BYTES, make_credential
from chatelaine.evidence.endorsement import MAX_EK_CERTIFICATE_BYTES
from chatelaine.evidence.errors import EvidenceError, Malformed
from chatelaine.evidence.reader import bounded
from chatelaine.evidence.tpm_public import PublicArea, check_ak_attributes, check_ek_attributes, parse_public
from chatelaine.evidence.tpm_quote import check_endorsement_hierarchy
from chatelaine.evidence.tpm_types import MAX_PCRS, Selection
from chatelaine.model.hsm import EnrolledIdentity as EnrolledStatus
from chatelaine.model.hsm import TokenStatus
from chatelaine.model.identifiers import digest_of
from chatelaine.model.keys import KeyType
from chatelaine.reconcile.snapshot import AuthenticatedRefusal, EvidenceRound, HostKeys, PresentedIdentity
from chatelaine.wire.messages import (
    NONCE_BYTES,
    Activated,
    Activation,
    EvidenceRequest,
    EvidenceResponse,
    HostIdentity,
    TokenFacts,
)
from chatelaine.wire.peer import PeerClient, PeerRefused

SECRET_BYTES: Final = 32
MAX_KEY_TYPES: Final = 16


class ActivationRefused(Exception):
    """The host could not open the credential made for the keys that it showed."""


@dataclass(frozen=True, slots=True)
class Question:
    """What to ask a host for. `gateway_spki` is the key that the operator itself saw on the gateway's TLS.

    `accounted`: labels of the keys that rightly are in the token at the moment of asking.
    """

    subject_uid: str
    gateway_spki: bytes
    selection: Selection
    accounted: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Told:
    """One round. `verified` is None where it is an authenticated refusal.

    `agent_spki`, `agent_not_after`: the key that the agent proved on TLS, and the end of its certificate.
    """

    round: EvidenceRound
    verified: VerifiedEvidence | None
    agent_spki: bytes
    agent_not_after: int


def enrolled_of(identity: EnrolledStatus, serial: str | None) -> EnrolledIdentity:
    """The enrolled identity as verification takes it.

    Raises:
        Malformed: what stands in the status is no base64 or hexadecimal.
    """
    try:
        return EnrolledIdentity(
            ak_public=base64.b64decode(identity.ak_public, validate=True),
            ak_name=bytes.fromhex(identity.ak_name),
            attestation_key_spki=base64.b64decode(identity.attestation_key_public, validate=True),
            serial=serial,
        )
    except ValueError as error:
        raise Malformed("status.identity is not what was written there") from error


async def present(agent: PeerClient, gateway_spki: bytes) -> PresentedIdentity:
    """The host's identity, with the AK proven to live beside the EK by credential activation.

    Raises:
        PeerError: no usable answer.
        EvidenceError: keys that cannot be a host's.
        ActivationRefused: the TPM opened something else, or nothing.
    """
    shown = await agent.call("GET", "/v1/identity", None, HostIdentity)
    host = shown.message
    ek, ak = parse_public(host.ek_public), parse_public(host.ak_public)
    check_ek_attributes(ek)
    check_ak_attributes(ak)
    if host.gateway is None:
        raise Malformed("the host's gateway does not answer its agent yet, so it shows no HSM attestation key")
    if host.gateway.gateway_spki != gateway_spki:
        raise Malformed(
            "the agent speaks for another gateway than the one that answers the operator",
            expected=digest_of(gateway_spki),
            found=digest_of(host.gateway.gateway_spki),
        )
    await _activate(agent, ek, ak.name)
    return PresentedIdentity(
        ek_digest=ek.spki_digest,
        ek_public=ek.raw,
        ak_public=ak.raw,
        ak_name_hex=ak.name.hex(),
        attestation_key_spki=host.gateway.attestation_key_spki,
        attestation_key_thumbprint=digest_of(host.gateway.attestation_key_spki),
        token=token_status(host.gateway.token),
        agent_spki=shown.peer_spki,
        gateway_spki=gateway_spki,
        activated=True,
        ek_certificate=bounded(host.ek_certificate, MAX_EK_CERTIFICATE_BYTES, "the EK certificate")
        if host.ek_certificate
        else None,
    )


async def _activate(agent: PeerClient, ek: PublicArea, ak_name: bytes) -> None:
    secret = os.urandom(SECRET_BYTES)
    blob, wrapped = make_credential(ek, ak_name, secret, entropy=os.urandom(ENTROPY_BYTES))
    try:
        answer = await agent.call(
            "POST", "/v1/activate", Activation(credential_blob=blob, encrypted_secret=wrapped), Activated
        )
    except PeerRefused as refused:
        raise ActivationRefused(f"the host could not open the credential made for its keys: {refused}") from refused
    if not hmac.compare_digest(answer.message.secret, secret):
        raise ActivationRefused("the TPM opened another secret than the one made for this EK and AK")


async def interrogate(agent: PeerClient, question: Question, identity: EnrolledIdentity, *, now: float) -> Told:
    """One round of evidence under `identity`.

    Raises:
        PeerError: no usable answer.
        EvidenceError: the answer is not shown to be this host's.
    """
    nonce = os.urandom(NONCE_BYTES)
    selection = question.selection
    request = EvidenceRequest(
        nonce=nonce, subject_uid=question.subject_uid, bank=selection.bank.value, indices=selection.indices
    )
    answer = await agent.call("POST", "/v1/evidence", request, EvidenceResponse)
    evidence = evidence_of(answer.message)
    keys = HostKeys(identity.ak_name.hex(), digest_of(identity.attestation_key_spki))
    try:
        verified = verify_evidence(
            evidence,
            nonce=nonce,
            subject_uid=question.subject_uid,
            identity=identity,
            agent_spki=answer.peer_spki,
            gateway_spki=question.gateway_spki,
            selection=selection,
        )
    except EvidenceError as error:
        if not error.authenticated:
            raise
        refusal = AuthenticatedRefusal(error.reason, str(error))
        round_ = EvidenceRound(refusal, evidence.evidence_digest(), now, keys, accounted=question.accounted)
        return Told(round_, None, answer.peer_spki, answer.peer_not_after)
    round_ = EvidenceRound(verified, verified.evidence_digest, now, keys, accounted=question.accounted)
    return Told(round_, verified, answer.peer_spki, answer.peer_not_after)


def check_hierarchy(verified: VerifiedEvidence, presented: PresentedIdentity) -> None:
    """The AK lives in the endorsement hierarchy, where the clock's counters are not obfuscated (trust rules, §1.7).

    Raises:
        HierarchyRefused: it does not.
    """
    check_endorsement_hierarchy(verified.quote, parse_public(presented.ak_public), parse_public(presented.ek_public))


def evidence_of(message: EvidenceResponse) -> QuoteEvidence:
    """The answer as evidence.

    Raises:
        Malformed: PCR indices that are none.
    """
    return QuoteEvidence(
        attest=message.attest,
        signature=message.signature,
        bank=message.bank,
        pcrs=_pcrs(message.pcrs.items()),
        ak_public=message.ak_public,
        statement=message.statement,
        statement_signature=message.statement_signature,
        inventory=message.inventory,
    )


def _pcrs(items: Iterable[tuple[str, bytes]]) -> dict[int, bytes]:
    pcrs: dict[int, bytes] = {}
    for text, value in items:
        # isdecimal alone would let other digits and leading zeros through: two spellings of one index.
        if not text.isascii() or not text.isdecimal() or str(int(text[:3])) != text or int(text) >= MAX_PCRS:
            raise Malformed("a PCR index is no number below 24", found=text)
        pcrs[int(text)] = value
    return pcrs


def token_status(facts: TokenFacts) -> TokenStatus:
    """What PKCS#11 says of the token, bounded as the status wants it.

    Raises:
        Malformed: a digest that is none.
    """
    known = {key_type.value: key_type for key_type in KeyType}
    try:
        return TokenStatus(
            manufacturer=facts.manufacturer[:64],
            model=facts.model[:64],
            serial=facts.serial[:64],
            firmware=facts.firmware[:64],
            mechanisms_digest=facts.mechanisms_digest,
            key_types=[known[name] for name in facts.key_types[:MAX_KEY_TYPES] if name in known] or None,
        )
    except ValueError as error:
        raise Malformed("the token's description is not of its form") from error
