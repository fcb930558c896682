"""One contract for every attester: a real TPM and the simulated one pass the same tests."""

from __future__ import annotations

import secrets
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from tools.lab.swtpm import Swtpm

from chatelaine.agent.attester import Attester
from chatelaine.agent.errors import ActivationRefused, AttesterRefused
from chatelaine.agent.simulated import SimulatedAttester, SimulatedTpm
from chatelaine.agent.tpm import TpmAttester
from chatelaine.agent.tpm_kinds import AkKind, EkKind
from chatelaine.evidence.credential import ENTROPY_BYTES, make_credential
from chatelaine.evidence.errors import ExtraDataMismatch
from chatelaine.evidence.tpm_public import check_ak_attributes, check_ek_attributes, parse_public
from chatelaine.evidence.tpm_quote import (
    VerifiedQuote,
    attestation_key,
    check_endorsement_hierarchy,
    verify_quote,
)
from chatelaine.evidence.tpm_types import Selection
from chatelaine.model.tpm_policy import Bank

EXTRA = bytes(range(32))
BOOT = Selection(Bank.SHA256, (0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 14))
ALL = Selection(Bank.SHA384, tuple(range(24)))


class Host(ABC):
    """A machine with a TPM, and how its owner changes it."""

    attester: Attester

    @abstractmethod
    def extend(self, pcr: int, digest: bytes) -> None: ...

    @abstractmethod
    def reset(self, *, orderly: bool = True) -> None: ...

    @abstractmethod
    def clear(self) -> None: ...

    @abstractmethod
    def restart_agent(self) -> None: ...

    @abstractmethod
    def stop(self) -> None: ...


class SwtpmHost(Host):
    def __init__(self, state: Path, ek_kind: EkKind, ak_kind: AkKind) -> None:
        self.tpm, self.state, self.kinds = Swtpm(), state, (ek_kind, ak_kind)
        self.restart_agent()

    def restart_agent(self) -> None:
        self.attester = TpmAttester(self.tpm.tcti, self.state, ek_kind=self.kinds[0], ak_kind=self.kinds[1])

    def extend(self, pcr: int, digest: bytes) -> None:
        self.tpm.extend(pcr, digest)

    def reset(self, *, orderly: bool = True) -> None:
        self.tpm.reset(orderly=orderly)

    def clear(self) -> None:
        self.tpm.tool("tpm2_clear", "-c", "p")

    def stop(self) -> None:
        self.tpm.stop()


class SimulatedHost(Host):
    def __init__(self) -> None:
        self.tpm = SimulatedTpm()
        self.restart_agent()

    def restart_agent(self) -> None:
        self.attester = SimulatedAttester(self.tpm)

    def extend(self, pcr: int, digest: bytes) -> None:
        self.tpm.extend(pcr, digest)

    def reset(self, *, orderly: bool = True) -> None:
        self.tpm.reset(orderly=orderly)

    def clear(self) -> None:
        self.tpm.clear()

    def stop(self) -> None:
        pass


@pytest.fixture(params=["swtpm", "swtpm-ecc-ek-rsa-ak", "simulated"])
def host(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Host]:
    made: Host
    if request.param == "simulated":
        made = SimulatedHost()
    elif request.param == "swtpm":
        made = SwtpmHost(tmp_path, EkKind.RSA_2048, AkKind.ECC_P256)
    else:
        made = SwtpmHost(tmp_path, EkKind.ECC_P256, AkKind.RSA_2048)
    yield made
    made.stop()


@pytest.fixture(autouse=True)
async def _closed(host: Host) -> AsyncIterator[None]:
    yield
    await host.attester.close()


async def quoted(host: Host, selection: Selection = BOOT) -> VerifiedQuote:
    values = await host.attester.read_pcrs(selection)
    quote = await host.attester.quote(EXTRA, selection)
    return verify_quote(
        quote.attest,
        quote.signature,
        ak=attestation_key(quote.ak_public),
        expected_extra_data=EXTRA,
        selection=selection,
        pcrs=values,
    )


async def test_the_keys_are_what_they_claim_to_be(host: Host) -> None:
    identity = await host.attester.identity()
    check_ek_attributes(parse_public(identity.ek_public))
    check_ak_attributes(parse_public(identity.ak_public))
    assert identity.ek_certificate is None


async def test_the_simulation_has_the_shape_of_a_real_tpm(tmp_path: Path) -> None:
    real_host = SwtpmHost(tmp_path, EkKind.RSA_2048, AkKind.ECC_P256)
    simulated = SimulatedAttester(SimulatedTpm(milliseconds=lambda: 0))
    try:
        real, made = await real_host.attester.identity(), await simulated.identity()
        # All but the key itself: an RSA modulus, two coordinates of 32 bytes with their lengths.
        assert real.ek_public[:-256] == made.ek_public[:-256]
        assert real.ak_public[:-66] == made.ak_public[:-66]
        quotes = [await one.quote(EXTRA, BOOT) for one in (real_host.attester, simulated)]
        assert len({len(quote.attest) for quote in quotes}) == 1
        assert len({len(quote.signature) for quote in quotes}) == 1
    finally:
        await real_host.attester.close()
        real_host.stop()


async def test_a_quote_verifies_over_every_pcr_of_each_bank(host: Host) -> None:
    for selection in (BOOT, ALL):
        assert (await quoted(host, selection)).selection == selection


async def test_the_attestation_key_lives_in_the_endorsement_hierarchy(host: Host) -> None:
    identity = await host.attester.identity()
    ak, ek = parse_public(identity.ak_public), parse_public(identity.ek_public)
    check_endorsement_hierarchy(await quoted(host), ak, ek)


async def test_a_quote_for_another_question_is_refused(host: Host) -> None:
    quote = await host.attester.quote(EXTRA, BOOT)
    with pytest.raises(ExtraDataMismatch):
        verify_quote(
            quote.attest,
            quote.signature,
            ak=attestation_key(quote.ak_public),
            expected_extra_data=bytes(32),
            selection=BOOT,
            pcrs=await host.attester.read_pcrs(BOOT),
        )


async def test_too_much_extra_data_is_refused(host: Host) -> None:
    with pytest.raises(AttesterRefused):
        await host.attester.quote(bytes(65), BOOT)


async def test_an_extended_pcr_moves_value_quote_and_marker(host: Host) -> None:
    before, marker = await quoted(host), await host.attester.marker()
    host.extend(7, bytes(32))
    after = await quoted(host)
    assert after.pcr_digest != before.pcr_digest
    assert after.pcrs[7] != before.pcrs[7]
    assert await host.attester.marker() != marker


async def test_the_marker_stands_still_while_nothing_changes(host: Host) -> None:
    await host.attester.identity()
    marker = await host.attester.marker()
    await quoted(host)
    assert await host.attester.marker() == marker


async def test_a_reset_raises_the_reset_count_and_keeps_the_name(host: Host) -> None:
    before, identity, marker = await quoted(host), await host.attester.identity(), await host.attester.marker()
    host.reset()
    after = await quoted(host)
    assert after.reset_count == before.reset_count + 1
    assert await host.attester.identity() == identity
    assert await host.attester.marker() != marker


async def test_an_unorderly_reset_is_not_safe(host: Host) -> None:
    assert (await quoted(host)).safe
    host.reset(orderly=False)
    assert not (await quoted(host)).safe


async def test_a_clear_changes_the_attestation_key_and_lowers_the_reset_count(host: Host) -> None:
    host.reset()
    before, identity = await quoted(host), await host.attester.identity()
    host.clear()
    after, changed = await quoted(host), await host.attester.identity()
    assert after.reset_count < before.reset_count
    assert changed.ak_public != identity.ak_public
    assert changed.ek_public == identity.ek_public


async def test_the_keys_keep_their_names_across_a_restart_of_the_agent(host: Host) -> None:
    identity = await host.attester.identity()
    await host.attester.close()
    host.restart_agent()
    assert await host.attester.identity() == identity


async def test_a_credential_for_this_host_is_opened(host: Host) -> None:
    identity, secret = await host.attester.identity(), secrets.token_bytes(32)
    blob, encrypted = credential(identity.ek_public, identity.ak_public, secret)
    assert await host.attester.activate(blob, encrypted) == secret


async def test_a_credential_for_another_attestation_key_is_refused(host: Host) -> None:
    identity, other = await host.attester.identity(), await SimulatedAttester(SimulatedTpm()).identity()
    blob, encrypted = credential(identity.ek_public, other.ak_public, bytes(32))
    with pytest.raises(ActivationRefused):
        await host.attester.activate(blob, encrypted)


async def test_a_credential_for_another_tpm_is_refused(host: Host) -> None:
    identity, other = await host.attester.identity(), await SimulatedAttester(SimulatedTpm()).identity()
    blob, encrypted = credential(other.ek_public, identity.ak_public, bytes(32))
    with pytest.raises(ActivationRefused):
        await host.attester.activate(blob, encrypted)


async def test_a_damaged_credential_is_refused(host: Host) -> None:
    identity = await host.attester.identity()
    blob, encrypted = credential(identity.ek_public, identity.ak_public, bytes(32))
    for bad in (b"", blob[:-1], blob + b"\x00", blob[:-1] + bytes([blob[-1] ^ 1]), b"\xff" * 2000):
        with pytest.raises(ActivationRefused):
            await host.attester.activate(bad, encrypted)
    for bad in (b"", encrypted[:-1], b"\xff" * 2000):
        with pytest.raises(ActivationRefused):
            await host.attester.activate(blob, bad)
    assert await host.attester.activate(blob, encrypted) == bytes(32)


def credential(ek_public: bytes, ak_public: bytes, secret: bytes) -> tuple[bytes, bytes]:
    name = parse_public(ak_public).name
    return make_credential(parse_public(ek_public), name, secret, entropy=secrets.token_bytes(ENTROPY_BYTES))
