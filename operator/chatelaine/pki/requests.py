"""Certificate requests (PKCS#10) of others: bounded, and believed for nothing but the key that signed them."""

from __future__ import annotations

from typing import Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes

from chatelaine.pki.errors import CsrRefused

MAX_CSR_BYTES: Final = 4096
_CURVES: Final = ("secp256r1", "secp384r1")


def proven_any_key(csr_der: bytes) -> CertificatePublicKeyTypes:
    """The public key of a certificate request (PKCS#10, DER), whose holder has signed it.

    Raises:
        CsrRefused: malformed, over its bound, or not signed by that key.
    """
    if len(csr_der) > MAX_CSR_BYTES:
        raise CsrRefused(f"the request is over {MAX_CSR_BYTES} bytes")
    try:
        csr = x509.load_der_x509_csr(csr_der)
        key = csr.public_key()
        proven = csr.is_signature_valid
    except (ValueError, TypeError, UnsupportedAlgorithm, x509.InvalidVersion) as error:
        raise CsrRefused(f"the request does not parse: {error}") from error
    if not proven:
        raise CsrRefused("the request does not prove possession of its key")
    return key


def proven_key(csr_der: bytes) -> ec.EllipticCurvePublicKey:
    """As `proven_any_key`, for a process of ours.

    Raises:
        CsrRefused: as there, or a key that is not EC P-256 or P-384.
    """
    key = proven_any_key(csr_der)
    if not isinstance(key, ec.EllipticCurvePublicKey) or key.curve.name not in _CURVES:
        raise CsrRefused("the key is neither EC P-256 nor P-384")
    return key
