"""Private keys that sign reference values, read from files. Of a key nothing is ever shown."""

from __future__ import annotations

import os
import stat
from dataclasses import replace
from pathlib import Path
from typing import Final

import typer
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from chatelaine.cli.policy_ends import say
from chatelaine.evidence.dsse import Envelope, Signature, VerifyingKey, key_id_of, verify_envelope

MAX_KEY_FILE_BYTES: Final = 16 * 1024

SigningKey = ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey


def signing_key(path: Path, passphrase: bytes | None = None) -> SigningKey:
    """The ECDSA P-256 or Ed25519 key of a PEM file. What is no such file is a usage error that shows no content."""
    try:
        with path.open("rb") as file:
            exposed = stat.S_IMODE(os.fstat(file.fileno()).st_mode) & stat.S_IRWXO
            data = file.read(MAX_KEY_FILE_BYTES + 1)
    except OSError as error:
        raise typer.BadParameter(f"{path}: {error.strerror}") from error
    if exposed:
        # Not refused: a mounted Secret is readable by all who are in its container.
        say(f"{path} may be read by every user of this machine; run: chmod 600 {path}")
    try:
        key = load_pem_private_key(data, passphrase)
    except TypeError as error:
        why = "needs a passphrase: --passphrase-file" if passphrase is None else "is not encrypted"
        raise typer.BadParameter(f"{path}: the key {why}") from error
    except (ValueError, UnsupportedAlgorithm) as error:
        raise typer.BadParameter(f"{path}: not a private key in PEM, or another passphrase") from error
    if isinstance(key, ed25519.Ed25519PrivateKey):
        return key
    if isinstance(key, ec.EllipticCurvePrivateKey) and isinstance(key.curve, ec.SECP256R1):
        return key
    raise typer.BadParameter(f"{path}: neither an ECDSA P-256 nor an Ed25519 key")


def with_signature_of(envelope: Envelope, key: SigningKey) -> Envelope:
    """`envelope` and this key's signature, in place of one that it may have made before."""
    if isinstance(key, ed25519.Ed25519PrivateKey):
        raw = key.sign(envelope.message)
    else:
        raw = key.sign(envelope.message, ec.ECDSA(hashes.SHA256()))
    return _with(envelope, Signature(raw, key_id_of(key.public_key())))


def with_foreign_signature(envelope: Envelope, raw: bytes, key: VerifyingKey) -> Envelope:
    """`envelope` and a signature that was made elsewhere, by an HSM say; it must verify.

    Raises:
        ThresholdNotMet: it does not.
    """
    entry = Signature(raw, key.key_id)
    verify_envelope(replace(envelope, signatures=(entry,)), [key], 1)
    return _with(envelope, entry)


def _with(envelope: Envelope, entry: Signature) -> Envelope:
    others = tuple(other for other in envelope.signatures if other.key_id != entry.key_id)
    return replace(envelope, signatures=(*others, entry))
