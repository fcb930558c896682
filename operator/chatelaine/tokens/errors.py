"""Why a token is refused. The caller outside learns none of it; it goes to the audit record by `code`.

TokenError
├── TokenTooLarge         over its bound, refused before parsing
├── TokenMalformed        not three parts, not base64url, not JSON, duplicate or unexpected members
├── AlgorithmRefused      `none`, HMAC, or not the one algorithm of the key
├── TypeRefused           `typ` absent or another
├── HeaderRefused         `crit`, `jwk`, `x5c` or any other member that we do not take
├── KeyUnknown            `kid` absent, or not a key that is pinned here
├── SignatureRefuted      the signature is not this key's over these bytes
├── IssuerRefused         `iss` is another
├── AudienceRefused       meant for somebody else
├── SubjectRefused        `sub` does not name a pod's service account, or contradicts the other claims
├── PodRefused            a service-account token that is not bound to a pod
├── TokenExpired          `exp` has come
├── TokenNotYetValid      `nbf` or `iat` lies ahead
└── LifetimeRefused       valid for longer than we ever issue
KeySetRefused             the cluster's JWKS cannot be used
"""

from __future__ import annotations


class TokenError(Exception):
    """Base of every refusal of a token."""

    @property
    def code(self) -> str:
        """The reason as the audit record and the metrics name it."""
        return type(self).__name__


class TokenTooLarge(TokenError):
    """Over its bound; nothing of it was parsed."""


class TokenMalformed(TokenError):
    """Not a compact JWS with exactly the members that we expect."""


class AlgorithmRefused(TokenError):
    """Another algorithm than the one that belongs to the key."""


class TypeRefused(TokenError):
    """`typ` is absent or names another kind of token."""


class HeaderRefused(TokenError):
    """A header member that changes how a token is read, or brings a key along."""


class KeyUnknown(TokenError):
    """`kid` is absent or names no pinned key."""


class SignatureRefuted(TokenError):
    """The signature does not verify."""


class IssuerRefused(TokenError):
    """Another issuer than the pinned one."""


class AudienceRefused(TokenError):
    """For another audience."""


class SubjectRefused(TokenError):
    """`sub` does not say which service account and pod, or says another one than the other claims."""


class PodRefused(TokenError):
    """The service-account token is not bound to a pod."""


class TokenExpired(TokenError):
    """Its end has come."""


class TokenNotYetValid(TokenError):
    """Its beginning lies ahead by more than clocks may differ."""


class LifetimeRefused(TokenError):
    """It would live longer than any token that we issue."""


class KeySetRefused(Exception):
    """The cluster's JWKS is no usable set of public signature keys."""
