"""Entries of IMA's list of runtime measurements, and what their template data says.

A template's data is what IMA hashes and extends. Its *name* is not hashed, so a host may call an entry by any
template it likes: the name decides only how the fields are split, and no way of splitting them turns other bytes
into a good digest. Data that does not fit its template makes an entry with a `flaw`; it is for the appraisal to
refuse, since the entry was measured all the same.

Source: Linux, security/integrity/ima (templates), Documentation/security/IMA-templates.rst.
"""

from __future__ import annotations

import struct
from typing import Final, NamedTuple

IMA_PCR: Final = 10
"""Grows with every file that is measured; the boot log says nothing about it."""
BOOT_AGGREGATE: Final = "boot_aggregate"

MAX_ENTRY_BYTES: Final = 256 * 1024
MAX_TEMPLATE_NAME_BYTES: Final = 255
MAX_FIELDS: Final = 15
MAX_PATH_BYTES: Final = 4096

OLD_TEMPLATE: Final = b"ima"
OLD_DIGEST_BYTES: Final = 20
OLD_NAME_BYTES: Final = 256
"""The first template has no lengths in what is hashed: 20 bytes of digest, and the name in a field of 256."""

_SIZES_BYTES: Final = {"md5": 16, "sha1": 20, "sha256": 32, "sha384": 48, "sha512": 64}
_PREFIXES: Final = {f"{name}:\0".encode(): (f"{name}:", size) for name, size in _SIZES_BYTES.items()}
_TYPED_PREFIXES: Final = {
    f"{kind}:{name}:\0".encode(): (shown + f"{name}:", size)
    for kind, shown in (("ima", ""), ("verity", "verity:"))
    for name, size in _SIZES_BYTES.items()
}

_U32: Final = struct.Struct("<I")


class _Layout(NamedTuple):
    """How a template's data is read: digest, path and, if there is a third field, what it is."""

    prefixes: dict[bytes, tuple[str, int]]
    third: str | None


_LAYOUTS: Final = {
    b"ima-ng": _Layout(_PREFIXES, None),
    b"ima-sig": _Layout(_PREFIXES, "signature"),
    b"ima-buf": _Layout(_PREFIXES, "buffer"),
    b"ima-ngv2": _Layout(_TYPED_PREFIXES, None),
    b"ima-sigv2": _Layout(_TYPED_PREFIXES, "signature"),
}
TEMPLATES: Final = frozenset((OLD_TEMPLATE, *_LAYOUTS))


class ImaRecord(NamedTuple):
    """An entry as it stands in the list, not yet read.

    Attributes:
        pcr: the PCR that it says it was measured into.
        template: name of the template; not hashed, so not shown by any PCR.
        data: what is hashed.
        violation: IMA could not measure; the PCR was extended with ff…, and `data` is shown by nothing.
        end_bytes: offset behind the entry, in the bytes that were given.
    """

    pcr: int
    template: bytes
    data: bytes
    violation: bool
    end_bytes: int


class ImaEntry(NamedTuple):
    """One measurement.

    Attributes:
        number: counted from 0, the list's first entry.
        pcr: the PCR that it says it was measured into; only those of PCR 10 are shown by its replay.
        template: its name (`ima-ng`), as the host gives it.
        path: as IMA measured it; bytes that are not UTF-8 are kept as surrogates. Empty where there is a flaw.
        digest: `sha256:` and hexadecimal; `verity:sha256:…` where fs-verity's digest was measured, not the file's.
        template_hash: what the quoted bank was extended with, computed here (ff… for a violation).
        signature: the file's signature, header included; None without one.
        buffer: what was measured, where it was no file (key, command line); None otherwise.
        violation: IMA could not measure; path and digest are shown by nothing.
        flaw: why the data does not fit its template; empty where it does.
    """

    number: int
    pcr: int
    template: str
    path: str
    digest: str
    template_hash: bytes
    signature: bytes | None = None
    buffer: bytes | None = None
    violation: bool = False
    flaw: str = ""


def entry_of(record: ImaRecord, number: int, template_hash: bytes) -> ImaEntry:
    """What `record` says. Never raises: data that does not fit gives an entry with a flaw."""
    template = record.template.decode("ascii", "replace")
    head = (number, record.pcr, template)
    if record.template == OLD_TEMPLATE:
        path, flaw = _old_path(record.data)
        digest = "" if flaw else f"sha1:{record.data[:OLD_DIGEST_BYTES].hex()}"
        return ImaEntry(*head, path, digest, template_hash, None, None, record.violation, flaw)
    layout = _LAYOUTS.get(record.template)
    fields = _split(record.data)
    if layout is None or fields is None or len(fields) != (2 if layout.third is None else 3):
        flaw = "the template is not known" if layout is None else "the fields are not those of the template"
        return ImaEntry(*head, "", "", template_hash, None, None, record.violation, flaw)
    digest, flaw = _digest(fields[0], layout.prefixes)
    path, path_flaw = _path(fields[1])
    third = fields[2] if layout.third is not None else b""
    return ImaEntry(
        *head,
        path,
        digest,
        template_hash,
        third if third and layout.third == "signature" else None,
        third if layout.third == "buffer" else None,
        record.violation,
        flaw or path_flaw,
    )


def _split(data: bytes) -> list[bytes] | None:
    """Fields with their lengths before them (little endian); None if the lengths do not fit the data."""
    fields: list[bytes] = []
    at, size = 0, len(data)
    while at < size:
        if at + 4 > size or len(fields) == MAX_FIELDS:
            return None
        start = at + 4
        at = start + _U32.unpack_from(data, at)[0]
        if at > size:
            return None
        fields.append(data[start:at])
    return fields


def _digest(field: bytes, prefixes: dict[bytes, tuple[str, int]]) -> tuple[str, str]:
    """The digest as text, and what is wrong with it."""
    end = field.find(b"\0") + 1
    name, size = prefixes.get(field[:end], ("", 0))
    if not size:
        return "", "the digest's algorithm is not known"
    if len(field) != end + size:
        return "", "the digest has another length than those of its algorithm"
    return name + field[end:].hex(), ""


def _path(field: bytes) -> tuple[str, str]:
    """The path, and what is wrong with it. It ends with one NUL, and holds none."""
    if field.find(b"\0") != len(field) - 1:
        return "", "the path does not end with its one NUL"
    if not 1 < len(field) <= MAX_PATH_BYTES:
        return "", "the path is empty, or too long"
    return field[:-1].decode("utf-8", "surrogateescape"), ""


def _old_path(data: bytes) -> tuple[str, str]:
    """The path of the first template, which is filled up with NULs."""
    name, _, rest = data[OLD_DIGEST_BYTES:].partition(b"\0")
    if not name or rest.strip(b"\0"):
        return "", "the path is empty, or holds a NUL"
    return name.decode("utf-8", "surrogateescape"), ""
