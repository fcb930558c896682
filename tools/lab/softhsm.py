"""Real PKCS#11 tokens: SoftHSM with a configuration, a token directory and a random label of its own."""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import secrets
import shutil
import struct
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

SOFTHSM_MODULES = (
    "/usr/lib/softhsm/libsofthsm2.so",
    "/usr/lib/x86_64-linux-gnu/softhsm/libsofthsm2.so",
    "/usr/lib/aarch64-linux-gnu/softhsm/libsofthsm2.so",
    "/usr/lib64/pkcs11/libsofthsm2.so",
)
SO_PIN = "so-pin-of-a-test"
_FS_IOC_GETFLAGS = 0x80086601
_FS_IOC_SETFLAGS = 0x40086602
_FS_IMMUTABLE_FL = 0x10


def softhsm_module() -> Path:
    """The library's path; a test that needs it fails with the name of what is missing."""
    for candidate in SOFTHSM_MODULES:
        if Path(candidate).is_file():
            return Path(candidate)
    raise RuntimeError("SoftHSM is missing: install the package softhsm2")


@dataclass(frozen=True)
class SoftHsmToken:
    """One initialised token. `env` holds SOFTHSM2_CONF; `pin_file` is 0600."""

    directory: Path
    label: str
    pin: str

    @classmethod
    def create(cls, directory: Path, label: str | None = None) -> SoftHsmToken:
        """A new token in a new configuration below `directory`."""
        (directory / "tokens").mkdir(parents=True, mode=0o700)
        (directory / "softhsm2.conf").write_text(
            f"directories.tokendir = {directory / 'tokens'}\n"
            "objectstore.backend = file\nlog.level = ERROR\nslots.removable = false\n"
        )
        token = cls(directory, label or f"t-{secrets.token_hex(6)}", secrets.token_hex(8))
        token._init(token.label, token.pin)
        token.write_pin(token.pin)
        return token

    @property
    def module(self) -> Path:
        """The PKCS#11 library."""
        return softhsm_module()

    @property
    def env(self) -> dict[str, str]:
        """What a process needs to see this token."""
        return {"SOFTHSM2_CONF": str(self.directory / "softhsm2.conf"), "PATH": os.environ.get("PATH", "/usr/bin")}

    @property
    def pin_file(self) -> Path:
        """The user PIN, mode 0600."""
        return self.directory / "pin"

    @property
    def state_directory(self) -> Path:
        """Where the worker keeps its memory of refused PINs."""
        return self.directory / "state"

    @property
    def uri(self) -> str:
        """The token by its label."""
        return f"pkcs11:token={self.label}"

    def write_pin(self, pin: str, mode: int = 0o600) -> None:
        """Put `pin` into the PIN file."""
        fresh = self.pin_file.with_suffix(".new")
        fresh.unlink(missing_ok=True)
        fresh.touch(mode=0o600)
        fresh.write_text(pin + "\n")
        fresh.chmod(mode)
        fresh.replace(self.pin_file)

    def add_token(self, label: str, pin: str | None = None) -> str:
        """A second token in the same configuration; its serial."""
        before = set(self.serials())
        self._init(label, pin or self.pin)
        (serial,) = set(self.serials()) - before
        return serial

    def serials(self) -> list[str]:
        """Serials of all initialised tokens, as another PKCS#11 program sees them."""
        listing = self._tool("--list-token-slots")
        return [line.split(":", 1)[1].strip() for line in listing.splitlines() if "serial num" in line]

    def objects(self) -> list[tuple[str, str, bytes]]:
        """(class, label, id) of every key, as another process sees them."""
        script = (
            "import sys\n"
            "from pkcs11 import Attribute as A, ObjectClass as C\n"
            "for c in (C.PRIVATE_KEY, C.PUBLIC_KEY, C.SECRET_KEY):\n"
            "    for o in list(session.get_objects({A.CLASS: c})):\n"
            "        print(c.name, o[A.ID].hex() or '-', o[A.LABEL])\n"
        )
        rows = [line.split(" ", 2) for line in self.run_pkcs11(script).splitlines()]
        return sorted((kind, label, bytes.fromhex(key) if key != "-" else b"") for kind, key, label in rows)

    def delete_half(self, key_id: bytes, object_class: str) -> None:
        """Destroy one half ("PRIVATE_KEY" or "PUBLIC_KEY") behind everybody's back."""
        self.run_pkcs11(
            "from pkcs11 import Attribute as A, ObjectClass as C\n"
            f"(o,) = list(session.get_objects({{A.ID: bytes.fromhex('{key_id.hex()}'), A.CLASS: C.{object_class}}}))\n"
            "o.destroy()\n"
        )

    def run_pkcs11(self, script: str) -> str:
        """Run a script in a process of its own with `session`, a logged-in read-write session; what it printed."""
        prologue = (
            "import os, pkcs11\n"
            f"token = pkcs11.lib({str(self.module)!r}).get_token(token_label={self.label!r})\n"
            "session = token.open(rw=True, user_pin=os.environ['TEST_PIN'])\n"
        )
        done = subprocess.run(
            [sys.executable, "-c", prologue + script],
            env={**self.env, "TEST_PIN": self.pin},
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        if done.returncode != 0:
            raise RuntimeError(done.stderr)
        return done.stdout

    @contextlib.contextmanager
    def read_only_store(self) -> Iterator[None]:
        """No object can be stored or deleted inside the block.

        Root ignores mode bits, so for root the immutable flag is used (needs CAP_LINUX_IMMUTABLE and a file system that
        has the flag: ext4, xfs, btrfs, tmpfs since Linux 6.6); anybody else loses the write bit.
        """
        (store,) = [entry for entry in (self.directory / "tokens").iterdir() if entry.is_dir()]
        parts = [*store.iterdir(), store]
        if os.geteuid() != 0:
            for part in parts:
                part.chmod(0o500)
            try:
                yield
            finally:
                for part in reversed(parts):
                    part.chmod(0o700)
            return
        try:
            for part in parts:
                _set_immutable(part, immutable=True)
            yield
        finally:
            for part in reversed(parts):
                _set_immutable(part, immutable=False)

    def _init(self, label: str, pin: str) -> None:
        tool = shutil.which("softhsm2-util")
        if tool is None:
            raise RuntimeError("softhsm2-util is missing: install the package softhsm2")
        subprocess.run(
            [tool, "--init-token", "--free", "--label", label, "--pin", pin, "--so-pin", SO_PIN],
            env=self.env,
            check=True,
            capture_output=True,
            timeout=60,
        )

    def _tool(self, *arguments: str) -> str:
        tool = shutil.which("pkcs11-tool")
        if tool is None:
            raise RuntimeError("pkcs11-tool is missing: install the package opensc")
        done = subprocess.run(
            [tool, "--module", str(self.module), *arguments],
            env=self.env,
            check=True,
            capture_output=True,
            text=True,
            timeout=60,
        )
        return done.stdout


@contextlib.contextmanager
def full_disk(pid: int) -> Iterator[None]:
    """Every write of process `pid` to a file fails inside the block, as on a full disk (RLIMIT_FSIZE of zero)."""
    import resource

    before = resource.prlimit(pid, resource.RLIMIT_FSIZE)
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (0, before[1]))
    try:
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            resource.prlimit(pid, resource.RLIMIT_FSIZE, before)


def _set_immutable(path: Path, *, immutable: bool) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    try:
        flags = bytearray(ctypes.sizeof(ctypes.c_long))
        fcntl.ioctl(descriptor, _FS_IOC_GETFLAGS, flags)
        (value,) = struct.unpack_from("i", flags)
        value = value | _FS_IMMUTABLE_FL if immutable else value & ~_FS_IMMUTABLE_FL
        fcntl.ioctl(descriptor, _FS_IOC_SETFLAGS, struct.pack("l", value))
    finally:
        os.close(descriptor)
