"""Which keys of a TPM are used. Apart from `tpm_keys`, so that settings load without the TPM software stack."""

from __future__ import annotations

import enum
from typing import Final

EK_POLICY: Final = bytes.fromhex("837197674484b3f81a90cc8d46a5d724fd52d76e06520b64f2a1da1b331469aa")
"""PolicySecret(TPM_RH_ENDORSEMENT) with SHA-256: "PolicyA" of the TCG EK Credential Profile."""


class EkKind(enum.StrEnum):
    """Which endorsement key to use."""

    RSA_2048 = "rsa2048"
    ECC_P256 = "ecc-p256"


class AkKind(enum.StrEnum):
    """Which attestation key to make."""

    ECC_P256 = "ecc-p256"
    RSA_2048 = "rsa2048"
