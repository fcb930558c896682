"""A list of measurements on paper, with the PCR 10 that belongs to it, and a small allow-list with graces."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa, utils
from tools.lab import ima as lab

from chatelaine.evidence.ima import ImaProgress
from chatelaine.model.tpm_policy import Bank

PrivateKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey
AGGREGATE = hashlib.sha256(bytes(320)).digest()
"""Boot aggregate of a machine whose PCRs 0 to 9 are all zero."""


def start(bank: Bank = Bank.SHA256) -> ImaProgress:
    """Before the first entry of boot 5.1, that of the paper TPM."""
    return ImaProgress.start(reset_count=5, restart_count=1, bank=bank)


def sha256(content: bytes) -> str:
    """As in allow-lists."""
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def plain(path: str | bytes, content: bytes) -> bytes:
    """Template data of `ima-ng`."""
    return lab.digest_field("sha256", hashlib.sha256(content).digest()) + lab.path_field(path)


@dataclass
class PaperIma:
    """What a kernel would have written and extended so far."""

    data: bytes = b""
    lines: bytes = b""
    pcrs: dict[Bank, bytes] = field(default_factory=lambda: {Bank.SHA256: bytes(32), Bank.SHA384: bytes(48)})

    @classmethod
    def booted(cls) -> PaperIma:
        """With its boot aggregate."""
        return cls().add("ima-ng", lab.digest_field("sha256", AGGREGATE) + lab.path_field("boot_aggregate"))

    def add(
        self, template: str, data: bytes, *, pcr: int = 10, listed: bytes | None = None, violation: bool = False
    ) -> PaperIma:
        """One entry of any kind."""
        listed = lab.VIOLATION if violation else listed
        self.data += lab.record(template, data, pcr=pcr, listed=listed)
        self.lines += lab.ascii_line(template, data, pcr=pcr, listed=listed)
        if pcr == 10:
            for bank, value in self.pcrs.items():
                name = bank.value.lower()
                extension = lab.extension(data, name, violation=violation)
                self.pcrs[bank] = hashlib.new(name, value + extension).digest()
        return self

    def ran(self, path: str | bytes, content: bytes, signature: bytes | None = None) -> PaperIma:
        """A file was measured."""
        if signature is None:
            return self.add("ima-ng", plain(path, content))
        return self.add("ima-sig", plain(path, content) + lab.field(signature))

    def violated(self, path: str) -> PaperIma:
        """A violation that names `path`."""
        return self.add("ima-ng", lab.digest_field("sha256", bytes(32)) + lab.path_field(path), violation=True)

    @property
    def pcr10(self) -> bytes:
        """Of the SHA-256 bank."""
        return self.pcrs[Bank.SHA256]


def file_signature(
    key: PrivateKey,
    content: bytes,
    *,
    kind: int = 3,
    version: int = 2,
    hash_id: int = 4,
    key_id: bytes | None = None,
    length: int | None = None,
) -> bytes:
    """`security.ima` of a file: header and signature over its SHA-256."""
    digest = hashlib.sha256(content).digest()
    prehashed = utils.Prehashed(hashes.SHA256())
    if isinstance(key, rsa.RSAPrivateKey):
        value = key.sign(digest, padding.PKCS1v15(), prehashed)
    else:
        value = key.sign(digest, ec.ECDSA(prehashed))
    usual = x509.SubjectKeyIdentifier.from_public_key(key.public_key()).digest[-4:]
    size = len(value) if length is None else length
    return struct.pack(">BBB4sH", kind, version, hash_id, usual if key_id is None else key_id, size) + value


def pem(key: PrivateKey) -> str:
    """The public key, as policies hold it."""
    encoded = key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    return encoded.decode().strip()


@dataclass(frozen=True)
class GracefulFiles:
    """A `FileAllowList`: path to digests, each with the second at which it ends, or None."""

    files: Mapping[str, Mapping[str, int | None]]

    def allows(self, path: str, digest: str, *, at: int) -> bool:
        until = self.files.get(path, {}).get(digest, 0)
        return until is None or at < until

    def ended(self, *, after: int, until: int) -> bool:
        ends = (end for digests in self.files.values() for end in digests.values() if end is not None)
        return any(after < end <= until for end in ends)

    def __len__(self) -> int:
        return sum(map(len, self.files.values()))
