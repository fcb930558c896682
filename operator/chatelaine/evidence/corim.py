"""PCR digests out of a CoRIM (draft-ietf-rats-corim), for putting into reference values of our own.

1. bounded; CBOR without indefinite lengths, without a key twice, and no tag that would make a decoder do anything;
2. a signed CoRIM (COSE_Sign1, tag 18) is read only with a key that its signature verifies under, and where a key is
   given, an unsigned one is refused; the validity of signature and manifest is judged at a stated time;
3. a profile is refused: it may add conditions, and the draft wants what is not understood rejected (section 4.1.4);
4. of each CoMID (tag 506), reference-value triples give digests: those of a measurement whose key is a PCR's index or
   name (`PCR 7`), and integrity registers so named. What carries a condition that our reference values cannot express
   (an authority, a version, …) is left out, and so is everything else; all of it is named in `left_out`.

CoRIMs use integers as keys, and tags, and need not be deterministic CBOR, so `evidence/cbor.py` cannot read them.
The draft's numbers are those of its revision of 2026; they have been stable since its revision 04.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final

from cbor2 import CBORTag

from chatelaine.evidence.corim_cbor import decode, opened, validity
from chatelaine.evidence.dsse import VerifyingKey
from chatelaine.evidence.errors import CorimRefused
from chatelaine.evidence.reference_values import PcrValues
from chatelaine.evidence.tpm_types import MAX_PCRS
from chatelaine.model.printable import printable
from chatelaine.model.tpm_policy import Bank

COMID_TAG: Final = 506
MAX_LEFT_OUT: Final = 64
_MAX_SHOWN_CHARACTERS: Final = 120

# Keys of corim-map, concise-mid-tag, triples-map, measurement-map, measurement-values-map.
_CORIM_TAGS, _CORIM_DEPENDENT, _CORIM_PROFILE, _CORIM_VALIDITY = 1, 2, 3, 4
_COMID_LINKED, _COMID_TRIPLES = 3, 4
_REFERENCE_TRIPLES: Final = 0
_MKEY, _MVAL, _AUTHORIZED_BY = 0, 1, 2
_DIGESTS, _NAME, _INTEGRITY_REGISTERS = 2, 11, 14

# IANA Named Information hash algorithms, COSE algorithms, and their names.
_ALGORITHMS: Final[Mapping[object, Bank]] = {
    1: Bank.SHA256, -16: Bank.SHA256, "sha-256": Bank.SHA256, "sha256": Bank.SHA256,
    7: Bank.SHA384, -43: Bank.SHA384, "sha-384": Bank.SHA384, "sha384": Bank.SHA384,
}  # fmt: skip
_DIGEST_BYTES: Final = {Bank.SHA256: 32, Bank.SHA384: 48}
_PCR_NAME: Final = re.compile(r"(?:tpm[-_ ])?pcr[-_ ]?\[?([0-9]|1[0-9]|2[0-3])\]?", re.ASCII | re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class ImportedCorim:
    """What a CoRIM says of PCRs.

    Attributes:
        pcrs: good values by bank and index, sorted.
        environments: what the values were given for, each once; values of several are put together.
        left_out: a sentence for each thing that was not imported; where there are many, the last says how many more.
        signed_by: name of the key that its signature verified under; None: it is not signed.
    """

    pcrs: PcrValues
    environments: tuple[str, ...]
    left_out: tuple[str, ...]
    signed_by: str | None


def import_corim(data: bytes, *, at: int, signer: VerifyingKey | None = None) -> ImportedCorim:
    """Read a CoRIM; the steps stand at the top of this module.

    Args:
        data: the CoRIM.
        at: when it must be valid, seconds since the epoch.
        signer: whose signature it must carry; None: it must be unsigned.

    Raises:
        CorimRefused: it cannot be read, is not signed as it must be, is not valid, or says nothing of PCRs.
    """
    corim = opened(data, at=at, signer=signer)
    if _CORIM_PROFILE in corim:
        raise CorimRefused("it has a profile, which may mean more than is understood here", found=corim[_CORIM_PROFILE])
    validity(corim.get(_CORIM_VALIDITY), at, "the CoRIM")
    reading = _Reading()
    if _CORIM_DEPENDENT in corim:
        reading.leave_out("CoRIMs that it says it depends on")
    for tag in _list(corim.get(_CORIM_TAGS), "tags"):
        if isinstance(tag, CBORTag) and tag.tag == COMID_TAG and isinstance(tag.value, bytes):
            reading.comid(_map(decode(tag.value, "the CoMID"), "a CoMID"))
        else:
            reading.leave_out(f"a tag that is no CoMID ({tag.tag if isinstance(tag, CBORTag) else 'untagged'})")
    if not reading.values:
        raise CorimRefused("it says nothing of PCRs", found="; ".join(reading.told()) or None)
    return ImportedCorim(
        pcrs=reading.pcrs(),
        environments=tuple(reading.environments),
        left_out=reading.told(),
        signed_by=None if signer is None else signer.name,
    )


class _Reading:
    """What was found so far."""

    def __init__(self) -> None:
        self.values: dict[tuple[Bank, int], set[str]] = {}
        self.environments: dict[str, None] = {}
        self._left_out: dict[str, None] = {}

    def leave_out(self, what: str) -> None:
        self._left_out[printable(what, _MAX_SHOWN_CHARACTERS)] = None

    def told(self) -> tuple[str, ...]:
        """What was left out, bounded."""
        named, rest = list(self._left_out)[:MAX_LEFT_OUT], len(self._left_out) - MAX_LEFT_OUT
        return (*named, f"{rest} more") if rest > 0 else tuple(named)

    def pcrs(self) -> PcrValues:
        banks: dict[Bank, dict[int, tuple[str, ...]]] = {}
        for (bank, index), values in sorted(self.values.items()):
            banks.setdefault(bank, {})[index] = tuple(sorted(values))
        return MappingProxyType({bank: MappingProxyType(found) for bank, found in banks.items()})

    def comid(self, comid: Mapping[Any, Any]) -> None:
        if _COMID_LINKED in comid:
            raise CorimRefused("a CoMID replaces or supplements another one, which is not here")
        triples = _map(comid.get(_COMID_TRIPLES), "triples")
        for kind in triples:
            if kind != _REFERENCE_TRIPLES:
                self.leave_out(f"triples of kind {kind}")
        for record in _list(triples.get(_REFERENCE_TRIPLES, ()), "reference-value triples"):
            environment, measurements = _pair(record, "a reference-value triple")
            before = sum(map(len, self.values.values()))
            for measurement in _list(measurements, "measurements"):
                self.measurement(_map(measurement, "a measurement"))
            if sum(map(len, self.values.values())) > before:
                named = _environment(_map(environment, "an environment"))
                self.environments[printable(named, _MAX_SHOWN_CHARACTERS)] = None

    def measurement(self, measurement: Mapping[Any, Any]) -> None:
        key = measurement.get(_MKEY)
        values = _map(measurement.get(_MVAL), "measurement values")
        conditions = [f"value {name}" for name in values if name not in (_DIGESTS, _NAME, _INTEGRITY_REGISTERS)]
        conditions += [f"field {name}" for name in measurement if name not in (_MKEY, _MVAL, _AUTHORIZED_BY)]
        if _AUTHORIZED_BY in measurement:
            conditions.append("an authority")
        if conditions:
            self.leave_out(f"measurement {_element(key)}: it also asks for {', '.join(conditions)}")
            return
        if _DIGESTS in values:
            self.register(key, values[_DIGESTS])
        for register, digests in _map(values.get(_INTEGRITY_REGISTERS, {}), "integrity registers").items():
            self.register(register, digests)

    def register(self, key: object, digests: object) -> None:
        index = _pcr_index(key)
        if index is None:
            self.leave_out(f"measurement {_element(key)}: it is no PCR")
            return
        for algorithm, digest in _digests(digests):
            bank = _ALGORITHMS.get(algorithm)
            if bank is None:
                self.leave_out(f"PCR {index}: a digest of algorithm {algorithm}")
            elif len(digest) != _DIGEST_BYTES[bank]:
                raise CorimRefused(f"a digest of PCR {index} has another length than {bank} has", found=digest)
            else:
                self.values.setdefault((bank, index), set()).add(digest.hex())


def _digests(value: object) -> Iterator[tuple[int | str, bytes]]:
    """[[algorithm, digest], …], each algorithm once: more than one value of one could be read as *any* or as *all*."""
    seen = set()
    for entry in _list(value, "digests"):
        algorithm, digest = _pair(entry, "a digest")
        if type(algorithm) not in (int, str) or not isinstance(digest, bytes):
            raise CorimRefused("a digest is not [algorithm, bytes]", found=entry)
        same = _ALGORITHMS.get(algorithm, algorithm)
        if same in seen:
            raise CorimRefused("one measurement has two digests of one algorithm", found=algorithm)
        seen.add(same)
        yield algorithm, digest


def _pcr_index(key: object) -> int | None:
    if type(key) is int:
        return key if 0 <= key < MAX_PCRS else None
    named = _PCR_NAME.fullmatch(key) if isinstance(key, str) else None
    return None if named is None else int(named[1])


def _environment(environment: Mapping[Any, Any]) -> str:
    """Vendor, model and the rest of its class, for people."""
    described = environment.get(0)
    parts = [f"{value}" for key, value in sorted(described.items(), key=str)] if isinstance(described, Mapping) else []
    return ", ".join(parts) or "an instance or group"


def _element(key: object) -> str:
    return "without a key" if key is None else f"{key.value!r}" if isinstance(key, CBORTag) else f"{key!r}"


def _map(value: object, what: str) -> Mapping[Any, Any]:
    if not isinstance(value, Mapping):
        raise CorimRefused(f"{what}: not a map", found=type(value).__name__)
    return value


def _list(value: object, what: str) -> list[Any] | tuple[Any, ...]:
    if not isinstance(value, list | tuple):
        raise CorimRefused(f"{what}: not an array", found=type(value).__name__)
    return value


def _pair(value: object, what: str) -> tuple[Any, Any]:
    found = _list(value, what)
    if len(found) != 2:
        raise CorimRefused(f"{what} has not two parts", found=len(found))
    return found[0], found[1]
