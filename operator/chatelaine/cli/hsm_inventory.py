"""What stands on a token as the operator knows it: whose keys, kept for whom, and what holds up its end. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from chatelaine.model.claim import Failover, HsmClaim, ReclaimPolicy
from chatelaine.model.conditions import find
from chatelaine.model.hsm import Cordon, Hsm
from chatelaine.model.identifiers import key_label
from chatelaine.model.keys import KeyState
from chatelaine.model.printable import printable
from chatelaine.model.reasons import ConditionType

NOBODYS: Final = "belongs to no claim"
"""How `appraisal.rules.InventoryRule` says it."""


@dataclass(frozen=True, slots=True)
class OwnedKey:
    """One key version in the token, or an intent to make it.

    Attributes:
        label: `CKA_LABEL` of both halves.
        owner: `namespace/name` of the claim that has it, or had it.
        standing: `claim`, `retained`, or `adopted` (retained, and taken over by a claim).
        state: SP 800-57 state, as last written.
        uri: RFC 7512; empty where no claim has it in its status.
    """

    label: str
    owner: str
    standing: str
    state: str
    uri: str = ""

    def as_dict(self) -> dict[str, str]:
        """Plain JSON value."""
        return {
            "label": self.label, "owner": self.owner, "standing": self.standing, "state": self.state, "uri": self.uri,
        }  # fmt: skip


@dataclass(frozen=True, slots=True)
class Seat:
    """A claim with a place. `then`: the command with which its owner gives the place up; its keys are new ones then."""

    namespace: str
    name: str
    gone: bool
    rebinds: bool
    destroys: bool

    @property
    def shown(self) -> str:
        """`namespace/name`."""
        return f"{self.namespace}/{self.name}"

    @property
    def then(self) -> str:
        """What its owners do."""
        if self.gone:
            return "nothing: the claim is gone, the operator gives its place back once its keys are on record"
        keys = "its keys are DESTROYED (reclaimPolicy: Destroy)" if self.destroys else "its keys stay here, retained"
        return f"kubectl --namespace {self.namespace} delete hsmclaim {self.name}, then apply it again; {keys}"

    def as_dict(self) -> dict[str, object]:
        """Plain JSON value."""
        return {
            "namespace": self.namespace, "name": self.name, "gone": self.gone,
            "failover": (Failover.REBIND if self.rebinds else Failover.HOLD).value, "then": self.then,
        }  # fmt: skip


@dataclass(frozen=True, slots=True)
class Inventory:
    """Of one Hsm. `unaccounted`: what the last refusal said of keys that are nobody's; empty: nothing was said."""

    hsm: str
    cordoned: bool
    seats: tuple[Seat, ...]
    keys: tuple[OwnedKey, ...]
    unaccounted: str

    @property
    def retained(self) -> tuple[str, ...]:
        """Labels of keys that no claim has in its status any more."""
        held = {key.label for key in self.keys if key.standing == "claim"}
        return tuple(key.label for key in self.keys if key.standing != "claim" and key.label not in held)

    def as_dict(self) -> dict[str, object]:
        """Plain JSON value."""
        return {
            "hsm": self.hsm, "cordoned": self.cordoned, "seats": [seat.as_dict() for seat in self.seats],
            "keys": [key.as_dict() for key in self.keys], "unaccounted": self.unaccounted,
        }  # fmt: skip


def inventory(hsm: Hsm, claims: Sequence[HsmClaim]) -> Inventory:
    """What the statuses say together."""
    by_uid = {claim.metadata.uid: claim for claim in claims}
    seats = tuple(
        _seat(seat.namespace, seat.name, by_uid.get(seat.claim_uid))
        for seat in sorted(hsm.status.allocations, key=lambda one: (one.namespace, one.name))
    )
    keys = sorted([*_of_claims(hsm, claims), *_retained(hsm)], key=lambda key: (key.owner, key.label, key.standing))
    attested = find(hsm.status.conditions, ConditionType.ATTESTED.value)
    refused = attested is not None and attested.status != "True" and NOBODYS in attested.message
    said = printable(attested.message) if attested is not None and refused else ""
    return Inventory(hsm.metadata.name, hsm.spec.cordoned is Cordon.ENABLED, seats, tuple(keys), said)


def lines(found: Inventory) -> Iterable[str]:
    """For people."""
    yield f"Hsm {found.hsm}{' (cordoned)' if found.cordoned else ''}: {len(found.seats)} claims have a place"
    for seat in found.seats:
        yield f"  {seat.shown}{' (the claim is gone)' if seat.gone else ''}"
    yield f"{len(found.keys)} key versions are on record" if found.keys else "no key version is on record"
    for key in found.keys:
        yield f"  {key.label}  {key.standing} {key.state}  {key.owner}"
    if found.unaccounted:
        yield f"Of keys that belong to nobody the last evidence said: {found.unaccounted}"


def _seat(namespace: str, name: str, claim: HsmClaim | None) -> Seat:
    if claim is None:
        return Seat(namespace, name, gone=True, rebinds=False, destroys=False)
    spec = claim.spec
    return Seat(
        namespace, name, gone=False, rebinds=spec.failover is Failover.REBIND,
        destroys=spec.reclaim_policy is ReclaimPolicy.DESTROY,
    )  # fmt: skip


def _of_claims(hsm: Hsm, claims: Iterable[HsmClaim]) -> Iterable[OwnedKey]:
    for claim in claims:
        meta = claim.metadata
        for key in claim.status.keys:
            for version in key.versions:
                if version.hsm.uid == hsm.metadata.uid and version.state is not KeyState.DESTROYED:
                    yield OwnedKey(
                        version.label(meta.uid, key.name), f"{meta.namespace}/{meta.name}", "claim",
                        version.state.value, version.pkcs11_uri or "",
                    )  # fmt: skip


def _retained(hsm: Hsm) -> Iterable[OwnedKey]:
    for kept in hsm.status.retained:
        standing = "retained" if kept.adopted_by is None else "adopted"
        for key in kept.keys:
            label = key_label(kept.claim_uid, key.name, key.version)
            yield OwnedKey(label, f"{kept.namespace}/{kept.name}", standing, key.state.value)
