"""A manufactured TPM: its endorsement certificates chain to its maker's root, and name the keys that it holds."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from cryptography import x509
from tools.lab.swtpm import Swtpm
from tools.lab.tpm_vendor import TpmVendor

from chatelaine.evidence import errors
from chatelaine.evidence.certificates import (
    CertificateKind,
    VerifiedCertificate,
    load_certificates,
    split_roots,
    verify_certificate,
)
from chatelaine.evidence.tpm_public import check_ek_attributes, parse_public

KEYS = {"rsa2048": "0x81010001", "secp384r1": "0x81010016"}


@dataclass
class Maker:
    """A TPM maker with a root and an intermediate of its own, and one TPM that it made."""

    folder: Path
    vendor: TpmVendor = field(init=False)

    def manufacture(self) -> None:
        self.vendor = TpmVendor(self.folder / "ca")
        self.vendor.make(self.folder / "state", self.folder / "certificates")

    def certificate(self, key: str) -> x509.Certificate:
        return load_certificates((self.folder / "certificates" / f"ek-{key}.crt").read_bytes())[0]

    @property
    def authorities(self) -> list[x509.Certificate]:
        return list(load_certificates(self.vendor.pem.encode()))

    def judged(self, key: str, given: list[x509.Certificate] | None = None) -> VerifiedCertificate:
        roots, others = split_roots(self.authorities if given is None else given)
        return verify_certificate(
            self.certificate(key), kind=CertificateKind.EK, roots=roots, intermediates=others, at=int(time.time())
        )


@pytest.fixture(scope="module")
def maker(tmp_path_factory: pytest.TempPathFactory) -> Maker:
    found = Maker(tmp_path_factory.mktemp("maker") / "one")
    found.manufacture()
    return found


@pytest.fixture(scope="module")
def tpm(maker: Maker) -> Iterator[Swtpm]:
    with Swtpm(maker.folder / "state") as found:
        yield found


@pytest.mark.parametrize("key", KEYS)
def test_endorsement_certificate_chains_to_the_makers_root(maker, key):
    verified = maker.judged(key)
    assert len(verified.chain) == 3
    assert verified.tpm is not None
    assert (verified.tpm.manufacturer, verified.tpm.model) == ("id:00001014", "swtpm")


@pytest.mark.parametrize("key", KEYS)
def test_certified_key_is_the_one_in_the_tpm(maker, tpm, tmp_path, key):
    tpm.tool("tpm2_readpublic", "-c", KEYS[key], "-o", "ek.pub", cwd=tmp_path)
    public = parse_public((tmp_path / "ek.pub").read_bytes())
    check_ek_attributes(public)
    assert public.spki_digest == maker.judged(key).spki_digest


def test_certificate_of_another_maker_of_the_same_name_is_refused(maker, tmp_path):
    other = Maker(tmp_path / "other")
    other.manufacture()
    assert other.authorities[0].subject == maker.authorities[0].subject
    with pytest.raises(errors.ChainIncomplete):
        maker.judged("rsa2048", other.authorities)
