"""Token exchange (RFC 8693): a pod's service-account token and a CSR in, a TLS leaf and a trust token out.

In this order: the form; the service-account token; the HSM's standing; the claim; whether this pod is its live client;
the key that the token will be bound to. Only then does the HSM sign.
"""

from __future__ import annotations

import base64
import hashlib
import secrets
from dataclasses import dataclass
from typing import Final
from urllib.parse import parse_qsl

import msgspec

from chatelaine.gateway import problems
from chatelaine.gateway.client_ca import ClientCa, workload_name
from chatelaine.gateway.limits import MAX_FORM_FIELDS
from chatelaine.gateway.peer import Peer, Role
from chatelaine.gateway.problems import Refusal
from chatelaine.gateway.service import Service
from chatelaine.gateway.view import LiveView
from chatelaine.pkcs11.port import HsmPort, SignMechanism
from chatelaine.pki.errors import CsrRefused
from chatelaine.pki.requests import MAX_CSR_BYTES
from chatelaine.tokens import service_account
from chatelaine.tokens.cache import Moment
from chatelaine.tokens.decide import Reason
from chatelaine.tokens.errors import TokenError
from chatelaine.tokens.grants import ClaimGrant, HsmStanding, SubjectGrant
from chatelaine.tokens.service_account import WorkloadIdentity
from chatelaine.tokens.trust_token import (
    DEFAULT_LIFETIME_SECONDS,
    Claims,
    Confirmation,
    Subject,
    Submodule,
    TokenEpoch,
    assemble,
    signing_input,
)

GRANT_TYPE: Final = "urn:ietf:params:oauth:grant-type:token-exchange"
TOKEN_TYPE_JWT: Final = "urn:ietf:params:oauth:token-type:jwt"  # noqa: S105 - a type, not a secret
_FIELDS: Final = frozenset(
    {"grant_type", "subject_token", "subject_token_type", "requested_token_type", "resource", "csr"}
)


class TokenResponse(msgspec.Struct, frozen=True, kw_only=True):
    """RFC 8693 section 2.2.1; `certificate_chain` (PEM) when a CSR was sent."""

    access_token: str
    issued_token_type: str = TOKEN_TYPE_JWT
    token_type: str = "Bearer"  # noqa: S105 - how it is presented; `cnf` binds it to the TLS key
    expires_in: int
    certificate_chain: str | msgspec.UnsetType = msgspec.UNSET


@dataclass(frozen=True, slots=True)
class Request:
    """The form, checked for shape. `csr` is DER, empty without one."""

    subject_token: bytes
    namespace: str
    claim: str
    csr: bytes


@dataclass(frozen=True, slots=True)
class Issued:
    """The answer, and what the audit record says of it."""

    body: bytes
    claim_uid: str
    jti: str
    jkt: str


def parse_form(content_type: bytes | None, body: bytes) -> Request:
    """Read the form.

    Raises:
        Refusal: `ERROR_BAD_REQUEST`, naming the field.
    """
    if content_type is None or content_type.split(b";")[0].strip() != b"application/x-www-form-urlencoded":
        raise _bad("send application/x-www-form-urlencoded (RFC 8693 section 2.1)")
    try:
        pairs = parse_qsl(
            body.decode("ascii"),
            keep_blank_values=True,
            strict_parsing=True,
            max_num_fields=MAX_FORM_FIELDS,
            errors="strict",
        )
    except ValueError as error:
        raise _bad("not a form, or too many fields") from error
    form = dict(pairs)
    if len(form) != len(pairs) or not form.keys() <= _FIELDS:
        raise _bad("a field occurs twice, or is none of " + ", ".join(sorted(_FIELDS)))
    if form.get("grant_type") != GRANT_TYPE:
        raise _bad(f"grant_type must be {GRANT_TYPE}")
    if form.get("subject_token_type") != TOKEN_TYPE_JWT:
        raise _bad(f"subject_token_type must be {TOKEN_TYPE_JWT}")
    if form.get("requested_token_type", TOKEN_TYPE_JWT) != TOKEN_TYPE_JWT:
        raise _bad(f"requested_token_type must be {TOKEN_TYPE_JWT}")
    namespace, slash, claim = form.get("resource", "").partition("/")
    if not (namespace and slash and claim) or "/" in claim:
        raise _bad("resource must be <namespace>/<claim>")
    return Request(form.get("subject_token", "").encode(), namespace, claim, _der(form.get("csr", "")))


def _der(text: str) -> bytes:
    if len(text) > 2 * MAX_CSR_BYTES:
        raise _bad(f"csr is over {MAX_CSR_BYTES} bytes")
    try:
        return base64.b64decode(text, validate=True)
    except ValueError as error:  # also of letters that are not ASCII, which binascii.Error does not cover
        raise _bad("csr must be base64 of a PKCS#10 request in DER") from error


def _bad(detail: str) -> Refusal:
    return Refusal(problems.BAD_REQUEST, detail)


class TokenExchange:
    """Issues trust tokens. The HSM's token key signs them; the gateway's client CA signs leaves."""

    def __init__(self, view: LiveView, hsm: HsmPort, client_ca: ClientCa) -> None:
        self._view = view
        self._hsm = hsm
        self._client_ca = client_ca

    def identify(self, request: Request, now: Moment) -> WorkloadIdentity:
        """Who asks, by the cluster's keys.

        Raises:
            Refusal: `ERROR_NOT_ATTESTED` while no cluster keys were told; `ERROR_INVALID_TOKEN` for any flaw.
        """
        if self._view.cluster is None:
            raise Refusal(problems.NOT_ATTESTED, reason="ClusterKeysAbsent")
        try:
            return service_account.verify(request.subject_token, self._view.cluster, now.wall)
        except TokenError as error:
            raise Refusal(problems.INVALID_TOKEN, reason=error.code) from error

    async def issue(
        self, request: Request, identity: WorkloadIdentity, peer: Peer, service: Service, now: Moment
    ) -> Issued:
        """A token for `identity`, bound to the CSR's key, or to the key of this connection's leaf.

        Raises:
            Refusal: any check fails.
            HsmError: the token key cannot sign.
        """
        standing, claim, grant = self._checked(request, identity, now)
        subject = Subject(identity.namespace, identity.service_account, identity.pod_uid)
        jkt, chain = self._holder(request, subject, peer, now)
        issued_at = int(now.wall)
        claims = Claims(
            iss=service.signer.issuer,
            aud=service.verifier.audience,
            sub=str(subject),
            iat=issued_at,
            exp=min(issued_at + DEFAULT_LIFETIME_SECONDS, identity.expires_at),
            jti=secrets.token_urlsafe(16),
            cnf=Confirmation(jkt),
            epoch=TokenEpoch(standing.epoch, grant.epoch),
            claim=claim.uid,
            sequence=claim.sequence,
            policies=claim.policy_digests,
            submods={"hsm": Submodule("affirming", standing.policy_digest)},
        )
        signed = signing_input(service.signer.kid, claims)
        digest = hashlib.sha256(signed).digest()
        signature = await self._hsm.sign(service.keys.token.label, SignMechanism.ECDSA_SHA256, digest)
        body = msgspec.json.encode(
            TokenResponse(
                access_token=assemble(signed, signature),
                expires_in=claims.exp - issued_at,
                certificate_chain=chain if chain is not None else msgspec.UNSET,
            )
        )
        return Issued(body, claim.uid, claims.jti, jkt)

    def _checked(
        self, request: Request, identity: WorkloadIdentity, now: Moment
    ) -> tuple[HsmStanding, ClaimGrant, SubjectGrant]:
        view = self._view
        # Before anything is looked up: a stranger must not learn which claims there are.
        if identity.namespace != request.namespace:
            raise Refusal(problems.NOT_A_CLIENT, reason=Reason.NAMESPACE_OTHER)
        standing = view.standing
        if standing is None or not view.serving(now):
            raise Refusal(problems.NOT_ATTESTED, reason=Reason.STANDING_NOT_TRUSTED)
        claim = view.claim_named(request.namespace, request.claim)
        if claim is None:
            raise Refusal(problems.NOT_ATTESTED, reason=Reason.CLAIM_NOT_BOUND)
        if claim.deadline.passed(now):
            raise Refusal(problems.NOT_ATTESTED, reason=Reason.CLAIM_DEADLINE_PASSED)
        grant = claim.subjects.get((identity.service_account, identity.pod_uid))
        if grant is None:
            named = identity.service_account in claim.accounts
            raise Refusal(problems.NOT_A_CLIENT, reason=Reason.POD_NOT_LIVE if named else Reason.ACCOUNT_NOT_NAMED)
        return standing, claim, grant

    def _holder(self, request: Request, subject: Subject, peer: Peer, now: Moment) -> tuple[str, str | None]:
        if request.csr:
            try:
                leaf = self._client_ca.issue(request.csr, subject, now.wall)
            except CsrRefused as error:
                raise _bad(f"csr: {error}") from error
            return leaf.jkt, leaf.chain_pem
        jkt = peer.jkt_at(now.wall) if peer.role is Role.CLIENT else ""
        if not jkt:
            raise _bad("without a client certificate of this gateway a csr is needed")
        if peer.workload != workload_name(subject):
            raise Refusal(problems.INVALID_TOKEN, reason="LeafOfAnother")
        return jkt, None
