"""A PKCS#11 module between us and SoftHSM that counts logins and misbehaves on demand (see `pkcs11_fault.c`)."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from tools.lab.softhsm import SoftHsmToken


def build_fault_library(directory: Path) -> Path:
    """Compile the module."""
    compiler = shutil.which("cc")
    if compiler is None:
        raise RuntimeError("a C compiler is missing: install the package gcc")
    library = directory / "libpkcs11fault.so"
    source = Path(__file__).with_suffix(".c")
    subprocess.run([compiler, "-shared", "-fPIC", "-O1", "-Wall", "-o", str(library), str(source), "-ldl"], check=True)
    return library


class FaultModule:
    """The switches of one token's fault module."""

    def __init__(self, library: Path, token: SoftHsmToken) -> None:
        self._library = library
        self._token = token
        self._directory = token.directory / "faults"
        self._directory.mkdir()

    def settings(self) -> dict[str, object]:
        """The fields of `Pkcs11Settings` that put the module in between."""
        return {
            "module": self._library,
            "environment": {
                **self._token.env,
                "FAULT_MODULE": str(self._token.module),
                "FAULT_DIRECTORY": str(self._directory),
            },
        }

    def logins(self) -> int:
        """How often C_Login was called."""
        file = self._directory / "logins"
        return file.stat().st_size if file.exists() else 0

    def set_flags(self, flags: int) -> None:
        """Bits that are added to the token's flags."""
        (self._directory / "flags").write_text(str(flags))

    def turn_on(self, fault: str) -> None:
        (self._directory / fault).touch()

    def turn_off(self, fault: str) -> None:
        (self._directory / fault).unlink()
