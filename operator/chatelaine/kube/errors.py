"""What the API server may answer besides what was asked for.

    KubeError
    ├── Unavailable       nobody answered, or the server is not able to (5xx, connection lost, time-out)
    │   └── TooMany       429; `retry_after_seconds` is what the server asks for
    ├── Unauthenticated   401
    ├── Forbidden         403
    ├── NotFound          404
    ├── Conflict          409: the object changed since it was read
    │   └── AlreadyExists 409: an object of that name is there
    ├── Gone              410: the version asked for is no longer kept; list again
    └── Invalid           400, 422: the server refuses the object, and will again

`Unavailable` and `Conflict` are worth another try; the others are not, unless the world changes.
"""

from __future__ import annotations

import json
from typing import Any


class KubeError(Exception):
    """The API server did not do what was asked. `status` is the HTTP status, 0 if there was none."""

    def __init__(self, message: str, status: int = 0) -> None:
        super().__init__(message)
        self.status = status


class Unavailable(KubeError):
    """Nobody answered, or the server cannot answer now."""


class TooMany(Unavailable):
    """The server asks for patience."""

    def __init__(self, message: str, retry_after_seconds: float) -> None:
        super().__init__(message, 429)
        self.retry_after_seconds = retry_after_seconds


class Unauthenticated(KubeError):
    """Our credentials are not (or no longer) accepted."""


class Forbidden(KubeError):
    """We may not do this."""


class NotFound(KubeError):
    """There is no such object."""


class Conflict(KubeError):
    """The object changed since it was read, or a precondition does not hold."""


class AlreadyExists(Conflict):
    """An object of that name is there already."""


class Gone(KubeError):
    """The resourceVersion asked for is too old."""


class Invalid(KubeError):
    """The server refuses the object for what it says."""


MAX_MESSAGE_CHARACTERS = 1024


def error_of(status: int, body: bytes, what: str, retry_after: str | None = None) -> KubeError:
    """The most specific error for an answer of the API server (`metav1.Status` or anything else)."""
    said = _status_object(body)
    text = str(said.get("message") or body[:200].decode(errors="replace"))[:MAX_MESSAGE_CHARACTERS]
    message = f"{what}: {status} {text}"
    if status == 429:
        return TooMany(message, _seconds(retry_after))
    if status == 409:
        kind = AlreadyExists if said.get("reason") == "AlreadyExists" else Conflict
        return kind(message, status)
    kinds: dict[int, type[KubeError]] = {
        400: Invalid,
        401: Unauthenticated,
        403: Forbidden,
        404: NotFound,
        410: Gone,
        422: Invalid,
    }
    if status in kinds:
        return kinds[status](message, status)
    return Unavailable(message, status) if status >= 500 else KubeError(message, status)


def _status_object(body: bytes) -> dict[str, Any]:
    try:
        said = json.loads(body)
    except ValueError:
        return {}
    return said if isinstance(said, dict) else {}


def _seconds(retry_after: str | None) -> float:
    if retry_after is not None and retry_after.isdigit():
        return min(float(retry_after), 60.0)
    return 1.0
