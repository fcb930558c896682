"""PKCS#11 URIs (RFC 7512), as far as they name a token or a key by what is written on it.

Slot numbers change with the order of plugging, so slot attributes are refused; so are PIN and library attributes: both
are configured beside the HSM and never come from the cluster.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final, Protocol
from urllib.parse import quote, unquote_to_bytes

from chatelaine.model.identifiers import key_id
from chatelaine.pkcs11.errors import UriRefused

SCHEME: Final = "pkcs11:"
MAX_URI_CHARS: Final = 1024
_MAX_VALUE_BYTES: Final = {
    "token": 32,
    "manufacturer": 32,
    "model": 16,
    "serial": 16,
    "object": 256,
    "id": 64,
    "type": 10,
}
"""Sizes of the fields of `CK_TOKEN_INFO` (PKCS#11 v3.1 section 3.2), and our own bounds for objects."""
_OBJECT_TYPES: Final = frozenset({"public", "private", "cert", "secret-key", "data"})
_PATH_SAFE: Final = ":[]@!$'()*+,=&"
"""`pk11-path-res-avail` and `&` of RFC 7512 section 2.3, beyond the unreserved characters."""
_PATH_VALUE: Final = re.compile(r"(?:[A-Za-z0-9\-._~:\[\]@!$'()*+,=&]|%[0-9A-Fa-f]{2})*")


class TokenLike(Protocol):
    """The fields of a token that a URI can name."""

    @property
    def label(self) -> str:
        """`CK_TOKEN_INFO.label`, blanks stripped."""
        ...

    @property
    def serial(self) -> str:
        """`CK_TOKEN_INFO.serialNumber`, blanks stripped."""
        ...

    @property
    def manufacturer(self) -> str:
        """`CK_TOKEN_INFO.manufacturerID`, blanks stripped."""
        ...

    @property
    def model(self) -> str:
        """`CK_TOKEN_INFO.model`, blanks stripped."""
        ...


@dataclass(frozen=True, slots=True)
class Pkcs11Uri:
    """A parsed URI. Absent attributes are None; `id` is `CKA_ID`, `object` is `CKA_LABEL`."""

    token: str | None = None
    manufacturer: str | None = None
    serial: str | None = None
    model: str | None = None
    object: str | None = None
    id: bytes | None = None
    type: str | None = None

    @property
    def names_token(self) -> bool:
        """At least one attribute narrows the choice of tokens."""
        return any(value is not None for value in (self.token, self.manufacturer, self.serial, self.model))

    def matches(self, token: TokenLike) -> bool:
        """Every attribute of a token that the URI names is equal (RFC 7512 section 2.5)."""
        wanted = (
            (self.token, token.label),
            (self.serial, token.serial),
            (self.manufacturer, token.manufacturer),
            (self.model, token.model),
        )
        return all(want is None or want == have for want, have in wanted)

    def __str__(self) -> str:
        """The URI; attributes in a fixed order, `id` percent-encoded whole (RFC 7512 section 2.3)."""
        parts = []
        for name in ("token", "manufacturer", "serial", "model", "object", "type"):
            value = getattr(self, name)
            if value is not None:
                parts.append(f"{name}={quote(value, safe=_PATH_SAFE)}")
        if self.id is not None:
            parts.append("id=" + "".join(f"%{byte:02X}" for byte in self.id))
        return SCHEME + ";".join(parts)


def parse(text: str) -> Pkcs11Uri:
    """Read a URI.

    Raises:
        UriRefused: too long, malformed, an attribute twice or unknown, or one that names a slot, a PIN or a library.
    """
    if len(text) > MAX_URI_CHARS:
        raise UriRefused(f"at most {MAX_URI_CHARS} characters", f"{len(text)}")
    if not text.startswith(SCHEME):
        raise UriRefused(f"a URI that starts with {SCHEME}", "another scheme")
    path, mark, _query = text[len(SCHEME) :].partition("?")
    if mark:
        raise UriRefused("no query", "a query (PIN and module attributes are configured beside the HSM)")
    values: dict[str, bytes] = {}
    for part in path.split(";") if path else ():
        name, value = _attribute(part)
        if name in values:
            raise UriRefused("each attribute once", f"{name} twice")
        values[name] = value
    return _build(values)


def parse_token(text: str) -> Pkcs11Uri:
    """Read a URI that must choose a token.

    Raises:
        UriRefused: as `parse`, or no attribute of a token is named.
    """
    uri = parse(text)
    if not uri.names_token:
        raise UriRefused("at least one of token, serial, manufacturer, model", "none: any token would do")
    return uri


def key_uri(token: TokenLike, label: str) -> Pkcs11Uri:
    """The URI of a private key of ours on `token`: what `HsmClaim.status.keys[].versions[].pkcs11Uri` shows."""
    return Pkcs11Uri(token=token.label, serial=token.serial, object=label, id=key_id(label), type="private")


def _attribute(part: str) -> tuple[str, bytes]:
    name, equals, raw = part.partition("=")
    if not equals or name not in _MAX_VALUE_BYTES:
        # Only known words are echoed: what is in the place of a name may be somebody's PIN.
        shown = name if name in _REFUSED_NAMES else "something else"
        raise UriRefused("attributes " + ", ".join(sorted(_MAX_VALUE_BYTES)), shown)
    if not _PATH_VALUE.fullmatch(raw):
        raise UriRefused(f"percent-encoded characters in {name}", "a character that RFC 7512 does not allow there")
    value = unquote_to_bytes(raw)
    if len(value) > _MAX_VALUE_BYTES[name]:
        raise UriRefused(f"at most {_MAX_VALUE_BYTES[name]} bytes in {name}", f"{len(value)}")
    return name, value


_REFUSED_NAMES: Final = frozenset(
    {
        "slot-id",
        "slot-description",
        "slot-manufacturer",
        "library-manufacturer",
        "library-description",
        "library-version",
        "pin-value",
        "pin-source",
        "module-name",
        "module-path",
    }
)


def _build(values: dict[str, bytes]) -> Pkcs11Uri:
    texts: dict[str, str] = {}
    for name, value in values.items():
        if name == "id":
            continue
        try:
            texts[name] = value.decode()
        except UnicodeDecodeError as error:
            raise UriRefused(f"UTF-8 in {name}", "other bytes") from error
    if "type" in texts and texts["type"] not in _OBJECT_TYPES:
        raise UriRefused("type " + ", ".join(sorted(_OBJECT_TYPES)), "another type")
    return Pkcs11Uri(
        token=texts.get("token"),
        manufacturer=texts.get("manufacturer"),
        serial=texts.get("serial"),
        model=texts.get("model"),
        object=texts.get("object"),
        id=values.get("id"),
        type=texts.get("type"),
    )
