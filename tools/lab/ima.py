"""Plays the kernel's IMA on a software TPM: appends to a binary list, then extends PCR 10 of every bank.

The encoders here are written from the kernel's side (what it writes), the product's parser from the other; neither
uses the other's code.
"""

from __future__ import annotations

import hashlib
import re
import struct
from pathlib import Path
from typing import Final

from tools.lab.swtpm import Swtpm

PCR: Final = 10
BANKS: Final = ("sha256", "sha384")
BOOT_AGGREGATE: Final = "boot_aggregate"
VIOLATION: Final = bytes(20)


def field(data: bytes) -> bytes:
    """A field of a template: length (little endian), then data."""
    return struct.pack("<I", len(data)) + data


def digest_field(algorithm: str, digest: bytes) -> bytes:
    """`d-ng`; with `ima:sha256` or `verity:sha256` for `algorithm`, `d-ngv2`."""
    return field(f"{algorithm}:\0".encode() + digest)


def path_field(path: bytes | str) -> bytes:
    """`n-ng`."""
    return field((path if isinstance(path, bytes) else path.encode()) + b"\0")


def old_data(digest: bytes, path: str) -> bytes:
    """What is hashed of the first template, `ima`."""
    return digest + path.encode().ljust(256, b"\0")


def record(template: str, data: bytes, *, pcr: int = PCR, listed: bytes | None = None) -> bytes:
    """An entry of the binary list. `listed`: the SHA-1 that stands in it, zero for a violation."""
    head = struct.pack("<I", pcr) + (hashlib.sha1(data).digest() if listed is None else listed)
    if template == "ima":
        return head + field(b"ima") + data[:20] + field(data[20:].rstrip(b"\0"))
    return head + field(template.encode()) + field(data)


def ascii_line(template: str, data: bytes, *, pcr: int = PCR, listed: bytes | None = None) -> bytes:
    """The same as a line of the ASCII list."""
    sha1 = (hashlib.sha1(data).digest() if listed is None else listed).hex().encode()
    head = b"%d %s %s " % (pcr, sha1, template.encode())
    if template == "ima":
        return head + data[:20].hex().encode() + b" " + data[20:].rstrip(b"\0") + b"\n"
    fields, at = [], 0
    while at < len(data):
        (size,) = struct.unpack_from("<I", data, at)
        fields.append(data[at + 4 : at + 4 + size])
        at += 4 + size
    name, _, digest = fields[0].partition(b"\0")
    shown = [name + digest.hex().encode(), fields[1][:-1], *(rest.hex().encode() for rest in fields[2:])]
    return head + b" ".join(shown) + b"\n"


def extension(data: bytes, algorithm: str, *, violation: bool = False) -> bytes:
    """What a bank is extended with."""
    return b"\xff" * hashlib.new(algorithm).digest_size if violation else hashlib.new(algorithm, data).digest()


class ImaList:
    """The list of one host, and the PCR behind it.

    Attributes:
        path: the binary list, as the kernel shows it.
    """

    def __init__(self, path: Path, tpm: Swtpm, banks: tuple[str, ...] = BANKS) -> None:
        """An empty list in the file `path`; call it after each start of `tpm`, then `boot`."""
        self.path = path
        self._tpm = tpm
        self._banks = banks
        path.write_bytes(b"")

    def boot(self, bank: str = "sha256") -> None:
        """Measure the boot aggregate, as the kernel does first of all."""
        shown = self._tpm.tool("tpm2_pcrread", f"{bank}:0,1,2,3,4,5,6,7,8,9")
        values = re.findall(r"^\s+\d+\s*:\s*0x([0-9A-F]+)$", shown, re.MULTILINE)
        self.append("ima-ng", digest_field(bank, hashlib.new(bank, bytes.fromhex("".join(values))).digest())
                    + path_field(BOOT_AGGREGATE))  # fmt: skip

    def measure(self, path: str, content: bytes, signature: bytes | None = None) -> str:
        """A file runs: `ima-ng`, or `ima-sig` with its signature. Returns its digest (`sha256:…`)."""
        digest = hashlib.sha256(content).digest()
        data = digest_field("sha256", digest) + path_field(path)
        if signature is None:
            self.append("ima-ng", data)
        else:
            self.append("ima-sig", data + field(signature))
        return f"sha256:{digest.hex()}"

    def violate(self, path: str) -> None:
        """A file was open for writing while it was to be measured."""
        self.append("ima-ng", digest_field("sha256", bytes(32)) + path_field(path), violation=True)

    def append(self, template: str, data: bytes, *, violation: bool = False) -> None:
        """One entry: the list first, the PCR afterwards."""
        with self.path.open("ab") as file:
            file.write(record(template, data, listed=VIOLATION if violation else None))
        digests = ",".join(f"{bank}={extension(data, bank, violation=violation).hex()}" for bank in self._banks)
        self._tpm.tool("tpm2_pcrextend", f"{PCR}:{digests}")
