"""TPM2_MakeCredential in software: a secret that only one TPM, holding both EK and AK, can open.

TPM 2.0 Library, Part 1 §24 (credential protection), §11.4.10 (KDFa, KDFe), Annex B.10 (RSA), Annex C.6 (ECC).
The TPM opens it by TPM2_ActivateCredential, and only if an object with exactly the named public area is loaded in it:
that binds the attestation key to the endorsement key.

The caller owes a secret that is used once, and fresh `entropy`.
"""

from __future__ import annotations

import hmac
import struct
from typing import Final

from cryptography.hazmat.decrepit.ciphers.modes import CFB  # the standard's mode, and no other is possible
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms
from cryptography.hazmat.primitives.kdf.concatkdf import ConcatKDFHash
from cryptography.hazmat.primitives.kdf.kbkdf import KBKDFHMAC, CounterLocation, Mode

from chatelaine.evidence import tpm_algorithms as alg
from chatelaine.evidence.errors import CredentialRefused
from chatelaine.evidence.tpm_public import PublicArea, check_ek_attributes

ENTROPY_BYTES: Final = 64
"""Enough for the seed of any accepted hash, and for an unbiased scalar on any accepted curve."""

MIN_SECRET_BYTES: Final = 16

_AES_BITS: Final = (128, 256)
_BLOCK_BYTES: Final = 16


def make_credential(ek: PublicArea, ak_name: bytes, secret: bytes, *, entropy: bytes) -> tuple[bytes, bytes]:
    """Wrap `secret` for the TPM that holds `ek` and an object called `ak_name`.

    Args:
        ek: endorsement key: RSA from 2048 bits or ECC P-256/P-384, with AES-CFB.
        ak_name: TPM name of the attestation key, computed by us from its public area.
        secret: 16 bytes up to the digest length of the EK's name algorithm.
        entropy: 64 fresh bytes. (The padding of RSA-OAEP is drawn by the cryptographic library itself.)

    Returns:
        TPM2B_ID_OBJECT and TPM2B_ENCRYPTED_SECRET, as TPM2_ActivateCredential takes them.

    Raises:
        AttributesRefused: not an endorsement key.
        CredentialRefused: another form of key, or a secret or entropy of another length.
    """
    check_ek_attributes(ek)
    hash_ = ek.name_hash
    if len(entropy) != ENTROPY_BYTES:
        raise CredentialRefused("entropy has another length", expected=ENTROPY_BYTES, found=len(entropy))
    if not MIN_SECRET_BYTES <= len(secret) <= hash_.size_bytes:
        raise CredentialRefused(
            "the secret has another length", expected=f"{MIN_SECRET_BYTES} to {hash_.size_bytes}", found=len(secret)
        )
    if ek.symmetric.algorithm != alg.AES or ek.symmetric.mode != alg.CFB or ek.symmetric.bits not in _AES_BITS:
        raise CredentialRefused(
            "this endorsement key protects by something else than AES-CFB",
            expected="Aes 128 or 256, Cfb",
            found=f"{alg.name_of(ek.symmetric.algorithm)} {ek.symmetric.bits}, {alg.name_of(ek.symmetric.mode)}",
        )
    if isinstance(ek.key, rsa.RSAPublicKey):
        seed, encrypted = _rsa_secret(ek.key, hash_, entropy)
    else:
        seed, encrypted = _ecc_secret(ek.key, hash_, entropy)
    return _sized(_protect(ek, ak_name, secret, seed)), _sized(encrypted)


def _rsa_secret(key: rsa.RSAPublicKey, hash_: alg.Hash, entropy: bytes) -> tuple[bytes, bytes]:
    seed = entropy[: hash_.size_bytes]
    oaep = padding.OAEP(padding.MGF1(hash_.algorithm), hash_.algorithm, b"IDENTITY\x00")
    return seed, key.encrypt(seed, oaep)


def _ecc_secret(key: ec.EllipticCurvePublicKey, hash_: alg.Hash, entropy: bytes) -> tuple[bytes, bytes]:
    order = key.curve.group_order
    ephemeral = ec.derive_private_key(int.from_bytes(entropy) % (order - 1) + 1, key.curve)
    size_bytes = key.key_size // 8  # whole bytes on both curves that are accepted
    point = ephemeral.public_key().public_numbers()
    x, y = point.x.to_bytes(size_bytes), point.y.to_bytes(size_bytes)
    shared = ephemeral.exchange(ec.ECDH(), key)
    info = b"IDENTITY\x00" + x + key.public_numbers().x.to_bytes(size_bytes)
    seed = ConcatKDFHash(hash_.algorithm, hash_.size_bytes, info).derive(shared)
    return seed, _sized(x) + _sized(y)


def _protect(ek: PublicArea, ak_name: bytes, secret: bytes, seed: bytes) -> bytes:
    """TPMS_ID_OBJECT: integrity value over the encrypted secret and the name."""
    hash_ = ek.name_hash
    symmetric_key = _kdfa(hash_, seed, b"STORAGE", ak_name, ek.symmetric.bits)
    encryptor = Cipher(algorithms.AES(symmetric_key), CFB(bytes(_BLOCK_BYTES))).encryptor()
    identity = encryptor.update(_sized(secret)) + encryptor.finalize()
    hmac_key = _kdfa(hash_, seed, b"INTEGRITY", b"", hash_.size_bytes * 8)
    return _sized(hmac.digest(hmac_key, identity + ak_name, hash_.new)) + identity


def _kdfa(hash_: alg.Hash, key: bytes, label: bytes, context: bytes, bits: int) -> bytes:
    """KDFa: SP 800-108 in counter mode with HMAC, a zero byte after the label, the length in bits at the end."""
    kdf = KBKDFHMAC(
        hash_.algorithm,
        Mode.CounterMode,
        bits // 8,
        rlen=4,
        llen=4,
        location=CounterLocation.BeforeFixed,
        label=label,
        context=context,
        fixed=None,
    )
    return kdf.derive(key)


def _sized(data: bytes) -> bytes:
    return struct.pack(">H", len(data)) + data
