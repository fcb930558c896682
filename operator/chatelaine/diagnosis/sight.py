"""What somebody could read of a cluster with their own rights. What they could not is said, never guessed."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeVar

from chatelaine.model.claim import HsmClaim
from chatelaine.model.hsm import Hsm
from chatelaine.model.policy import AttestationPolicy

T = TypeVar("T")
Kind = TypeVar("Kind", HsmClaim, Hsm, AttestationPolicy)


class Why(enum.StrEnum):
    """Why something is not known."""

    FORBIDDEN = "Forbidden"
    NOT_INSTALLED = "NotInstalled"
    UNAVAILABLE = "Unavailable"
    STRANGE = "Strange"


@dataclass(frozen=True, slots=True)
class Unread:
    """Something that could not be read. `what` as in "list Hsms", `detail` is the server's sentence."""

    what: str
    why: Why
    detail: str = ""

    def __str__(self) -> str:
        says = {
            Why.FORBIDDEN: "you may not",
            Why.NOT_INSTALLED: "this kind is not installed in the cluster, so nobody can",
            Why.UNAVAILABLE: "the API server did not answer when asked to",
            Why.STRANGE: "the answer was not understood when asked to",
        }[self.why]
        return f"{says} {self.what}" + (f" ({self.detail})" if self.detail else "")


@dataclass(frozen=True, slots=True)
class LeaseSight:
    """The Lease by which operators elect their leader. Times are seconds since the epoch; 0: not written."""

    holder: str
    renewed_at: float
    term: int


@dataclass(frozen=True, slots=True)
class Sight:
    """Everything that was read about one question.

    `namespaces`: labels by name. `lease`: None where there is none. `skew_seconds`: how far our clock is ahead of the
    API server's; None where it did not say.
    """

    now: float
    claims: tuple[HsmClaim, ...] | Unread = ()
    hsms: tuple[Hsm, ...] | Unread = ()
    policies: tuple[AttestationPolicy, ...] | Unread = ()
    namespaces: Mapping[str, Mapping[str, str] | Unread] = field(default_factory=dict)
    lease: LeaseSight | Unread | None = None
    skew_seconds: float | None = None

    def hsm(self, name: str) -> Hsm | Unread | None:
        """One of them by name."""
        return _named(self.hsms, name)

    def policy(self, name: str) -> AttestationPolicy | Unread | None:
        """One of them by name."""
        return _named(self.policies, name)


def known(found: tuple[T, ...] | Unread) -> tuple[T, ...]:
    """What was read; nothing where nothing could be."""
    return () if isinstance(found, Unread) else found


def _named(found: tuple[Kind, ...] | Unread, name: str) -> Kind | Unread | None:
    if isinstance(found, Unread):
        return found
    return next((item for item in found if item.metadata.name == name), None)
