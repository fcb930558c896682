"""What an AttestationPolicy leans on besides its own text: vendors' certificates, signed reference values.

It is looked up by whoever reads the cluster and the disk, verified, and then handed on beside the policy: the pure
rooms never look for it. Its digests enter the policy's, so a verdict names exactly what judged.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from chatelaine.model.identifiers import digest_of
from chatelaine.model.tpm_policy import Bank


class FileAllowList(Protocol):
    """Which contents of which files are good."""

    def allows(self, path: str, digest: str, *, at: int) -> bool:
        """Is `digest` (`sha256:…`) good for `path` at `at` (seconds since the epoch)? Grace sets end at a time."""
        ...

    def ended(self, *, after: int, until: int) -> bool:
        """Has a grace ended in between: is something good at `after` that is not any more at `until`?"""
        ...

    def __len__(self) -> int:
        """How many pairs of path and digest are listed."""
        ...


@dataclass(frozen=True, slots=True)
class ReferenceValues:
    """A signed bundle that was verified. What it lists adds to the policy's own good values.

    Attributes:
        name: of the series of bundles.
        version: grows with every bundle of the series; an older one than the highest seen is refused.
        digest: `sha256:` over the signed payload.
        signed_by: names of the policy's keys whose signatures verified.
        pcrs: further good values (lower-case hexadecimal) by bank and index.
        dbx_at_least: SHA-256 image digests that the forbidden-signatures database must hold.
        files: the allow-list for IMA.
    """

    name: str
    version: int
    digest: str
    signed_by: tuple[str, ...]
    pcrs: Mapping[Bank, Mapping[int, tuple[str, ...]]]
    dbx_at_least: frozenset[bytes]
    files: FileAllowList


@dataclass(frozen=True, slots=True)
class PolicyMaterial:
    """All of it, as of now.

    Attributes:
        endorsement_roots: certificates (DER) named by `tpm.endorsement.roots`, self-signed ones and intermediates.
        reference: the verified bundle that `referenceValues` names; None where it names none, or none is usable.
        missing: a sentence for each thing that the policy names and that cannot be used: absent, malformed, not
            signed by enough keys, older than one already used. Not empty: nothing may be newly trusted by the policy.
    """

    endorsement_roots: tuple[bytes, ...] = ()
    reference: ReferenceValues | None = None
    missing: tuple[str, ...] = field(default=())

    def digests(self) -> dict[str, object]:
        """What of it enters the policy's digest; empty where there is nothing.

        Certificates count as a set: their order, and the file they came in, decide nothing.
        """
        found: dict[str, object] = {}
        if self.endorsement_roots:
            found["endorsementRoots"] = sorted({digest_of(root) for root in self.endorsement_roots})
        if self.reference is not None:
            reference = self.reference
            found["referenceValues"] = {
                "name": reference.name,
                "version": reference.version,
                "digest": reference.digest,
                "signedBy": sorted(reference.signed_by),
            }
        return found


NO_MATERIAL = PolicyMaterial()
