"""The token's own keys, and what the gateway is by them: the statement's signer, the trust tokens' signer, an audience.

The first start pins both keys in the state folder. From then on an absent, damaged or exchanged key stops the gateway
from serving: a new attestation key would be a new identity, and that is a person's to approve.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec

from chatelaine.evidence.hsm_statement import HsmStatement, statement_to_sign
from chatelaine.evidence.inventory import encode_inventory
from chatelaine.gateway.errors import ServiceKeyChanged
from chatelaine.model.identifiers import DIGEST_PREFIX, digest_of
from chatelaine.pkcs11.lifecycle import ServiceKeys, ensure_service_keys
from chatelaine.pkcs11.port import HsmPort, SignMechanism, TokenInfo
from chatelaine.pki.files import read_private, write_whole
from chatelaine.tokens.decide import Verifier
from chatelaine.tokens.trust_token import PinnedKey
from chatelaine.wire.messages import (
    GatewayIdentity,
    StatementRequest,
    StatementResponse,
    TokenFacts,
)

_PINS_FILE: Final = "service-keys.json"
_MAX_PINS_BYTES: Final = 4096
_AUDIENCE: Final = "urn:chatelaine:hsm:"


class _Pins(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`sha256:` digests of the public keys (DER)."""

    attestation: str
    token: str


@dataclass(frozen=True, slots=True)
class Service:
    """What is fixed once the token has answered for the first time."""

    keys: ServiceKeys
    signer: PinnedKey
    verifier: Verifier
    token: TokenInfo

    def identity(self, gateway_spki: bytes) -> GatewayIdentity:
        """What operator and agent are told."""
        return GatewayIdentity(
            gateway_spki=gateway_spki,
            attestation_key_spki=self.keys.attestation.spki_der,
            token=token_facts(self.token),
        )


async def prepare(hsm: HsmPort, folder: Path, issuer: str) -> Service:
    """Find the service keys, or make them at the very first start.

    Raises:
        HsmError: the token does not answer, or a pinned key is absent or damaged.
        ServiceKeyChanged: a key is not the pinned one.
        KeyFileRefused: others may read the pins, or the file is over its bound.
    """
    path = folder / _PINS_FILE
    pinned = path.exists()
    keys = await ensure_service_keys(hsm, may_generate=not pinned)
    found = _Pins(digest_of(keys.attestation.spki_der), digest_of(keys.token.spki_der))
    if not pinned:
        write_whole(path, msgspec.json.encode(found))
    try:
        wanted = msgspec.json.decode(read_private(path, _MAX_PINS_BYTES), type=_Pins)
    except msgspec.DecodeError as error:
        raise ServiceKeyChanged(f"{path} holds no pins: {error}") from error
    if wanted != found:
        raise ServiceKeyChanged(
            f"expected attestation key {wanted.attestation} and token key {wanted.token}; found {found.attestation} "
            f"and {found.token}; find out who changed the token, or remove {path} to be enrolled anew"
        )
    signer = PinnedKey(keys.token.spki_der, issuer)
    audience = _AUDIENCE + found.attestation.removeprefix(DIGEST_PREFIX)
    return Service(keys, signer, Verifier(audience, signer.kid), await hsm.token_info())


def token_facts(info: TokenInfo) -> TokenFacts:
    """The token's description as it travels."""
    return TokenFacts(
        serial=info.serial,
        manufacturer=info.manufacturer,
        model=info.model,
        firmware=info.firmware,
        hardware_version=info.hardware_version,
        mechanisms_digest=info.mechanisms_digest,
        key_types=tuple(item.value for item in info.key_types),
    )


async def statement(
    hsm: HsmPort, service: Service, gateway_spki: bytes, request: StatementRequest
) -> StatementResponse:
    """The HSM's statement of this moment (trust section 4): token and inventory are read anew, then signed inside.

    Raises:
        HsmError: the token does not answer.
        EvidenceError: the token's content is over the bounds of the format.
    """
    info = await hsm.token_info()
    inventory = encode_inventory(await hsm.inventory())
    said = HsmStatement(
        serial=info.serial,
        manufacturer=info.manufacturer,
        model=info.model,
        firmware=info.firmware,
        hardware_version=info.hardware_version,
        flags=info.flags,
        mechanisms_digest=bytes.fromhex(info.mechanisms_digest.removeprefix(DIGEST_PREFIX)),
        pcr_digest=request.pcr_digest,
        inventory_digest=hashlib.sha256(inventory).digest(),
        nonce=request.nonce,
        log_digest=request.log_digest,
    )
    digest = hashlib.sha256(statement_to_sign(said)).digest()
    signature = await hsm.sign(service.keys.attestation.label, SignMechanism.ECDSA_SHA256, digest)
    return StatementResponse(
        statement=said.encode(),
        signature=signature,
        inventory=inventory,
        attestation_key_spki=service.keys.attestation.spki_der,
        gateway_spki=gateway_spki,
    )
