"""What is known of the certificate over a host's endorsement key: as it was shown last, else as it was kept."""

from __future__ import annotations

import base64
import binascii

from chatelaine.appraisal.endorsement import CHAINED, NONE_SHOWN, endorsement_finding
from chatelaine.evidence.endorsement import certified_key
from chatelaine.evidence.errors import EvidenceError
from chatelaine.model.hsm import EnrolledIdentity, Hsm
from chatelaine.model.policy import AttestationPolicy
from chatelaine.model.verdict import Finding
from chatelaine.reconcile.snapshot import HostKeys, HostObservation, HsmSnapshot, PresentedIdentity


def same(enrolled: EnrolledIdentity, presented: PresentedIdentity) -> bool:
    """Does the host show the very identity that is enrolled?"""
    return (enrolled.ek_digest, HostKeys.enrolled(enrolled)) == (presented.ek_digest, presented.keys)


def finding_of_presented(presented: PresentedIdentity, policy: AttestationPolicy, *, at: float) -> Finding:
    """May the TPM of a host that shows itself enrol?"""
    return endorsement_finding(presented.ek_digest, presented.ek_certificate or NONE_SHOWN, policy, at=int(at))


def certificate_of(hsm: Hsm, host: HostObservation | None, identity: EnrolledIdentity) -> bytes | None:
    """The certificate over the enrolled endorsement key, as `endorsement_finding` takes it.

    What stands in the status needs no trust: it chains to a vendor over this very key, or it does not.
    """
    shown, kept = _shown(host, identity), hsm.status.ek_certificate
    if shown is not None and shown.ek_certificate is not None:
        return shown.ek_certificate
    if kept is None:
        return None if shown is None else NONE_SHOWN
    try:
        return base64.b64decode(kept, validate=True)
    except binascii.Error:
        return None


def finding_of_enrolled(hsm: Hsm, host: HostObservation | None, policy: AttestationPolicy, *, at: float) -> Finding:
    """May the TPM of the enrolled host be enrolled by `policy`, the Hsm's own or that of a claim?"""
    identity = hsm.status.identity
    if identity is None:
        return endorsement_finding("", None, policy, at=int(at))
    return endorsement_finding(identity.ek_digest, certificate_of(hsm, host, identity), policy, at=int(at))


def certificate_to_keep(snapshot: HsmSnapshot, identity: EnrolledIdentity | None) -> str | None:
    """What belongs in `status.ekCertificate`: as before, unless the TPM of `identity` shows one that is better: the
    first one over its key, or one that lets it in.

    Whether a host is let in must not hang on the operator's memory: after a restart nobody has shown anything.
    """
    kept, policy = snapshot.hsm.status.ek_certificate, snapshot.policy
    shown = _shown(snapshot.host, identity) if identity is not None else None
    if shown is None or shown.ek_certificate is None:
        return kept
    encoded = base64.b64encode(shown.ek_certificate).decode()
    if encoded == kept:
        return kept
    if policy is not None and finding_of_presented(shown, policy, at=snapshot.now).reason == CHAINED:
        return encoded
    return encoded if kept is None and _over_its_key(shown.ek_certificate, shown.ek_digest) else kept


def _over_its_key(certificate: bytes, ek_digest: str) -> bool:
    """Worth keeping; whether it lets anybody in is for `endorsement_finding` to say."""
    try:
        return certified_key(certificate) == ek_digest
    except EvidenceError:
        return False


def _shown(host: HostObservation | None, identity: EnrolledIdentity) -> PresentedIdentity | None:
    shown = host.presented if host is not None else None
    return shown if shown is not None and same(identity, shown) else None
