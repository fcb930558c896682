"""What a policy that is not applied yet says of live hosts. Nothing is written anywhere."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from chatelaine.appraisal.appraise import pcrs_of
from chatelaine.appraisal.host import HostCase, appraise_host, appraise_refusal
from chatelaine.appraisal.rules import Accounted
from chatelaine.cli.live_hosts import Asked, Standing, Wanted
from chatelaine.controller.material import Contents, entries_of, look, named_by
from chatelaine.controller.reference_folder import ReferenceFolder
from chatelaine.controller.world import index_claim
from chatelaine.evidence.bundle import VerifiedEvidence
from chatelaine.evidence.tpm_types import Selection
from chatelaine.kube.errors import NotFound
from chatelaine.kube.port import CONFIG_MAPS, POLICIES, KubePort
from chatelaine.model.claim import HsmClaim
from chatelaine.model.hsm import Hsm
from chatelaine.model.identifiers import key_label, parse_key_label
from chatelaine.model.material import PolicyMaterial
from chatelaine.model.policy import AttestationPolicy, AttestationPolicySpec
from chatelaine.model.verdict import Appraisal
from chatelaine.reconcile.judged import is_sticky, stamp_of

_BUNDLE_FILE = "bundle"


def judged_by(name: str, hsms: Iterable[Hsm], claims: Iterable[HsmClaim]) -> list[Hsm]:
    """The Hsms that the policy called `name` judges: their own, and those on which a claim names it."""
    naming = {
        claim.metadata.uid
        for claim in claims
        if claim.spec.policy_ref is not None and claim.spec.policy_ref.name == name
    }
    return [
        hsm
        for hsm in hsms
        if hsm.spec.attestation.policy_ref.name == name
        or any(seat.claim_uid in naming for seat in hsm.status.allocations)
    ]


def wanted_by(spec: AttestationPolicySpec) -> Wanted:
    """What a host has to show so that `spec` can judge it."""
    endorsement = spec.tpm.endorsement
    return Wanted(
        Selection(spec.tpm.pcrs.bank, tuple(sorted(pcrs_of(spec)))),
        event_log=spec.tpm.event_log is not None,
        ima=spec.tpm.ima is not None,
        certificate=endorsement is not None and bool(endorsement.roots),
    )


def accounted_in(hsm: Hsm, claims: Iterable[HsmClaim]) -> Accounted:
    """Labels of the keys that rightly are in the token: of claims, of retained keys, and of claims that just went."""
    labels = {key_label(kept.claim_uid, key.name, key.version) for kept in hsm.status.retained for key in kept.keys}
    there: set[str] = set()
    for claim in claims:
        there.add(claim.metadata.uid)
        bound = index_claim(claim).bound.get(hsm.metadata.uid)
        labels |= bound.key_labels if bound is not None else frozenset()
    gone = {seat.claim_uid for seat in hsm.status.allocations} - there

    def known(label: str) -> bool:
        key = parse_key_label(label)
        return label in labels or (key is not None and key.claim_uid in gone)

    return known


def verdict_of(asked: Asked, policy: AttestationPolicy, accounted: Accounted) -> Appraisal:
    """The verdict that `policy` gives over what a host has just shown."""
    before = asked.hsm.status.attestation
    case = HostCase(
        subject=asked.hsm.metadata.uid,
        stamp=stamp_of(policy),
        policy=policy,
        ek_digest=asked.ek_digest,
        ek_certificate=asked.ek_certificate,
        generation=before.epoch.generation if before is not None else 1,
        issued_at=int(asked.received_at),
        accounted=accounted,
        last_epoch=before.epoch.epoch() if before is not None else None,
    )
    if isinstance(asked.evidence, VerifiedEvidence):
        return appraise_host(asked.evidence, case)
    return appraise_refusal(asked.evidence.reason, asked.evidence.detail, asked.evidence_digest, case)


async def material_of(
    kube: KubePort,
    name: str,
    spec: AttestationPolicySpec,
    *,
    namespace: str,
    folder: Path | None = None,
    bundle: bytes | None = None,
) -> PolicyMaterial:
    """What a policy leans on, looked up as the operator does.

    Args:
        kube: the API server.
        name: of the policy; the one that is there says which bundles were already used.
        spec: its new rules.
        namespace: the operator's, where ConfigMaps are read.
        folder: the operator's folder of reference values.
        bundle: a signed bundle that is not in the cluster yet, instead of the one that `spec` names.

    Raises:
        KubeError: the API server did not answer.
    """
    named = named_by(spec)
    if bundle is not None and named.source is not None:
        source = named.source.model_copy(update={"file": _BUNDLE_FILE, "config_map_refs": None})
        named = named._replace(source=source)
    found: dict[str, dict[str, bytes] | str] = {}
    for config_map in sorted(named.config_maps):
        try:
            found[config_map] = entries_of(await kube.get(CONFIG_MAPS, config_map, namespace))
        except NotFound:
            found[config_map] = f"does not exist in namespace {namespace}"
    file: bytes | str = bundle if bundle is not None else ""
    if named.file is not None and bundle is None:
        file = ReferenceFolder(folder).read(named.file)[1]
    try:
        standing = AttestationPolicy.model_validate(await kube.get(POLICIES, name))
    except NotFound:
        return look(named, Contents(found, file), None).material
    used = standing.status.reference_values
    return look(named, Contents(found, file), used).material


def caution_of(asked: Asked) -> str:
    """What must be said of a host besides what it shows now: whose evidence this is, and that it was refuted before.
    Empty where it is the enrolled host's, and nothing was refuted.
    """
    whose = {
        Standing.ENROLLED: "",
        Standing.APPROVED: "not enrolled yet; judged as the identity that spec.identity approves",
        Standing.UNAPPROVED: "nobody has approved this host: who shows this evidence is not proven",
    }[asked.standing]
    stays = "it was refuted, and stays Untrusted under any policy until somebody re-admits it"
    return "; ".join(filter(None, (whose, stays if was_refuted(asked.hsm) else "")))


def was_refuted(hsm: Hsm) -> bool:
    """Does the host stand as Untrusted, whatever it shows now?"""
    return is_sticky(hsm.status.attestation)
