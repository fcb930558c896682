"""The firmware and boot loader of a laboratory host: what they measure, in the log and in the TPM.

A software TPM has nobody who measures a boot into it. `Firmware.boot` does, after each power-on or reset, in the order
of a UEFI machine with GRUB: it writes a TCG2 log of SHA-256 and SHA-384 and extends PCRs 0 to 9 with the same digests.
Everything is made from names and fixed seeds, so that the same `Boot` gives the same values on every machine.
"""

from __future__ import annotations

import datetime
import hashlib
import uuid
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding

from tools.lab import event_log_writer as tcg
from tools.lab.swtpm import Swtpm

OWNER = uuid.UUID("6c616220-6f66-4368-9174-656c61696e65")
COMMAND_LINE = "/vmlinuz-lab root=/dev/vda2 ro quiet lockdown=integrity"
EXIT_BOOT_SERVICES = (b"Exit Boot Services Invocation", b"Exit Boot Services Returned with Success")
BOOT_PCRS = tuple(range(10))
"""PCRs that a boot of the laboratory touches, all but PCR 3 and 6 with more than a separator."""


@dataclass(frozen=True, slots=True)
class Boot:
    """What is booted.

    Attributes:
        firmware: its version.
        secure_boot: is Secure Boot on? Off: nothing is verified, so no authority is measured.
        authority: name of the certificate in db that the boot loader is signed under (`authority` makes it).
        trusted: names of the certificates in db.
        revoked: images whose digests stand in dbx.
        option_roms: images of add-in cards.
        loader: the boot loader's image.
        kernel: the kernel's image.
        command_line: path of the kernel and what it is told.
        serial: what differs from host to host: part of the names of disk and partitions.
    """

    firmware: str = "Laboratory firmware 1.0"
    secure_boot: bool = True
    authority: str = "Laboratory db"
    trusted: tuple[str, ...] = ("Laboratory db",)
    revoked: tuple[bytes, ...] = (b"boot loader 0.8", b"boot loader 0.9")
    option_roms: tuple[bytes, ...] = ()
    loader: bytes = b"boot loader 1.0"
    kernel: bytes = b"kernel 1.0"
    command_line: str = COMMAND_LINE
    serial: str = "host"


@lru_cache(maxsize=32)
def authority(name: str) -> bytes:
    """The certificate (DER) called `name`; always the same."""
    key = Ed25519PrivateKey.from_private_bytes(hashlib.sha256(f"laboratory {name}".encode()).digest())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    start = datetime.datetime(2025, 1, 1, tzinfo=datetime.UTC)
    builder = x509.CertificateBuilder(subject, subject, key.public_key(), 1, start, start.replace(year=2045))
    return builder.sign(key, None).public_bytes(Encoding.DER)


def authority_digest(name: str) -> str:
    """How a policy names that certificate."""
    return f"sha256:{hashlib.sha256(authority(name)).hexdigest()}"


def image_digest(image: bytes, bank: int = tcg.SHA256) -> str:
    """How a policy names an image; the laboratory's images are no PE files, their digest is that of their bytes."""
    return tcg.digest(bank, image).hex()


def measured(boot: Boot) -> tcg.EventLogWriter:
    """All that is measured in a boot: the log, the digests to extend, the values at its end."""
    log = tcg.EventLogWriter()
    write_boot(log, boot)
    return log


def write_boot(log: tcg.EventLogWriter, boot: Boot) -> None:
    """The same, in the banks of `log`."""
    log.note(b"StartupLocality\0\0")
    log.measure(0, tcg.EV_S_CRTM_VERSION, boot.firmware.encode("utf-16-le") + b"\0\0")
    log.measure(0, tcg.EV_EFI_PLATFORM_FIRMWARE_BLOB2, b"\x03PEI" + bytes(16), boot.firmware.encode())
    _secure_boot_policy(log, boot)
    for image in boot.option_roms:
        log.measure(2, tcg.EV_EFI_BOOT_SERVICES_DRIVER, tcg.load_event("\\option-rom.efi"), image)
    _boot_order(log)
    log.measure(4, tcg.EV_EFI_ACTION, b"Calling EFI Application from Boot Option")
    for pcr in range(7):
        log.measure(pcr, tcg.EV_SEPARATOR, bytes(4))
    _boot_loader(log, boot)
    _kernel(log, boot)
    for action in EXIT_BOOT_SERVICES:
        log.measure(5, tcg.EV_EFI_ACTION, action)


def pcr_values(boot: Boot, bank: int = tcg.SHA256) -> dict[int, str]:
    """PCR values (hexadecimal) of one bank after this boot."""
    return {index: value.hex() for index, value in sorted(measured(boot).values[bank].items())}


class Firmware:
    """Firmware of one host. `log_file` is what the kernel would show as `binary_bios_measurements`."""

    def __init__(self, log_file: Path, boot: Boot | None = None) -> None:
        self.log_file, self.next_boot = log_file, boot or Boot()

    def boot(self, tpm: Swtpm) -> None:
        """Measures `next_boot` into a TPM that was just powered on or reset, and writes the log."""
        log = measured(self.next_boot)
        specs = []
        for pcr, digests in log.extends:
            banks = ",".join(f"{tcg.BANK_NAMES[bank]}={value.hex()}" for bank, value in digests.items())
            specs.append(f"{pcr}:{banks}")
        tpm.tool("tpm2_pcrextend", *specs)
        partial = self.log_file.with_suffix(".partial")
        partial.write_bytes(log.data)
        partial.replace(self.log_file)


def _secure_boot_policy(log: tcg.EventLogWriter, boot: Boot) -> None:
    """PCR 7 up to its separator: the variables, in the order of the specification (PFP §3.3.4.8)."""

    def config(owner: uuid.UUID, name: str, content: bytes) -> None:
        log.measure(7, tcg.EV_EFI_VARIABLE_DRIVER_CONFIG, tcg.variable(owner, name, content))

    config(tcg.GLOBAL_VARIABLE, "SecureBoot", bytes([boot.secure_boot]))
    config(tcg.GLOBAL_VARIABLE, "PK", _certificates("Laboratory PK"))
    config(tcg.GLOBAL_VARIABLE, "KEK", _certificates("Laboratory KEK"))
    config(tcg.IMAGE_SECURITY, "db", _certificates(*boot.trusted))
    revoked = [hashlib.sha256(image).digest() for image in boot.revoked]
    dbx = tcg.signature_list(tcg.CERT_SHA256, OWNER, revoked) if revoked else b""
    config(tcg.IMAGE_SECURITY, "dbx", dbx)
    log.measure(7, tcg.EV_SEPARATOR, bytes(4))


def _certificates(*names: str) -> bytes:
    """One list a certificate: their lengths differ."""
    return b"".join(tcg.signature_list(tcg.CERT_X509, OWNER, [authority(name)]) for name in names)


def _boot_order(log: tcg.EventLogWriter) -> None:
    for name, content in (("BootOrder", b"\0\0"), ("Boot0000", b"\x01\0\0\0\0\0" + "Linux\0".encode("utf-16-le"))):
        # The oldest convention, still in use: of these variables the content alone is hashed.
        log.measure(1, tcg.EV_EFI_VARIABLE_BOOT, tcg.variable(tcg.GLOBAL_VARIABLE, name, content), content)


def _boot_loader(log: tcg.EventLogWriter, boot: Boot) -> None:
    if boot.secure_boot:
        found = OWNER.bytes_le + authority(boot.authority)
        log.measure(7, tcg.EV_EFI_VARIABLE_AUTHORITY, tcg.variable(tcg.IMAGE_SECURITY, "db", found))
    disk, system, root = (uuid.uuid5(OWNER, f"{boot.serial} {part}") for part in ("disk", "system", "root"))
    partitions = ((tcg.PARTITION_SYSTEM, system, "EFI System"), (tcg.PARTITION_LINUX, root, "root"))
    log.measure(5, tcg.EV_EFI_GPT_EVENT, tcg.partition_table(disk, partitions))
    log.measure(4, tcg.EV_EFI_BOOT_SERVICES_APPLICATION, tcg.load_event("\\EFI\\BOOT\\BOOTX64.EFI"), boot.loader)


def _kernel(log: tcg.EventLogWriter, boot: Boot) -> None:
    """GRUB: files go to PCR 9, what it is told and tells the kernel to PCR 8; the kernel is an image as well."""
    path = boot.command_line.split(" ", maxsplit=1)[0]
    for prefix, text in (
        ("grub_cmd: ", "set timeout=0"),
        ("grub_cmd: ", f"menuentry Linux {{\n  linux {boot.command_line}\n}}"),
        ("grub_cmd: ", f"linux {boot.command_line}"),
    ):
        log.measure(8, tcg.EV_IPL, f"{prefix}{text}\0".encode(), text.encode())
    log.measure(9, tcg.EV_IPL, path.encode() + b"\0", boot.kernel)
    log.measure(4, tcg.EV_EFI_BOOT_SERVICES_APPLICATION, tcg.load_event(path), boot.kernel)
    log.measure(8, tcg.EV_IPL, f"kernel_cmdline: {boot.command_line}\0".encode(), boot.command_line.encode())
