"""Projected service-account tokens, checked against the cluster's JWKS without asking the API server.

Kubernetes signs them with RS256 or ES256 and says in `kubernetes.io` which pod the token is bound to. A token is
taken only when it is bound to a pod, for exactly our audience; whether that pod still lives is for the caller to
see from the gateway's live view, which brings the uids of the pods that live.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Final

import msgspec
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from joserfc import jws
from joserfc.errors import JoseError
from joserfc.jwk import ECKey, RSAKey

from chatelaine.model.identifiers import TOKEN_AUDIENCE
from chatelaine.tokens.compact import check_members, parse
from chatelaine.tokens.errors import (
    AlgorithmRefused,
    AudienceRefused,
    IssuerRefused,
    KeySetRefused,
    KeyUnknown,
    PodRefused,
    SignatureRefuted,
    SubjectRefused,
    TokenExpired,
    TokenMalformed,
    TokenNotYetValid,
    TypeRefused,
)
from chatelaine.tokens.jwk import MAX_RSA_BITS, MIN_RSA_BITS

MAX_TOKEN_BYTES: Final = 8192
MAX_JWKS_BYTES: Final = 65536
MAX_KEYS: Final = 16
CLOCK_SKEW_SECONDS: Final = 10
"""How far `nbf` may lie ahead: the API server's clock is another machine's."""


class _Named(msgspec.Struct, frozen=True):
    name: str
    uid: str


class _Kubernetes(msgspec.Struct, frozen=True):
    namespace: str
    serviceaccount: _Named
    pod: _Named | None = None


class _Claims(msgspec.Struct, frozen=True, rename={"kubernetes": "kubernetes.io"}):
    iss: str
    aud: tuple[str, ...] | str
    sub: str
    exp: int
    iat: int
    kubernetes: _Kubernetes
    nbf: int | None = None


@dataclass(frozen=True, slots=True)
class WorkloadIdentity:
    """Who asks: a pod under its service account. `expires_at` is the end of the token that said so."""

    namespace: str
    service_account: str
    pod_uid: str
    expires_at: int


@dataclass(frozen=True, slots=True)
class ClusterKeySet:
    """The cluster's issuer and its signature keys by `kid`, each with its one algorithm."""

    issuer: str
    keys: dict[str, tuple[str, RSAKey | ECKey]]


def parse_key_set(issuer: str, jwks: str) -> ClusterKeySet:
    """Read a JWKS (RFC 7517 section 5). Keys without a `kid` can never be chosen and are left out.

    Raises:
        KeySetRefused: over its bounds, not JSON, symmetric or private keys in it, two keys of one `kid`, no issuer.
    """
    if not issuer or len(jwks) > MAX_JWKS_BYTES:
        raise KeySetRefused("no issuer, or a key set over its bound")
    try:
        members = json.loads(jwks)["keys"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise KeySetRefused("not a JWKS") from error
    if not isinstance(members, list) or len(members) > MAX_KEYS:
        raise KeySetRefused(f"not a list of at most {MAX_KEYS} keys")
    keys: dict[str, tuple[str, RSAKey | ECKey]] = {}
    for member in members:
        if not isinstance(member, dict):
            raise KeySetRefused("a key is no object")
        kid = member.get("kid")
        if not isinstance(kid, str) or not kid:
            continue
        if kid in keys:
            raise KeySetRefused("two keys of one kid")
        keys[kid] = _public_key(member)
    return ClusterKeySet(issuer, keys)


def _public_key(member: dict[str, Any]) -> tuple[str, RSAKey | ECKey]:
    if "d" in member or "k" in member or member.get("use", "sig") != "sig":
        raise KeySetRefused("a key that is private, symmetric or not for signatures")
    try:
        if member.get("kty") == "RSA" and MIN_RSA_BITS <= 6 * len(str(member.get("n"))) <= MAX_RSA_BITS + 6:
            rsa_key = RSAKey.import_key(member)
            public = rsa_key.public_key
            # Base64url has six bits a character, so the length above is a bound before parsing; this is exact.
            if isinstance(public, rsa.RSAPublicKey) and MIN_RSA_BITS <= public.key_size <= MAX_RSA_BITS:
                return "RS256", rsa_key
        elif member.get("kty") == "EC":
            ec_key = ECKey.import_key(member)
            if isinstance(ec_key.public_key, ec.EllipticCurvePublicKey) and ec_key.curve_name == "P-256":
                return "ES256", ec_key
    except (JoseError, ValueError, TypeError, KeyError) as error:
        raise KeySetRefused("a key cannot be read") from error
    raise KeySetRefused("a key that is neither RSA of 2048 to 4096 bits nor P-256")


def verify(token: bytes, cluster: ClusterKeySet, now_seconds: float) -> WorkloadIdentity:
    """Check a projected service-account token: key and algorithm, signature, issuer, audience, times, pod.

    Raises:
        TokenError: one of its types.
    """
    jose = parse(token, max_bytes=MAX_TOKEN_BYTES)
    key = _key_for(jose.header, cluster)
    try:
        jws.deserialize_compact(token, key, algorithms=[str(jose.header["alg"])])
    except (JoseError, ValueError) as error:
        raise SignatureRefuted("the signature is not the cluster key's") from error
    try:
        claims = msgspec.convert(jose.payload, _Claims)
    except msgspec.ValidationError as error:
        raise TokenMalformed(f"claims: {error}") from error
    if claims.iss != cluster.issuer:
        raise IssuerRefused(f"expected issuer {cluster.issuer}")
    if claims.aud not in (TOKEN_AUDIENCE, (TOKEN_AUDIENCE,)):
        raise AudienceRefused(f"expected exactly the audience {TOKEN_AUDIENCE}")
    if now_seconds >= claims.exp:
        raise TokenExpired("exp has come")
    if max(claims.iat, claims.nbf or 0) > now_seconds + CLOCK_SKEW_SECONDS:
        raise TokenNotYetValid("nbf or iat lies ahead")
    return _identity(claims)


def _key_for(header: dict[str, object], cluster: ClusterKeySet) -> RSAKey | ECKey:
    algorithm = header.get("alg")
    if algorithm not in ("RS256", "ES256"):
        raise AlgorithmRefused("only RS256 and ES256 are taken")
    if header.get("typ", "JWT") != "JWT":
        raise TypeRefused("typ is not JWT")
    check_members(header)
    kid = header.get("kid")
    if not isinstance(kid, str) or kid not in cluster.keys:
        raise KeyUnknown("kid is not a key of the cluster")
    wanted, key = cluster.keys[kid]
    if algorithm != wanted:
        raise AlgorithmRefused(f"the key {kid} is for {wanted} only")
    return key


def _identity(claims: _Claims) -> WorkloadIdentity:
    said = claims.kubernetes
    if said.pod is None or not said.pod.uid or not said.pod.name:
        raise PodRefused("the token is not bound to a pod; project it with a serviceAccountToken volume")
    names = (said.namespace, said.serviceaccount.name, said.pod.uid)
    if any(not name or ":" in name for name in names):
        raise SubjectRefused("namespace, service account or pod uid is empty or has a colon")
    if claims.sub != f"system:serviceaccount:{said.namespace}:{said.serviceaccount.name}":
        raise SubjectRefused("sub and the kubernetes.io claims name two different service accounts")
    return WorkloadIdentity(
        namespace=said.namespace,
        service_account=said.serviceaccount.name,
        pod_uid=said.pod.uid,
        expires_at=claims.exp,
    )
