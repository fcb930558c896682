"""One conversation with one host: its identity proven by credential activation, its evidence for a fresh nonce.

Nonces are 32 bytes of the operating system's, made inside one call, sent once and compared in that call: a nonce that
outlives its round does not exist, so none can be used twice.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Final

from chatelaine.appraisal.explain import pack_log
from chatelaine.appraisal.ima_history import ImaHistory
from chatelaine.appraisal.stored import Asked, verify_answer
from chatelaine.controller.effort import Effort
from chatelaine.controller.ima_reading import ImaQuestion, ImaReading
from chatelaine.evidence.bundle import EnrolledIdentity, QuoteEvidence, VerifiedEvidence
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
LIST_ROUNDS: Final = 4
"""Rounds that one reading of an IMA list may take: to learn the boot, to catch up, and once more from the start."""
MAX_KEY_TYPES: Final = 16
USUAL_BYTES: Final = 64 * 1024
"""Of boot event log and inventory that are looked at without further ado: most hosts have no more."""


class ActivationRefused(Exception):
    """The host could not open the credential made for the keys that it showed."""


@dataclass(frozen=True, slots=True)
class Question:
    """What to ask a host for. `gateway_spki` is the key that the operator itself saw on the gateway's TLS.

    `accounted`: labels of the keys that rightly are in the token at the moment of asking.
    `wants_log`: the boot event log is asked for; `known_log`: the one that the host sent last.
    `ima`: how the IMA list is judged, and where it was left; None: it is not asked for.
    `effort`: counts what the answers cost.
    """

    subject_uid: str
    gateway_spki: bytes
    selection: Selection
    accounted: frozenset[str] = frozenset()
    wants_log: bool = False
    known_log: bytes | None = None
    ima: ImaQuestion | None = None
    effort: Effort = field(default_factory=Effort, compare=False)


@dataclass(frozen=True, slots=True)
class Told:
    """One round. `verified` is None where it is an authenticated refusal.

    `asked`, `evidence`: the question, and all that was answered.
    `agent_spki`, `agent_not_after`: the key that the agent proved on TLS, and the end of its certificate.
    `ima`: where the IMA list is left now, None where that is not known.
    """

    round: EvidenceRound
    verified: VerifiedEvidence | None
    asked: Asked
    evidence: QuoteEvidence
    agent_spki: bytes
    agent_not_after: int
    ima: ImaHistory | None = None


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
    """One round of evidence under `identity`; a list that is read for the first time takes several.

    Raises:
        PeerError: no usable answer.
        EvidenceError: the answer is not shown to be this host's.
    """
    if question.ima is None:
        return (await _ask(agent, question, identity, None, now=now))[0]
    reading = ImaReading(agent, question.ima, question.effort)
    try:
        for _ in range(LIST_ROUNDS):
            told, more = await _ask(agent, question, identity, reading, now=now)
            if told.verified is None or await reading.follow(told.verified, told.evidence, more=more):
                break
        return await _with_list(told, reading)
    finally:
        question.effort.end()


async def _with_list(told: Told, reading: ImaReading) -> Told:
    if told.verified is None:
        return told
    verified, evidence, findings = await reading.result(told.verified, told.evidence)
    round_ = replace(
        told.round, evidence=verified, evidence_digest=verified.evidence_digest, ima=findings, ima_before=reading.before
    )
    return replace(told, round=round_, verified=verified, evidence=evidence, ima=reading.history)


async def _ask(
    agent: PeerClient, question: Question, identity: EnrolledIdentity, reading: ImaReading | None, *, now: float
) -> tuple[Told, bool]:
    """One question and its answer, verified; and whether the IMA list goes on behind what came."""
    nonce = os.urandom(NONCE_BYTES)
    selection, known = question.selection, question.known_log
    request = EvidenceRequest(
        nonce=nonce,
        subject_uid=question.subject_uid,
        bank=selection.bank.value,
        indices=selection.indices,
        want_log=question.wants_log,
        known_log=hashlib.sha256(known).digest() if known is not None else None,
        ima_from=reading.offset_bytes if reading is not None else None,
        ima_epoch=reading.epoch if reading is not None else "",
    )
    answer = await agent.call("POST", "/v1/evidence", request, EvidenceResponse)
    evidence = evidence_of(answer.message, known_log=known)
    asked = Asked(
        nonce=nonce,
        subject_uid=question.subject_uid,
        identity=identity,
        agent_spki=answer.peer_spki,
        gateway_spki=question.gateway_spki,
        selection=selection,
        wants_log=question.wants_log,
    )
    keys = HostKeys(identity.ak_name.hex(), digest_of(identity.attestation_key_spki))
    message, effort = answer.message, question.effort
    parsed_bytes = len(message.event_log or b"") + len(message.inventory)
    effort.received(answer.size_bytes)
    try:
        verified = await effort.look_at(max(0, parsed_bytes - USUAL_BYTES), verify_answer, evidence, asked)
    except EvidenceError as error:
        if not error.authenticated:
            raise
        refusal = AuthenticatedRefusal(error.reason, str(error))
        round_ = EvidenceRound(refusal, evidence.evidence_digest(), now, keys, accounted=question.accounted)
        return Told(round_, None, asked, evidence, answer.peer_spki, answer.peer_not_after), False
    round_ = EvidenceRound(
        verified, verified.evidence_digest, now, keys, accounted=question.accounted, wanted_log=question.wants_log,
        flawed_log=pack_log(evidence.event_log) if verified.boot_log_flaw and evidence.event_log else None,
    )  # fmt: skip
    told = Told(round_, verified, asked, evidence, answer.peer_spki, answer.peer_not_after)
    return told, answer.message.ima_more


def check_hierarchy(verified: VerifiedEvidence, presented: PresentedIdentity) -> None:
    """The AK lives in the endorsement hierarchy, where the clock's counters are not obfuscated (trust rules, §1.7).

    Raises:
        HierarchyRefused: it does not.
    """
    check_endorsement_hierarchy(verified.quote, parse_public(presented.ak_public), parse_public(presented.ek_public))


def evidence_of(message: EvidenceResponse, *, known_log: bytes | None = None) -> QuoteEvidence:
    """The answer as evidence. A log that was left out because it is `known_log` is put in again.

    Raises:
        Malformed: PCR indices that are none.
    """
    log = message.event_log
    if log is None and known_log is not None and message.log_digest == hashlib.sha256(known_log).digest():
        log = known_log
    return QuoteEvidence(
        attest=message.attest,
        signature=message.signature,
        bank=message.bank,
        pcrs=_pcrs(message.pcrs.items()),
        ak_public=message.ak_public,
        statement=message.statement,
        statement_signature=message.statement_signature,
        inventory=message.inventory,
        event_log=log,
        ima_list=message.ima_list,
        ima_offset=message.ima_offset,
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
