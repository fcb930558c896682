"""The trust token: a JWT (RFC 7519, ES256) that lets one pod, holding one TLS key, use one claim for a minute.

Signed by the HSM's token key, so this module builds what is signed and puts the signature on; it holds no key.

Verification, in this order (each step refuses by a type of its own):
  1. size, shape, canonical encoding, no duplicate member          TokenTooLarge, TokenMalformed
  2. `alg` is ES256, nothing else                                  AlgorithmRefused
  3. `typ` is `chat-trust+jwt`                                     TypeRefused
  4. no further header member (`crit`, `jwk`, `jku`, `x5c`, …)     HeaderRefused
  5. `kid` is the pinned key's                                     KeyUnknown
  6. the signature                                                 SignatureRefuted
  7. exactly the claims of `Claims`                                TokenMalformed
  8. `iss`, `aud`                                                  IssuerRefused, AudienceRefused
  9. `sub` names a service account and a pod                       SubjectRefused
 10. `iat` not ahead, `exp - iat` ≤ 300 s, `exp` not come          TokenNotYetValid, LifetimeRefused, TokenExpired

What verification does not say (the holder, both epochs, the claim, the grant) is `tokens.decide`'s, on every use.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

import msgspec
from joserfc import jws
from joserfc.errors import JoseError
from joserfc.jwk import ECKey

from chatelaine.tokens.compact import check_members, encode, parse
from chatelaine.tokens.errors import (
    AlgorithmRefused,
    AudienceRefused,
    IssuerRefused,
    KeyUnknown,
    LifetimeRefused,
    SignatureRefuted,
    SubjectRefused,
    TokenExpired,
    TokenMalformed,
    TokenNotYetValid,
    TypeRefused,
)
from chatelaine.tokens.jwk import UnusableKey, public_jwk

TYPE: Final = "chat-trust+jwt"
ALGORITHM: Final = "ES256"
MAX_TOKEN_BYTES: Final = 4096
DEFAULT_LIFETIME_SECONDS: Final = 60
MAX_LIFETIME_SECONDS: Final = 300
CLOCK_SKEW_SECONDS: Final = 5
"""How far `iat` may lie ahead: issuer and verifier are one process, so only a clock that was set back."""
RAW_SIGNATURE_BYTES: Final = 64


class Confirmation(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`cnf` (RFC 7800): RFC 7638 thumbprint of the TLS key that the caller must hold."""

    jkt: str


class TokenEpoch(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Epoch of the HSM's host, and of the subject. A later one makes the token worthless."""

    hsm: str
    subject: str


class Submodule(
    msgspec.Struct,
    frozen=True,
    forbid_unknown_fields=True,
    rename={"status": "ear.status", "policy": "ear.appraisal-policy-id"},
):
    """One submodule of an attestation result (draft-ietf-rats-ear): what was appraised, under which policy."""

    status: str
    policy: str


class Claims(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The claims set. Times are whole seconds since the epoch (UTC)."""

    iss: str
    aud: str
    sub: str
    iat: int
    exp: int
    jti: str
    cnf: Confirmation
    epoch: TokenEpoch
    claim: str
    sequence: int
    policies: tuple[str, ...] = ()
    submods: dict[str, Submodule] = msgspec.field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Subject:
    """A pod under its service account: `system:serviceaccount:<namespace>:<service account>:<pod uid>`."""

    namespace: str
    service_account: str
    pod_uid: str

    def __str__(self) -> str:
        return f"system:serviceaccount:{self.namespace}:{self.service_account}:{self.pod_uid}"


@dataclass(frozen=True, slots=True)
class TrustToken:
    """A token whose signature, audience and time were verified. `kid` is the key that did."""

    claims: Claims
    subject: Subject
    kid: str


@dataclass(frozen=True, slots=True)
class PinnedKey:
    """The one key, and the one issuer, whose tokens are taken."""

    spki_der: bytes
    issuer: str
    kid: str = field(init=False)
    _key: ECKey = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        key = public_jwk(self.spki_der)
        if not isinstance(key, ECKey) or key.curve_name != "P-256":
            raise UnusableKey("a token key is P-256")
        object.__setattr__(self, "_key", key)
        object.__setattr__(self, "kid", str(key.thumbprint()))

    def verify_signature(self, token: bytes) -> None:
        """Step 6.

        Raises:
            SignatureRefuted: another key signed, or other bytes were signed.
        """
        try:
            jws.deserialize_compact(token, self._key, algorithms=[ALGORITHM])
        except (JoseError, ValueError) as error:
            raise SignatureRefuted("the signature is not the token key's") from error


def signing_input(kid: str, claims: Claims) -> bytes:
    """What the token key signs: ASCII of the encoded header, a dot, the encoded claims (RFC 7515 section 5.1)."""
    header = {"alg": ALGORITHM, "kid": kid, "typ": TYPE}
    return encode(msgspec.json.encode(header)) + b"." + encode(msgspec.json.encode(claims))


def assemble(signed: bytes, raw_signature: bytes) -> str:
    """The token, from its signing input and the raw `r ‖ s` (64 bytes) over its SHA-256.

    Raises:
        ValueError: the signature has another length.
    """
    if len(raw_signature) != RAW_SIGNATURE_BYTES:
        raise ValueError(f"an ES256 signature has {RAW_SIGNATURE_BYTES} bytes, this one {len(raw_signature)}")
    return (signed + b"." + encode(raw_signature)).decode("ascii")


def verify(token: bytes, key: PinnedKey, audience: str, now_seconds: float) -> TrustToken:
    """The ten steps of the module.

    Raises:
        TokenError: one of its types, as listed there.
    """
    jose = parse(token, max_bytes=MAX_TOKEN_BYTES)
    _header(jose.header, key)
    key.verify_signature(token)
    try:
        claims = msgspec.convert(jose.payload, Claims)
    except msgspec.ValidationError as error:
        raise TokenMalformed(f"claims: {error}") from error
    if claims.iss != key.issuer:
        raise IssuerRefused(f"expected issuer {key.issuer}")
    if claims.aud != audience:
        raise AudienceRefused(f"expected audience {audience}")
    subject = parse_subject(claims.sub)
    _times(claims, now_seconds)
    return TrustToken(claims, subject, key.kid)


def parse_subject(sub: str) -> Subject:
    """Read `sub`.

    Raises:
        SubjectRefused: it is not of exactly the form that `Subject` writes.
    """
    parts = sub.split(":")
    if len(parts) != 5 or parts[:2] != ["system", "serviceaccount"] or not all(parts):
        raise SubjectRefused("the subject is not a service account's pod")
    return Subject(*parts[2:])


def _header(header: dict[str, object], key: PinnedKey) -> None:
    if header.get("alg") != ALGORITHM:
        raise AlgorithmRefused(f"only {ALGORITHM} is taken")
    if header.get("typ") != TYPE:
        raise TypeRefused(f"only {TYPE} is taken")
    check_members(header)
    if header.get("kid") != key.kid:
        raise KeyUnknown("kid is not the pinned token key")


def _times(claims: Claims, now_seconds: float) -> None:
    if claims.iat > now_seconds + CLOCK_SKEW_SECONDS:
        raise TokenNotYetValid("iat lies ahead")
    if not 0 < claims.exp - claims.iat <= MAX_LIFETIME_SECONDS:
        raise LifetimeRefused(f"exp is not within {MAX_LIFETIME_SECONDS} s of iat")
    if now_seconds >= claims.exp:
        raise TokenExpired("exp has come")
