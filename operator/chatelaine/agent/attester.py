"""The port to a root of trust that speaks TPM 2.0 structures: a TPM, or a simulation of one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from chatelaine.evidence.tpm_types import Selection


@dataclass(frozen=True, slots=True)
class TpmIdentity:
    """Who the TPM is. `ek_public`, `ak_public`: TPMT_PUBLIC; `ek_certificate`: DER, None where there is none."""

    ek_public: bytes
    ak_public: bytes
    ek_certificate: bytes | None = None


@dataclass(frozen=True, slots=True)
class Quote:
    """TPMS_ATTEST, TPMT_SIGNATURE, and TPMT_PUBLIC of the key that signed."""

    attest: bytes
    signature: bytes
    ak_public: bytes


@dataclass(frozen=True, slots=True)
class TpmMarker:
    """Cheap to read, and different whenever PCRs may differ: extended, rebooted, resumed, cleared.

    PCRs 16 and 21 to 23 do not move `pcr_update_counter` on PC Client platforms (Platform TPM Profile, §4.6.2).
    """

    pcr_update_counter: int
    reset_count: int
    restart_count: int


class Attester(Protocol):
    """One TPM. Every method raises `AttesterError`; its subclass tells what to do.

    The attestation key is restricted, signs with SHA-256, lives in the endorsement hierarchy, and keeps its name
    across restarts and TPM resets; after a TPM clear it is another one.
    """

    async def identity(self) -> TpmIdentity:
        """Endorsement key, attestation key, endorsement certificate."""

    async def read_pcrs(self, selection: Selection) -> dict[int, bytes]:
        """Values by index; `BankAbsent` unless every one of them exists."""

    async def quote(self, extra_data: bytes, selection: Selection) -> Quote:
        """TPM2_Quote over `selection` with `extra_data` (at most 64 bytes)."""

    async def activate(self, credential_blob: bytes, encrypted_secret: bytes) -> bytes:
        """TPM2_ActivateCredential with EK and AK: TPM2B_ID_OBJECT, TPM2B_ENCRYPTED_SECRET; gives the secret.

        Raises:
            ActivationRefused: made for another EK or AK, or damaged.
        """

    async def marker(self) -> TpmMarker:
        """What to compare to notice a change."""

    async def close(self) -> None:
        """Let go of the TPM."""
