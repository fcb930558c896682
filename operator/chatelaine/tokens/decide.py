"""May this token, from this caller, do this operation now? One ordered list of small checks.

The order (trust section 7) is `CHECKS`; the first objection decides. A caller outside is told one of three codes
only; the reason goes to the audit record.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from chatelaine.model.keys import KeyState, Usage
from chatelaine.model.verdict import Verdict
from chatelaine.tokens.cache import Moment
from chatelaine.tokens.grants import ClaimGrant, KeyGrant, KeyVersion, Live, SubjectGrant
from chatelaine.tokens.trust_token import TrustToken


class OperationKind(enum.StrEnum):
    """What is asked for."""

    SIGN = "Sign"
    VERIFY = "Verify"
    PUBLIC_KEYS = "PublicKeys"
    RANDOM = "Random"


USAGE_OF: Final = {OperationKind.SIGN: Usage.SIGN, OperationKind.VERIFY: Usage.VERIFY}
STATES_OF: Final = {
    OperationKind.SIGN: (KeyState.ACTIVE,),
    OperationKind.VERIFY: (KeyState.ACTIVE, KeyState.DEACTIVATED),
}
"""NIST SP 800-57 Part 1 section 7: what was signed before may be verified after deactivation, not after compromise."""


class Reason(enum.StrEnum):
    """Why, for the audit record. `HOLDS` is the one that is no objection."""

    HOLDS = "Holds"
    TOKEN_ABSENT = "TokenAbsent"  # noqa: S105 - a reason, not a secret
    LEAF_ABSENT = "LeafAbsent"
    SIGNER_UNKNOWN = "SignerUnknown"
    EXPIRED = "Expired"
    AUDIENCE_OTHER = "AudienceOther"
    HOLDER_OTHER = "HolderOther"
    STANDING_ABSENT = "StandingAbsent"
    STANDING_NOT_TRUSTED = "StandingNotTrusted"
    DEADLINE_PASSED = "DeadlinePassed"
    HSM_EPOCH_OTHER = "HsmEpochOther"
    CLAIM_NOT_BOUND = "ClaimNotBound"
    CLAIM_OTHER = "ClaimOther"
    CLAIM_DEADLINE_PASSED = "ClaimDeadlinePassed"
    SEQUENCE_OTHER = "SequenceOther"
    NAMESPACE_OTHER = "NamespaceOther"
    ACCOUNT_NOT_NAMED = "AccountNotNamed"
    POD_NOT_LIVE = "PodNotLive"
    SUBJECT_EPOCH_OTHER = "SubjectEpochOther"
    USAGE_NOT_GRANTED = "UsageNotGranted"
    VERSION_NOT_USABLE = "VersionNotUsable"


class Answer(enum.StrEnum):
    """What the caller is told."""

    INVALID_TOKEN = "ERROR_INVALID_TOKEN"  # noqa: S105 - an error code, not a secret
    USAGE_NOT_ALLOWED = "ERROR_USAGE_NOT_ALLOWED"
    KEY_VERSION_NOT_USABLE = "ERROR_KEY_VERSION_NOT_USABLE"


_ANSWER_OF: Final = {
    Reason.USAGE_NOT_GRANTED: Answer.USAGE_NOT_ALLOWED,
    Reason.VERSION_NOT_USABLE: Answer.KEY_VERSION_NOT_USABLE,
}
"""Every other reason is answered by `INVALID_TOKEN`: nothing may be learnt from how a token is refused."""


@dataclass(frozen=True, slots=True)
class Operation:
    """What is asked. Without a key (`RANDOM`) namespace, claim and key are empty; `version` None: the newest usable."""

    kind: OperationKind
    namespace: str = ""
    claim: str = ""
    key: str = ""
    version: int | None = None


@dataclass(frozen=True, slots=True)
class Verifier:
    """Who judges: the audience and the token key of this gateway's HSM."""

    audience: str
    kid: str


@dataclass(frozen=True, slots=True)
class Allowed:
    """The operation may be done, with this key version (None where the operation needs no key version)."""

    claim: ClaimGrant
    key: KeyGrant | None
    version: KeyVersion | None


@dataclass(frozen=True, slots=True)
class Refused:
    """The operation must not be done. `answer` goes out, `reason` does not."""

    answer: Answer
    reason: Reason


Decision = Allowed | Refused


def refuse(reason: Reason) -> Refused:
    """The refusal with the answer that belongs to `reason`."""
    return Refused(_ANSWER_OF.get(reason, Answer.INVALID_TOKEN), reason)


class _Case:
    """What the checks look at; they leave what they found for the ones after them."""

    __slots__ = ("claim", "jkt", "key", "live", "now", "operation", "subject", "token", "verifier", "version")

    def __init__(
        self, operation: Operation, token: TrustToken, jkt: str, live: Live, verifier: Verifier, now: Moment
    ) -> None:
        self.operation = operation
        self.token = token
        self.jkt = jkt
        self.live = live
        self.verifier = verifier
        self.now = now
        self.claim: ClaimGrant | None = None
        self.subject: SubjectGrant | None = None
        self.key: KeyGrant | None = None
        self.version: KeyVersion | None = None


def _signer(case: _Case) -> Reason:
    return Reason.HOLDS if case.token.kid == case.verifier.kid else Reason.SIGNER_UNKNOWN


def _unexpired(case: _Case) -> Reason:
    return Reason.HOLDS if case.now.wall < case.token.claims.exp else Reason.EXPIRED


def _audience(case: _Case) -> Reason:
    return Reason.HOLDS if case.token.claims.aud == case.verifier.audience else Reason.AUDIENCE_OTHER


def _holder(case: _Case) -> Reason:
    if not case.jkt:
        return Reason.LEAF_ABSENT
    return Reason.HOLDS if case.token.claims.cnf.jkt == case.jkt else Reason.HOLDER_OTHER


def _standing(case: _Case) -> Reason:
    standing = case.live.standing
    if standing is None:
        return Reason.STANDING_ABSENT
    if standing.verdict is not Verdict.TRUSTED:
        return Reason.STANDING_NOT_TRUSTED
    if standing.deadline.passed(case.now):
        return Reason.DEADLINE_PASSED
    return Reason.HOLDS if case.token.claims.epoch.hsm == standing.epoch else Reason.HSM_EPOCH_OTHER


def _claim_bound(case: _Case) -> Reason:
    operation, claims = case.operation, case.token.claims
    claim = case.live.claim(claims.claim)
    if claim is None:
        return Reason.CLAIM_NOT_BOUND
    if operation.kind is not OperationKind.RANDOM and (claim.namespace, claim.name) != (
        operation.namespace,
        operation.claim,
    ):
        return Reason.CLAIM_OTHER
    if claim.deadline.passed(case.now):
        return Reason.CLAIM_DEADLINE_PASSED
    if claim.sequence != claims.sequence:
        return Reason.SEQUENCE_OTHER
    case.claim = claim
    return Reason.HOLDS


def _subject_live(case: _Case) -> Reason:
    claim, subject = case.claim, case.token.subject
    if claim is None:
        return Reason.CLAIM_NOT_BOUND
    if subject.namespace != claim.namespace:
        return Reason.NAMESPACE_OTHER
    granted = claim.subjects.get((subject.service_account, subject.pod_uid))
    if granted is None:
        named = subject.service_account in claim.accounts
        return Reason.POD_NOT_LIVE if named else Reason.ACCOUNT_NOT_NAMED
    if granted.epoch != case.token.claims.epoch.subject:
        return Reason.SUBJECT_EPOCH_OTHER
    case.subject = granted
    return Reason.HOLDS


def _granted(case: _Case) -> Reason:
    kind = case.operation.kind
    if kind is OperationKind.RANDOM:
        return Reason.HOLDS
    if case.claim is None or case.subject is None:
        return Reason.CLAIM_NOT_BOUND
    usages = case.subject.usages.get(case.operation.key)
    key = case.claim.keys.get(case.operation.key)
    if usages is None or key is None:
        return Reason.USAGE_NOT_GRANTED
    if kind is not OperationKind.PUBLIC_KEYS:
        usage = USAGE_OF[kind]
        if usage not in usages or usage not in key.usages:
            return Reason.USAGE_NOT_GRANTED
    case.key = key
    return Reason.HOLDS


def _version_usable(case: _Case) -> Reason:
    states = STATES_OF.get(case.operation.kind)
    if states is None:
        return Reason.HOLDS
    wanted = case.operation.version
    for version in case.key.versions if case.key is not None else ():
        if version.state in states and wanted in (None, version.version):
            case.version = version
            return Reason.HOLDS
    return Reason.VERSION_NOT_USABLE


CHECKS: Final[tuple[Callable[[_Case], Reason], ...]] = (
    _signer,
    _unexpired,
    _audience,
    _holder,
    _standing,
    _claim_bound,
    _subject_live,
    _granted,
    _version_usable,
)
"""The whole decision, in order."""


def decide(
    operation: Operation, token: TrustToken, caller_jkt: str, live: Live, verifier: Verifier, now: Moment
) -> Decision:
    """Allow or refuse. `caller_jkt` is the thumbprint of the TLS key of this very connection, empty without one."""
    case = _Case(operation, token, caller_jkt, live, verifier, now)
    for check in CHECKS:
        reason = check(case)
        if reason is not Reason.HOLDS:
            return refuse(reason)
    if case.claim is None:
        return refuse(Reason.CLAIM_NOT_BOUND)
    return Allowed(case.claim, case.key, case.version)
