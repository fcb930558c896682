"""What a policy leans on: which ConfigMaps and files it names, and what their contents come to. No I/O here.

Whatever is absent or refused becomes a sentence in `PolicyMaterial.missing`: a policy that lacks a part of what it
names is not judged by the rest of it.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from cryptography.hazmat.primitives.serialization import Encoding

from chatelaine.evidence.certificates import load_certificates
from chatelaine.evidence.endorsement import roots_among
from chatelaine.evidence.errors import EvidenceError
from chatelaine.evidence.reference_values import verify_bundle
from chatelaine.kube.port import JsonObject
from chatelaine.model.material import NO_MATERIAL, PolicyMaterial, ReferenceValues
from chatelaine.model.policy import AttestationPolicySpec, ReferenceValuesStatus
from chatelaine.model.tpm_policy import ConfigMapKeyRef, EndorsementRoot, ReferenceValuesSource

MAX_SENTENCE_CHARACTERS: Final = 400
NOT_LOOKED_UP: Final = PolicyMaterial(missing=("what the policy names has not been looked up yet",))


class Named(NamedTuple):
    """What a policy names besides its own rules. Two policies that name the same lean on the same."""

    roots: Sequence[EndorsementRoot]
    source: ReferenceValuesSource | None

    @property
    def config_maps(self) -> frozenset[str]:
        """Names of ConfigMaps in the operator's namespace."""
        pieces = (self.source.config_map_refs if self.source is not None else None) or ()
        return frozenset([*(root.config_map_ref.name for root in self.roots), *(piece.name for piece in pieces)])

    @property
    def file(self) -> str | None:
        """Name of a file in the operator's folder of reference values."""
        return self.source.file if self.source is not None else None

    def __bool__(self) -> bool:
        """Is there anything at all?"""
        return bool(self.roots) or self.source is not None


def named_by(spec: AttestationPolicySpec) -> Named:
    """What `spec` names."""
    endorsement = spec.tpm.endorsement
    return Named((endorsement.roots if endorsement is not None else None) or (), spec.reference_values)


@dataclass(frozen=True, slots=True)
class Contents:
    """What was found under those names: the bytes, or a sentence that says why there are none.

    Attributes:
        config_maps: by name, the entries of each.
        file: of `Named.file`.
    """

    config_maps: Mapping[str, Mapping[str, bytes] | str]
    file: bytes | str = ""

    def entry(self, ref: ConfigMapKeyRef) -> bytes:
        """One entry of a ConfigMap.

        Raises:
            Unusable: there is none.
        """
        found = self.config_maps.get(ref.name, "was not looked up")
        if isinstance(found, str):
            raise Unusable(f"ConfigMap {ref.name} {found}")
        if ref.key not in found:
            raise Unusable(f"ConfigMap {ref.name} has no key {ref.key}")
        return found[ref.key]


class Unusable(Exception):
    """Something that a policy names cannot be used; the text says why."""


def entries_of(config_map: JsonObject) -> dict[str, bytes]:
    """`data` and `binaryData` of a ConfigMap; what is not base64 in the latter is left out."""
    entries = {str(key): str(value).encode() for key, value in _items(config_map.get("data"))}
    for key, value in _items(config_map.get("binaryData")):
        try:
            entries[str(key)] = base64.b64decode(str(value), validate=True)
        except binascii.Error:
            continue
    return entries


def _items(value: Any) -> Sequence[tuple[Any, Any]]:
    return list(value.items()) if isinstance(value, dict) else []


class Looked(NamedTuple):
    """`envelope`: the signed bytes behind `material.reference`."""

    material: PolicyMaterial
    envelope: bytes | None


def look(named: Named, contents: Contents, used: ReferenceValuesStatus | None) -> Looked:
    """All that `named` comes to.

    Args:
        named: what the policy names.
        contents: what lies there.
        used: the newest signed reference values that this policy ever used.
    """
    if not named:
        return Looked(NO_MATERIAL, None)
    missing: list[str] = []
    roots = _roots(named.roots, contents, missing)
    reference, envelope = _reference(named.source, contents, used, missing)
    return Looked(PolicyMaterial(roots, reference, tuple(missing)), envelope)


def _roots(named: Sequence[EndorsementRoot], contents: Contents, missing: list[str]) -> tuple[bytes, ...]:
    found: dict[bytes, None] = {}
    before = len(missing)
    for number, root in enumerate(named):
        try:
            certificates = load_certificates(contents.entry(root.config_map_ref))
        except (Unusable, EvidenceError) as error:
            missing.append(_sentence(f"tpm.endorsement.roots[{number}]", error))
        else:
            found.update(dict.fromkeys(one.public_bytes(Encoding.DER) for one in certificates))
    if named and len(missing) == before:
        try:
            if not roots_among(tuple(found)):
                missing.append("tpm.endorsement.roots: none of the certificates is self-signed, so no chain can end")
        except EvidenceError as error:
            missing.append(_sentence("tpm.endorsement.roots", error))
    return tuple(found) if len(missing) == before else ()


def _reference(
    source: ReferenceValuesSource | None, contents: Contents, used: ReferenceValuesStatus | None, missing: list[str]
) -> tuple[ReferenceValues | None, bytes | None]:
    if source is None:
        return None, None
    floor = used if used is not None and used.name == source.series else None
    try:
        envelope = _envelope(source, contents)
        found = verify_bundle(envelope, source, not_below=floor.version if floor is not None else 0)
        _check_one_content(found, floor)
    except (Unusable, EvidenceError) as error:
        missing.append(_sentence("referenceValues", error))
        return None, None
    return found, envelope


def _check_one_content(found: ReferenceValues, used: ReferenceValuesStatus | None) -> None:
    """A version is one content: whoever signs another one under its number hides a change."""
    if used is not None and found.version == used.version and found.digest != used.digest:
        raise Unusable(f"version {found.version} of {found.name} was already used with another content")


def _envelope(source: ReferenceValuesSource, contents: Contents) -> bytes:
    """The pieces in the order that the policy gives them."""
    if source.file is not None:
        if isinstance(contents.file, str):
            raise Unusable(f"file {source.file} {contents.file}")
        return contents.file
    return b"".join(contents.entry(piece) for piece in source.config_map_refs or ())


def _sentence(where: str, error: Exception) -> str:
    return f"{where}: {error}"[:MAX_SENTENCE_CHARACTERS]
