"""What a quote is bound to: the nonce, and the keys and statements that it vouches for (trust rules, §1.3).

A quote proves PCRs to whoever knows the nonce. Without the binding, an honest host's quote could be relayed by a
stranger who terminates TLS with a key of their own.
"""

from __future__ import annotations

import enum
import hashlib
from dataclasses import dataclass
from typing import Final, Self

from chatelaine.evidence import cbor
from chatelaine.evidence.errors import NonceRefused

NONCE_BYTES: Final = 32
QUOTE_DOMAIN: Final = b"chatelaine/quote/v1"


class Purpose(enum.StrEnum):
    """What the evidence is for. Evidence of one purpose never serves another."""

    HSM_HOST = "HsmHost"


@dataclass(frozen=True, slots=True)
class Binding:
    """The facts that enter `extraData`. Byte fields are SHA-256 digests (32 bytes), None where there is nothing.

    Attributes:
        purpose: what the evidence is for.
        subject_uid: UID of the object that is judged.
        agent_spki: digest of the agent's TLS SubjectPublicKeyInfo (DER).
        gateway_spki: digest of the gateway's TLS SubjectPublicKeyInfo (DER).
        hpke_key: digest of the key that releases are encrypted to.
        component_digest: digest of the component measurement.
        statement_digest: digest of the HSM statement's bytes.
        chain_transcript: digest of the attestation chain's transcript.
    """

    purpose: str
    subject_uid: str
    agent_spki: bytes | None = None
    gateway_spki: bytes | None = None
    hpke_key: bytes | None = None
    component_digest: bytes | None = None
    statement_digest: bytes | None = None
    chain_transcript: bytes | None = None

    @classmethod
    def of_hsm_host(cls, *, subject_uid: str, agent_spki: bytes, gateway_spki: bytes, statement: bytes) -> Self:
        """Binding of an HSM host's evidence. Arguments are the things themselves (DER, CBOR), not their digests."""
        return cls(
            purpose=Purpose.HSM_HOST.value,
            subject_uid=subject_uid,
            agent_spki=hashlib.sha256(agent_spki).digest(),
            gateway_spki=hashlib.sha256(gateway_spki).digest(),
            statement_digest=hashlib.sha256(statement).digest(),
        )

    def encode(self) -> bytes:
        """Deterministic CBOR; absent fields are null, so that no two bindings share an encoding."""
        return cbor.encode(
            {
                "purpose": self.purpose,
                "subjectUid": self.subject_uid,
                "agentSpki": self.agent_spki,
                "gatewaySpki": self.gateway_spki,
                "hpkeKey": self.hpke_key,
                "componentDigest": self.component_digest,
                "statementDigest": self.statement_digest,
                "chainTranscript": self.chain_transcript,
            }
        )


def quote_extra_data(nonce: bytes, binding: Binding) -> bytes:
    """The 32 bytes that a TPM quote over `nonce` must carry as `extraData`.

    Raises:
        NonceRefused: the nonce is not 32 bytes long; nothing is padded or cut.
    """
    if len(nonce) != NONCE_BYTES:
        raise NonceRefused("the nonce has another length", expected=f"{NONCE_BYTES} bytes", found=f"{len(nonce)} bytes")
    return hashlib.sha256(QUOTE_DOMAIN + nonce + hashlib.sha256(binding.encode()).digest()).digest()
