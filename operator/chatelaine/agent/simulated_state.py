"""Keeps a simulated TPM's keys across restarts of its agent. Each start is a reset, as of a machine."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import msgspec
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from chatelaine.agent.errors import StateDamaged
from chatelaine.agent.simulated import SimulatedTpm
from chatelaine.pki.errors import KeyFileRefused
from chatelaine.pki.files import read_private, write_whole

FILE: Final = "simulated-tpm.json"
MAX_STATE_BYTES: Final = 16 * 1024


class StoredTpm(msgspec.Struct, frozen=True, kw_only=True):
    """Keys as PEM (PKCS#8), and the last reset count."""

    v: int = 1
    ek: str
    ak: str
    reset_count: int


def kept_tpm(folder: Path) -> SimulatedTpm:
    """The TPM of this folder, just powered on; a new one where there is none.

    Raises:
        StateDamaged: the file is not what we wrote.
        OSError: the folder cannot be used.
    """
    path = folder / FILE
    tpm = _read(path) if path.exists() else SimulatedTpm(reset_count=0)
    tpm.reset()
    stored = StoredTpm(ek=_pem(tpm.ek), ak=_pem(tpm.ak), reset_count=tpm.reset_count)
    write_whole(path, msgspec.json.encode(stored))
    return tpm


def _read(path: Path) -> SimulatedTpm:
    try:
        stored = msgspec.json.decode(read_private(path, MAX_STATE_BYTES), type=StoredTpm)
        ek = serialization.load_pem_private_key(stored.ek.encode(), None)
        ak = serialization.load_pem_private_key(stored.ak.encode(), None)
    except (msgspec.DecodeError, KeyFileRefused, ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise StateDamaged(f"{path}: {type(error).__name__}; remove it to begin with another simulated TPM") from None
    if not isinstance(ek, rsa.RSAPrivateKey) or not isinstance(ak, ec.EllipticCurvePrivateKey):
        raise StateDamaged(f"{path} holds other keys than a simulated TPM's")
    return SimulatedTpm(ek=ek, ak=ak, reset_count=stored.reset_count)


def _pem(key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey) -> str:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()
