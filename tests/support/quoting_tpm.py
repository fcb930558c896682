"""A real TPM that quotes by tpm2-tools, for tests of what a quote shows."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tools.lab.swtpm import Swtpm

from chatelaine.evidence.tpm_quote import AttestationKey, VerifiedQuote, verify_quote
from chatelaine.evidence.tpm_types import Selection

KINDS: Final = {
    "ecdsa-sha256": ("ecc", "sha256", "ecdsa"),
    "rsassa-sha256": ("rsa", "sha256", "rsassa"),
    "rsapss-sha384": ("rsa", "sha384", "rsapss"),
    "ecdsa-p384-sha384": ("ecc384", "sha384", "ecdsa"),
}
"""Algorithm, hash and scheme of an attestation key, as the tools name them."""


@dataclass
class QuotingTpm:
    """A TPM with an endorsement and an attestation key. A reset takes both: make them anew after it.

    Attributes:
        tpm: the TPM.
        folder: where the tools put keys and quotes (`ak.pub`, `attest`, `signature`).
        kind: of `KINDS`; what the last attestation key is.
    """

    tpm: Swtpm
    folder: Path
    kind: str = "ecdsa-sha256"

    def make_keys(self, kind: str = "ecdsa-sha256") -> None:
        """An endorsement key and an attestation key under it."""
        self.kind = kind
        algorithm, hash_, scheme = KINDS[kind]
        ek = "rsa" if algorithm == "rsa" else "ecc"
        self.tpm.tool("tpm2_createek", "-c", "ek.ctx", "-G", ek, "-u", "ek.pub", cwd=self.folder)
        self.tpm.tool("tpm2_flushcontext", "-t")
        self.tpm.tool(
            "tpm2_createak", "-C", "ek.ctx", "-c", "ak.ctx", "-G", algorithm, "-g", hash_, "-s", scheme,
            "-u", "ak.pub", cwd=self.folder,
        )  # fmt: skip
        self.tpm.tool("tpm2_flushcontext", "-t")

    @property
    def ak(self) -> AttestationKey:
        """The attestation key."""
        return AttestationKey.parse((self.folder / "ak.pub").read_bytes())

    def quote(self, selection: Selection, extra: bytes) -> tuple[bytes, bytes]:
        """TPMS_ATTEST and its signature."""
        self.tpm.tool(
            "tpm2_quote", "-c", "ak.ctx", "-l", _listed(selection), "-q", extra.hex(), "-m", "attest",
            "-s", "signature", "-g", KINDS[self.kind][1], "--scheme", KINDS[self.kind][2], cwd=self.folder,
        )  # fmt: skip
        self.tpm.tool("tpm2_flushcontext", "-t")
        return (self.folder / "attest").read_bytes(), (self.folder / "signature").read_bytes()

    def pcrs(self, selection: Selection) -> dict[int, bytes]:
        """What these PCRs hold now."""
        shown = self.tpm.tool("tpm2_pcrread", _listed(selection))
        found = re.findall(r"^\s+(\d+)\s*:\s*0x([0-9A-F]+)$", shown, re.MULTILINE)
        return {int(index): bytes.fromhex(value) for index, value in found}

    def verified(
        self,
        selection: Selection,
        extra: bytes,
        *,
        quote: tuple[bytes, bytes] | None = None,
        pcrs: dict[int, bytes] | None = None,
    ) -> VerifiedQuote:
        """A quote, verified. Without `quote` and `pcrs`: a fresh one, over what is there now."""
        attest, signature = quote or self.quote(selection, extra)
        return verify_quote(
            attest,
            signature,
            ak=self.ak,
            expected_extra_data=extra,
            selection=selection,
            pcrs=pcrs or self.pcrs(selection),
        )


def _listed(selection: Selection) -> str:
    return f"{selection.bank.value.lower()}:{','.join(map(str, selection.indices))}"
