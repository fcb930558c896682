"""Boot event logs as firmware writes them: TCG2 crypto-agile records, UEFI variables, signature lists, GPT.

Only written here; the product's reader is written on its own, from the specifications.
"""

from __future__ import annotations

import hashlib
import struct
import uuid
from collections.abc import Iterable
from dataclasses import dataclass, field

SHA1, SHA256, SHA384 = 0x0004, 0x000B, 0x000C
BANK_NAMES = {SHA1: "sha1", SHA256: "sha256", SHA384: "sha384"}

EV_NO_ACTION = 0x00000003
EV_SEPARATOR = 0x00000004
EV_EVENT_TAG = 0x00000006
EV_S_CRTM_VERSION = 0x00000008
EV_IPL = 0x0000000D
EV_EFI_VARIABLE_DRIVER_CONFIG = 0x80000001
EV_EFI_VARIABLE_BOOT = 0x80000002
EV_EFI_BOOT_SERVICES_APPLICATION = 0x80000003
EV_EFI_BOOT_SERVICES_DRIVER = 0x80000004
EV_EFI_GPT_EVENT = 0x80000006
EV_EFI_ACTION = 0x80000007
EV_EFI_PLATFORM_FIRMWARE_BLOB2 = 0x8000000A
EV_EFI_VARIABLE_AUTHORITY = 0x800000E0

GLOBAL_VARIABLE = uuid.UUID("8be4df61-93ca-11d2-aa0d-00e098032b8c")
IMAGE_SECURITY = uuid.UUID("d719b2cb-3d3a-4596-a3bc-dad00e67656f")
CERT_X509 = uuid.UUID("a5c059a1-94e4-4aa7-87b5-ab155c2bf072")
CERT_SHA256 = uuid.UUID("c1c41626-504c-4092-aca9-41f936934328")
PARTITION_SYSTEM = uuid.UUID("c12a7328-f81f-11d2-ba4b-00a0c93ec93b")
PARTITION_LINUX = uuid.UUID("0fc63daf-8483-4772-8e79-3d69d8477de4")

SPEC_ID = b"Spec ID Event03\0"


@dataclass
class EventLogWriter:
    """Collects events; `data` is the log, `extends` what the TPM must be told, in order.

    Attributes:
        banks: TPM algorithms of the banks.
        extends: PCR and digests by bank.
        values: PCR values by bank and index, from zeros.
    """

    banks: tuple[int, ...] = (SHA256, SHA384)
    extends: list[tuple[int, dict[int, bytes]]] = field(default_factory=list)
    values: dict[int, dict[int, bytes]] = field(default_factory=dict)
    _records: list[bytes] = field(default_factory=list)

    def measure(self, pcr: int, kind: int, data: bytes, what: bytes | None = None) -> None:
        """One event: `what` is hashed (absent: the data itself)."""
        digests = {bank: digest(bank, data if what is None else what) for bank in self.banks}
        self.extend(pcr, kind, data, digests)

    def extend(self, pcr: int, kind: int, data: bytes, digests: dict[int, bytes]) -> None:
        """One event with given digests."""
        self.extends.append((pcr, digests))
        for bank, value in digests.items():
            values = self.values.setdefault(bank, {})
            values[pcr] = digest(bank, values.get(pcr, bytes(len(value))) + value)
        self._records.append(record(pcr, kind, digests, data))

    def note(self, data: bytes, pcr: int = 0) -> None:
        """EV_NO_ACTION: in the log, not in the TPM."""
        digests = {bank: bytes(len(digest(bank, b""))) for bank in self.banks}
        self._records.append(record(pcr, EV_NO_ACTION, digests, data))

    @property
    def data(self) -> bytes:
        """The log: Spec ID first."""
        return spec_id_event(self.banks) + b"".join(self._records)


def digest(bank: int, data: bytes) -> bytes:
    """Digest in a bank's algorithm."""
    return hashlib.new(BANK_NAMES[bank], data).digest()


def record(pcr: int, kind: int, digests: dict[int, bytes], data: bytes) -> bytes:
    """TCG_PCR_EVENT2."""
    values = b"".join(struct.pack("<H", bank) + value for bank, value in digests.items())
    return struct.pack("<III", pcr, kind, len(digests)) + values + struct.pack("<I", len(data)) + data


def sha1_record(pcr: int, kind: int, value: bytes, data: bytes) -> bytes:
    """TCG_PCR_EVENT."""
    return struct.pack("<II20sI", pcr, kind, value, len(data)) + data


def spec_id_event(banks: Iterable[int], signature: bytes = SPEC_ID) -> bytes:
    """The first event: which banks follow, with which digest lengths."""
    declared = [(bank, len(digest(bank, b""))) for bank in banks]
    body = signature + struct.pack("<IBBBBI", 0, 0, 2, 0, 2, len(declared))
    body += b"".join(struct.pack("<HH", *pair) for pair in declared) + b"\0"
    return sha1_record(0, EV_NO_ACTION, bytes(20), body)


def variable(owner: uuid.UUID, name: str, content: bytes) -> bytes:
    """UEFI_VARIABLE_DATA."""
    return owner.bytes_le + struct.pack("<QQ", len(name), len(content)) + name.encode("utf-16-le") + content


def signature_list(kind: uuid.UUID, owner: uuid.UUID, entries: Iterable[bytes]) -> bytes:
    """EFI_SIGNATURE_LIST of entries of one length."""
    signatures = [owner.bytes_le + entry for entry in entries]
    size = len(signatures[0])
    return kind.bytes_le + struct.pack("<III", 28 + size * len(signatures), 0, size) + b"".join(signatures)


def load_event(path: str) -> bytes:
    """UEFI_IMAGE_LOAD_EVENT of a file on the system partition."""
    name = path.encode("utf-16-le") + b"\0\0"
    node = struct.pack("<BBH", 4, 4, 4 + len(name)) + name + struct.pack("<BBH", 0x7F, 0xFF, 4)
    return struct.pack("<QQQQ", 0x7E000000, 0x10000, 0, len(node)) + node


def partition_table(disk: uuid.UUID, partitions: Iterable[tuple[uuid.UUID, uuid.UUID, str]]) -> bytes:
    """UEFI_GPT_DATA: header, and for each partition its type, its own GUID and its name."""
    entries = []
    for number, (kind, own, name) in enumerate(partitions):
        first = 2048 + number * 409_600
        label = name.encode("utf-16-le").ljust(72, b"\0")
        entries.append(kind.bytes_le + own.bytes_le + struct.pack("<QQQ", first, first + 409_599, 0) + label)
    header = b"EFI PART" + struct.pack("<IIIIQQQQ", 0x10000, 92, 0, 0, 1, 0x1FFFFF, 34, 0x1FFFDE)
    header += disk.bytes_le + struct.pack("<QIII", 2, 128, 128, 0)
    return header + struct.pack("<Q", len(entries)) + b"".join(entries)
