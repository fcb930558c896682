"""What the HSM is asked to do for a caller who may: bodies in, digests to the token, answers out."""

from __future__ import annotations

import hashlib
from typing import Any, Final, Literal, TypeVar

import msgspec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature

from chatelaine.gateway import problems
from chatelaine.gateway.limits import MAX_PUBLIC_KEYS
from chatelaine.gateway.problems import Refusal
from chatelaine.model.keys import KeyState, KeyType
from chatelaine.model.verdict import Outcome
from chatelaine.pkcs11.port import DIGEST_BYTES, HsmPort, PublicKey, SignMechanism
from chatelaine.tokens.grants import KeyGrant, KeyVersion
from chatelaine.tokens.jwk import public_jwk

_HALF_BYTES: Final = 32
_PUBLIC_STATES: Final = (KeyState.ACTIVE, KeyState.DEACTIVATED, KeyState.COMPROMISED)
"""States in which a version has a public key that somebody may need."""

R = TypeVar("R", bound="SignRequest")


class SignRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`input` is the message, or its SHA-256 when `prehashed`. RSA: `pss` (default) or `pkcs1v15`; EC: neither."""

    input: bytes
    prehashed: bool = False
    signature_algorithm: Literal["pss", "pkcs1v15"] | None = None
    key_version: int | None = None
    marshaling: Literal["asn1", "jws"] = "asn1"


class VerifyRequest(SignRequest, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """As `SignRequest`, and the signature in that marshaling."""

    signature: bytes


class Signed(msgspec.Struct, frozen=True, kw_only=True):
    """EC: DER (`asn1`) or raw `r ‖ s` (`jws`). RSA: as RFC 8017 has it."""

    signature: bytes
    key_version: int


class Verified(msgspec.Struct, frozen=True, kw_only=True):
    """`valid` is the token's own answer."""

    valid: bool
    key_version: int


class PublicVersion(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One version. No public key while it is being made, nor once it is destroyed."""

    version: int
    state: str
    pem: str | None = None
    jwk: dict[str, Any] | None = None


class PublicKeys(msgspec.Struct, frozen=True, kw_only=True):
    """All versions, the newest first."""

    name: str
    type: str
    versions: tuple[PublicVersion, ...]


class Random(msgspec.Struct, frozen=True, kw_only=True):
    """Bytes from the token's generator."""

    random: bytes


def parse(body: bytes, kind: type[R]) -> R:
    """Read a request.

    Raises:
        Refusal: `ERROR_BAD_REQUEST`.
    """
    try:
        request = msgspec.json.decode(body, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Refusal(problems.BAD_REQUEST, str(error)) from error
    if request.prehashed and len(request.input) != DIGEST_BYTES:
        raise Refusal(problems.BAD_REQUEST, f"a prehashed input is a SHA-256 digest of {DIGEST_BYTES} bytes")
    return request


def mechanism_for(key_type: KeyType, wanted: str | None) -> SignMechanism:
    """How a key of this type signs.

    Raises:
        Refusal: `ERROR_ALGORITHM_NOT_SUPPORTED`.
    """
    if key_type is KeyType.EC_P256 and wanted is None:
        return SignMechanism.ECDSA_SHA256
    if key_type is KeyType.RSA_3072:
        return SignMechanism.RSA_PKCS1_SHA256 if wanted == "pkcs1v15" else SignMechanism.RSA_PSS_SHA256
    raise Refusal(problems.ALGORITHM_NOT_SUPPORTED, f"a key of type {key_type} does not sign that way")


class KeyOperations:
    """The data plane's calls to the HSM; public keys are kept, for they never change under one label."""

    def __init__(self, hsm: HsmPort) -> None:
        self._hsm = hsm
        self._public: dict[str, PublicKey] = {}

    async def sign(self, key: KeyGrant, version: KeyVersion, request: SignRequest) -> bytes:
        """The answer's JSON.

        Raises:
            Refusal: the key cannot sign that way.
            HsmError: the token cannot do it now.
        """
        mechanism = mechanism_for(key.type, request.signature_algorithm)
        signature = await self._hsm.sign(version.label, mechanism, _digest(request))
        if mechanism is SignMechanism.ECDSA_SHA256 and request.marshaling == "asn1":
            signature = _to_der(signature)
        return msgspec.json.encode(Signed(signature=signature, key_version=version.version))

    async def verify(self, key: KeyGrant, version: KeyVersion, request: VerifyRequest) -> bytes:
        """The answer's JSON.

        Raises:
            Refusal: the key cannot sign that way.
            HsmError: the token cannot do it now.
        """
        mechanism = mechanism_for(key.type, request.signature_algorithm)
        signature: bytes | None = request.signature
        if mechanism is SignMechanism.ECDSA_SHA256:
            signature = _raw(request)
        valid = False
        if signature is not None:
            outcome = await self._hsm.verify(version.label, mechanism, _digest(request), signature)
            valid = outcome is Outcome.HOLDS
        return msgspec.json.encode(Verified(valid=valid, key_version=version.version))

    async def public_keys(self, key: KeyGrant) -> bytes:
        """The answer's JSON.

        Raises:
            HsmError: the token does not answer now.
        """
        versions = [await self._version(version) for version in key.versions]
        return msgspec.json.encode(PublicKeys(name=key.name, type=key.type.value, versions=tuple(versions)))

    async def random(self, length_bytes: int) -> bytes:
        """The answer's JSON.

        Raises:
            HsmError: the token does not answer now.
        """
        return msgspec.json.encode(Random(random=await self._hsm.random(length_bytes)))

    def forget(self, label: str) -> None:
        """The key of that label is gone, or was made anew."""
        self._public.pop(label, None)

    async def _version(self, version: KeyVersion) -> PublicVersion:
        if version.state not in _PUBLIC_STATES:
            return PublicVersion(version=version.version, state=version.state.value)
        public = self._public.get(version.label)
        if public is None:
            public = await self._hsm.public_key(version.label)
            if len(self._public) >= MAX_PUBLIC_KEYS:
                del self._public[next(iter(self._public))]
            self._public[version.label] = public
        return PublicVersion(
            version=version.version,
            state=version.state.value,
            pem=public.pem,
            jwk=dict(public_jwk(public.spki_der).as_dict(private=False)),
        )


def _digest(request: SignRequest) -> bytes:
    return request.input if request.prehashed else hashlib.sha256(request.input).digest()


def _to_der(raw: bytes) -> bytes:
    return encode_dss_signature(int.from_bytes(raw[:_HALF_BYTES], "big"), int.from_bytes(raw[_HALF_BYTES:], "big"))


def _raw(request: VerifyRequest) -> bytes | None:
    """Raw `r ‖ s`; None for bytes that are no P-256 signature at all, so that none can be valid."""
    if request.marshaling == "jws":
        return request.signature if len(request.signature) == 2 * _HALF_BYTES else None
    try:
        r, s = decode_dss_signature(request.signature)
        return r.to_bytes(_HALF_BYTES, "big") + s.to_bytes(_HALF_BYTES, "big")
    except (ValueError, OverflowError):
        return None


def parse_random(query: bytes, max_bytes: int) -> int:
    """`bytes=<n>`, 1 to `max_bytes`.

    Raises:
        Refusal: `ERROR_BAD_REQUEST`.
    """
    name, _, value = query.partition(b"=")
    if name != b"bytes" or not value.isdigit() or len(value) > 6 or not 1 <= int(value) <= max_bytes:
        raise Refusal(problems.BAD_REQUEST, f"ask for ?bytes=<1 to {max_bytes}>")
    return int(value)
