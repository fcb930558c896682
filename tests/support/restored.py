"""The in-memory world after its control plane was lost: every object is made anew from its manifest, without status.

Hosts and their tokens live on. The new objects have other uids, and nobody remembers anything.
"""

from __future__ import annotations

from chatelaine.model.claim import HsmClaim
from chatelaine.model.hsm import Hsm
from chatelaine.model.policy import AttestationPolicy
from chatelaine.reconcile.adoption import adoptions_of
from support.world import World
from support.world_objects import readmit, uid_of, verdict


def lose_the_control_plane(world: World, *, backed_up: bool = True) -> None:
    """`backed_up`: the manifests are those of a backup, which says whose keys are where."""
    hsms, claims, policies = list(world.hsms.values()), list(world.claims.values()), list(world.policies.values())
    promised = {hsm.metadata.name: adoptions_of(hsm, claims) for hsm in hsms}
    world.network.clear()
    world.secrets.clear()
    for hsm in hsms:
        spec = hsm.spec.model_copy(update={"adoptions": promised[hsm.metadata.name] or None}) if backed_up else hsm.spec
        world.hsms[hsm.metadata.name] = Hsm.model_validate({"metadata": _anew(world, hsm), "spec": spec.dump()})
    for claim in claims:
        made = HsmClaim.model_validate({"metadata": _anew(world, claim), "spec": claim.spec.dump()})
        world.claims[claim.metadata.namespace or "", claim.metadata.name] = made
    for policy in policies:
        anew = AttestationPolicy.model_validate({"metadata": _anew(world, policy), "spec": policy.spec.dump()})
        world.policies[policy.metadata.name] = anew.with_material(policy.material)
    world.restart()


def readmit_all(world: World) -> None:
    """A person has looked at every host that waits."""
    for name in sorted(world.hsms):
        if verdict(world, name)[1] == "AwaitingReadmission":
            readmit(world, name)


def labels(world: World) -> dict[str, set[str]]:
    """Labels of claims' keys in each token."""
    return {name: {label for label in host.labels if "/service/" not in label} for name, host in world.hosts.items()}


def _anew(world: World, item: Hsm | HsmClaim | AttestationPolicy) -> dict[str, object]:
    world.version += 1
    kept = {"finalizers": [], "uid": uid_of(), "generation": 1, "resource_version": str(world.version)}
    return item.metadata.model_copy(update={**kept, "annotations": {}}).dump()
