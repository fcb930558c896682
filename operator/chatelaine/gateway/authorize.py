"""From a request's headers and its connection to a decision: the part between HTTP and `tokens.decide`."""

from __future__ import annotations

from typing import Final

from chatelaine.gateway import problems
from chatelaine.gateway.audit import AuditRecord, jti_hash
from chatelaine.gateway.connections import Connection
from chatelaine.gateway.http import Scope, header
from chatelaine.gateway.peer import Role
from chatelaine.gateway.problems import Refusal
from chatelaine.gateway.runtime import Runtime
from chatelaine.tokens import trust_token
from chatelaine.tokens.cache import Moment
from chatelaine.tokens.decide import Allowed, Operation, Reason, decide
from chatelaine.tokens.errors import TokenError
from chatelaine.tokens.trust_token import TrustToken

_BEARER: Final = b"Bearer "


class Asked:
    """What is known of an operation so far, for its audit record."""

    __slots__ = ("claim", "connection", "holder", "jti", "key", "operation", "subject", "token", "version")

    def __init__(self, operation: str, connection: Connection) -> None:
        self.operation = operation
        self.connection = connection
        self.token: TrustToken | None = None
        self.claim = ""
        self.key = ""
        self.version = 0
        self.subject = ""
        self.jti = ""
        self.holder = connection.peer.jkt

    def issued(self, claim_uid: str, jti: str, jkt: str) -> None:
        """A token was issued; `jkt` is the key that it is bound to."""
        self.claim, self.jti, self.holder = claim_uid, jti_hash(jti), jkt

    def record(self, at: float, result: str, reason: str) -> AuditRecord:
        """The line of the log."""
        token = self.token
        return AuditRecord(
            at=at,
            operation=self.operation,
            result=result,
            reason=reason,
            claim=token.claims.claim if token is not None else self.claim,
            key=self.key,
            version=self.version,
            subject=token.claims.sub if token is not None else self.subject,
            jti=jti_hash(token.claims.jti) if token is not None else self.jti,
            holder=self.holder,
            source=self.connection.peer.address,
        )


def authenticated(runtime: Runtime, scope: Scope, asked: Asked, now: Moment) -> TrustToken:
    """The verified token of this request; what it allows is not said yet.

    Raises:
        Refusal: `ERROR_INVALID_TOKEN`, with the token's flaw as the inner reason.
    """
    service = runtime.require_service()
    if asked.connection.peer.role is not Role.CLIENT:
        raise Refusal(problems.INVALID_TOKEN, reason=Reason.LEAF_ABSENT)
    value = header(scope, b"authorization")
    if value is None or not value.startswith(_BEARER):
        raise Refusal(problems.INVALID_TOKEN, reason=Reason.TOKEN_ABSENT)
    presented = value[len(_BEARER) :]
    token = runtime.verified.get(presented, now)
    if token is None:
        try:
            token = trust_token.verify(presented, service.signer, service.verifier.audience, now.wall)
        except TokenError as error:
            raise Refusal(problems.INVALID_TOKEN, reason=error.code) from error
        runtime.verified.put(presented, token, now)
    asked.token = token
    runtime.connections.used(asked.connection, token.claims.claim)
    return token


def allowed(runtime: Runtime, asked: Asked, operation: Operation, token: TrustToken, now: Moment) -> Allowed:
    """The decision of this moment.

    Raises:
        Refusal: with the answer that `tokens.decide` gives.
    """
    verifier = runtime.require_service().verifier
    decision = decide(operation, token, asked.connection.peer.jkt_at(now.wall), runtime.view, verifier, now)
    if isinstance(decision, Allowed):
        return decision
    raise Refusal(decision.answer.value, reason=decision.reason.value)
