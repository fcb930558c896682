"""Signed reference values: an in-toto Statement (version 1) in a DSSE envelope (`dsse.py`).

`verify_bundle` checks, in this order, and reads nothing of the payload before step 3 has passed:

1. the envelope is bounded and well formed;
2. its payload type is that of in-toto statements;
3. at least `threshold` distinct keys of the policy have signed;
4. the payload is a statement whose predicate has our type, with exactly the fields below and no member twice;
5. it belongs to the series that the policy names;
6. its version is not below the highest one that was already used.

The caller owes the highest version used (`not_below`), and that it is kept across restarts.
"""

from __future__ import annotations

import contextlib
import datetime
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final

from chatelaine.evidence import strict_json
from chatelaine.evidence.dsse import MAX_ENVELOPE_BYTES, VerifyingKey, parse_envelope, verify_envelope
from chatelaine.evidence.errors import (
    PayloadTypeRefused,
    ReferencePayloadRefused,
    ReferenceRolledBack,
    SeriesMismatch,
)
from chatelaine.evidence.reference_files import CompactAllowList, GoodFile, read_files, write_files
from chatelaine.model.identifiers import canonical_json, digest_of
from chatelaine.model.material import ReferenceValues
from chatelaine.model.tpm_policy import Bank, ReferenceValuesSource

PAYLOAD_TYPE: Final = "application/vnd.in-toto+json"
STATEMENT_TYPE: Final = "https://in-toto.io/Statement/v1"
PREDICATE_TYPE: Final = "https://chatelaine.dev/reference-values/v1"

MAX_PCR_VALUES: Final = 256
MAX_DBX_ENTRIES: Final = 65536
MAX_SUBJECTS: Final = 16
HEX_CHARACTERS: Final = {Bank.SHA256: 64, Bank.SHA384: 96}

_NAME: Final = re.compile(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?", re.ASCII)
_TIME: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z", re.ASCII)
_HEX: Final = re.compile(r"[0-9a-f]+", re.ASCII)
_INDICES: Final = {str(index): index for index in range(24)}

PcrValues = Mapping[Bank, Mapping[int, tuple[str, ...]]]


@dataclass(frozen=True, slots=True)
class Predicate:
    """What a bundle says, row by row. Signed or not: only `verify_bundle` tells.

    Attributes:
        name: of the series.
        version: from 1, growing within the series.
        issued_at: RFC 3339 in UTC, whole seconds; for people.
        pcrs: good values (lower-case hexadecimal) by bank and index.
        dbx_at_least: SHA-256 image digests (hexadecimal) that the forbidden-signatures database must hold.
        files: good contents of files.
    """

    name: str
    version: int
    issued_at: str
    pcrs: PcrValues = field(default_factory=dict)
    dbx_at_least: tuple[str, ...] = ()
    files: tuple[GoodFile, ...] = ()

    def encode(self) -> bytes:
        """The statement: what is put into an envelope and signed. One predicate has one encoding."""
        predicate = {
            "name": self.name,
            "version": self.version,
            "issuedAt": self.issued_at,
            "pcrs": {
                bank.value: {str(index): sorted(values) for index, values in by_index.items()}
                for bank, by_index in self.pcrs.items()
            },
            "dbxAtLeast": sorted(self.dbx_at_least),
            "files": write_files(self.files),
        }
        subject = {"name": self.name, "digest": {"sha256": digest_of(canonical_json(predicate)).partition(":")[2]}}
        return canonical_json(
            {
                "_type": STATEMENT_TYPE,
                "subject": [subject],
                "predicateType": PREDICATE_TYPE,
                "predicate": predicate,
            }
        )


def verify_bundle(envelope: bytes, source: ReferenceValuesSource, *, not_below: int) -> ReferenceValues:
    """Verify a bundle; the steps stand at the top of this module.

    Args:
        envelope: the DSSE envelope, its pieces put together.
        source: what the policy says: keys, threshold, series.
        not_below: the highest version of this series that was ever used; 0 where none was.

    Raises:
        ReferenceValuesError: its subclass tells what failed.
    """
    found = parse_envelope(envelope)
    if found.payload_type != PAYLOAD_TYPE:
        raise PayloadTypeRefused("signed as something else", expected=PAYLOAD_TYPE, found=found.payload_type)
    keys = [VerifyingKey.parse(key.name, key.public_key) for key in source.keys]
    signed_by = verify_envelope(found, keys, source.threshold)
    predicate = read_payload(found.payload)
    check_series(predicate, source)
    if predicate.version < not_below:
        raise ReferenceRolledBack(
            "a newer bundle of this series was already used",
            expected=f"version {not_below} or above",
            found=predicate.version,
        )
    return ReferenceValues(
        name=predicate.name,
        version=predicate.version,
        digest=digest_of(found.payload),
        signed_by=signed_by,
        pcrs=predicate.pcrs,
        dbx_at_least=frozenset(map(bytes.fromhex, predicate.dbx_at_least)),
        files=CompactAllowList(predicate.files),
    )


def check_series(predicate: Predicate, source: ReferenceValuesSource) -> None:
    """A policy takes bundles of one series.

    Raises:
        SeriesMismatch: this is of another one.
    """
    if predicate.name != source.series:
        raise SeriesMismatch("the bundle is of another series", expected=source.series, found=predicate.name)


# --- 4: the statement ------------------------------------------------------------------------------------------


def read_payload(payload: bytes) -> Predicate:
    """What a statement says; verifies no signature.

    Raises:
        ReferencePayloadRefused: not JSON with one meaning, or not a statement of ours.
    """
    if len(payload) > MAX_ENVELOPE_BYTES:
        raise ReferencePayloadRefused("the payload is too long", expected=f"at most {MAX_ENVELOPE_BYTES} bytes")
    try:
        value = strict_json.loads(payload)
    except strict_json.NotStrict as error:
        raise ReferencePayloadRefused(f"the payload was not read: {error}") from error
    statement = _members(value, ("_type", "subject", "predicateType", "predicate"), "the statement")
    _equal(statement["_type"], STATEMENT_TYPE, "_type")
    _equal(statement["predicateType"], PREDICATE_TYPE, "predicateType")
    predicate = read_predicate(statement["predicate"])
    _check_subject(statement["subject"], predicate.name)
    return predicate


def read_predicate(value: object) -> Predicate:
    """The predicate alone, out of parsed JSON.

    Raises:
        ReferencePayloadRefused: other fields, or a value that is out of bounds.
    """
    names = ("name", "version", "issuedAt", "pcrs", "dbxAtLeast", "files")
    members = _members(value, names, "the predicate")
    return Predicate(
        name=_name(members["name"]),
        version=_version(members["version"]),
        issued_at=_time(members["issuedAt"]),
        pcrs=_pcrs(members["pcrs"]),
        dbx_at_least=_digests(members["dbxAtLeast"], HEX_CHARACTERS[Bank.SHA256], 0, MAX_DBX_ENTRIES, "dbxAtLeast"),
        files=read_files(members["files"]),
    )


def _check_subject(value: object, series: str) -> None:
    """in-toto wants artifacts here; ours names the series. Its digest is not read: the signatures cover everything."""
    if not isinstance(value, list) or not 0 < len(value) <= MAX_SUBJECTS:
        raise ReferencePayloadRefused("subject is not a list of allowed length", expected=f"1 to {MAX_SUBJECTS}")
    for entry in value:
        members = _members(entry, ("name", "digest"), "a subject")
        _equal(members["name"], series, "the subject's name")
        if not isinstance(members["digest"], dict) or not members["digest"]:
            raise ReferencePayloadRefused("a subject has no digest")


def _name(value: object) -> str:
    if not isinstance(value, str) or not _NAME.fullmatch(value):
        raise ReferencePayloadRefused("name is none", expected="lower-case letters, digits, - and .", found=value)
    return value


def _version(value: object) -> int:
    if type(value) is not int or value < 1:
        raise ReferencePayloadRefused("version is none", expected="an integer from 1", found=value)
    return value


def _time(value: object) -> str:
    if isinstance(value, str) and _TIME.fullmatch(value):
        with contextlib.suppress(ValueError):
            datetime.datetime.fromisoformat(value)
            return value
    raise ReferencePayloadRefused("issuedAt is no time", expected="2026-01-31T12:00:00Z", found=value)


def _pcrs(value: object) -> PcrValues:
    def of_bank(bank: Bank) -> Callable[[object], Mapping[int, tuple[str, ...]]]:
        def values(found: object) -> tuple[str, ...]:
            return _digests(found, HEX_CHARACTERS[bank], 1, MAX_PCR_VALUES, f"values of a PCR of {bank}")

        return lambda found: _mapped(found, _INDICES, values, f"PCRs of {bank}")

    banks = {bank.value: bank for bank in Bank}
    if not isinstance(value, dict) or not value.keys() <= banks.keys():
        raise ReferencePayloadRefused("pcrs names another bank", expected=sorted(banks))
    return MappingProxyType({banks[name]: of_bank(banks[name])(found) for name, found in value.items()})


def _mapped(
    value: object, keys: Mapping[str, int], read: Callable[[object], tuple[str, ...]], what: str
) -> Mapping[int, tuple[str, ...]]:
    if not isinstance(value, dict) or not value or not value.keys() <= keys.keys():
        raise ReferencePayloadRefused(f"{what} are not named by their index", expected="0 to 23")
    return MappingProxyType({keys[name]: read(found) for name, found in value.items()})


def _digests(value: object, characters: int, least: int, most: int, what: str) -> tuple[str, ...]:
    if not isinstance(value, list) or not least <= len(value) <= most:
        raise ReferencePayloadRefused(f"{what} is not a list of allowed length", expected=f"{least} to {most}")
    for digest in value:
        if not isinstance(digest, str) or len(digest) != characters or not _HEX.fullmatch(digest):
            raise ReferencePayloadRefused(
                f"{what}: not a digest", expected=f"{characters} lower-case hexadecimal digits", found=digest
            )
    if len(set(value)) != len(value):
        raise ReferencePayloadRefused(f"{what}: a digest is listed twice")
    return tuple(value)


def _members(value: object, names: Iterable[str], what: str) -> dict[str, Any]:
    wanted = frozenset(names)
    if not isinstance(value, dict) or value.keys() != wanted:
        found = sorted(value) if isinstance(value, dict) else type(value).__name__
        raise ReferencePayloadRefused(f"{what} has other members", expected=sorted(wanted), found=found)
    return value


def _equal(value: object, wanted: str, what: str) -> None:
    if value != wanted:
        raise ReferencePayloadRefused(f"{what} is another", expected=wanted, found=value)
