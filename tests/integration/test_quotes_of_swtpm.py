"""Fresh quotes of a real TPM: verified, cross-checked with its own tools, refused when anything moved."""

from __future__ import annotations

import hashlib
import re
import secrets
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from tools.lab.swtpm import Swtpm
from tpm2_pytss.types import TPM2B_PUBLIC

from chatelaine.evidence import errors
from chatelaine.evidence.epoch import EpochChange, compare
from chatelaine.evidence.tpm_algorithms import BANKS
from chatelaine.evidence.tpm_public import parse_public
from chatelaine.evidence.tpm_quote import AttestationKey, VerifiedQuote, check_endorsement_hierarchy, verify_quote
from chatelaine.evidence.tpm_types import Selection
from chatelaine.model.tpm_policy import Bank
from chatelaine.model.verdict import Epoch

KINDS = {
    "ecdsa-sha256": ("ecc", "sha256", "ecdsa"),
    "rsassa-sha256": ("rsa", "sha256", "rsassa"),
    "rsapss-sha384": ("rsa", "sha384", "rsapss"),
    "ecdsa-p384-sha384": ("ecc384", "sha384", "ecdsa"),
}


@dataclass
class Host:
    """A TPM with an EK and an AK, quoting by tpm2-tools."""

    tpm: Swtpm
    folder: Path
    kind: str = "ecdsa-sha256"

    def make_keys(self, kind: str) -> None:
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
        return AttestationKey.parse((self.folder / "ak.pub").read_bytes())

    def quote(self, selection: Selection, extra: bytes) -> tuple[bytes, bytes]:
        pcrs = f"{selection.bank.value.lower()}:{','.join(map(str, selection.indices))}"
        self.tpm.tool(
            "tpm2_quote", "-c", "ak.ctx", "-l", pcrs, "-q", extra.hex(), "-m", "attest", "-s", "signature",
            "-g", KINDS[self.kind][1], "--scheme", KINDS[self.kind][2],
            cwd=self.folder,
        )  # fmt: skip
        self.tpm.tool("tpm2_flushcontext", "-t")
        return (self.folder / "attest").read_bytes(), (self.folder / "signature").read_bytes()

    def pcrs(self, selection: Selection) -> dict[int, bytes]:
        pcrs = f"{selection.bank.value.lower()}:{','.join(map(str, selection.indices))}"
        shown = self.tpm.tool("tpm2_pcrread", pcrs)
        found = re.findall(r"^\s+(\d+)\s*:\s*0x([0-9A-F]+)$", shown, re.MULTILINE)
        return {int(index): bytes.fromhex(value) for index, value in found}

    def judged(self, selection: Selection, extra: bytes, quote=None, pcrs=None) -> VerifiedQuote:
        attest, signature = quote or self.quote(selection, extra)
        return verify_quote(
            attest,
            signature,
            ak=self.ak,
            expected_extra_data=extra,
            selection=selection,
            pcrs=pcrs or self.pcrs(selection),
        )


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    with Swtpm() as tpm:
        yield Host(tpm, tmp_path)


@pytest.mark.parametrize("bank", list(Bank))
@pytest.mark.parametrize("kind", KINDS)
def test_fresh_quote_is_verified_and_the_tools_agree(host, kind, bank):
    host.make_keys(kind)
    host.tpm.extend(16, BANKS[bank].new(b"measured").digest(), bank.value.lower())
    selection, extra = Selection(bank, (0, 1, 16, 23)), secrets.token_bytes(32)
    quote = host.judged(selection, extra)
    assert quote.algorithm.lower().startswith(kind.split("-", maxsplit=1)[0])
    assert set(quote.pcrs) == {0, 1, 16, 23}
    public, _ = TPM2B_PUBLIC.unmarshal((host.folder / "ak.pub").read_bytes())
    assert bytes(public.get_name()) == host.ak.name
    if kind.startswith("rsapss"):
        return  # tpm2_checkquote checks RSA signatures of the older padding only
    done = subprocess.run(
        ["tpm2_checkquote", "-u", "ak.pub", "-m", "attest", "-s", "signature", "-g", KINDS[kind][1], "-q", extra.hex()],
        cwd=host.folder,
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_attestation_key_under_its_endorsement_key_is_recognised(host):
    host.make_keys("ecdsa-sha256")
    quote = host.judged(Selection(Bank.SHA256, (0,)), secrets.token_bytes(32))
    ak, ek = (parse_public((host.folder / name).read_bytes()) for name in ("ak.pub", "ek.pub"))
    check_endorsement_hierarchy(quote, ak, ek)


def test_attestation_key_of_the_owner_hierarchy_is_refused(host):
    host.make_keys("ecdsa-sha256")
    host.tpm.tool(
        "tpm2_createprimary", "-C", "o", "-G", "ecc:ecdsa-sha256:null", "-c", "ak.ctx",
        "-a", "fixedtpm|fixedparent|sensitivedataorigin|userwithauth|restricted|sign",
        cwd=host.folder,
    )  # fmt: skip
    host.tpm.tool("tpm2_readpublic", "-c", "ak.ctx", "-o", "ak.pub", cwd=host.folder)
    host.tpm.tool("tpm2_flushcontext", "-t")
    quote = host.judged(Selection(Bank.SHA256, (0,)), secrets.token_bytes(32))
    ak, ek = (parse_public((host.folder / name).read_bytes()) for name in ("ak.pub", "ek.pub"))
    with pytest.raises(errors.HierarchyRefused):
        check_endorsement_hierarchy(quote, ak, ek)


def test_unrestricted_key_is_refused_as_attestation_key(host):
    host.tpm.tool(
        "tpm2_createprimary", "-C", "e", "-G", "ecc:ecdsa-sha256:null", "-c", "ak.ctx",
        "-a", "fixedtpm|fixedparent|sensitivedataorigin|userwithauth|sign",
        cwd=host.folder,
    )  # fmt: skip
    host.tpm.tool("tpm2_readpublic", "-c", "ak.ctx", "-o", "ak.pub", cwd=host.folder)
    with pytest.raises(errors.AttributesRefused, match="attestation key"):
        _ = host.ak


def test_pcr_extended_behind_our_back_shows_in_the_next_quote(host):
    host.make_keys("ecdsa-sha256")
    selection, extra = Selection(Bank.SHA256, (7,)), secrets.token_bytes(32)
    before = host.judged(selection, extra).pcrs[7]
    host.tpm.extend(7, bytes(32))
    with pytest.raises(errors.PcrDigestMismatch):
        host.judged(selection, extra, pcrs={7: before})
    assert host.judged(selection, extra).pcrs[7] == hashlib.sha256(before + bytes(32)).digest()


def test_replayed_quote_of_a_real_tpm_is_refused(host):
    host.make_keys("rsassa-sha256")
    selection, extra = Selection(Bank.SHA256, (7,)), secrets.token_bytes(32)
    old = host.quote(selection, extra)
    with pytest.raises(errors.ExtraDataMismatch):
        host.judged(selection, secrets.token_bytes(32), quote=old)


def test_sha1_quote_of_a_real_tpm_is_refused(host):
    host.tpm.tool("tpm2_createek", "-c", "ek.ctx", "-G", "rsa", "-u", "ek.pub", cwd=host.folder)
    host.tpm.tool("tpm2_flushcontext", "-t")
    host.tpm.tool(
        "tpm2_createak", "-C", "ek.ctx", "-c", "ak.ctx", "-G", "rsa", "-g", "sha1", "-s", "rsassa", "-u", "ak.pub",
        cwd=host.folder,
    )  # fmt: skip
    with pytest.raises(errors.AlgorithmRefused, match="Sha1"):
        _ = host.ak


def test_reboot_raises_the_epoch_and_a_power_cut_shows_in_the_clock(host):
    host.make_keys("ecdsa-sha256")
    selection = Selection(Bank.SHA256, (0,))

    def epoch() -> tuple[Epoch, bool]:
        # Contexts of transient objects do not survive a reset; keys of the same template are the same keys.
        quote = host.judged(selection, secrets.token_bytes(32))
        return Epoch(quote.reset_count, quote.restart_count), quote.safe

    first, safe = epoch()
    assert safe
    host.tpm.reset()
    host.make_keys("ecdsa-sha256")
    second, safe = epoch()
    assert safe
    assert compare(first, second) is EpochChange.REBOOTED
    assert compare(second, first) is EpochChange.WENT_BACK
    host.tpm.reset(orderly=False)
    host.make_keys("ecdsa-sha256")
    assert epoch()[1] is False
