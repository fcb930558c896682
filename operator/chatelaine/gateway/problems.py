"""Every error that the gateway answers, in one table: RFC 9457 problem documents with a stable `code`.

`docs/reference/errors.md` explains them to people; a test compares the two.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from chatelaine.pkcs11.errors import BY_CODE, BadRequest, HsmUnavailable, KeyAbsent, LoginRefused
from chatelaine.wire.messages import Problem, encode

CONTENT_TYPE: Final = b"application/problem+json"


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of problem: HTTP status, a title, and whether the connection ends with it."""

    status: int
    title: str
    closes: bool = False


INVALID_TOKEN: Final = "ERROR_INVALID_TOKEN"  # noqa: S105 - an error code, not a secret
NOT_ATTESTED: Final = "ERROR_NOT_ATTESTED"
NOT_A_CLIENT: Final = "ERROR_NOT_A_CLIENT"
USAGE_NOT_ALLOWED: Final = "ERROR_USAGE_NOT_ALLOWED"
KEY_VERSION_NOT_USABLE: Final = "ERROR_KEY_VERSION_NOT_USABLE"
ALGORITHM_NOT_SUPPORTED: Final = "ERROR_ALGORITHM_NOT_SUPPORTED"
BAD_REQUEST: Final = "ERROR_BAD_REQUEST"
NOT_FOUND: Final = "ERROR_NOT_FOUND"
METHOD_NOT_ALLOWED: Final = "ERROR_METHOD_NOT_ALLOWED"
BODY_TOO_LARGE: Final = "ERROR_BODY_TOO_LARGE"
HEADERS_TOO_LARGE: Final = "ERROR_HEADERS_TOO_LARGE"
OPERATOR_ONLY: Final = "ERROR_OPERATOR_ONLY"
HSM_UNAVAILABLE: Final = "ERROR_HSM_UNAVAILABLE"
HSM_FAILED: Final = "ERROR_HSM_FAILED"
AUDIT_UNAVAILABLE: Final = "ERROR_AUDIT_UNAVAILABLE"
VERSION_NOT_SUPPORTED: Final = "VersionNotSupported"
VIEW_REFUSED: Final = "ViewRefused"
LABEL_REFUSED: Final = "LabelRefused"
LEAF_REFUSED: Final = "LeafRefused"

KINDS: Final[dict[str, Kind]] = {
    INVALID_TOKEN: Kind(403, "The token is not valid for this operation", closes=True),
    NOT_ATTESTED: Kind(403, "The HSM is not attested, or the claim is not bound to it"),
    NOT_A_CLIENT: Kind(403, "This service account and pod are no live client of the claim"),
    USAGE_NOT_ALLOWED: Kind(403, "The key or the usage is not granted to this caller"),
    KEY_VERSION_NOT_USABLE: Kind(409, "No such version of the key is in a state that allows this"),
    ALGORITHM_NOT_SUPPORTED: Kind(400, "The key cannot do this"),
    BAD_REQUEST: Kind(400, "The request is not as documented"),
    NOT_FOUND: Kind(404, "There is nothing here"),
    METHOD_NOT_ALLOWED: Kind(405, "Another method is needed"),
    BODY_TOO_LARGE: Kind(413, "The body is over its bound", closes=True),
    HEADERS_TOO_LARGE: Kind(431, "The request's head is over its bound", closes=True),
    OPERATOR_ONLY: Kind(403, "Only the operator may do this", closes=True),
    HSM_UNAVAILABLE: Kind(503, "The HSM does not answer now"),
    HSM_FAILED: Kind(502, "The HSM could not do this"),
    AUDIT_UNAVAILABLE: Kind(503, "Operations cannot be recorded, so none are done"),
    VERSION_NOT_SUPPORTED: Kind(400, "This version of the message is not understood"),
    VIEW_REFUSED: Kind(422, "The view contradicts itself or breaks a bound"),
    LABEL_REFUSED: Kind(422, "The label is not one of a claim's key"),
    LEAF_REFUSED: Kind(422, "The certificate is not one for this gateway"),
}
"""Codes in capitals go to clients, the others to the operator alone."""


def _status_of_hsm_error(code: str) -> int:
    error = BY_CODE[code]
    if issubclass(error, HsmUnavailable | LoginRefused):
        return 503
    if issubclass(error, KeyAbsent):
        return 404
    return 400 if issubclass(error, BadRequest) else 502


HSM_STATUS: Final[dict[str, int]] = {code: _status_of_hsm_error(code) for code in BY_CODE}
"""What the operator is told when the HSM refuses: the error's own code, with these statuses."""


class Refusal(Exception):
    """A request ends with a problem document.

    `code` and `detail` go out; `reason` is for the audit record and the metrics only.
    """

    def __init__(self, code: str, detail: str = "", *, reason: str = "", status: int | None = None) -> None:
        super().__init__(f"{code}: {detail}")
        self.code = code
        self.detail = detail
        self.reason = reason or code
        kind = KINDS.get(code)
        self.status = status if status is not None else (kind.status if kind else 500)
        self.closes = kind.closes if kind else False

    def document(self) -> bytes:
        """The problem document."""
        kind = KINDS.get(self.code)
        title = kind.title if kind else "The HSM refused"
        return encode(Problem(title=title, status=self.status, code=self.code, detail=self.detail))
