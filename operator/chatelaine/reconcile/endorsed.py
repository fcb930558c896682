"""What is known of the certificate over a host's endorsement key: as it was shown last, else as it was kept."""

from __future__ import annotations

import base64
import binascii

from chatelaine.appraisal.endorsement import CHAINED, NONE_SHOWN, endorsement_finding
from chatelaine.model.hsm import EnrolledIdentity
from chatelaine.model.policy import AttestationPolicy
from chatelaine.model.verdict import Finding
from chatelaine.reconcile.snapshot import HostKeys, HsmSnapshot, PresentedIdentity


def same(enrolled: EnrolledIdentity, presented: PresentedIdentity) -> bool:
    """Does the host show the very identity that is enrolled?"""
    return (enrolled.ek_digest, HostKeys.enrolled(enrolled)) == (presented.ek_digest, presented.keys)


def finding_of_presented(presented: PresentedIdentity, policy: AttestationPolicy, *, at: float) -> Finding:
    """May the TPM of a host that shows itself enrol?"""
    return endorsement_finding(presented.ek_digest, presented.ek_certificate or NONE_SHOWN, policy, at=int(at))


def certificate_of(snapshot: HsmSnapshot, identity: EnrolledIdentity) -> bytes | None:
    """The certificate over the enrolled endorsement key, as `endorsement_finding` takes it.

    What stands in the status needs no trust: it chains to a vendor over this very key, or it does not.
    """
    shown, kept = _shown(snapshot, identity), snapshot.hsm.status.ek_certificate
    if shown is not None and shown.ek_certificate is not None:
        return shown.ek_certificate
    if kept is None:
        return None if shown is None else NONE_SHOWN
    try:
        return base64.b64decode(kept, validate=True)
    except binascii.Error:
        return None


def certificate_to_keep(snapshot: HsmSnapshot, identity: EnrolledIdentity | None) -> str | None:
    """What belongs in `status.ekCertificate`: what the TPM of `identity` shows now, if that lets it in; else as before.

    Whether a host is let in must not hang on the operator's memory: after a restart nobody has shown anything.
    """
    status, policy = snapshot.hsm.status, snapshot.policy
    shown = _shown(snapshot, identity) if identity is not None else None
    if shown is None or shown.ek_certificate is None or policy is None:
        return status.ek_certificate
    encoded = base64.b64encode(shown.ek_certificate).decode()
    if encoded == status.ek_certificate or finding_of_presented(shown, policy, at=snapshot.now).reason != CHAINED:
        return status.ek_certificate
    return encoded


def _shown(snapshot: HsmSnapshot, identity: EnrolledIdentity) -> PresentedIdentity | None:
    shown = snapshot.host.presented if snapshot.host else None
    return shown if shown is not None and same(identity, shown) else None
