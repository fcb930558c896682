"""Has keys made and destroyed by a host's gateway, and believes only the gateway key that was attested."""

from __future__ import annotations

from typing import Final, TypeVar

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_der_public_key

from chatelaine.controller.gateways import GatewayLink
from chatelaine.controller.hosts import HostMemory, Surroundings
from chatelaine.model.keys import KeyType
from chatelaine.reconcile.claim_snapshot import KeyFault, KeyMadeFacts
from chatelaine.wire.messages import DestroyKey, EnsureKey, KeyGone, KeyMade, Message
from chatelaine.wire.peer import Answer, PeerError, PeerMalformed, PeerNotAuthenticated, PeerRefused

DAMAGED: Final = frozenset({"KeyDamaged", "KeyMismatched", "KeyAbsent"})
"""Codes of problems that say: the key that should be there is not whole."""

M = TypeVar("M", bound=Message)


class GatewayKeys:
    """What came of each key stands in the host's memory, from where the next snapshot takes it."""

    def __init__(self, memory: HostMemory, link: GatewayLink, around: Surroundings) -> None:
        self._memory = memory
        self._link = link
        self._around = around

    async def ensure(self, label: str, key_type: KeyType, *, may_generate: bool) -> None:
        """Have the key made, or proven whole.

        Raises:
            PeerError: no usable answer; a fault of the key itself is remembered first.
        """
        request = EnsureKey(label=label, type=key_type.value, may_generate=may_generate)
        count = self._around.metrics.keys
        try:
            made = await self._call("/control/v1/keys/ensure", request, KeyMade)
            if made.label != label:
                raise PeerMalformed("the gateway answered for another key than the one asked for")
            pem = _pem(made.spki)
        except PeerRefused as refused:
            damaged = refused.problem.code in DAMAGED and not may_generate
            self._memory.key_faults[label] = KeyFault(damaged, str(refused))
            count.labels("ensure", refused.problem.code).inc()
            raise
        except PeerError as error:
            count.labels("ensure", type(error).__name__).inc()
            raise
        self._memory.key_faults.pop(label, None)
        self._memory.made_keys[label] = KeyMadeFacts(pem, made.pkcs11_uri, self._around.wall())
        count.labels("ensure", "made" if made.created else "found").inc()

    async def destroy(self, label: str) -> None:
        """Have both halves destroyed; absent is as good.

        Raises:
            PeerError: no usable answer.
        """
        gone = await self._call("/control/v1/keys/destroy", DestroyKey(label=label), KeyGone)
        if gone.label != label:
            raise PeerMalformed("the gateway answered for another key than the one asked for")
        self._memory.made_keys.pop(label, None)
        self._memory.key_faults.pop(label, None)
        self._around.metrics.keys.labels("destroy", "destroyed" if gone.existed else "absent").inc()

    async def _call(self, path: str, request: Message, answer: type[M]) -> M:
        client = await self._link.key_client()
        got: Answer[M] = await client.call("POST", path, request, answer)
        if got.peer_spki not in self._memory.gateway_spkis[:1]:
            self._link.saw(got.peer_spki)
            raise PeerNotAuthenticated(f"gateway of {self._memory.name}: not the key that was attested")
        return got.message


def _pem(spki: bytes) -> str:
    try:
        key = load_der_public_key(spki)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise PeerMalformed("the gateway answered with something that is no public key") from error
    return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
