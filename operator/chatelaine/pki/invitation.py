"""Invitations: how a host gets its first leaves.

A person runs `host invite` and carries the token to the host, which shows its secret once to the join endpoint. The
token names the digest of our CA's key, so the host knows whom it talks to before it says anything. The cluster keeps
only the SHA-256 of the secret.

Token text: `chat1.` and base64url (no padding) of JSON `{endpoint, ca_digest, host, secret, expires}`.
"""

from __future__ import annotations

import base64
import binascii
import enum
import hmac
from typing import Annotated, Final, Protocol, Self

import msgspec

from chatelaine.model.identifiers import agent_server_name, digest_of
from chatelaine.pki.chain import checked_server_name
from chatelaine.pki.errors import InvitationMalformed, NameRefused

INVITATION_LIFETIME_SECONDS: Final = 30 * 60
SECRET_BYTES: Final = 32
MAX_TOKEN_CHARACTERS: Final = 4096
_PREFIX: Final = "chat1."

INVITATION_SECRET_TYPE: Final = "chatelaine.dev/invitation"  # noqa: S105 - the type of a Kubernetes Secret, no secret
INVITATION_DIGEST_KEY: Final = "digest"
INVITATION_EXPIRES_KEY: Final = "expires"


def invitation_secret_name(host: str) -> str:
    """Name of the Kubernetes Secret that keeps a host's invitation."""
    return f"chatelaine-invitation-{host}"


class Invitation(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the person carries to the host.

    Attributes:
        endpoint: `host:port` of the operator's join endpoint.
        ca_digest: `sha256:` over the SubjectPublicKeyInfo of our CA.
        host: the name under which the host joins.
        secret: base64url of 32 random bytes.
        expires: seconds since the epoch.
    """

    endpoint: Annotated[str, msgspec.Meta(max_length=300, pattern=r"^(\[[0-9a-fA-F:]+\]|[A-Za-z0-9.-]+):[0-9]{1,5}$")]
    ca_digest: Annotated[str, msgspec.Meta(pattern=r"^sha256:[0-9a-f]{64}$")]
    host: Annotated[str, msgspec.Meta(min_length=1, max_length=200)]
    secret: Annotated[str, msgspec.Meta(max_length=64)]
    expires: Annotated[int, msgspec.Meta(ge=0, le=2**53)]

    def __repr__(self) -> str:
        return f"Invitation(host={self.host!r}, endpoint={self.endpoint!r}, expires={self.expires})"

    @classmethod
    def make(cls, *, endpoint: str, ca_digest: str, host: str, secret: bytes, expires: int) -> Self:
        """An invitation over 32 random bytes.

        Raises:
            InvitationMalformed: a part is not of its form.
        """
        return cls.decode(
            cls(endpoint=endpoint, ca_digest=ca_digest, host=host, secret=_b64(secret), expires=expires).encode()
        )

    def encode(self) -> str:
        """The token text. It is a secret."""
        return _PREFIX + _b64(msgspec.json.encode(self))

    @classmethod
    def decode(cls, text: str) -> Self:
        """The invitation in a token text.

        Raises:
            InvitationMalformed: it is none; the message never repeats the text.
        """
        token = text.strip()
        if len(token) > MAX_TOKEN_CHARACTERS or not token.startswith(_PREFIX):
            raise InvitationMalformed(f"an invitation begins with {_PREFIX} and is one line")
        try:
            invitation = msgspec.json.decode(_unb64(token[len(_PREFIX) :]), type=cls)
            secret = _unb64(invitation.secret)
            checked_server_name(agent_server_name(invitation.host))
        except (msgspec.MsgspecError, binascii.Error, UnicodeError, ValueError, NameRefused):
            # The cause is left out on purpose: its text may hold parts of the token.
            raise InvitationMalformed("the invitation is damaged; copy the whole line, or make a new one") from None
        if len(secret) != SECRET_BYTES:
            raise InvitationMalformed("the invitation is damaged: its secret has a wrong length")
        return invitation

    def secret_bytes(self) -> bytes:
        """The 32 bytes to show to the join endpoint."""
        return _unb64(self.secret)

    @property
    def address(self) -> tuple[str, int]:
        """Host and port of the endpoint."""
        host, _, port = self.endpoint.rpartition(":")
        return host.strip("[]"), int(port)


def secret_digest(secret: bytes) -> str:
    """What the cluster keeps of an invitation's secret."""
    return digest_of(secret)


def digests_equal(one: str, other: str) -> bool:
    """Compare without telling by time where they differ."""
    return hmac.compare_digest(one.encode(), other.encode())


class InvitationOutcome(enum.StrEnum):
    """What became of an attempt to use an invitation. Only `CONSUMED` admits, and only once."""

    CONSUMED = "Consumed"
    NOT_INVITED = "NotInvited"
    WRONG_SECRET = "WrongSecret"  # noqa: S105 - the name of an outcome, no secret
    EXPIRED = "Expired"
    ALREADY_USED = "AlreadyUsed"


class InvitationStore(Protocol):
    """Where invitations are kept. At most one stands for each host."""

    async def create(self, host: str, secret_digest: str, expires_at: int) -> None:
        """Keep an invitation; an older one of the same host is void from then on."""

    async def consume(self, host: str, secret_digest: str, now: int) -> InvitationOutcome:
        """Use up the invitation of `host`, if it is this one and not over.

        Of any number of callers, in any number of processes, exactly one gets `CONSUMED`. A wrong digest or an
        expired invitation changes nothing. A used invitation answers `ALREADY_USED` or, once it has been cleared
        away, `NOT_INVITED`. When the caller dies after `CONSUMED` the invitation stays used: a person makes a new one.
        """


def _b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _unb64(text: str) -> bytes:
    return base64.b64decode(text.encode("ascii") + b"=" * (-len(text) % 4), altchars=b"-_", validate=True)
