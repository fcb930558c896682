"""The pod's projected service-account token: read anew each time, for the kubelet replaces it."""

from __future__ import annotations

from pathlib import Path

from chatelaine.model.identifiers import TOKEN_AUDIENCE
from chatelaine.model.printable import printable
from chatelaine.proxy.errors import AccountTokenUnusable
from chatelaine.proxy.files import NotAsExpected, read_bounded
from chatelaine.tokens import compact
from chatelaine.tokens.errors import TokenError
from chatelaine.tokens.service_account import MAX_TOKEN_BYTES

_SHOWN = 200


def read(path: Path, now_seconds: int) -> str:
    """The token, if it is one to show to a gateway. Its signature is the gateway's to check.

    A token for another audience stays here: whoever sees one that the API server takes can act as this pod there.

    Raises:
        AccountTokenUnusable: missing, over its bound, no token, for another audience, or ended.
    """
    try:
        token = read_bounded(path, MAX_TOKEN_BYTES).strip()
    except NotAsExpected as error:
        raise AccountTokenUnusable(f"{path}: expected a service-account token, but {error}") from error
    except OSError as error:
        raise AccountTokenUnusable(
            f"{path} cannot be read ({error.strerror}); mount a projected volume with serviceAccountToken "
            f"(audience {TOKEN_AUDIENCE}) there"
        ) from error
    try:
        said = compact.parse(token, max_bytes=MAX_TOKEN_BYTES).payload
    except TokenError as error:
        raise AccountTokenUnusable(f"{path}: expected a service-account token, but {error}") from error
    if said.get("aud") not in (TOKEN_AUDIENCE, [TOKEN_AUDIENCE]):
        raise AccountTokenUnusable(
            f"{path}: expected a token for the audience {TOKEN_AUDIENCE} alone, found "
            f"{printable(str(said.get('aud')), _SHOWN)}; set audience in the volume's serviceAccountToken"
        )
    ends = said.get("exp")
    if not isinstance(ends, int) or ends <= now_seconds:
        raise AccountTokenUnusable(f"{path}: the token has ended; the kubelet replaces it when the API server answers")
    return token.decode("ascii")
