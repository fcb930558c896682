"""Files that `chatelaine verify` reads. What cannot be read, or is no such file, is a usage error.

Sizes are bounded here only so that no file is read without end; whether evidence is too long is a finding, so one
byte more than allowed is read.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import typer
from cryptography import x509

from chatelaine.evidence.certificates import MAX_FILE_BYTES, load_certificates
from chatelaine.evidence.errors import EvidenceError
from chatelaine.evidence.tpm_types import MAX_PCRS

STANDARD_INPUT: Final = "-"
MAX_TEXT_BYTES: Final = 4 * 1024 * 1024
CERTIFICATE_SUFFIXES: Final = frozenset((".pem", ".crt", ".cer", ".der"))
BANK_NAMES: Final = {0x0004: "sha1", 0x000B: "sha256", 0x000C: "sha384", 0x000D: "sha512"}


@dataclass(frozen=True, slots=True)
class Bundle:
    """The parts of a quote that stand in one file."""

    attest: bytes
    signature: bytes
    ak: bytes
    pcrs: Mapping[str, Mapping[int, bytes]]
    bank: str
    ak_certificate: bytes | None


def check_one_standard_input(*names: str | None) -> None:
    """`-` can be read once."""
    if names.count(STANDARD_INPUT) > 1:
        raise typer.BadParameter("only one input can be standard input")


def binary(name: str, limit_bytes: int) -> bytes:
    """The content of a file, or of standard input; at most one byte more than `limit_bytes`."""
    try:
        if name == STANDARD_INPUT:
            return sys.stdin.buffer.read(limit_bytes + 1)
        with Path(name).open("rb") as file:
            return file.read(limit_bytes + 1)
    except OSError as error:
        raise typer.BadParameter(f"{name}: {error.strerror}") from error


def text(name: str) -> str:
    """A text file of at most 4 MiB."""
    data = binary(name, MAX_TEXT_BYTES)
    if len(data) > MAX_TEXT_BYTES:
        raise typer.BadParameter(f"{name}: longer than {MAX_TEXT_BYTES} bytes")
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise typer.BadParameter(f"{name}: not UTF-8 text") from error


def hexadecimal(value: str, what: str) -> bytes:
    """Bytes written in hexadecimal; empty is refused."""
    try:
        found = bytes.fromhex(value)
    except ValueError as error:
        raise typer.BadParameter(f"{what}: not hexadecimal") from error
    if not found:
        raise typer.BadParameter(f"{what}: empty")
    return found


def pcr_values(name: str) -> dict[str, dict[int, bytes]]:
    """Values by bank and index from `{"sha256": {"0": "hex"}}`."""
    value = _json(name)
    if not isinstance(value, dict) or not value:
        raise typer.BadParameter(f'{name}: expected {{"sha256": {{"0": "hex"}}}}')
    return {str(bank).lower(): _values(values, f"{name}: {bank}") for bank, values in value.items()}


def bundle(name: str, bank: str | None) -> Bundle:
    """One quote of a bundle: `ak_public_tpmt_hex`, `ak_cert_pem`, `quotes` by bank.

    Without `bank`, the SHA-256 one.
    """
    value = _json(name)
    wanted = (bank or "sha256").lower()
    try:
        quotes = {BANK_NAMES.get(quote["bank_tpm_alg_id"], "unknown"): quote for quote in value["quotes"]}
        quote = quotes.get(wanted)
        if quote is None:
            raise typer.BadParameter(f"{name}: no quote of bank {wanted}; there are {', '.join(sorted(quotes))}")
        certificate = value.get("ak_cert_pem")
        return Bundle(
            attest=hexadecimal(quote["attest_hex"], "attest_hex"),
            signature=hexadecimal(quote["signature_tpmt_hex"], "signature_tpmt_hex"),
            ak=hexadecimal(value["ak_public_tpmt_hex"], "ak_public_tpmt_hex"),
            pcrs={wanted: _values(quote["pcrs"], f"{name}: pcrs")},
            bank=wanted,
            ak_certificate=None if certificate is None else str(certificate).encode(),
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise typer.BadParameter(f"{name}: not a bundle of quotes ({error})") from error


def certificates(directory: Path) -> list[x509.Certificate]:
    """Every certificate (.pem, .crt, .cer, .der) of a folder."""
    if not directory.is_dir():
        raise typer.BadParameter(f"{directory}: no such folder", param_hint="--roots")
    found: list[x509.Certificate] = []
    for path in sorted(directory.iterdir()):
        if path.suffix.lower() in CERTIFICATE_SUFFIXES and path.is_file():
            try:
                found.extend(load_certificates(binary(str(path), MAX_FILE_BYTES)))
            except EvidenceError as error:
                raise typer.BadParameter(f"{path}: {error}", param_hint="--roots") from error
    return found


def _json(name: str) -> Any:
    try:
        return json.loads(text(name))
    except (json.JSONDecodeError, RecursionError) as error:
        raise typer.BadParameter(f"{name}: not JSON") from error


def _values(value: object, what: str) -> dict[int, bytes]:
    if not isinstance(value, dict):
        raise typer.BadParameter(f"{what}: not an object of PCR values")
    values: dict[int, bytes] = {}
    for index, digest in value.items():
        if not str(index).isdecimal() or int(index) >= MAX_PCRS or not isinstance(digest, str):
            raise typer.BadParameter(f"{what}: {index} is no PCR with a hexadecimal value")
        values[int(index)] = hexadecimal(digest, f"{what} {index}")
    return values
