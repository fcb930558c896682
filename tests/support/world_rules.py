"""Rules of the in-memory world: what must hold after every write, and what once everything has come to rest."""

from __future__ import annotations

from typing import TYPE_CHECKING

from chatelaine.model.claim import HsmClaim
from chatelaine.model.hsm import Hsm, Mode
from chatelaine.reconcile import plan as p
from chatelaine.reconcile.judged import is_sticky

if TYPE_CHECKING:
    from support.world import World


class Broken(AssertionError):
    """A rule that must hold whatever happens does not."""


class Refused(Exception):
    """A guarded write was refused: another uid, another resourceVersion, no room. The plan ends here."""


def check(world: World) -> None:
    """Never over capacity, never two claims beside an exclusive one."""
    for item in world.hsms.values():
        seats = item.status.allocations
        limit = item.spec.capacity.claims if item.spec.capacity is not None else 100
        if len(seats) > limit:
            raise Broken(f"{item.metadata.name} is over capacity")
        if len(seats) > 1 and any(seat.mode is Mode.EXCLUSIVE for seat in seats):
            raise Broken(f"{item.metadata.name}: somebody sits beside an exclusive claim")
        if len({seat.claim_uid for seat in seats}) != len(seats):
            raise Broken("a claim has two seats on one Hsm")


def check_settled(world: World) -> None:
    """What must hold once everything has come to rest: an HSM that is not trusted serves nobody, by no way."""
    for (namespace, name), claim in world.claims.items():
        said = claim.status.allocation
        ingress = [key for key, policy in world.network.items() if _is_ingress(policy, claim)]
        standing = world.served(namespace, name)
        if ingress and not standing.serves:
            raise Broken(f"{name}: the network path is open although {standing.reason}")
        item = world.hsms.get(said.hsm.name) if said is not None else None
        if standing.serves and (item is None or is_sticky(item.status.attestation)):
            raise Broken(f"{name} is served by an Untrusted HSM")
        seated = [i.metadata.name for i in world.hsms.values() if _seated(i, claim.metadata.uid)]
        if len(seated) > 1:
            raise Broken(f"{name} holds seats on {seated}")


def _is_ingress(policy: p.ApplyNetworkPolicy, claim: HsmClaim) -> bool:
    labels = policy.manifest["metadata"]["labels"]
    own = labels.get("chatelaine.dev/claim-uid") == claim.metadata.uid
    return own and "Ingress" in policy.manifest["spec"]["policyTypes"]


def _seated(item: Hsm, uid: str) -> bool:
    return any(seat.claim_uid == uid for seat in item.status.allocations)
