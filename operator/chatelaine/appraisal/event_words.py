"""What an event of a boot log measures, in words for people.

A name comes from data that the event's digest bears out, wherever it does. Of an image that was loaded, the digest is
that of the image: which file that was, and that it was an image at all, is the host's own word. Such a name is said
too, because it helps whoever looks for the file, and is always marked as unchecked.
"""

from __future__ import annotations

from typing import Final

from chatelaine.evidence.errors import Malformed
from chatelaine.evidence.event_log import NO_ACTION, Event
from chatelaine.evidence.uefi import parse_variable
from chatelaine.evidence.uefi_checked import Separator, checked, checked_text, separator
from chatelaine.evidence.uefi_image import loaded_from

MAX_NAME_CHARACTERS: Final = 96
_SHOWN_CONTENT_BYTES: Final = 4
_PUNCTUATION: Final = frozenset("(),;:'\"")

_TYPES: Final = {
    0x00000001: "POST code",
    0x00000004: "separator",
    0x00000005: "action",
    0x00000006: "event tag",
    0x00000007: "code of the root of trust",
    0x00000008: "version of the root of trust",
    0x0000000D: "boot loader text",
    0x80000001: "UEFI variable",
    0x80000002: "UEFI boot variable",
    0x80000003: "boot application",
    0x80000004: "boot driver",
    0x80000005: "runtime driver",
    0x80000006: "partition table",
    0x80000007: "UEFI action",
    0x80000008: "firmware volume",
    0x80000009: "tables handed over",
    0x8000000A: "firmware volume",
    0x8000000B: "tables handed over",
    0x8000000C: "UEFI boot variable",
    0x800000E0: "authority",
}
_IMAGES: Final = frozenset((0x80000003, 0x80000004, 0x80000005))


def words_of(event: Event, tpm_id: int) -> str:
    """What `event` measures; begins with `unchecked name:` where nothing but the host says so, and with `note,` where
    it was never extended.
    """
    if event.type == NO_ACTION:
        shown = readable(event.data)
        return f"note, not measured: {_quoted(shown)}" if shown else "note, not measured"
    meaning = separator(event, tpm_id)
    if meaning is not None:
        return "separator" if meaning is Separator.NORMAL else "separator of an error"
    data = checked(event, tpm_id)
    if data is not None:
        return _of_checked(data)
    text = checked_text(event, tpm_id)
    if text is not None and (shown := readable(text)):
        return f"text {_quoted(shown)}"
    return f"unchecked name: {_of_type(event)}"


def readable(data: bytes) -> str | None:
    """`data` as a short text for people, if it is one: ASCII or UTF-16, zeros at its end aside."""
    bare = data.rstrip(b"\x00")
    for encoding, candidate in (("ascii", bare), ("utf-16-le", bare + b"\x00" * (len(bare) % 2))):
        try:
            text = " ".join(candidate.decode(encoding).split())
        except UnicodeDecodeError:
            continue
        if text and text.isascii() and text.isprintable():
            return _short(text)
    return None


def _of_checked(data: bytes) -> str:
    try:
        variable = parse_variable(data)
    except Malformed:
        variable = None
    if variable is not None and variable.name and variable.name.isascii() and variable.name.isprintable():
        content = variable.content
        value = f" = {content.hex()}" if 0 < len(content) <= _SHOWN_CONTENT_BYTES else f", {len(content)} bytes"
        return f"UEFI variable {_named(_short(variable.name))}{value}"
    shown = readable(data)
    return f"text {_quoted(shown)}" if shown else f"{len(data)} bytes of data"


def _of_type(event: Event) -> str:
    kind = _TYPES.get(event.type, f"event of type 0x{event.type:08x}")
    name = loaded_from(event.data) if event.type in _IMAGES else readable(event.data)
    return f"{kind} {_named(_short(_printable(name)))}" if name else kind


def _named(name: str) -> str:
    """Bare where it is a plain name."""
    return name if _PUNCTUATION.isdisjoint(name) else _quoted(name)


def _quoted(text: str) -> str:
    """In quotes that it cannot end: its own become another sign, which `readable` text never has."""
    return "'" + text.replace("'", "\N{RIGHT SINGLE QUOTATION MARK}") + "'"


def _printable(text: str) -> str:
    return "".join(c if c.isascii() and c.isprintable() else "?" for c in text)


def _short(text: str) -> str:
    return text if len(text) <= MAX_NAME_CHARACTERS else f"{text[: MAX_NAME_CHARACTERS - 1]}…"
