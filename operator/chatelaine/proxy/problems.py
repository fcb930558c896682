"""Every error that the sidecar answers by itself, in one table: RFC 9457 problem documents with a stable `code`.

Codes that the gateway has too mean the same here. `docs/reference/proxy.md` explains them to people; a test compares
the two.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from chatelaine.wire.message import Problem, encode

CONTENT_TYPE: Final = "application/problem+json"


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of problem: HTTP status, a title, and whether asking again may help."""

    status: int
    title: str
    retry: bool = False


BAD_REQUEST: Final = "ERROR_BAD_REQUEST"
NOT_FOUND: Final = "ERROR_NOT_FOUND"
METHOD_NOT_ALLOWED: Final = "ERROR_METHOD_NOT_ALLOWED"
BODY_TOO_LARGE: Final = "ERROR_BODY_TOO_LARGE"
REQUEST_TIMEOUT: Final = "ERROR_REQUEST_TIMEOUT"
NOT_FROM_HERE: Final = "ERROR_NOT_FROM_HERE"
BUSY: Final = "ERROR_PROXY_BUSY"
BINDING_UNUSABLE: Final = "ERROR_BINDING_UNUSABLE"
ACCOUNT_TOKEN_UNUSABLE: Final = "ERROR_ACCOUNT_TOKEN_UNUSABLE"  # noqa: S105 - an error code, not a secret
GATEWAY_UNREACHABLE: Final = "ERROR_GATEWAY_UNREACHABLE"
GATEWAY_NOT_AUTHENTICATED: Final = "ERROR_GATEWAY_NOT_AUTHENTICATED"
GATEWAY_MALFORMED: Final = "ERROR_GATEWAY_MALFORMED"
EXCHANGE_REFUSED: Final = "ERROR_EXCHANGE_REFUSED"

KINDS: Final[dict[str, Kind]] = {
    BAD_REQUEST: Kind(400, "The request is not as documented"),
    NOT_FROM_HERE: Kind(403, "Only programs of this pod are served, no web pages"),
    NOT_FOUND: Kind(404, "There is nothing here"),
    METHOD_NOT_ALLOWED: Kind(405, "Another method is needed"),
    REQUEST_TIMEOUT: Kind(408, "The body came too slowly"),
    BODY_TOO_LARGE: Kind(413, "The body is over its bound"),
    GATEWAY_MALFORMED: Kind(502, "The gateway's answer cannot be used"),
    GATEWAY_NOT_AUTHENTICATED: Kind(502, "Whoever answers at the gateway's address is not the attested gateway"),
    ACCOUNT_TOKEN_UNUSABLE: Kind(503, "This pod's service-account token cannot be used", retry=True),
    BINDING_UNUSABLE: Kind(503, "The claim's binding cannot be used", retry=True),
    BUSY: Kind(503, "Too many requests at a time", retry=True),
    EXCHANGE_REFUSED: Kind(503, "The gateway gives this pod no trust token", retry=True),
    GATEWAY_UNREACHABLE: Kind(503, "The gateway does not answer", retry=True),
}


def document(code: str, detail: str) -> bytes:
    """The problem document."""
    kind = KINDS[code]
    return encode(Problem(title=kind.title, status=kind.status, code=code, detail=detail))
