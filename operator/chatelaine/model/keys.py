"""Key types, usages, sensitivity and key version states."""

from __future__ import annotations

import enum
from collections.abc import Iterable

from chatelaine.model.common import cel


class KeyType(enum.StrEnum):
    """Types of keys that a claim may ask for."""

    EC_P256 = "EcP256"
    EC_P384 = "EcP384"
    EC_P521 = "EcP521"
    ED25519 = "Ed25519"
    RSA_2048 = "Rsa2048"
    RSA_3072 = "Rsa3072"
    RSA_4096 = "Rsa4096"
    AES_128 = "Aes128"
    AES_256 = "Aes256"
    HMAC = "Hmac"


WORKING_KEY_TYPES = (KeyType.EC_P256, KeyType.RSA_3072)


class Usage(enum.StrEnum):
    """What a key may be used for."""

    SIGN = "Sign"
    VERIFY = "Verify"
    ENCRYPT = "Encrypt"
    DECRYPT = "Decrypt"
    MAC = "Mac"


WORKING_USAGES = (Usage.SIGN, Usage.VERIFY)


class Sensitivity(enum.StrEnum):
    """Sensitivity of what a key protects, in rising order."""

    PUBLIC = "Public"
    INTERNAL = "Internal"
    CONFIDENTIAL = "Confidential"
    RESTRICTED = "Restricted"

    @property
    def rank(self) -> int:
        """0 for Public up to 3 for Restricted."""
        return list(Sensitivity).index(self)


class KeyState(enum.StrEnum):
    """State of a key version: NIST SP 800-57 Part 1, section 7."""

    PRE_ACTIVE = "PreActive"
    ACTIVE = "Active"
    DEACTIVATED = "Deactivated"
    COMPROMISED = "Compromised"
    DESTROYED = "Destroyed"


def _listed(values: Iterable[enum.StrEnum]) -> str:
    """As CEL writes a list of strings."""
    return "[" + ", ".join(f"'{value}'" for value in values) + "]"


_KEY_TYPES_SAID = f"this release makes keys of type {' and '.join(WORKING_KEY_TYPES)} only"
WORKING_KEY_TYPES_RULE = cel(f"self.all(t, t in {_listed(WORKING_KEY_TYPES)})", f"{_KEY_TYPES_SAID}; remove the others")
WORKING_KEY_TYPE_RULE = cel(f"self in {_listed(WORKING_KEY_TYPES)}", f"{_KEY_TYPES_SAID}; choose one of them")
WORKING_USAGES_RULE = cel(
    f"self.all(u, u in {_listed(WORKING_USAGES)})",
    f"this release serves the usages {' and '.join(WORKING_USAGES)} only; remove the others",
)
