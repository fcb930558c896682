"""A vendor of software TPMs: swtpm's local CA, with a root and an intermediate of its own.

Each TPM that it makes holds its endorsement keys and the certificates over them, as one from a factory does.
"""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Final

MAKE_SECONDS: Final = 120
AUTHORITIES: Final = ("swtpm-localca-rootca-cert.pem", "issuercert.pem")


class TpmVendorError(RuntimeError):
    """swtpm_setup failed; the message carries what it said."""


class TpmVendor:
    """One vendor, in a folder.

    Attributes:
        folder: its CA, made with the first TPM.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        (folder / "options").write_text(
            "--platform-manufacturer Example\n--platform-version 2.1\n--platform-model Test\n"
        )
        (folder / "ca.conf").write_text(
            f"statedir = {folder}\nsigningkey = {folder}/signkey.pem\n"
            f"issuercert = {folder}/issuercert.pem\ncertserial = {folder}/certserial\n"
        )
        (folder / "setup.conf").write_text(
            f"create_certs_tool = /usr/bin/swtpm_localca\ncreate_certs_tool_config = {folder}/ca.conf\n"
            f"create_certs_tool_options = {folder}/options\nactive_pcr_banks = sha256\n"
        )

    def make(self, state: Path, certificates: Path | None = None) -> Path:
        """A new TPM in `state`, for `Swtpm(state)`; its certificates are written to `certificates`, too.

        Raises:
            TpmVendorError: it could not be made.
        """
        command = [
            "swtpm_setup", "--tpm2", "--tpmstate", str(state), "--config", str(self.folder / "setup.conf"),
            "--create-ek-cert",
        ]  # fmt: skip
        state.mkdir(parents=True, exist_ok=True)
        if certificates is not None:
            certificates.mkdir(parents=True, exist_ok=True)
            command += ["--write-ek-cert-files", str(certificates)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=MAKE_SECONDS, check=False)
        if done.returncode:
            raise TpmVendorError(done.stdout + done.stderr)
        return state

    @property
    def pem(self) -> str:
        """Both CAs, as a ConfigMap holds them. There are none before the first TPM is made."""
        return "".join((self.folder / name).read_text() for name in AUTHORITIES)
