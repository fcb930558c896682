"""What goes wrong with keys, certificates and invitations.

PkiError
├── CsrRefused             a certificate request is malformed, of a wrong key type, or proves no possession
├── NameRefused            a server name is not one of ours
├── CertificateRefused     a certificate or chain is not what it must be; `flaw` says why
├── AuthorityMalformed     a stored CA does not fit together
├── RotationOutOfOrder     a step of a CA rotation was asked for before its time
├── KeyFileRefused         a private file is not as we leave it
│   ├── KeyFileExposed     others may read it, or it is another user's
│   └── KeyFileDamaged     it is over its bound, or does not hold what it must
├── NoLeafYet              this process has a key but no certificate yet
└── InvitationMalformed    a token text is no invitation
"""

from __future__ import annotations

import enum


class PkiError(Exception):
    """Something is wrong with a key, a certificate or an invitation."""


class CsrRefused(PkiError):
    """The certificate request is malformed, of a wrong key type, or its signature fails."""


class NameRefused(PkiError):
    """The server name is not one that our CA certifies."""


class Flaw(enum.StrEnum):
    """Why a certificate was refused."""

    MALFORMED = "Malformed"
    UNKNOWN_ISSUER = "UnknownIssuer"
    NOT_IN_TIME = "NotInTime"
    OTHER_NAME = "OtherName"
    OTHER_KEY = "OtherKey"
    NO_LEAF = "NoLeaf"


class CertificateRefused(PkiError):
    """The certificate is not what it must be."""

    def __init__(self, flaw: Flaw, detail: str) -> None:
        super().__init__(f"{flaw}: {detail}")
        self.flaw = flaw


class AuthorityMalformed(PkiError):
    """The stored CA certificate and key do not fit together, or are no CA."""


class RotationOutOfOrder(PkiError):
    """This step of the rotation is not due: some process could still trust only the other CA."""


class KeyFileRefused(PkiError):
    """A private file is not as we leave it."""


class KeyFileExposed(KeyFileRefused):
    """Other users may read the file, or it is theirs: what is in it may be known, or be of their choosing."""


class KeyFileDamaged(KeyFileRefused):
    """The file is over its bound, or does not hold the key that it must."""


class NoLeafYet(PkiError):
    """This process has a key but no certificate for it yet: let the host join first."""


class InvitationMalformed(PkiError):
    """The text is no invitation of ours, or a damaged one."""
