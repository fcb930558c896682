"""A rotation of the CA as the cluster sees it: what people ask for, who has been told, what is shown of it.

Nothing of this is kept: who has been told is learnt again by telling everybody once more, which changes nothing.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from chatelaine.controller.summaries import owner_of
from chatelaine.controller.world import World
from chatelaine.kube.port import SECRETS, JsonObject, KubePort, Selection, metadata_of
from chatelaine.model.conditions import is_true
from chatelaine.model.identifiers import (
    ANNOTATION_ROTATE_CA,
    ANNOTATION_ROTATE_CA_GRACE,
    LABEL_CLAIM_NAME,
    LABEL_CLAIM_UID,
    agent_server_name,
    digest_of,
    gateway_server_name,
)
from chatelaine.model.printable import printable
from chatelaine.model.reasons import ConditionType
from chatelaine.pki.authority import MAX_REQUEST_CHARACTERS, SETTLED_SECONDS, Authority, Phase

BUNDLE_KEY: Final = "ca.crt"
MAX_SHOWN: Final = 20
_PAGE: Final = 500


@dataclass(frozen=True, slots=True)
class Everybody:
    """Who has to be told before a rotation goes on.

    Attributes:
        hosts: names of all Hsms; None while that is not known. One that cannot be reached holds a rotation up until its
            certificates have ended.
        relies: does a claim that can be used now have this Secret: namespace and name of the Secret, name and uid of
            the claim? Other Secrets are written before they can be used again.
    """

    hosts: Callable[[], Collection[str] | None]
    relies: Callable[[str, str, str, str], bool]

    @classmethod
    def of(cls, world: World) -> Everybody:
        """All that the API server has told of."""
        return cls(lambda: _hosts(world), lambda *what: _relies(world, *what))


NOBODY: Final = Everybody(tuple, lambda *_: False)


@dataclass(frozen=True, slots=True)
class Asked:
    """What people ask for by annotations. `problem` says why a request is not taken; empty: it is, or there is none."""

    request: str = ""
    grace_seconds: int = SETTLED_SECONDS
    problem: str = ""

    @classmethod
    def read(cls, config_map: JsonObject) -> Asked:
        """Out of the ConfigMap's annotations. What is not understood is no request."""
        annotations: dict[str, str] = metadata_of(config_map).get("annotations") or {}
        request = annotations.get(ANNOTATION_ROTATE_CA, "")
        grace = annotations.get(ANNOTATION_ROTATE_CA_GRACE, str(SETTLED_SECONDS))
        if len(request) > MAX_REQUEST_CHARACTERS:
            return cls(problem=f"{ANNOTATION_ROTATE_CA} is over {MAX_REQUEST_CHARACTERS} characters")
        if not (grace.isascii() and grace.isdigit() and len(grace) <= len(str(SETTLED_SECONDS))):
            return cls(problem=f"{ANNOTATION_ROTATE_CA_GRACE} is no number of seconds: {printable(grace, 32)}")
        if int(grace) > SETTLED_SECONDS:
            return cls(problem=f"{ANNOTATION_ROTATE_CA_GRACE} is over {SETTLED_SECONDS} s, the life of a certificate")
        return cls(request, int(grace))


class RotationReport(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """What the ConfigMap shows of a rotation. Times: seconds since the epoch.

    Attributes:
        phase: see `Phase`.
        since: when this phase began.
        signing: digest of the root that signs.
        request: the last request that was begun.
        told: everybody carries the bundle of this phase.
        next_at: when the next step is due; None while that depends on who has still to be told.
        waiting_for: some of those that have still to be told; `waiting_count`: how many there are.
        problem: why a request is not taken.
    """

    phase: Phase
    since: int
    signing: str
    request: str = ""
    told: bool = False
    next_at: int | None = None
    waiting_for: tuple[str, ...] = ()
    waiting_count: int = 0
    problem: str = ""

    def encode(self) -> str:
        """JSON."""
        return msgspec.json.encode(self).decode()


def report(authority: Authority, waiting: Collection[str] | None, problem: str) -> RotationReport:
    """What to show. `waiting`: who has still to be told, None where that was not looked at."""
    return RotationReport(
        phase=authority.phase,
        since=authority.changed_at,
        signing=authority.digest,
        request=authority.pace.request,
        told=authority.pace.told_at is not None,
        next_at=authority.next_at(),
        waiting_for=tuple(sorted(waiting or ()))[:MAX_SHOWN],
        waiting_count=len(waiting or ()),
        problem=problem,
    )


def stage_of(authority: Authority) -> str:
    """Names what a process must have been told: which roots to trust, and which one signs."""
    return digest_of(authority.bundle_pem.encode())


class Tellings:
    """Who has taken which stage, as far as this process has told them itself."""

    def __init__(self, kube: KubePort, everybody: Everybody) -> None:
        self._kube = kube
        self._everybody = everybody
        self._taken: dict[str, str] = {}

    def took(self, server_name: str, stage: str) -> None:
        """A process has acknowledged its leaf and bundle of that stage."""
        self._taken[server_name] = stage

    def has(self, server_name: str, stage: str) -> bool:
        """Has it?"""
        return self._taken.get(server_name) == stage

    def wanted(self, authority: Authority, server_name: str, now: int) -> bool:
        """Must this process be told, whatever is left of its leaf's life?

        Once a leaf lifetime has gone by since the last step, its renewals have told it.
        """
        stepping = authority.pace.steps > 0 and now < authority.changed_at + SETTLED_SECONDS
        return (stepping or authority.phase is not Phase.SETTLED) and not self.has(server_name, stage_of(authority))

    async def waiting(self, authority: Authority) -> frozenset[str]:
        """Names of those that have still to be told; Secrets are looked at once all processes have been.

        Raises:
            KubeError: Secrets could not be read.
        """
        hosts, stage = self._everybody.hosts(), stage_of(authority)
        if hosts is None:
            return frozenset({"the operator's own picture of the cluster"})
        names = {name for host in hosts for name in (agent_server_name(host), gateway_server_name(host))}
        self._taken = {name: taken for name, taken in self._taken.items() if name in names}
        untold = frozenset(name for name in names if not self.has(name, stage))
        return untold or await self._behind(authority.bundle_pem)

    async def _behind(self, bundle_pem: str) -> frozenset[str]:
        """Secrets with another bundle; as many of them as are shown, for there may be many."""
        found: set[str] = set()
        token = ""
        while len(found) < MAX_SHOWN:
            page = await self._kube.list_page(
                Selection(SECRETS, label_selector=LABEL_CLAIM_UID), limit=_PAGE, continue_token=token
            )
            for secret in page.items:
                if not _carries(secret, bundle_pem) and self._matters(secret) and len(found) < MAX_SHOWN:
                    found.add("Secret " + "/".join(_place(secret)))
            token = page.continue_token
            if not token:
                break
        return frozenset(found)

    def _matters(self, secret: JsonObject) -> bool:
        """Anybody may put our labels on a Secret: what counts is that a claim names it, and that it is the claim's."""
        labels: dict[str, str] = metadata_of(secret).get("labels") or {}
        return self._everybody.relies(*_place(secret), labels.get(LABEL_CLAIM_NAME, ""), owner_of(secret))


def _place(secret: JsonObject) -> tuple[str, str]:
    meta = metadata_of(secret)
    return str(meta.get("namespace", "")), str(meta.get("name", ""))


def _carries(secret: JsonObject, bundle_pem: str) -> bool:
    data: dict[str, Any] = secret.get("data") or {}
    try:
        return base64.b64decode(str(data.get(BUNDLE_KEY, "")), validate=True) == bundle_pem.encode()
    except binascii.Error:
        return False


def _hosts(world: World) -> tuple[str, ...] | None:
    complete = world.hsms.complete.is_set() and world.claims.complete.is_set()
    return tuple(name for _, name in world.hsms.names) if complete else None


def _relies(world: World, namespace: str, secret: str, claim_name: str, claim_uid: str) -> bool:
    claim = world.claims.typed(claim_name, namespace)
    if claim is None or claim.metadata.uid != claim_uid or claim.status.binding is None:
        return False
    return is_true(claim.status.conditions, ConditionType.READY) and claim.status.binding.name == secret
