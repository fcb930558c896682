"""What an AttestationPolicy asks of a host's TPM: who made it, its PCRs, what booted, what ran."""

from __future__ import annotations

import enum
from typing import Annotated, Final

from pydantic import ConfigDict, Field, StringConstraints

from chatelaine.model.common import (
    Model,
    Name,
    Sha256Digest,
    Text,
    atomic_list,
    cel,
    entries,
    map_list,
    set_list,
    validations,
)

MAX_AUTHORITIES: Final = 32
MAX_LISTED_DBX_ENTRIES: Final = 512
MAX_ARGUMENT_CHARACTERS: Final = 255
MAX_ALLOWED_FILES: Final = 64
MAX_DIGESTS_OF_A_FILE: Final = 16
MAX_PATH_CHARACTERS: Final = 1024
MAX_PEM_CHARACTERS: Final = 2048

HexDigest = Annotated[str, StringConstraints(max_length=96, pattern=r"^([0-9a-f]{64}|[0-9a-f]{96})$")]
ConfigMapKey = Annotated[str, StringConstraints(min_length=1, max_length=253, pattern=r"^[-._a-zA-Z0-9]+$")]
ArgumentGlob = Annotated[str, StringConstraints(min_length=1, max_length=MAX_ARGUMENT_CHARACTERS, pattern=r"^[!-~]+$")]
FilePath = Annotated[str, StringConstraints(min_length=1, max_length=MAX_PATH_CHARACTERS)]
ReferenceName = Annotated[str, StringConstraints(min_length=1, max_length=253)]
FileDigest = Annotated[
    str, StringConstraints(max_length=135, pattern=r"^(sha256:[0-9a-f]{64}|sha384:[0-9a-f]{96}|sha512:[0-9a-f]{128})$")
]
PublicKeyPem = Annotated[
    str,
    StringConstraints(max_length=MAX_PEM_CHARACTERS, pattern=r"^-----BEGIN PUBLIC KEY-----\n[A-Za-z0-9+/=\n]+-----END"),
]


class Bank(enum.StrEnum):
    """PCR banks that a policy may name. SHA-1 is refused everywhere."""

    SHA256 = "Sha256"
    SHA384 = "Sha384"


class ConfigMapKeyRef(Model):
    """One entry of a ConfigMap in the operator's namespace, never in another."""

    name: Annotated[Name, Field(description="Name of the ConfigMap in the operator's namespace.")]
    key: Annotated[ConfigMapKey, Field(description="Key of its data or binaryData.")]


# --- endorsement ----------------------------------------------------------------------------------------------


class ListedEndorsement(Model):
    """A TPM named by its endorsement key."""

    ek_digest: Annotated[
        Sha256Digest, Field(description="SHA-256 of the endorsement key's SubjectPublicKeyInfo (DER).")
    ]
    note: Annotated[Text | None, Field(description="Why this TPM is listed.")] = None


class EndorsementRoot(Model):
    """Certificates of a TPM vendor: self-signed ones are roots, others may help as intermediates."""

    config_map_ref: Annotated[ConfigMapKeyRef, Field(description="PEM or DER certificates.")]


class Endorsement(Model):
    """Which TPMs may enrol at all: those listed, and those whose EK certificate chains to one of the roots.

    That a vendor made a TPM admits nobody: `Hsm.spec.identity` names the one that a person approved.
    """

    listed: Annotated[
        list[ListedEndorsement] | None,
        entries(256, "TPMs named one by one.", map_list("ekDigest")),
    ] = None
    roots: Annotated[
        list[EndorsementRoot] | None,
        entries(16, "Vendors' certificates.", atomic_list()),
    ] = None


# --- PCRs -----------------------------------------------------------------------------------------------------


class PcrValue(Model):
    """One PCR and the values that are good."""

    index: Annotated[int, Field(ge=0, le=23, description="PCR index.")]
    any_of: Annotated[
        list[HexDigest],
        entries(32, "Good values, lower-case hexadecimal.", set_list()),
    ]


class Pcrs(Model):
    """PCR values of one bank."""

    bank: Annotated[Bank, Field(description="The bank that is quoted.")]
    values: Annotated[
        list[PcrValue],
        entries(24, "Every PCR named here must be quoted.", map_list("index")),
    ]


# --- boot event log -------------------------------------------------------------------------------------------


class Replay(enum.StrEnum):
    """`Required`: the log must replay to the quoted PCRs. There is no other way to use a log."""

    REQUIRED = "Required"


class SecureBoot(enum.StrEnum):
    """`Enabled`: UEFI Secure Boot was on, by the variable that the firmware measured."""

    ENABLED = "Enabled"


class OptionRoms(enum.StrEnum):
    """`Refuse`: nothing but separators was measured into PCR 2, where option ROMs go."""

    REFUSE = "Refuse"


class AuthorityRules(Model):
    """Which Secure Boot authorities verified what booted. Each is named by the SHA-256 of its certificate (DER)."""

    required: Annotated[
        list[Sha256Digest] | None,
        entries(
            MAX_AUTHORITIES,
            "Authorities of which each must have verified something. Software can add some after the boot:"
            " give `allowed` as well.",
            set_list(),
        ),
    ] = None
    allowed: Annotated[
        list[Sha256Digest] | None,
        entries(MAX_AUTHORITIES, "If present: no other authority may have verified anything.", set_list()),
    ] = None
    forbidden: Annotated[
        list[Sha256Digest] | None,
        entries(MAX_AUTHORITIES, "Authorities that must not have verified anything.", set_list()),
    ] = None


class KernelCommandLine(Model):
    """Globs (`*`, `?`) over single arguments of the measured kernel command line. A later argument may take back a
    required one (`lockdown=none`): forbid what would.
    """

    required: Annotated[
        list[ArgumentGlob] | None,
        entries(64, "Each must match an argument of every measured command line.", set_list()),
    ] = None
    forbidden: Annotated[
        list[ArgumentGlob] | None,
        entries(64, "None may match any argument.", set_list()),
    ] = None


class EventLogRules(Model):
    """What the boot event log must show. Only data whose digest was checked is looked at; event types are not."""

    replay: Annotated[Replay, Field(description="The log must replay to the quoted PCRs.")]
    secure_boot: Annotated[SecureBoot | None, Field(description="Enabled: Secure Boot must have been on.")] = None
    authorities: Annotated[
        AuthorityRules | None, Field(description="Who verified what booted; refused where Secure Boot was off.")
    ] = None
    dbx_at_least: Annotated[
        list[HexDigest] | None,
        entries(
            MAX_LISTED_DBX_ENTRIES,
            "Image digests (SHA-256) that the forbidden-signatures database must hold; larger sets come"
            " in the signed reference values.",
            set_list(),
        ),
    ] = None
    option_roms: Annotated[OptionRoms | None, Field(description="Refuse: no option ROM was measured.")] = None
    forbidden_images: Annotated[
        list[HexDigest] | None,
        entries(256, "Digests that no event of the log may carry.", set_list()),
    ] = None
    kernel_command_line: Annotated[
        KernelCommandLine | None,
        Field(
            description="What the kernel was told, as the boot loader measured it. Which boot loader that was, PCR 4"
            " shows: give its good values as well."
        ),
    ] = None


# --- runtime integrity (IMA) ----------------------------------------------------------------------------------


class Violations(enum.StrEnum):
    """IMA violations (a file open for writing while it was measured): `Refuse` them, or only `Record` their number."""

    REFUSE = "Refuse"
    RECORD = "Record"


class AllowedFile(Model):
    """A file and the contents that are good."""

    path: Annotated[FilePath, Field(description="Path as IMA measured it, no pattern.")]
    digests: Annotated[
        list[FileDigest],
        entries(MAX_DIGESTS_OF_A_FILE, "Good contents.", set_list()),
    ]


class ImaRules(Model):
    """What the runtime integrity measurement list must show. Longer lists come in the signed reference values."""

    allow: Annotated[
        list[AllowedFile] | None,
        entries(MAX_ALLOWED_FILES, "Files named one by one.", map_list("path")),
    ] = None
    unjudged_paths: Annotated[
        list[FilePath] | None,
        entries(
            64,
            "Globs of paths whose content is not judged (logs, caches). Absent: every path is. `*` and `?`"
            " stay within a folder; `**` as a whole part of the path stands for any folders. What a file does that runs"
            " from such a path is not judged either.",
            set_list(),
        ),
    ] = None
    signing_keys: Annotated[
        list[PublicKeyPem] | None,
        entries(16, "Public keys (PEM) whose IMA file signatures are as good as a listed digest.", atomic_list()),
    ] = None
    violations: Annotated[Violations | None, Field(description="Refuse (when absent) or Record.")] = None


class TpmRules(Model):
    """What the host's TPM must show."""

    endorsement: Annotated[
        Endorsement | None,
        Field(description="Which TPMs may enrol; absent: the approved identity of the Hsm alone decides."),
    ] = None
    pcrs: Annotated[Pcrs, Field(description="Expected PCR values.")]
    event_log: Annotated[EventLogRules | None, Field(description="What booted.")] = None
    ima: Annotated[ImaRules | None, Field(description="What ran.")] = None


# --- signed reference values ----------------------------------------------------------------------------------


class ReferenceKey(Model):
    """A key that may sign reference values."""

    name: Annotated[Name, Field(description="Name for people; shown in the status.")]
    public_key: Annotated[PublicKeyPem, Field(description="ECDSA P-256 or Ed25519 public key, PEM.")]


class ReferenceValuesSource(Model):
    """Where the signed bundle (a DSSE envelope) lies, and who must have signed it."""

    model_config = ConfigDict(
        json_schema_extra=validations(
            cel("has(self.configMapRefs) != has(self.file)", "give exactly one of configMapRefs and file"),
            cel("self.threshold <= self.keys.size()", "threshold is above the number of keys"),
        )
    )
    series: Annotated[
        Name,
        Field(
            description="Name of the series of bundles; a bundle that carries another name is refused, so versions are"
            " counted within one series."
        ),
    ]
    config_map_refs: Annotated[
        list[ConfigMapKeyRef] | None,
        entries(16, "Pieces of the envelope, in order; one where it fits a ConfigMap.", atomic_list()),
    ] = None
    file: Annotated[
        ConfigMapKey | None, Field(description="Name of a file in the operator's folder of reference values.")
    ] = None
    keys: Annotated[
        list[ReferenceKey],
        entries(16, "Keys that may sign.", map_list("name")),
    ]
    threshold: Annotated[int, Field(ge=1, le=16, description="How many of the keys must have signed.")]
