"""What must never leave a cluster in a support bundle: private keys, tokens, PINs, the values of Secrets.

Two fences. `discreet` takes whole values out of objects and lines of logs before they are written. `suspicions` then
looks at the very bytes that are to be written, and what it still finds is not written at all.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import load_der_private_key

LEFT_OUT: Final = "[left out]"
LAST_APPLIED: Final = "kubectl.kubernetes.io/last-applied-configuration"
"""Holds the whole object again, a Secret's data too."""

_PEM: Final = re.compile(r"-----BEGIN [A-Z0-9 ]*PRIVATE KEY-----")
_PEM_END: Final = re.compile(r"-----END [A-Z0-9 ]*PRIVATE KEY-----")
_JWT: Final = re.compile(r"eyJ[A-Za-z0-9_-]{6,}\.[A-Za-z0-9_-]{6,}\.[A-Za-z0-9_-]*")
_BEARER: Final = re.compile(r"(?i)\b(?:bearer|basic)[ =:]+[A-Za-z0-9._~+/=-]{8,}")
_INVITATION: Final = re.compile(r"\bchat1\.[A-Za-z0-9_-]{8,}")
_PIN: Final = re.compile(
    r"(?i)(?:\bpin-value=[^;&?\s\"']+"
    r"|(?<![a-z])(?:user[-_ ]?|so[-_ ]?)?pin[\"']?\s*(?:[=:]\s*[\"']?[^\s\"',;}\]]+|\bis\s+[\"']?[0-9]))"
)
_PASSWORD: Final = re.compile(
    r"(?i)\b(?:password|passwd|passphrase|client[-_]?secret|api[-_]?key)[\"']?\s*[=:]\s*[\"']?[^\s\"',;]+"
)
_BASE64: Final = re.compile(r"[A-Za-z0-9+/_-]{40,}={0,2}")
_SECRET_FIELD: Final = re.compile(
    r"(?i)(?:^|[-_.a-z])(?:pin|password|passwd|passphrase|secret|credential|private[-_]?key|api[-_]?key|bearer)$"
)
_TOKEN_FIELD: Final = re.compile(r"(?i)(?:^|[-_.a-z])token$")
_TOKEN_URI: Final = re.compile(r"pkcs11:[^\s]*")
MAX_DECODED_CHARACTERS: Final = 64 * 1024


def suspicions(text: str) -> tuple[str, ...]:
    """What in a text looks like a secret, each kind once; empty: nothing does."""
    return tuple(dict.fromkeys(_suspicions(text)))


def _suspicions(text: str, *, depth: int = 0) -> Iterator[str]:
    if _PEM.search(text):
        yield "a private key"
    if _JWT.search(text) or _INVITATION.search(text):
        yield "a token"
    if _BEARER.search(text):
        yield "credentials of HTTP"
    if any(not _left_out(found.group()) for found in _PIN.finditer(text)):
        yield "a PIN"
    if any(not _left_out(found.group()) for found in _PASSWORD.finditer(text)):
        yield "a password"
    if depth < 2:
        for found in _BASE64.finditer(text):
            yield from _encoded(found.group(), depth)


def _left_out(found: str) -> bool:
    """`pin: [left out]` is what we have made of it ourselves."""
    return LEFT_OUT.split()[0] in found


def _encoded(text: str, depth: int) -> Iterator[str]:
    """Base64 is how Secrets, kubeconfigs and environment variables carry keys."""
    if len(text) > MAX_DECODED_CHARACTERS:
        yield "something encoded that is too long to look through"
        return
    text = text.rstrip("=").replace("-", "+").replace("_", "/")
    if len(text) % 4 == 1:
        text = text[:-1]
    try:
        decoded = base64.b64decode(text + "=" * (-len(text) % 4))
    except (binascii.Error, ValueError):
        return
    if decoded[:1] == b"\x30" and _is_private_key(decoded):
        yield "a private key"
    elif decoded.isascii():
        yield from _suspicions(decoded.decode(), depth=depth + 1)


def _is_private_key(der: bytes) -> bool:
    try:
        load_der_private_key(der, password=None)
    except TypeError:
        return True  # it is encrypted
    except (ValueError, UnsupportedAlgorithm):
        return False
    return True


# --- objects --------------------------------------------------------------------------------------------------


def discreet(value: Any, *, field: str = "") -> Any:
    """A JSON value without what may be secret. Whole strings go: half of a secret is one, too."""
    if isinstance(value, Mapping):
        return {str(key): discreet(inner, field=str(key)) for key, inner in value.items() if key not in _DROPPED}
    if isinstance(value, list | tuple):
        return [discreet(inner, field=field) for inner in value]
    if not isinstance(value, str) or not value:
        return value
    found = suspicions(value)
    if _names_a_secret(field, value) or found:
        return f"{LEFT_OUT[:-1]}: looks like {found[0]}]" if found else LEFT_OUT
    return value


_DROPPED: Final = frozenset({"managedFields", LAST_APPLIED})


def _names_a_secret(field: str, value: str) -> bool:
    if _TOKEN_FIELD.search(field):
        return _TOKEN_URI.fullmatch(value) is None
    return _SECRET_FIELD.search(field) is not None


def pod(body: Mapping[str, Any]) -> Any:
    """A Pod or Deployment without the values of its environment, which are anybody's."""
    return _without_values(discreet(body))


def _without_values(value: Any, *, in_env: bool = False) -> Any:
    if isinstance(value, Mapping):
        return {
            key: LEFT_OUT if in_env and key == "value" else _without_values(inner, in_env=key == "env")
            for key, inner in value.items()
        }
    if isinstance(value, list):
        return [_without_values(inner, in_env=in_env) for inner in value]
    return value


# --- logs -----------------------------------------------------------------------------------------------------


def discreet_lines(text: str) -> Iterator[str]:
    """Lines of a log. Our own are JSON objects, others' are anything; a PEM block goes as a whole."""
    within_key = False
    for line in text.splitlines():
        if within_key or (_PEM.search(line) and not _PEM_END.search(line)):
            within_key = _PEM_END.search(line) is None
            yield LEFT_OUT
            continue
        yield _line(line)


def _line(line: str) -> str:
    try:
        entry = json.loads(line)
    except ValueError:
        entry = None
    if isinstance(entry, dict):
        line = json.dumps(discreet(entry))
    found = suspicions(line)
    return f"{LEFT_OUT[:-1]}: the line looks like {found[0]}]" if found else line
