"""What a bound claim can reach and mount: its NetworkPolicies and its binding Secret."""

from __future__ import annotations

import base64
from typing import Any

from chatelaine.model.claim import BindingStatus, NetworkPolicyRef
from chatelaine.model.identifiers import (
    API_VERSION,
    LABEL_CLAIM_NAME,
    LABEL_CLAIM_NAMESPACE,
    LABEL_CLAIM_UID,
    LABEL_MANAGED_BY,
    MANAGED_BY,
    canonical_json,
    digest_of,
)
from chatelaine.model.keys import KeyState
from chatelaine.model.reasons import ConditionType, Reason
from chatelaine.model.verdict import Outcome
from chatelaine.reconcile.claim_snapshot import BindingFacts, Presence
from chatelaine.reconcile.network import ANNOTATION_DIGEST, Rendered, claim_egress, claim_ingress, egress_managed
from chatelaine.reconcile.plan import (
    ApplyNetworkPolicy,
    ApplySecret,
    DeleteNetworkPolicy,
    DeleteSecret,
    EmitEvent,
    EventType,
)
from chatelaine.reconcile.work import Next, Work

PROVIDER = "chatelaine"


def network(work: Work) -> Next:
    """Open exactly while the claim may use its HSM. Deleting comes first: closing must not wait for opening."""
    wanted = {policy.key: policy for policy in _wanted(work)}
    seen = work.snapshot.network_policies
    gone = sorted(set(seen) - set(wanted))
    if work.paused:
        # Only what revocation asks for; everything else stays as it is.
        gone = [] if work.serves else gone
        wanted = {key: policy for key, policy in wanted.items() if key in seen}
    work.actions += [DeleteNetworkPolicy(*key) for key in gone]
    for key, policy in sorted(wanted.items()):
        found = seen.get(key)
        if not work.paused and (found is None or found.drifted or found.digest != policy.digest):
            work.actions.append(ApplyNetworkPolicy(policy.namespace, policy.name, policy.digest, policy.manifest))
            if found is None and key[0] == work.snapshot.claim.metadata.namespace and "-out-" in key[1]:
                message = f"NetworkPolicy {key[1]} limits the claim's client pods to this gateway and DNS."
                work.after.append(EmitEvent(work.ref, EventType.WARNING, Reason.EGRESS_MANAGED, message))
    stand = (set(seen) - set(gone)) | set(wanted)
    work.policies = [NetworkPolicyRef(namespace=namespace, name=name) for namespace, name in sorted(stand)]
    work.conditions.put(ConditionType.NETWORK_READY, *_judged(work))
    return Next.GO_ON


def _wanted(work: Work) -> list[Rendered]:
    """Ingress only while served. Egress while bound: taking it away would open the pods to everywhere."""
    if work.view is None:
        return []
    claim, gateway = work.snapshot.claim, work.view.hsm.spec.gateway
    ingress = claim_ingress(claim, gateway) if work.serves else None
    out = [ingress] if ingress is not None else []
    if egress_managed(work.snapshot.namespace.labels):
        out += claim_egress(claim, gateway)
    return out


def _judged(work: Work) -> tuple[Outcome, Reason, str]:
    if work.view is None:
        return Outcome.CANNOT_TELL, Reason.PENDING, "The claim is not bound."
    if work.view.hsm.spec.gateway.service is None:
        return Outcome.CANNOT_TELL, Reason.NOT_ENFORCEABLE, "The gateway is outside the cluster."
    if work.snapshot.foreign_allows:
        names = ", ".join(work.snapshot.foreign_allows[:8])
        return Outcome.REFUTED, Reason.FOREIGN_ALLOW, f"Other NetworkPolicies let traffic in to the gateway: {names}"
    if not work.serves:
        return Outcome.REFUTED, Reason.POLICIES_REMOVED, ""
    return Outcome.HOLDS, Reason.POLICIES_APPLIED, ""


# --- binding Secret -------------------------------------------------------------------------------------------


def secret(work: Work) -> Next:
    """The Secret that workloads mount: where the gateway is and what the keys are called, never a key.

    It is written once the keys are there, and left alone while access is cut: it opens nothing by itself.
    """
    if work.paused:
        return Next.GO_ON
    claim, seen = work.snapshot.claim, work.snapshot.secret
    wanted = claim.spec.binding.secret_name if claim.spec.binding is not None else None
    if work.binding is not None and work.binding.name != wanted:
        work.actions.append(DeleteSecret(claim.metadata.namespace or "", work.binding.name, work.uid))
        work.binding = None
    if wanted is None or work.view is None or not work.serves:
        return Next.GO_ON
    if seen.presence is Presence.PRESENT and seen.owner_uid != work.uid:
        message = f"Secret {wanted} exists and is not this claim's; choose another secretName."
        work.problem = work.problem or (Reason.SECRET_NAME_TAKEN, message)
        work.binding = None
        return Next.GO_ON
    facts = work.snapshot.binding.get(work.view.name)
    if seen.presence is Presence.UNKNOWN or facts is None or not _keys_there(work):
        return Next.GO_ON
    manifest, digest = binding_secret(work, wanted, facts)
    if seen.presence is Presence.ABSENT or seen.digest != digest:
        work.actions.append(ApplySecret(claim.metadata.namespace or "", wanted, work.uid, digest, manifest))
    work.binding = BindingStatus(name=wanted)
    return Next.GO_ON


def _keys_there(work: Work) -> bool:
    wanted = {key.name for key in work.snapshot.claim.spec.keys or ()}
    there = {key.name for key in work.keys if any(v.state is KeyState.ACTIVE for v in key.versions)}
    return wanted <= there


def binding_secret(work: Work, name: str, facts: BindingFacts) -> tuple[dict[str, Any], str]:
    """Service Binding specification for Kubernetes, well-known entries `type`, `provider`, `host`, `port`."""
    claim = work.snapshot.claim.metadata
    uris = {
        f"pkcs11-uri.{key.name}": version.pkcs11_uri
        for key in work.keys
        for version in key.versions
        if version.state is KeyState.ACTIVE and version.pkcs11_uri is not None
    }
    entries = {
        "type": "hsm",
        "provider": PROVIDER,
        "host": facts.host,
        "port": str(facts.port),
        "endpoint": f"https://{facts.host}:{facts.port}/v1/keys/{claim.namespace}/{claim.name}",
        "ca.crt": facts.ca_bundle_pem,
        "gateway-spki": "\n".join(facts.gateway_spkis),
        "pkcs11-uri": "\n".join(uris[key] for key in sorted(uris)),
        **uris,
    }
    digest = digest_of(canonical_json(entries))
    manifest = {
        "apiVersion": "v1",
        "kind": "Secret",
        "type": f"servicebinding.io/{entries['type']}",
        "metadata": {
            "name": name,
            "namespace": claim.namespace,
            "labels": {
                LABEL_CLAIM_UID: claim.uid,
                LABEL_CLAIM_NAME: claim.name,
                LABEL_CLAIM_NAMESPACE: claim.namespace or "",
                LABEL_MANAGED_BY: MANAGED_BY,
            },
            "annotations": {ANNOTATION_DIGEST: digest},
            "ownerReferences": [
                {
                    "apiVersion": API_VERSION,
                    "kind": "HsmClaim",
                    "name": claim.name,
                    "uid": claim.uid,
                    "controller": True,
                }
            ],
        },
        "data": {key: base64.b64encode(value.encode()).decode() for key, value in sorted(entries.items())},
    }
    return manifest, digest
