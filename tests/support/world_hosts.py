"""HSM hosts of the in-memory world: a TPM, a token, and what a verifier would have made of their evidence."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import Any

from chatelaine.evidence.bundle import VerifiedEvidence
from chatelaine.evidence.hsm_statement import HsmStatement
from chatelaine.evidence.inventory import inventory_digest
from chatelaine.evidence.tpm_quote import VerifiedQuote
from chatelaine.evidence.tpm_types import Selection
from chatelaine.model.hsm import TokenStatus
from chatelaine.model.identifiers import digest_of
from chatelaine.model.keys import KeyType
from chatelaine.model.verdict import Finding
from chatelaine.reconcile.snapshot import PresentedIdentity
from support.paper_host import SERVICE_KEYS, token_key

GOOD_PCR = "00" * 32
BAD_PCR = "ff" * 32


@dataclass
class WorldHost:
    """One HSM host. `labels` are the key labels in its token; `reachable` and `rogue` bend what it answers."""

    name: str
    model: str = "softhsm"
    firmware: str = "2.6"
    generation: int = 1
    pcrs: dict[int, str] = field(default_factory=lambda: dict.fromkeys(range(24), GOOD_PCR))
    reset_count: int = 3
    restart_count: int = 0
    reachable: bool = True
    labels: set[str] = field(default_factory=set)
    rounds: int = 0
    ak: str = "ak-1"
    ek: str = "ek-1"
    ek_certificate: bytes | None = None
    """Over whatever its maker says; a host whose TPM has a real endorsement key says so by `ek_spki`."""
    ek_spki: bytes | None = None
    private_flags: dict[str, Any] = field(default_factory=dict)
    """Attributes in which the private halves of claims' keys are not as we make them."""
    what_ran: Finding | None = None
    """What its IMA list shows, whatever policy judges it; None: nobody asks."""
    ran_since: bool = False
    """Some of what is refused ran since the policy changed."""

    @property
    def serial(self) -> str:
        """Of the token."""
        return f"serial-{self.name}"

    @property
    def ek_digest(self) -> str:
        """Digest of the endorsement key."""
        return digest_of(self.ek_spki or f"{self.name}/{self.ek}".encode())

    @property
    def thumbprint(self) -> str:
        """Digest of the HSM attestation key."""
        return digest_of(f"{self.name}/attestation".encode())

    @property
    def ak_name(self) -> bytes:
        """TPM name of the attestation key."""
        return b"\x00\x0b" + hashlib.sha256(f"{self.name}/{self.ak}".encode()).digest()

    def presents(self, *, activated: bool = True) -> PresentedIdentity:
        """What it shows of itself."""
        return PresentedIdentity(
            ek_digest=self.ek_digest,
            ek_public=b"ek",
            ak_public=self.ak.encode(),
            ak_name_hex=self.ak_name.hex(),
            attestation_key_spki=b"spki",
            attestation_key_thumbprint=self.thumbprint,
            token=TokenStatus(
                manufacturer="paper",
                model=self.model,
                serial=self.serial,
                firmware=self.firmware,
                mechanisms_digest=digest_of(b"mechanisms"),
                key_types=[KeyType.EC_P256, KeyType.RSA_3072],
            ),
            agent_spki=b"agent",
            gateway_spki=b"gateway",
            activated=activated,
            ek_certificate=self.ek_certificate,
        )

    def evidence(self, selection: Selection) -> VerifiedEvidence:
        """A round as it leaves verification; every round has a digest of its own."""
        self.rounds += 1
        keys = sorted(
            [
                *SERVICE_KEYS,
                *(token_key(label, "public") for label in self.labels),
                *(token_key(label, "private", **self.private_flags) for label in self.labels),
            ]
        )
        values = {index: bytes.fromhex(self.pcrs[index]) for index in selection.indices}
        pcr_digest = hashlib.sha256(b"".join(values.values())).digest()
        quote = VerifiedQuote(
            algorithm="Ecdsa-Sha256",
            selection=selection,
            pcrs=values,
            pcr_digest=pcr_digest,
            extra_data=b"x" * 32,
            qualified_signer=b"q",
            clock_milliseconds=1,
            reset_count=self.reset_count,
            restart_count=self.restart_count,
            safe=True,
            firmware_version=1,
        )
        statement = HsmStatement(
            serial=self.serial,
            manufacturer="paper",
            model=self.model,
            firmware=self.firmware,
            hardware_version="1.0",
            flags=0,
            mechanisms_digest=b"m" * 32,
            pcr_digest=pcr_digest,
            inventory_digest=inventory_digest(keys),
            nonce=b"n" * 32,
        )
        digest = digest_of(f"{self.name}/{self.rounds}".encode())
        return VerifiedEvidence(quote, statement, tuple(keys), digest, self.ak_name)
