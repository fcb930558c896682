"""Which keys of a TPM are used. Apart from `tpm_keys`, so that settings load without the TPM software stack."""

from __future__ import annotations

import enum


class EkKind(enum.StrEnum):
    """Which endorsement key to use."""

    RSA_2048 = "rsa2048"
    ECC_P256 = "ecc-p256"


class AkKind(enum.StrEnum):
    """Which attestation key to make."""

    ECC_P256 = "ecc-p256"
    RSA_2048 = "rsa2048"
