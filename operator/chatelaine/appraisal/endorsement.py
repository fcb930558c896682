"""May this TPM be enrolled? Its endorsement key is listed, or a vendor whom the policy names vouches for it.

That a vendor made the TPM does not make it this host's: `Hsm.spec.identity` names the one that a person approved.
"""

from __future__ import annotations

from typing import Final

from chatelaine.evidence.certificates import VerifiedCertificate
from chatelaine.evidence.endorsement import verify_endorsement
from chatelaine.evidence.errors import CertificateAbsent, CertificateExpired, EvidenceError, NoTrustAnchor
from chatelaine.model.policy import AttestationPolicy
from chatelaine.model.verdict import Finding, Outcome

CHECK: Final = "endorsement"
CHAINED: Final = "EndorsementChains"
"""Reason of a finding that a vendor's certificate brought about."""
UNKNOWN: Final = "EndorsementUnknown"
"""Reason where the certificate would decide, and has not been asked for."""
NONE_SHOWN: Final = b""
"""Stands for the certificate of a TPM that shows none."""


def endorsement_finding(ek_digest: str, certificate: bytes | None, policy: AttestationPolicy, *, at: int) -> Finding:
    """Judge the endorsement key by the policy. Asked at enrolment, at every re-admission, and with every round.

    Args:
        ek_digest: `sha256:` digest of the EK's SubjectPublicKeyInfo, proven by credential activation.
        certificate: that the TPM shows over it (DER); `NONE_SHOWN`; None: it has not been asked for.
        policy: its rules, and the vendors' certificates that they lean on.
        at: the time to judge at, seconds since the epoch.
    """
    endorsement = policy.spec.tpm.endorsement
    if endorsement is None:
        return Finding(
            CHECK,
            Outcome.HOLDS,
            "ApprovedIdentityDecides",
            "the policy has no endorsement rule: the identity that a person approved decides alone",
            found=ek_digest,
        )
    listed = [entry.ek_digest for entry in endorsement.listed or ()]
    if ek_digest in listed:
        return Finding(CHECK, Outcome.HOLDS, "EndorsementListed", found=ek_digest)
    if endorsement.roots:
        return _vouched(ek_digest, certificate, policy, at)
    return Finding(
        CHECK,
        Outcome.REFUTED,
        "EndorsementNotListed",
        f"the policy does not list the endorsement key {ek_digest}",
        expected=", ".join(listed[:8]) or "none",
        found=ek_digest,
    )


def _vouched(ek_digest: str, certificate: bytes | None, policy: AttestationPolicy, at: int) -> Finding:
    """Nothing is refuted by the mere passing of time, nor by what nobody has asked for yet."""
    if certificate is None:
        detail = f"the certificate of the endorsement key {ek_digest} has not been shown yet"
        return Finding(CHECK, Outcome.CANNOT_TELL, UNKNOWN, detail, found=ek_digest)
    try:
        if certificate == NONE_SHOWN:
            raise CertificateAbsent("the TPM shows no certificate of its endorsement key")
        chain = verify_endorsement(certificate, policy.material.endorsement_roots, ek_digest=ek_digest, at=at)
    except EvidenceError as error:
        outcome = Outcome.CANNOT_TELL if isinstance(error, CertificateExpired | NoTrustAnchor) else Outcome.REFUTED
        # The reason first: where room is short, messages keep their beginning.
        detail = f"no vendor vouches for the TPM, {error}; its endorsement key is {ek_digest}"
        return Finding(CHECK, outcome, error.reason, detail, expected=error.expected or "", found=ek_digest)
    return Finding(CHECK, Outcome.HOLDS, CHAINED, _way(chain), found=ek_digest)


def _way(chain: VerifiedCertificate) -> str:
    maker = f"{chain.tpm.manufacturer} {chain.tpm.model}, " if chain.tpm is not None else ""
    return f"{maker}vouched for by {chain.chain[-1]}"
