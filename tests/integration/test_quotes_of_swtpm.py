"""Fresh quotes of a real TPM: verified, cross-checked with its own tools, refused when anything moved."""

from __future__ import annotations

import hashlib
import secrets
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from tools.lab.swtpm import Swtpm
from tpm2_pytss.types import TPM2B_PUBLIC

from chatelaine.evidence import errors
from chatelaine.evidence.epoch import EpochChange, compare
from chatelaine.evidence.tpm_algorithms import BANKS
from chatelaine.evidence.tpm_public import parse_public
from chatelaine.evidence.tpm_quote import check_endorsement_hierarchy
from chatelaine.evidence.tpm_types import Selection
from chatelaine.model.tpm_policy import Bank
from chatelaine.model.verdict import Epoch
from support.quoting_tpm import KINDS, QuotingTpm


@pytest.fixture
def host(tmp_path: Path) -> Iterator[QuotingTpm]:
    with Swtpm() as tpm:
        yield QuotingTpm(tpm, tmp_path)


@pytest.mark.parametrize("bank", list(Bank))
@pytest.mark.parametrize("kind", KINDS)
def test_fresh_quote_is_verified_and_the_tools_agree(host, kind, bank):
    host.make_keys(kind)
    host.tpm.extend(16, BANKS[bank].new(b"measured").digest(), bank.value.lower())
    selection, extra = Selection(bank, (0, 1, 16, 23)), secrets.token_bytes(32)
    quote = host.verified(selection, extra)
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
    host.make_keys()
    quote = host.verified(Selection(Bank.SHA256, (0,)), secrets.token_bytes(32))
    ak, ek = (parse_public((host.folder / name).read_bytes()) for name in ("ak.pub", "ek.pub"))
    check_endorsement_hierarchy(quote, ak, ek)


def test_attestation_key_of_the_owner_hierarchy_is_refused(host):
    host.make_keys()
    host.tpm.tool(
        "tpm2_createprimary", "-C", "o", "-G", "ecc:ecdsa-sha256:null", "-c", "ak.ctx",
        "-a", "fixedtpm|fixedparent|sensitivedataorigin|userwithauth|restricted|sign",
        cwd=host.folder,
    )  # fmt: skip
    host.tpm.tool("tpm2_readpublic", "-c", "ak.ctx", "-o", "ak.pub", cwd=host.folder)
    host.tpm.tool("tpm2_flushcontext", "-t")
    quote = host.verified(Selection(Bank.SHA256, (0,)), secrets.token_bytes(32))
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
    host.make_keys()
    selection, extra = Selection(Bank.SHA256, (7,)), secrets.token_bytes(32)
    before = host.verified(selection, extra).pcrs[7]
    host.tpm.extend(7, bytes(32))
    with pytest.raises(errors.PcrDigestMismatch):
        host.verified(selection, extra, pcrs={7: before})
    assert host.verified(selection, extra).pcrs[7] == hashlib.sha256(before + bytes(32)).digest()


def test_replayed_quote_of_a_real_tpm_is_refused(host):
    host.make_keys("rsassa-sha256")
    selection, extra = Selection(Bank.SHA256, (7,)), secrets.token_bytes(32)
    old = host.quote(selection, extra)
    with pytest.raises(errors.ExtraDataMismatch):
        host.verified(selection, secrets.token_bytes(32), quote=old)


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
    host.make_keys()
    selection = Selection(Bank.SHA256, (0,))

    def epoch() -> tuple[Epoch, bool]:
        # Contexts of transient objects do not survive a reset; keys of the same template are the same keys.
        quote = host.verified(selection, secrets.token_bytes(32))
        return Epoch(quote.reset_count, quote.restart_count), quote.safe

    first, safe = epoch()
    assert safe
    host.tpm.reset()
    host.make_keys()
    second, safe = epoch()
    assert safe
    assert compare(first, second) is EpochChange.REBOOTED
    assert compare(second, first) is EpochChange.WENT_BACK
    host.tpm.reset(orderly=False)
    host.make_keys()
    assert epoch()[1] is False
