"""TPM 2.0 structures that a quote consists of, read by hand: TPMS_ATTEST, TPMT_SIGNATURE, TPML_PCR_SELECTION.

TPM 2.0 Library, Part 2: §10.12 (attestation), §11.3 (signatures), §10.9.7 (PCR selection). Sizes are checked before
anything is read, every length against what is there, and nothing may follow a structure.
"""

from __future__ import annotations

import operator
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from chatelaine.evidence import tpm_algorithms as alg
from chatelaine.evidence.errors import (
    AlgorithmRefused,
    Malformed,
    Oversized,
    TrailingBytes,
    Truncated,
    WrongAttestType,
    WrongMagic,
)
from chatelaine.evidence.reader import Reader
from chatelaine.model.tpm_policy import Bank

MAX_ATTEST_BYTES: Final = 4096
MAX_SIGNATURE_BYTES: Final = 1024
MAX_PCRS: Final = 24
MAX_BANKS: Final = 16

TPM_GENERATED: Final = 0xFF544347
ATTEST_QUOTE: Final = 0x8018
TPM_RH_ENDORSEMENT: Final = 0x4000000B

_HEAD: Final = struct.Struct(">IHH")
_SIZE: Final = struct.Struct(">H")
_SIGNATURE: Final = struct.Struct(">HHH")
_CLOCK: Final = struct.Struct(">QIIBQI")


@dataclass(frozen=True, slots=True)
class Selection:
    """Which PCRs of which bank: one bank, indices in rising order.

    Attributes:
        bank: the bank.
        indices: the indices, sorted.
        encoded: TPML_PCR_SELECTION, as PC Client TPMs sign it.
        pick: takes the selected values out of a mapping, in order; KeyError names a missing index.
        sizes_bytes: the one length that values of this bank have.

    Raises:
        ValueError: no index, an index twice or outside 0..23.
    """

    bank: Bank
    indices: tuple[int, ...]
    encoded: bytes = field(init=False, repr=False, compare=False)
    pick: Callable[[Mapping[int, bytes]], tuple[bytes, ...]] = field(init=False, repr=False, compare=False)
    sizes_bytes: frozenset[int] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Sort, check, and encode once: the encoding is compared on every verification."""
        indices = tuple(sorted(self.indices))
        if not indices:
            raise ValueError("a PCR selection names at least one index")
        if len(set(indices)) != len(indices) or indices[0] < 0 or indices[-1] >= MAX_PCRS:
            raise ValueError(f"PCR indices are distinct and below {MAX_PCRS}: {indices}")
        object.__setattr__(self, "indices", indices)
        bits = sum(1 << index for index in indices)
        head = struct.pack(">IHB", 1, alg.BANKS[self.bank].tpm_id, 3)
        object.__setattr__(self, "encoded", head + bits.to_bytes(3, "little"))
        # Prepared for speed: values in the order signed, and the lengths that they may have.
        first = indices[0]
        several = operator.itemgetter(*indices)
        object.__setattr__(self, "pick", several if len(indices) > 1 else lambda pcrs: (pcrs[first],))
        object.__setattr__(self, "sizes_bytes", frozenset((alg.BANKS[self.bank].size_bytes,)))

    def __str__(self) -> str:
        return f"{self.bank.value}:{','.join(map(str, self.indices))}"


class QuoteBody(NamedTuple):
    """TPMS_ATTEST of a quote, parsed but not yet believed. `clock_milliseconds` counts since the TPM was cleared."""

    qualified_signer: bytes
    extra_data: bytes
    clock_milliseconds: int
    reset_count: int
    restart_count: int
    safe: bool
    firmware_version: int
    selection: bytes
    pcr_digest: bytes


def parse_quote(attest: bytes) -> QuoteBody:
    """TPMS_ATTEST with type TPM_ST_ATTEST_QUOTE.

    Raises:
        Oversized: more than 4 KiB.
        WrongMagic: not made inside a TPM.
        WrongAttestType: another attestation structure.
        Malformed: any other defect of form.
    """
    if len(attest) > MAX_ATTEST_BYTES:
        raise Oversized("TPMS_ATTEST is too long", expected=f"at most {MAX_ATTEST_BYTES}", found=len(attest))
    try:
        return _quote_body(attest)
    except (struct.error, IndexError) as error:
        raise Truncated("TPMS_ATTEST ends early", found=f"{len(attest)} bytes") from error


def _quote_body(attest: bytes) -> QuoteBody:
    """The body; slices that run over the end are caught by the reads that follow, or by the last check."""
    magic, kind, size = _HEAD.unpack_from(attest)
    if magic != TPM_GENERATED:
        raise WrongMagic("not a structure made by a TPM", expected=f"{TPM_GENERATED:08x}", found=f"{magic:08x}")
    if kind != ATTEST_QUOTE:
        raise WrongAttestType("not a quote", expected=f"{ATTEST_QUOTE:04x}", found=f"{kind:04x}")
    at = 8 + size
    signer = attest[8:at]
    (size,) = _SIZE.unpack_from(attest, at)
    extra_data = attest[at + 2 : at + 2 + size]
    at += 2 + size
    clock, resets, restarts, safe, firmware, banks = _CLOCK.unpack_from(attest, at)
    if safe > 1:
        raise Malformed("TPMI_YES_NO is neither", expected="0 or 1", found=safe)
    start = at + 25
    at += 29
    while banks:  # each takes three bytes at least, so a hostile count ends with the data
        at += 3 + attest[at + 2]
        banks -= 1
    (size,) = _SIZE.unpack_from(attest, at)
    end = at + 2 + size
    if end != len(attest):
        if end > len(attest):
            raise Truncated("TPMS_ATTEST ends early", expected=f"{end} bytes", found=f"{len(attest)} bytes")
        raise TrailingBytes("TPMS_ATTEST is followed by more", expected=f"{end} bytes", found=f"{len(attest)} bytes")
    return QuoteBody(
        signer, extra_data, clock, resets, restarts, safe == 1, firmware, attest[start:at], attest[at + 2 : end]
    )


def parse_pcr_selection(encoded: bytes) -> tuple[tuple[int, tuple[int, ...]], ...]:
    """TPML_PCR_SELECTION as (bank's TPM algorithm, indices), in the order signed.

    Raises:
        Malformed: a defect of form.
    """
    reader = Reader(encoded, "TPML_PCR_SELECTION")
    count = reader.u32()
    if count > MAX_BANKS:
        raise Malformed("TPML_PCR_SELECTION is too long", expected=f"at most {MAX_BANKS}", found=count)
    banks = []
    for _ in range(count):
        bank = reader.u16()
        bits = int.from_bytes(reader.take(reader.u8()), "little")
        banks.append((bank, tuple(index for index in range(bits.bit_length()) if bits >> index & 1)))
    reader.end()
    return tuple(banks)


class Signature(NamedTuple):
    """TPMT_SIGNATURE, parsed. RSA: `first` is the signature and `second` empty; ECDSA: `first` is r, `second` s."""

    scheme: int
    hash: alg.Hash
    first: bytes
    second: bytes

    @property
    def algorithm(self) -> str:
        """For people: `RsaSsa-Sha256`."""
        return _SIGNATURE_NAMES[self.scheme, self.hash.tpm_id]


_SIGNATURE_NAMES: Final = {
    (scheme, hash_.tpm_id): f"{alg.name_of(scheme)}-{hash_.name}"
    for scheme in alg.SIGNATURE_SCHEMES
    for hash_ in alg.SIGNATURE_HASHES.values()
}


def parse_signature(signature: bytes) -> Signature:
    """TPMT_SIGNATURE of one of the allowed schemes and hashes.

    Raises:
        AlgorithmRefused: unknown, or SHA-1, or another scheme than RSASSA, RSAPSS, ECDSA.
        Malformed: a defect of form.
    """
    size = len(signature)
    if size > MAX_SIGNATURE_BYTES:
        raise Oversized("TPMT_SIGNATURE is too long", expected=f"at most {MAX_SIGNATURE_BYTES}", found=size)
    try:
        scheme, hash_id, length = _SIGNATURE.unpack_from(signature)
        hash_ = _allowed(scheme, hash_id)
        end = 6 + length
        first, second = signature[6:end], b""
        if scheme == alg.ECDSA:
            (length,) = _SIZE.unpack_from(signature, end)
            second = signature[end + 2 : end + 2 + length]
            end += 2 + length
    except struct.error as error:
        raise Truncated("TPMT_SIGNATURE ends early", found=f"{size} bytes") from error
    if end > size:
        raise Truncated("TPMT_SIGNATURE ends early", expected=f"{end} bytes", found=f"{size} bytes")
    if end < size:
        raise TrailingBytes("TPMT_SIGNATURE is followed by more", expected=f"{end} bytes", found=f"{size} bytes")
    return Signature(scheme, hash_, first, second)


def _allowed(scheme: int, hash_id: int) -> alg.Hash:
    if scheme not in alg.SIGNATURE_SCHEMES:
        raise AlgorithmRefused(
            "this signature scheme is not accepted", expected="RsaSsa, RsaPss or Ecdsa", found=alg.name_of(scheme)
        )
    found = alg.SIGNATURE_HASHES.get(hash_id)
    if found is None:
        raise AlgorithmRefused(
            "this signature hash is not accepted", expected="Sha256 or Sha384", found=alg.name_of(hash_id)
        )
    return found
