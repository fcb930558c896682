"""Credentials, opened again as a TPM does it: by a second implementation, written from the standard's formulas."""

from __future__ import annotations

import hashlib
import hmac
import struct
from collections.abc import Callable

import pytest
from cryptography.hazmat.decrepit.ciphers.modes import CFB
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms

from chatelaine.evidence import errors
from chatelaine.evidence import tpm_algorithms as alg
from chatelaine.evidence.credential import ENTROPY_BYTES, MIN_SECRET_BYTES, make_credential
from chatelaine.evidence.tpm_public import EK_REQUIRED, PublicArea, parse_public
from support import paper_tpm
from support.paper_tpm import DIGESTS, HASHES, PaperTpm, ecc_key, rsa_key

AK_NAME = PaperTpm().name
PrivateKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey


def aes_cfb(bits: int) -> bytes:
    return struct.pack(">HHH", alg.AES, bits, alg.CFB)


def rsa_ek(name_hash: int = alg.SHA256, symmetric: bytes | None = None) -> tuple[PrivateKey, PublicArea]:
    key = rsa_key(2048, 7)
    public = paper_tpm.rsa_public(
        key, attributes=EK_REQUIRED, scheme=alg.NULL, name_hash=name_hash, symmetric=symmetric or aes_cfb(128)
    )
    return key, parse_public(public)


def ecc_ek(curve: int, name_hash: int = alg.SHA256, bits: int = 128) -> tuple[PrivateKey, PublicArea]:
    key = ecc_key(curve, 7)
    public = paper_tpm.ecc_public(
        key, curve, attributes=EK_REQUIRED, scheme=alg.NULL, name_hash=name_hash, symmetric=aes_cfb(bits)
    )
    return key, parse_public(public)


# --- the other side, by Part 1 §11.4.10, §24, Annex B.10.4 and C.6.4 ---------------------------------------------


def kdfa(name: int, key: bytes, label: bytes, context: bytes, bits: int) -> bytes:
    out, counter = b"", 0
    while len(out) * 8 < bits:
        counter += 1
        message = struct.pack(">I", counter) + label + b"\x00" + context + struct.pack(">I", bits)
        out += hmac.new(key, message, DIGESTS[name]).digest()
    return out[: bits // 8]


def kdfe(name: int, shared: bytes, label: bytes, ours: bytes, theirs: bytes) -> bytes:
    return bytes(DIGESTS[name](struct.pack(">I", 1) + shared + label + b"\x00" + ours + theirs).digest())


def unsized(data: bytes) -> tuple[bytes, bytes]:
    (size,) = struct.unpack_from(">H", data)
    assert len(data) >= 2 + size
    return data[2 : 2 + size], data[2 + size :]


def opened(key: PrivateKey, ek: PublicArea, ak_name: bytes, blob: bytes, encrypted: bytes) -> bytes:
    name = ek.name_hash.tpm_id
    (wrapped, rest), (identity, more) = unsized(encrypted), unsized(blob)
    assert (rest, more) == (b"", b"")
    if isinstance(key, rsa.RSAPrivateKey):
        oaep = padding.OAEP(padding.MGF1(HASHES[name]), HASHES[name], b"IDENTITY\x00")
        seed = key.decrypt(wrapped, oaep)
    else:
        x, rest = unsized(wrapped)
        y, rest = unsized(rest)
        size = (key.key_size + 7) // 8
        assert (rest, len(x), len(y)) == (b"", size, size)
        point = ec.EllipticCurvePublicNumbers(int.from_bytes(x, "big"), int.from_bytes(y, "big"), key.curve)
        own = key.public_key().public_numbers().x.to_bytes(size, "big")
        seed = kdfe(name, key.exchange(ec.ECDH(), point.public_key()), b"IDENTITY", x, own)
    assert len(seed) == ek.name_hash.size_bytes
    mac, sealed = unsized(identity)
    integrity = kdfa(name, seed, b"INTEGRITY", b"", ek.name_hash.size_bytes * 8)
    assert mac == hmac.new(integrity, sealed + ak_name, DIGESTS[name]).digest()
    storage = kdfa(name, seed, b"STORAGE", ak_name, ek.symmetric.bits)
    decryptor = Cipher(algorithms.AES(storage), CFB(bytes(16))).decryptor()
    secret, rest = unsized(decryptor.update(sealed) + decryptor.finalize())
    assert rest == b""
    return secret


MAKERS: dict[str, Callable[[], tuple[PrivateKey, PublicArea]]] = {
    "RSA, SHA-256": rsa_ek,
    "RSA, SHA-384, AES-256": lambda: rsa_ek(alg.SHA384, aes_cfb(256)),
    "P-256": lambda: ecc_ek(alg.NIST_P256),
    "P-384, SHA-384, AES-256": lambda: ecc_ek(alg.NIST_P384, alg.SHA384, 256),
}


@pytest.mark.parametrize("kind", MAKERS)
def test_a_credential_is_opened_by_the_key_it_was_made_for(kind: str) -> None:
    key, ek = MAKERS[kind]()
    for length in (MIN_SECRET_BYTES, ek.name_hash.size_bytes):
        secret = bytes(range(length))
        blob, encrypted = make_credential(ek, AK_NAME, secret, entropy=bytes(range(ENTROPY_BYTES)))
        assert opened(key, ek, AK_NAME, blob, encrypted) == secret


@pytest.mark.parametrize("kind", MAKERS)
def test_a_credential_for_one_object_is_not_opened_for_another(kind: str) -> None:
    key, ek = MAKERS[kind]()
    blob, encrypted = make_credential(ek, AK_NAME, bytes(32), entropy=bytes(ENTROPY_BYTES))
    with pytest.raises(AssertionError):
        opened(key, ek, PaperTpm(number=1).name, blob, encrypted)


@pytest.mark.parametrize("entropy", [bytes(64), b"\xff" * 64, bytes(range(64))])
def test_every_entropy_gives_a_scalar_of_the_curve(entropy: bytes) -> None:
    _, ek = ecc_ek(alg.NIST_P256)
    order = ec.SECP256R1().group_order
    scalar = int.from_bytes(entropy, "big") % (order - 1) + 1
    expected = ec.derive_private_key(scalar, ec.SECP256R1()).public_key().public_numbers()
    _, encrypted = make_credential(ek, AK_NAME, bytes(32), entropy=entropy)
    x, rest = unsized(unsized(encrypted)[0])
    assert (int.from_bytes(x, "big"), int.from_bytes(unsized(rest)[0], "big")) == (expected.x, expected.y)


def test_the_seed_of_an_rsa_key_is_the_entropys_beginning() -> None:
    key, ek = rsa_ek()
    entropy = bytes(range(64))
    _, encrypted = make_credential(ek, AK_NAME, bytes(32), entropy=entropy)
    oaep = padding.OAEP(padding.MGF1(HASHES[alg.SHA256]), HASHES[alg.SHA256], b"IDENTITY\x00")
    assert isinstance(key, rsa.RSAPrivateKey)
    assert key.decrypt(unsized(encrypted)[0], oaep) == entropy[: hashlib.sha256().digest_size]


@pytest.mark.parametrize(
    ("secret", "entropy", "found"),
    [(MIN_SECRET_BYTES - 1, 64, "15"), (33, 64, "33"), (32, 63, "63"), (32, 65, "65")],
)
def test_secrets_and_entropy_of_other_lengths_are_refused(secret: int, entropy: int, found: str) -> None:
    _, ek = rsa_ek()
    with pytest.raises(errors.CredentialRefused) as refusal:
        make_credential(ek, AK_NAME, bytes(secret), entropy=bytes(entropy))
    assert refusal.value.found == found
    assert refusal.value.expected == ("64" if entropy != 64 else "16 to 32")


@pytest.mark.parametrize(
    ("symmetric", "found"),
    [
        (struct.pack(">H", alg.NULL), "Null 0, Null"),
        (struct.pack(">HHH", alg.AES, 192, alg.CFB), "Aes 192, Cfb"),
        (struct.pack(">HHH", alg.AES, 128, 0x0042), "Aes 128, 0x0042"),
    ],
)
def test_a_key_that_protects_by_something_else_is_refused_and_told(symmetric: bytes, found: str) -> None:
    _, ek = rsa_ek(symmetric=symmetric)
    with pytest.raises(errors.CredentialRefused) as refusal:
        make_credential(ek, AK_NAME, bytes(32), entropy=bytes(64))
    assert (refusal.value.expected, refusal.value.found) == ("Aes 128 or 256, Cfb", found)
