"""What a gateway is told, rendered from objects and standings. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Final

from chatelaine.model.claim import ClientSpec, HsmClaim, KeyVersionStatus
from chatelaine.model.verdict import Verdict
from chatelaine.reconcile.claim_snapshot import HsmView
from chatelaine.reconcile.judged import Standing as Judged
from chatelaine.reconcile.served import ClaimStanding, usable_versions
from chatelaine.wire.messages import ClaimView, ClientView, KeyVersionView, KeyView, Standing

NO_DEADLINE: Final = 253402300799
"""The end of the year 9999: the claim has no deadline besides its HSM's."""
NO_DEADLINE_SECONDS: Final = 1e9

LivePods = Callable[[str, ClientSpec], tuple[str, ...]]
"""Namespace and client to the uids of pods that exist and are not being deleted."""


def standing_view(judged: Judged, now: float) -> Standing:
    """The standing as a gateway needs it: Trusted exactly where claims may be served."""
    verdict = Verdict.TRUSTED if judged.serves else judged.verdict
    if not judged.serves and verdict is Verdict.TRUSTED:
        verdict = Verdict.UNKNOWN
    until = judged.valid_until if judged.serves and judged.valid_until is not None else 0.0
    return Standing(
        verdict=verdict.value,
        reason=judged.reason.value,
        epoch=str(judged.epoch) if judged.epoch is not None else "",
        policy_digest=judged.attestation.policy.digest if judged.attestation is not None else "",
        evidence_digest=judged.evidence_digest or "",
        valid_for_seconds=max(0.0, until - now),
        valid_until=int(until),
    )


def claim_view(claim: HsmClaim, hsm: HsmView, standing: ClaimStanding, pods: LivePods, now: float) -> ClaimView | None:
    """The claim as its gateway may serve it; None if it may not.

    Args:
        claim: as cached.
        hsm: the Hsm of the gateway.
        standing: `reconcile.served.served` for the two.
        pods: live pods of a client.
        now: seconds since the epoch.
    """
    allocation = claim.status.allocation
    if allocation is None or not standing.serves:
        return None
    meta, usable = claim.metadata, usable_versions(claim, hsm)
    makers = {version.made_by for versions in usable.values() for version in versions}
    deadline = standing.valid_until if claim.spec.policy_ref is not None else None
    if deadline is not None and deadline <= now:
        return None
    return ClaimView(
        uid=meta.uid,
        namespace=meta.namespace or "",
        name=meta.name,
        sequence=allocation.sequence,
        keys=tuple(_keys(claim, usable)),
        adopted=tuple(sorted(uid for uid in makers if uid is not None)),
        clients=tuple(
            ClientView(
                service_account=client.service_account,
                pod_uids=pods(meta.namespace or "", client),
                keys=tuple(client.keys),
                usages=tuple(usage.value for usage in client.usages),
            )
            for client in claim.spec.clients or ()
        ),
        policy_digests=tuple(stamp.digest for stamp in standing.stamps),
        valid_for_seconds=NO_DEADLINE_SECONDS if deadline is None else deadline - now,
        valid_until=NO_DEADLINE if deadline is None else int(deadline),
    )


def _keys(claim: HsmClaim, usable: Mapping[str, tuple[KeyVersionStatus, ...]]) -> Iterable[KeyView]:
    for spec in claim.spec.keys or ():
        versions = usable.get(spec.name, ())
        if versions:
            yield KeyView(
                name=spec.name,
                type=spec.type.value,
                usages=tuple(usage.value for usage in spec.usages),
                versions=tuple(
                    KeyVersionView(
                        version=version.version,
                        state=version.state.value,
                        label=version.label(claim.metadata.uid, spec.name),
                    )
                    for version in versions
                ),
            )
