"""Objects for the in-memory world, and the common stage: policies, enrolled hosts, namespaces."""

from __future__ import annotations

import itertools
import uuid
from typing import Any

from chatelaine.model.claim import HsmClaim, KeyVersionStatus
from chatelaine.model.conditions import find, timestamp
from chatelaine.model.hsm import Hsm
from chatelaine.model.identifiers import ANNOTATION_READMIT
from chatelaine.model.material import NO_MATERIAL, PolicyMaterial
from chatelaine.model.policy import AttestationPolicy
from chatelaine.reconcile.claim_snapshot import NamespaceFacts
from support.world import World
from support.world_hosts import BAD_PCR, GOOD_PCR, WorldHost

_numbers = itertools.count(1)
ZONE = {"chatelaine.dev/zone": "eu-1"}


def uid_of() -> str:
    """A uid that no other object has."""
    return str(uuid.uuid5(uuid.NAMESPACE_OID, str(next(_numbers))))


def policy_spec(**changes: Any) -> dict[str, Any]:
    """PCR 0 and 7 as all hosts have them, every key accounted for, and whoever lives in `payments` may bind."""
    spec: dict[str, Any] = {
        "freshness": {"maxAgeSeconds": 30},
        "tpm": {"pcrs": {"bank": "Sha256", "values": [{"index": i, "anyOf": [GOOD_PCR]} for i in (0, 7)]}},
        "hsm": {
            "inventory": "Accounted",
            "compliance": [{"model": "softhsm", "firmware": "2.6", "holds": ["Fips140_3Level3", "CommonCriteria"]}],
        },
        "release": {
            "anyOf": [
                {"namespaces": {"matchLabels": {"team": "payments"}}, "maxSensitivity": "Confidential", "maxClaims": 8}
            ]
        },
    }
    return {**spec, **changes}


def put_policy(
    world: World, name: str = "baseline", *, material: PolicyMaterial = NO_MATERIAL, **changes: Any
) -> AttestationPolicy:
    """Create a policy, or change its spec; the generation counts up. `material`: what it leans on besides."""
    before = world.policies.get(name)
    meta: dict[str, Any] = {
        "name": name,
        "uid": before.metadata.uid if before else uid_of(),
        "generation": before.metadata.generation + 1 if before else 1,
    }
    spec = policy_spec(**changes)
    status = before.status.dump() if before else {}
    item = AttestationPolicy.model_validate({"metadata": meta, "spec": spec, "status": status}).with_material(material)
    world.policies[name] = item
    return item


def lean(world: World, material: PolicyMaterial, name: str = "baseline") -> None:
    """What a policy leans on changes, and it does not."""
    world.policies[name] = world.policies[name].with_material(material)


def put_hsm(world: World, name: str, *, approved: bool = True, **changes: Any) -> Hsm:
    """Create an Hsm with a host behind it; the host is kept when the object is created again."""
    host = world.hosts.setdefault(name, WorldHost(name))
    spec: dict[str, Any] = {
        "token": f"pkcs11:token={name}",
        "gateway": {
            "service": {
                "namespace": "hsm-system",
                "name": f"gateway-{name}",
                "podSelector": {"matchLabels": {"app": f"gateway-{name}"}},
                "podPort": 8443,
            }
        },
        "agent": {"host": f"agent-{name}.hsm-system.svc", "port": 8444},
        "attestation": {"policyRef": {"name": "baseline"}, "intervalSeconds": 10},
        "offers": {"maxSensitivity": "Restricted"},
        **changes,
    }
    if approved:
        spec["identity"] = {"ekDigest": host.ek_digest, "attestationKeyThumbprint": host.thumbprint}
    world.version += 1
    meta = {"name": name, "uid": uid_of(), "generation": 1, "labels": ZONE, "resourceVersion": str(world.version)}
    item = Hsm.model_validate({"metadata": meta, "spec": spec})
    world.hsms[name] = item
    return item


def put_claim(world: World, name: str = "checkout", namespace: str = "payments", **changes: Any) -> HsmClaim:
    """Create a claim with one key, one client and a binding Secret."""
    spec: dict[str, Any] = {
        "selector": {"matchLabels": ZONE},
        "keys": [{"name": "signing", "type": "EcP256", "usages": ["Sign", "Verify"]}],
        "clients": [
            {
                "serviceAccount": "app",
                "podSelector": {"matchLabels": {"app": name}},
                "keys": ["signing"],
                "usages": ["Sign"],
            }
        ],
        "binding": {"secretName": f"{name}-hsm"},
        **changes,
    }
    spec = {key: value for key, value in spec.items() if value is not None}
    meta = {"name": name, "namespace": namespace, "uid": uid_of(), "generation": 1}
    item = HsmClaim.model_validate({"metadata": meta, "spec": spec})
    world.claims[namespace, name] = item
    return item


def change_claim(world: World, name: str = "checkout", namespace: str = "payments", **spec: Any) -> HsmClaim:
    """A person edits the spec."""
    before = world.claims[namespace, name]
    new = {**before.spec.dump(), **spec}
    meta = before.metadata.model_copy(update={"generation": before.metadata.generation + 1})
    item = HsmClaim.model_validate(
        {
            "metadata": meta.dump(),
            "spec": {k: v for k, v in new.items() if v is not None},
            "status": before.status.dump(),
        }
    )
    world.claims[namespace, name] = item
    return item


def change_hsm(world: World, name: str, **spec: Any) -> Hsm:
    """A person edits the spec."""
    before = world.hsms[name]
    new = {key: value for key, value in {**before.spec.dump(), **spec}.items() if value is not None}
    meta = before.metadata.model_copy(update={"generation": before.metadata.generation + 1})
    item = Hsm.model_validate({"metadata": meta.dump(), "spec": new, "status": before.status.dump()})
    world.hsms[name] = item
    return item


def annotate_hsm(world: World, name: str, key: str, value: str) -> None:
    """A person annotates an Hsm."""
    item = world.hsms[name]
    world.version += 1
    meta = item.metadata.model_copy(
        update={
            "annotations": {**item.metadata.annotations, key: value},
            "resource_version": str(world.version),
        }
    )
    world.hsms[name] = Hsm(metadata=meta, spec=item.spec, status=item.status)


def annotate_claim(world: World, key: str, value: str, name: str = "checkout", namespace: str = "payments") -> None:
    """A person annotates a claim."""
    item = world.claims[namespace, name]
    notes = {**item.metadata.annotations, key: value}
    world.put_claim(item, annotations=notes)


def readmit(world: World, name: str) -> None:
    """A person names the evidence that stands in the status; that takes them a moment."""
    world.pass_time(2)
    attestation = world.hsms[name].status.attestation
    assert attestation is not None
    annotate_hsm(world, name, ANNOTATION_READMIT, attestation.evidence_digest)


def delete_claim(world: World, name: str = "checkout", namespace: str = "payments") -> None:
    """`kubectl delete hsmclaim`."""
    item = world.claims[namespace, name]
    if not item.metadata.finalizers:
        del world.claims[namespace, name]
        return
    world.put_claim(item, deletion_timestamp=timestamp(world.now))


def delete_hsm(world: World, name: str) -> None:
    """`kubectl delete hsm`."""
    item = world.hsms[name]
    if not item.metadata.finalizers:
        del world.hsms[name]
        return
    meta = item.metadata.model_copy(update={"deletion_timestamp": timestamp(world.now)})
    world.hsms[name] = Hsm(metadata=meta, spec=item.spec, status=item.status)


def condition(item: Hsm | HsmClaim | AttestationPolicy, type_: str) -> tuple[str, str]:
    """Status and reason of one condition; absent ones read as such."""
    found = find(item.status.conditions, type_)
    return (found.status, found.reason) if found is not None else ("", "")


def message(item: Hsm | HsmClaim | AttestationPolicy, type_: str) -> str:
    """What the condition says."""
    found = find(item.status.conditions, type_)
    return found.message if found is not None else ""


def stage(*hsms: str, **policy: Any) -> World:
    """A policy, Hsms whose hosts are enrolled and Trusted, the namespace `payments`; everything at rest."""
    world = World()
    world.namespaces["payments"] = NamespaceFacts(uid_of(), {"team": "payments"})
    world.namespaces["other"] = NamespaceFacts(uid_of(), {"team": "other"})
    put_policy(world, **policy)
    for name in hsms or ("hsm-a", "hsm-b"):
        put_hsm(world, name)
    world.settle()
    return world


def tamper(world: World, name: str) -> None:
    """Change what an HSM's host has booted, and let it be found out."""
    world.hosts[name].pcrs[7] = BAD_PCR
    world.attest()
    world.settle()


def refuted(world: World) -> World:
    """hsm-a bound, then tampered with and found out."""
    put_claim(world, hsmRef={"name": "hsm-a"}, selector=None)
    world.settle()
    tamper(world, "hsm-a")
    return world


def verdict(world: World, name: str = "hsm-a") -> tuple[str, str]:
    """Verdict and reason in an Hsm's status."""
    attestation = world.hsms[name].status.attestation
    return (attestation.verdict.value, attestation.reason) if attestation else ("", "")


def bound_to(world: World, name: str = "checkout") -> str | None:
    """Name of the Hsm that a claim is bound to."""
    allocation = world.claims["payments", name].status.allocation
    return allocation.hsm.name if allocation is not None else None


def versions(world: World, key: str = "signing", name: str = "checkout") -> list[KeyVersionStatus]:
    """Versions of a key in a claim's status."""
    return next((k.versions for k in world.claims["payments", name].status.keys if k.name == key), [])
