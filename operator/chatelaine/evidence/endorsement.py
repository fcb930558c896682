"""Who made this TPM: its EK certificate, chained to certificates of vendors (TCG EK Credential Profile 2.5).

1. the certificate is one DER structure within its bound;
2. it is an EK's, and a chain leads from it to one of the given self-signed certificates, as `certificates` says;
3. the key that it certifies is the EK in question: the caller has shown by credential activation that the TPM holds
   that very key.

A chain to a vendor's root says that the vendor made this TPM. Whose host it is in, it does not say.

A host is judged many times between two changes of any validity, so answers are kept. An answer holds from one moment
at which some certificate begins or ends to be valid until the next, and is worked out for the first second of that
span: the same inputs give the same answer, kept or not.
"""

from __future__ import annotations

import bisect
from functools import lru_cache
from typing import Final, NamedTuple

from cryptography import x509

from chatelaine.evidence.certificates import (
    CertificateKind,
    VerifiedCertificate,
    load_certificates,
    split_roots,
    verify_certificate,
    verify_kind,
)
from chatelaine.evidence.errors import CertificateMalformed, EndorsementKeyMismatch, EvidenceError
from chatelaine.evidence.reader import bounded
from chatelaine.model.identifiers import digest_of

MAX_EK_CERTIFICATE_BYTES: Final = 8192
_KEPT_CHAINS: Final = 16384
_KEPT_SETS: Final = 64


def verify_endorsement(
    certificate: bytes, vendors: tuple[bytes, ...], *, ek_digest: str, at: int
) -> VerifiedCertificate:
    """Check an EK certificate; the steps stand at the top of this module.

    Args:
        certificate: DER.
        vendors: certificates (DER): self-signed ones are the roots, others may help on the way.
        ek_digest: `sha256:` digest of the EK's SubjectPublicKeyInfo.
        at: the time to judge at, seconds since the epoch.

    Raises:
        NoTrustAnchor: no root is among `vendors`: nothing can be told.
        CertificateExpired: no chain is valid at that time.
        EndorsementKeyMismatch: a good certificate, over another key.
        EvidenceError: its subclass tells what else failed.
    """
    bounded(certificate, MAX_EK_CERTIFICATE_BYTES, "the EK certificate")
    moments = _moments(certificate, vendors)
    place = bisect.bisect_right(moments, at)
    found = _judged(certificate, vendors, moments[place - 1] if place else moments[0] - 1)
    if isinstance(found, EvidenceError):
        raise found.with_traceback(None)
    if found.spki_digest != ek_digest:
        raise EndorsementKeyMismatch(
            "the EK certificate is over another key than the TPM's", expected=ek_digest, found=found.spki_digest
        )
    return found


def certified_key(certificate: bytes) -> str:
    """`sha256:` digest of the key that an EK certificate is over. Says nothing about who issued it.

    Raises:
        EvidenceError: it is no EK certificate.
    """
    bounded(certificate, MAX_EK_CERTIFICATE_BYTES, "the EK certificate")
    return digest_of(verify_kind(_leaf(certificate), CertificateKind.EK))


def roots_among(vendors: tuple[bytes, ...]) -> int:
    """How many of `vendors` (DER) are self-signed.

    Raises:
        CertificateMalformed: one is no certificate.
    """
    return len(_loaded(vendors).roots)


class _Vendors(NamedTuple):
    """`others` may help on the way, and are never trusted by themselves. `moments`: see `_moments`."""

    roots: tuple[x509.Certificate, ...]
    others: tuple[x509.Certificate, ...]
    moments: frozenset[int]


@lru_cache(maxsize=_KEPT_SETS)
def _loaded(vendors: tuple[bytes, ...]) -> _Vendors:
    certificates = [certificate for data in vendors for certificate in load_certificates(data)]
    return _Vendors(*split_roots(certificates), frozenset().union(*map(_span, certificates)))


@lru_cache(maxsize=_KEPT_CHAINS)
def _moments(certificate: bytes, vendors: tuple[bytes, ...]) -> tuple[int, ...]:
    """Every second from which on some certificate is, or is not any more, valid; rising."""
    return tuple(sorted(_loaded(vendors).moments | _span(_leaf(certificate))))


def _span(certificate: x509.Certificate) -> frozenset[int]:
    try:
        start, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    except (ValueError, OverflowError) as error:
        raise CertificateMalformed("a certificate's validity cannot be read") from error
    return frozenset({int(start.timestamp()), int(end.timestamp()) + 1})


@lru_cache(maxsize=_KEPT_CHAINS)
def _judged(certificate: bytes, vendors: tuple[bytes, ...], at: int) -> VerifiedCertificate | EvidenceError:
    known = _loaded(vendors)
    try:
        return verify_certificate(
            _leaf(certificate), kind=CertificateKind.EK, roots=known.roots, intermediates=known.others, at=at
        )
    except EvidenceError as error:
        return error


def _leaf(certificate: bytes) -> x509.Certificate:
    if b"-----BEGIN" in certificate:
        raise CertificateMalformed("an EK certificate is one DER structure")
    return load_certificates(certificate)[0]
