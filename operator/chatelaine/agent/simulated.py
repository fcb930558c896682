"""A simulated TPM: the very structures of a real one, signed by software keys. For tests, benchmarks and first steps.

It proves nothing about any machine. Nothing in evidence says that it is simulated; what keeps it out is that nobody
commits its endorsement key's digest to an `Hsm`.
"""

from __future__ import annotations

import hashlib
import hmac
import struct
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from cryptography.hazmat.decrepit.ciphers.modes import CFB
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa, utils
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms

from chatelaine.agent.attester import Quote, TpmIdentity, TpmMarker
from chatelaine.agent.errors import ActivationRefused, AttesterRefused, BankAbsent
from chatelaine.agent.tpm_kinds import EK_POLICY
from chatelaine.evidence import tpm_algorithms as alg
from chatelaine.evidence.tpm_public import AK_REQUIRED, EK_REQUIRED, Attribute
from chatelaine.evidence.tpm_types import ATTEST_QUOTE, MAX_PCRS, TPM_GENERATED, TPM_RH_ENDORSEMENT, Selection
from chatelaine.model.tpm_policy import Bank

MAX_EXTRA_DATA_BYTES: Final = 64
FIRMWARE_VERSION: Final = 0x2026_0001
_UNCOUNTED_PCRS: Final = (16, 21, 22, 23)
_DRTM_PCRS: Final = range(17, 23)


@dataclass
class SimulatedTpm:
    """The world: change it as a machine's owner, or an attacker, would.

    Attributes:
        ek: endorsement key; another one is another TPM.
        ak: attestation key; a clear makes another one.
        ek_certificate: a vendor's certificate over the endorsement key (DER), as NV would hold it.
        milliseconds: the clock that runs while the TPM has power.
    """

    ek: rsa.RSAPrivateKey = field(default_factory=lambda: rsa.generate_private_key(65537, 2048))
    ak: ec.EllipticCurvePrivateKey = field(default_factory=lambda: ec.generate_private_key(ec.SECP256R1()))
    ek_certificate: bytes | None = None
    milliseconds: Callable[[], int] = lambda: time.monotonic_ns() // 1_000_000
    reset_count: int = 1
    restart_count: int = 0
    safe: bool = True
    pcr_update_counter: int = 0
    pcrs: dict[Bank, list[bytes]] = field(default_factory=lambda: _fresh_pcrs())

    def extend(self, pcr: int, digest: bytes, bank: Bank = Bank.SHA256) -> None:
        """TPM2_PCR_Extend."""
        new = alg.BANKS[bank].new
        self.pcrs[bank][pcr] = bytes(new(self.pcrs[bank][pcr] + digest).digest())
        if pcr not in _UNCOUNTED_PCRS:
            self.pcr_update_counter += 1

    def reset(self, *, orderly: bool = True) -> None:
        """Power off and on: TPM2_Startup(CLEAR)."""
        self.pcrs = _fresh_pcrs()
        self.reset_count += 1
        self.restart_count = 0
        self.safe = orderly
        self.pcr_update_counter = 0

    def clear(self) -> None:
        """TPM2_Clear: counters begin again, what was under the endorsement key is lost."""
        self.reset_count = self.restart_count = 0
        self.safe = True
        self.ak = ec.generate_private_key(ec.SECP256R1())

    def replace(self) -> None:
        """Another TPM in its place."""
        fresh = SimulatedTpm(milliseconds=self.milliseconds)
        self.__dict__.update(fresh.__dict__)


def _fresh_pcrs() -> dict[Bank, list[bytes]]:
    return {
        bank: [(b"\xff" if index in _DRTM_PCRS else b"\x00") * hash_.size_bytes for index in range(MAX_PCRS)]
        for bank, hash_ in alg.BANKS.items()
    }


class SimulatedAttester:
    """`Attester` over a `SimulatedTpm`."""

    def __init__(self, tpm: SimulatedTpm) -> None:
        self.tpm = tpm

    async def identity(self) -> TpmIdentity:
        """See `Attester`."""
        return TpmIdentity(_ek_public(self.tpm.ek), _ak_public(self.tpm.ak), self.tpm.ek_certificate)

    async def read_pcrs(self, selection: Selection) -> dict[int, bytes]:
        """See `Attester`."""
        if selection.bank not in self.tpm.pcrs:
            raise BankAbsent(f"this TPM has no {selection.bank.value} bank")
        return {index: self.tpm.pcrs[selection.bank][index] for index in selection.indices}

    async def quote(self, extra_data: bytes, selection: Selection) -> Quote:
        """See `Attester`."""
        if len(extra_data) > MAX_EXTRA_DATA_BYTES:
            raise AttesterRefused(f"a quote carries at most {MAX_EXTRA_DATA_BYTES} bytes of ours")
        ak_public = _ak_public(self.tpm.ak)
        values = await self.read_pcrs(selection)
        attest = self._attest(ak_public, extra_data, selection, b"".join(values.values()))
        r, s = utils.decode_dss_signature(self.tpm.ak.sign(attest, ec.ECDSA(hashes.SHA256())))
        signature = struct.pack(">HH", alg.ECDSA, alg.SHA256) + _sized(r.to_bytes(32)) + _sized(s.to_bytes(32))
        return Quote(attest, signature, ak_public)

    async def activate(self, credential_blob: bytes, encrypted_secret: bytes) -> bytes:
        """See `Attester`."""
        return open_credential(self.tpm.ek, _name(_ak_public(self.tpm.ak)), credential_blob, encrypted_secret)

    async def marker(self) -> TpmMarker:
        """See `Attester`."""
        return TpmMarker(self.tpm.pcr_update_counter, self.tpm.reset_count, self.tpm.restart_count)

    async def close(self) -> None:
        """See `Attester`."""

    def _attest(self, ak_public: bytes, extra_data: bytes, selection: Selection, values: bytes) -> bytes:
        """TPMS_ATTEST of a quote (Part 2 §10.12.8)."""
        parent = _qualified(struct.pack(">I", TPM_RH_ENDORSEMENT), _ek_public(self.tpm.ek))
        clock = struct.pack(
            ">QIIBQ",
            self.tpm.milliseconds(),
            self.tpm.reset_count,
            self.tpm.restart_count,
            int(self.tpm.safe),
            FIRMWARE_VERSION,
        )
        return b"".join(
            (
                struct.pack(">IH", TPM_GENERATED, ATTEST_QUOTE),
                _sized(_qualified(parent, ak_public)),
                _sized(extra_data),
                clock,
                selection.encoded,
                _sized(hashlib.sha256(values).digest()),
            )
        )


def open_credential(ek: rsa.RSAPrivateKey, ak_name: bytes, credential_blob: bytes, encrypted_secret: bytes) -> bytes:
    """TPM2_ActivateCredential by software (Part 1 §24, Part 3 §12.5).

    Args:
        ek: RSA-2048 endorsement key of the standard template.
        ak_name: name of the key that the credential must be for.
        credential_blob: TPM2B_ID_OBJECT.
        encrypted_secret: TPM2B_ENCRYPTED_SECRET.

    Raises:
        ActivationRefused: made for another key, or damaged.
    """
    body, cipher_seed = _content(credential_blob), _content(encrypted_secret)
    try:
        oaep = padding.OAEP(padding.MGF1(hashes.SHA256()), hashes.SHA256(), b"IDENTITY\x00")
        seed = ek.decrypt(cipher_seed, oaep)
    except ValueError:
        raise ActivationRefused("the credential is not for this endorsement key") from None
    size = struct.unpack(">H", body[:2])[0] if len(body) >= 2 else 0
    mac, sealed = body[2 : 2 + size], body[2 + size :]
    wanted = hmac.digest(_kdfa(seed, b"INTEGRITY", b"", 32), sealed + ak_name, "sha256")
    if not hmac.compare_digest(mac, wanted):
        raise ActivationRefused("the credential is not for this attestation key, or damaged")
    cipher = Cipher(algorithms.AES(_kdfa(seed, b"STORAGE", ak_name, 16)), CFB(bytes(16)))
    decryptor = cipher.decryptor()
    return _content(decryptor.update(sealed) + decryptor.finalize())


def _kdfa(key: bytes, label: bytes, context: bytes, size_bytes: int) -> bytes:
    """KDFa with SHA-256 (Part 1 §11.4.10.2); one block is all that is needed here."""
    message = struct.pack(">I", 1) + label + b"\x00" + context + struct.pack(">I", size_bytes * 8)
    return hmac.digest(key, message, "sha256")[:size_bytes]


def _content(data: bytes) -> bytes:
    if len(data) < 2 or struct.unpack(">H", data[:2])[0] != len(data) - 2:
        raise ActivationRefused("no TPM2B structure")
    return data[2:]


def _sized(data: bytes) -> bytes:
    return struct.pack(">H", len(data)) + data


def _name(public: bytes) -> bytes:
    return struct.pack(">H", alg.SHA256) + hashlib.sha256(public).digest()


def _qualified(parent: bytes, public: bytes) -> bytes:
    return struct.pack(">H", alg.SHA256) + hashlib.sha256(parent + _name(public)).digest()


def _ek_public(key: rsa.RSAPrivateKey) -> bytes:
    """TPMT_PUBLIC of template L-1."""
    attributes = EK_REQUIRED | Attribute.ADMIN_WITH_POLICY
    modulus = key.public_key().public_numbers().n.to_bytes(256)
    return b"".join(
        (
            struct.pack(">HHI", alg.RSA, alg.SHA256, attributes),
            _sized(EK_POLICY),
            struct.pack(">HHHHHI", alg.AES, 128, alg.CFB, alg.NULL, 2048, 0),
            _sized(modulus),
        )
    )


def _ak_public(key: ec.EllipticCurvePrivateKey) -> bytes:
    """TPMT_PUBLIC of a restricted ECDSA P-256 key."""
    attributes = AK_REQUIRED | Attribute.USER_WITH_AUTH | Attribute.NO_DA
    numbers = key.public_key().public_numbers()
    return b"".join(
        (
            struct.pack(">HHI", alg.ECC, alg.SHA256, attributes),
            _sized(b""),
            struct.pack(">HHHHH", alg.NULL, alg.ECDSA, alg.SHA256, alg.NIST_P256, alg.NULL),
            _sized(numbers.x.to_bytes(32)),
            _sized(numbers.y.to_bytes(32)),
        )
    )
