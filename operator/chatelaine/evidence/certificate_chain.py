"""Chains of X.509 certificates, for certificates of TPM keys (RFC 5280 §6, without policies and name constraints).

Every issuer is a CA that may sign certificates, is valid at the stated time, holds its path length, carries no
critical extension that is not understood and no name constraints at all, and leads to one of the given roots. The
search is bounded.

The verifier of `cryptography` cannot do this: it wants DNS or IP names and web usages, and refuses directory names.
"""

from __future__ import annotations

import datetime
import hashlib
from collections.abc import Sequence
from typing import Final, TypeVar

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, ExtensionOID, ObjectIdentifier

from chatelaine.evidence import tpm_algorithms as alg
from chatelaine.evidence.errors import (
    AlgorithmRefused,
    CertificateAuthorityUse,
    CertificateError,
    CertificateExpired,
    CertificateKindMismatch,
    CertificateMalformed,
    ChainIncomplete,
    CriticalExtensionUnknown,
    EvidenceError,
    WeakKey,
)

MAX_DEPTH: Final = 8
MAX_SIGNATURE_CHECKS: Final = 64

EK_USAGE: Final = ObjectIdentifier("2.23.133.8.1")
AK_USAGE: Final = ObjectIdentifier("2.23.133.8.3")
_TPM_USAGES: Final = frozenset((EK_USAGE, AK_USAGE, ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE))
_UNDERSTOOD: Final = frozenset(
    (
        ExtensionOID.BASIC_CONSTRAINTS,
        ExtensionOID.KEY_USAGE,
        ExtensionOID.EXTENDED_KEY_USAGE,
        ExtensionOID.SUBJECT_ALTERNATIVE_NAME,
    )
)
_HASHES: Final = (hashes.SHA256, hashes.SHA384, hashes.SHA512)
_CURVES: Final = (ec.SECP256R1, ec.SECP384R1, ec.SECP521R1)
_Extension = TypeVar("_Extension", bound=x509.ExtensionType)


def shown(certificate: x509.Certificate) -> str:
    """A name for people: the subject, or the serial number where that is empty."""
    subject = certificate.subject.rfc4514_string()
    return subject or f"serial {certificate.serial_number:x}"


def extension(certificate: x509.Certificate, kind: type[_Extension]) -> _Extension | None:
    """The extension of that kind, None where the certificate has none."""
    try:
        return certificate.extensions.get_extension_for_class(kind).value
    except x509.ExtensionNotFound:
        return None


def check_extended_usage(certificate: x509.Certificate) -> None:
    """Extended usages, where there are any, are those of TPM keys.

    Raises:
        CertificateKindMismatch: they are others.
    """
    extended = extension(certificate, x509.ExtendedKeyUsage)
    if extended is not None and not _TPM_USAGES & set(extended):
        raise CertificateKindMismatch(
            "the extended key usage is not that of a TPM key",
            expected=EK_USAGE.dotted_string,
            found=", ".join(usage.dotted_string for usage in extended),
        )


def check_critical(certificate: x509.Certificate) -> None:
    """No critical extension is left that is not understood.

    Raises:
        CriticalExtensionUnknown: one is.
    """
    for one in certificate.extensions:
        if one.critical and one.oid not in _UNDERSTOOD:
            raise CriticalExtensionUnknown("a critical extension is not understood", found=one.oid.dotted_string)


def check_key(certificate: x509.Certificate) -> None:
    """RSA from 2048 bits, or a NIST curve.

    Raises:
        WeakKey: another key.
    """
    key = certificate.public_key()
    if isinstance(key, rsa.RSAPublicKey):
        if key.key_size < alg.MIN_RSA_BITS:
            raise WeakKey("the certified RSA key is too short", expected=alg.MIN_RSA_BITS, found=key.key_size)
    elif not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, _CURVES):
        raise WeakKey("the certified key is not accepted", expected="RSA or NIST curve", found=type(key).__name__)


def check_signature_form(certificate: x509.Certificate) -> None:
    """Signed with SHA-2, and the signature has one encoding.

    Raises:
        AlgorithmRefused: another hash.
        CertificateMalformed: another encoding.
    """
    if not isinstance(certificate.signature_hash_algorithm, _HASHES):
        name = certificate.signature_hash_algorithm
        raise AlgorithmRefused(
            "the certificate's signature hash is not accepted", expected="SHA-2", found=name.name if name else "none"
        )
    # The bit string's count of unused bits is not signed; any other than 0 is a second encoding of the same.
    if not certificate.public_bytes(serialization.Encoding.DER).endswith(b"\x00" + certificate.signature):
        raise CertificateMalformed("the signature is not a whole number of bytes")


class ChainSearch:
    """Search for a chain, depth first, with a bound on signatures checked (hostile sets of certificates)."""

    def __init__(
        self,
        roots: Sequence[x509.Certificate],
        intermediates: Sequence[x509.Certificate],
        moment: datetime.datetime,
    ) -> None:
        self._roots = frozenset(_identity(root) for root in roots)
        self._issuers = tuple({_identity(one): one for one in [*roots, *intermediates]}.values())
        self._moment = moment
        self._checks_left = MAX_SIGNATURE_CHECKS
        self._refusal: EvidenceError | None = None

    def from_leaf(self, leaf: x509.Certificate) -> tuple[x509.Certificate, ...]:
        """The chain, leaf first, root last."""
        self._check_time(leaf)
        found = self._extend((leaf,))
        if found is None:
            raise self._refusal or ChainIncomplete(
                "no way from the certificate to one of the roots", found=leaf.issuer.rfc4514_string()
            )
        return found

    def _extend(self, chain: tuple[x509.Certificate, ...]) -> tuple[x509.Certificate, ...] | None:
        last = chain[-1]
        for issuer in self._issuers:
            if issuer.subject != last.issuer or issuer in chain or len(chain) > MAX_DEPTH:
                continue
            if not self._signed(last, issuer):
                continue
            try:
                self._check_issuer(issuer, below=len(chain) - 1)
            except (CertificateError, AlgorithmRefused) as error:
                self._refusal = self._refusal or error
                continue
            longer = (*chain, issuer)
            found = longer if _identity(issuer) in self._roots else self._extend(longer)
            if found is not None:
                return found
        return None

    def _signed(self, certificate: x509.Certificate, issuer: x509.Certificate) -> bool:
        if self._checks_left == 0:
            raise ChainIncomplete("too many possible issuers", expected=f"at most {MAX_SIGNATURE_CHECKS} checks")
        self._checks_left -= 1
        try:
            certificate.verify_directly_issued_by(issuer)
        except (InvalidSignature, ValueError, TypeError, UnsupportedAlgorithm):
            return False
        return True

    def _check_issuer(self, issuer: x509.Certificate, *, below: int) -> None:
        """`below` counts the intermediates between this issuer and the leaf."""
        self._check_time(issuer)
        check_critical(issuer)
        check_key(issuer)
        if _identity(issuer) not in self._roots:
            check_signature_form(issuer)
        check_extended_usage(issuer)
        constraints = extension(issuer, x509.BasicConstraints)
        usage = extension(issuer, x509.KeyUsage)
        if constraints is None or not constraints.ca or (usage is not None and not usage.key_cert_sign):
            raise CertificateAuthorityUse("the issuer is no CA", found=shown(issuer))
        if extension(issuer, x509.NameConstraints) is not None:
            # Not judged here, and a constraint binds whether it is marked critical or not (RFC 5280 §6.1.4).
            raise CertificateAuthorityUse(
                "the CA may issue under some names only, which are not judged", found=shown(issuer)
            )
        if constraints.path_length is not None and below > constraints.path_length:
            raise CertificateAuthorityUse(
                "the chain is longer than its CA allows", expected=constraints.path_length, found=below
            )

    def _check_time(self, certificate: x509.Certificate) -> None:
        start, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
        if not start <= self._moment <= end:
            raise CertificateExpired(
                f"{shown(certificate)} is not valid at the stated time",
                expected=f"{start.isoformat()} to {end.isoformat()}",
                found=self._moment.isoformat(),
            )


def _identity(certificate: x509.Certificate) -> bytes:
    return hashlib.sha256(certificate.public_bytes(serialization.Encoding.DER)).digest()
