"""What only a real TPM can show: makers' certificates, foreign keys, leftovers, hang-ups."""

from __future__ import annotations

import secrets
import socket
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from tools.lab.swtpm import Swtpm
from tools.lab.tpm_vendor import TpmVendor

from chatelaine.agent import tpm as tpm_module
from chatelaine.agent.errors import AttesterTimeout, AttesterUnavailable, BankAbsent, StateDamaged
from chatelaine.agent.tpm import TpmAttester
from chatelaine.agent.tpm_keys import AK_FILE
from chatelaine.evidence.credential import ENTROPY_BYTES, make_credential
from chatelaine.evidence.tpm_public import parse_public
from chatelaine.evidence.tpm_types import Selection
from chatelaine.model.tpm_policy import Bank


@pytest.fixture
def tpm() -> Iterator[Swtpm]:
    with Swtpm() as made:
        yield made


@pytest.fixture
async def attester(tpm: Swtpm, tmp_path: Path) -> AsyncIterator[TpmAttester]:
    made = TpmAttester(tpm.tcti, tmp_path / "state")
    yield made
    await made.close()


@pytest.fixture
def manufactured(tmp_path: Path) -> Iterator[Swtpm]:
    """A TPM as a maker ships it: endorsement key in place, its certificate beside it, one bank."""
    with Swtpm(TpmVendor(tmp_path / "maker").make(tmp_path / "tpm")) as made:
        yield made


async def test_the_makers_key_and_certificate_are_used(manufactured: Swtpm, tmp_path: Path) -> None:
    attester = TpmAttester(manufactured.tcti, tmp_path / "state")
    identity = await attester.identity()
    assert identity.ek_certificate is not None
    certified = x509.load_der_x509_certificate(identity.ek_certificate).public_key()
    ek = parse_public(identity.ek_public)
    assert certified.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo) == ek.spki
    manufactured.tool("tpm2_readpublic", "-c", "0x81010001", "-f", "der", "-o", str(tmp_path / "ek.der"))
    assert (tmp_path / "ek.der").read_bytes() == ek.spki
    secret = secrets.token_bytes(32)
    blob, encrypted = make_credential(
        ek, parse_public(identity.ak_public).name, secret, entropy=secrets.token_bytes(ENTROPY_BYTES)
    )
    assert await attester.activate(blob, encrypted) == secret
    with pytest.raises(BankAbsent):
        await attester.read_pcrs(Selection(Bank.SHA384, (0,)))
    await attester.close()


async def test_somebody_elses_key_at_the_reserved_handle_is_not_taken_for_the_endorsement_key(
    tpm: Swtpm, attester: TpmAttester, tmp_path: Path
) -> None:
    real = await attester.identity()
    context = str(tmp_path / "foreign.ctx")
    tpm.tool("tpm2_createprimary", "-C", "o", "-G", "rsa2048", "-c", context)
    tpm.tool("tpm2_evictcontrol", "-C", "o", "-c", context, "0x81010001")
    assert await attester.identity() == real


async def test_what_a_killed_process_left_in_the_tpm_is_cleared_away(
    tpm: Swtpm, attester: TpmAttester, tmp_path: Path
) -> None:
    for number in range(3):
        tpm.tool("tpm2_createprimary", "-C", "o", "-G", "ecc", "-c", str(tmp_path / f"{number}.ctx"))
        tpm.tool("tpm2_startauthsession", "-S", str(tmp_path / f"{number}.session"), "--policy-session")
    assert tpm.tool("tpm2_getcap", "handles-transient").count("0x8") == 3
    assert (await attester.identity()).ak_public
    quote = await attester.quote(bytes(32), Selection(Bank.SHA256, (0,)))
    assert quote.attest


async def test_nothing_of_ours_stays_loaded(tpm: Swtpm, attester: TpmAttester) -> None:
    await attester.identity()
    await attester.quote(bytes(32), Selection(Bank.SHA256, (0,)))
    assert tpm.tool("tpm2_getcap", "handles-transient").strip() == ""
    assert tpm.tool("tpm2_getcap", "handles-loaded-session").strip() == ""


async def test_a_replaced_tpm_gets_a_new_attestation_key(attester: TpmAttester, tmp_path: Path) -> None:
    before = await attester.identity()
    with Swtpm() as other:
        moved = TpmAttester(other.tcti, tmp_path / "state")
        after = await moved.identity()
        await moved.close()
    assert after.ak_public != before.ak_public
    assert after.ek_public != before.ek_public


@pytest.mark.parametrize("damage", [b"", b"{", b"x" * 10_000, b'{"public":"AA==","private":"AA=="}'])
async def test_a_damaged_key_blob_is_said_and_not_replaced(
    tpm: Swtpm, attester: TpmAttester, tmp_path: Path, damage: bytes
) -> None:
    await attester.identity()
    blob = tmp_path / "state" / AK_FILE
    assert blob.stat().st_mode & 0o777 == 0o600
    blob.write_bytes(damage)
    again = TpmAttester(tpm.tcti, tmp_path / "state")
    with pytest.raises(StateDamaged, match="remove it"):
        await again.identity()
    await again.close()
    assert blob.read_bytes() == damage


async def test_a_key_blob_that_others_may_read_is_said(tpm: Swtpm, attester: TpmAttester, tmp_path: Path) -> None:
    await attester.identity()
    (tmp_path / "state" / AK_FILE).chmod(0o644)
    again = TpmAttester(tpm.tcti, tmp_path / "state")
    with pytest.raises(StateDamaged, match="chmod"):
        await again.identity()
    await again.close()


@pytest.mark.parametrize("tcti", ["swtpm:path=/nonexistent/tpm", "device:/nonexistent/tpmrm0", "nonsense:x=y"])
async def test_a_tpm_that_is_not_there_is_said(tmp_path: Path, tcti: str) -> None:
    attester = TpmAttester(tcti, tmp_path)
    with pytest.raises(AttesterUnavailable):
        await attester.marker()
    await attester.close()


async def test_a_tpm_that_hangs_holds_nobody_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tpm_module, "READ_SECONDS", 0.05)
    with socket.socket(socket.AF_UNIX) as silent, socket.socket(socket.AF_UNIX) as control:
        for one, name in ((silent, "tpm"), (control, "tpm.ctrl")):
            one.bind(str(tmp_path / name))
            one.listen()
        attester = TpmAttester(f"swtpm:path={tmp_path / 'tpm'}", tmp_path / "state")
        with pytest.raises(AttesterTimeout):
            await attester.marker()
        await attester.close()
