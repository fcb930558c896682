"""Our own keys on the token: one signs statements about it, the other signs trust tokens."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from chatelaine.model.identifiers import service_key_label
from chatelaine.model.keys import KeyType
from chatelaine.pkcs11.port import HsmPort, PublicKey

ATTESTATION_KEY: Final = service_key_label("attestation")
TOKEN_KEY: Final = service_key_label("token")


@dataclass(frozen=True, slots=True)
class ServiceKeys:
    """Public halves of our own keys."""

    attestation: PublicKey
    token: PublicKey


async def ensure_service_keys(port: HsmPort, *, may_generate: bool) -> ServiceKeys:
    """Both keys, made if absent and `may_generate`.

    A new attestation key is a new identity, which a person has to approve. So a host that has enrolled passes
    `may_generate=False`: there an absent or damaged key is an error to look into and nothing to mend in silence.

    Raises:
        HsmError: as `HsmPort.ensure_key_pair`.
    """
    attestation = await port.ensure_key_pair(ATTESTATION_KEY, KeyType.EC_P256, may_generate=may_generate)
    token = await port.ensure_key_pair(TOKEN_KEY, KeyType.EC_P256, may_generate=may_generate)
    return ServiceKeys(attestation, token)
