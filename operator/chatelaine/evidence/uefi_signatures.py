"""Signature databases of Secure Boot (PK, KEK, db, dbx) and the single entry that verified an image.

EFI_SIGNATURE_LIST and EFI_SIGNATURE_DATA: UEFI Specification, §32.4.1. Lists stand one after the other, never inside
each other; each says how long it is and how long its entries are, and both are held against what is there.
"""

from __future__ import annotations

import enum
import hashlib
import struct
from typing import Final, NamedTuple

from chatelaine.evidence.errors import Malformed, Oversized, Truncated
from chatelaine.evidence.uefi import GUID_BYTES, guid

MAX_SIGNATURES: Final = 16_384
"""A dbx of today has some four hundred."""

_LIST: Final = struct.Struct("<16sIII")
_DER_SEQUENCE: Final = 0x30


class SignatureKind(enum.StrEnum):
    """What an entry of a signature database is."""

    CERTIFICATE = "Certificate"
    SHA1 = "Sha1"
    SHA256 = "Sha256"
    SHA384 = "Sha384"
    SHA512 = "Sha512"
    OTHER = "Other"


_KINDS: Final = {
    guid("a5c059a1-94e4-4aa7-87b5-ab155c2bf072"): SignatureKind.CERTIFICATE,
    guid("826ca512-cf10-4ac9-b187-be01496631bd"): SignatureKind.SHA1,
    guid("c1c41626-504c-4092-aca9-41f936934328"): SignatureKind.SHA256,
    guid("ff3e5307-9fd0-48c9-85f1-8ad56c701e01"): SignatureKind.SHA384,
    guid("093e0fae-a6c4-4f50-9f1b-d41e2b89c19a"): SignatureKind.SHA512,
}
_DIGEST_BYTES: Final = {
    SignatureKind.SHA1: 20,
    SignatureKind.SHA256: 32,
    SignatureKind.SHA384: 48,
    SignatureKind.SHA512: 64,
}
_KIND_OF_LENGTH: Final = {size: kind for kind, size in _DIGEST_BYTES.items()}


class Signature(NamedTuple):
    """One entry: a certificate (DER), or the digest of an image.

    Attributes:
        kind: which of these.
        owner: GUID of who put it there; empty where it stands alone.
        content: the bytes.
    """

    kind: SignatureKind
    owner: bytes
    content: bytes

    @property
    def digest(self) -> bytes:
        """What a policy names it by: SHA-256 of a certificate, else the digest that the entry is."""
        return self.content if self.kind in _DIGEST_BYTES else hashlib.sha256(self.content).digest()


def parse_signature_lists(data: bytes) -> tuple[Signature, ...]:
    """The content of PK, KEK, db or dbx: any number of lists, none included.

    Raises:
        Truncated: a length runs over the end.
        Oversized: more entries than `MAX_SIGNATURES`.
        Malformed: lengths that contradict each other, or the kind of entry.
    """
    found: list[Signature] = []
    owners: dict[bytes, bytes] = {}
    at = 0
    while at < len(data):
        try:
            kind_id, size, header, each = _LIST.unpack_from(data, at)
        except struct.error as error:
            raise Truncated("a signature list ends early", found=f"{len(data) - at} bytes") from error
        end, start = at + size, at + _LIST.size + header
        if end > len(data):
            raise Truncated("a signature list ends early", expected=f"{size} bytes", found=f"{len(data) - at} bytes")
        kind = _KINDS.get(kind_id, SignatureKind.OTHER)
        _check_lengths(kind, end - start, each)
        if (end - start) // max(each, 1) + len(found) > MAX_SIGNATURES:
            raise Oversized("a signature database is too long", expected=f"at most {MAX_SIGNATURES} entries")
        for entry in range(start, end, max(each, 1)):
            content = entry + GUID_BYTES
            owner = data[entry:content]  # hundreds of entries share one; each is kept once
            found.append(Signature(kind, owners.setdefault(owner, owner), data[content : entry + each]))
        at = end
    return tuple(found)


def _check_lengths(kind: SignatureKind, room: int, each: int) -> None:
    """`room` bytes for entries of `each` bytes. A list is never shorter than its own head, so the walk goes on."""
    if room < 0:
        raise Malformed("a signature list is shorter than its own head")
    if room == 0:
        return
    if each <= GUID_BYTES or room % each:
        raise Malformed("a signature list is no multiple of its entries", expected=f"{each} bytes each", found=room)
    expected = _DIGEST_BYTES.get(kind)
    if expected is not None and each != GUID_BYTES + expected:
        raise Malformed(f"entries of a {kind.value} list have another length", expected=expected, found=each)


def parse_authority(data: bytes) -> Signature:
    """The entry that verified an image: EFI_SIGNATURE_DATA from firmware, a bare certificate or digest from shim.

    Raises:
        Malformed: neither of these.
    """
    content = data[GUID_BYTES:]
    certificate = _certificate(content)
    if certificate is not None:
        return Signature(SignatureKind.CERTIFICATE, data[:GUID_BYTES], certificate)
    certificate = _certificate(data)
    if certificate is not None:
        return Signature(SignatureKind.CERTIFICATE, b"", certificate)
    if len(content) in _KIND_OF_LENGTH:
        return Signature(_KIND_OF_LENGTH[len(content)], data[:GUID_BYTES], content)
    if len(data) in _KIND_OF_LENGTH:
        return Signature(_KIND_OF_LENGTH[len(data)], b"", data)
    raise Malformed("neither a certificate nor a digest verified this image", found=f"{len(data)} bytes")


def _certificate(data: bytes) -> bytes | None:
    """One DER SEQUENCE with at most zeros behind it."""
    if len(data) < 4 or data[0] != _DER_SEQUENCE:
        return None
    size, start = data[1], 2
    if size >= 0x80:
        start = 2 + (size & 0x7F)
        if not 3 <= start <= 5:  # 0x80 is the indefinite form, which DER does not have
            return None
        size = int.from_bytes(data[2:start], "big")
    end = start + size
    if end > len(data) or data[end:].strip(b"\x00"):
        return None
    return data[:end]
