"""Verification of a TPM 2.0 quote (TPM 2.0 Library, Part 2 §10.12, Part 3 §18.4; trust rules, §1).

What happens here, in this order:

1. size limits, before anything is parsed;
2. `magic` and `type`, and no trailing bytes;
3. `extraData` equals, in full, what the verifier computed;
5. the signature verifies under the given attestation key; scheme, hash and key are on the list of allowed ones;
6. the signed selection is the one asked for, and the reported values, in that order, hash to `pcrDigest`;
7. the clock is read: `(resetCount, restartCount)` is the epoch, `safe` is handed on as it is.

What the caller owes:

3. `expected_extra_data` made by `binding.quote_extra_data` from facts that the verifier itself knows;
4. a nonce that is its own, unexpired, for this subject, and used once;
5. the key that is *enrolled* for this subject, not one that came with the evidence;
7. comparing the epoch with the last one (`epoch.compare`), and, at enrolment, `check_endorsement_hierarchy`;
8. a selection that names every PCR of the policy.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Final, NamedTuple, Self

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa, utils

from chatelaine.evidence import tpm_algorithms as alg
from chatelaine.evidence.errors import (
    AlgorithmRefused,
    ExtraDataMismatch,
    HierarchyRefused,
    KeyRefused,
    Malformed,
    NonceRefused,
    PcrDigestMismatch,
    PcrMissing,
    PcrSelectionMismatch,
    PcrUnexpected,
    SignatureInvalid,
    WeakKey,
)
from chatelaine.evidence.reader import bounded
from chatelaine.evidence.tpm_public import (
    MAX_PUBLIC_BYTES,
    PublicArea,
    PublicKey,
    check_ak_attributes,
    endorsement_signers,
    parse_public,
)
from chatelaine.evidence.tpm_types import Selection, Signature, parse_pcr_selection, parse_quote, parse_signature

CACHED_KEYS: Final = 4096
"""Parsed attestation keys that are kept; a public key does not age."""

_RSA: Final[dict[tuple[int, int], padding.AsymmetricPadding]] = {
    (alg.RSASSA, hash_.tpm_id): padding.PKCS1v15() for hash_ in alg.SIGNATURE_HASHES.values()
} | {
    (alg.RSAPSS, hash_.tpm_id): padding.PSS(padding.MGF1(hash_.algorithm), padding.PSS.AUTO)
    for hash_ in alg.SIGNATURE_HASHES.values()
}
_ECC: Final = {(alg.ECDSA, hash_.tpm_id): ec.ECDSA(hash_.algorithm) for hash_ in alg.SIGNATURE_HASHES.values()}


@dataclass(frozen=True, slots=True)
class AttestationKey:
    """A public key that quotes are verified under. Parsed once, used often.

    Attributes:
        key: the public key.
        public: its TPM public area; None for a bare PEM key, of which nothing else can be told.
    """

    key: PublicKey
    public: PublicArea | None
    _schemes: Mapping[tuple[int, int], Any] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Lay down once which schemes this key may sign with: its own one, or for a bare key those of its type."""
        known: Mapping[tuple[int, int], Any] = _RSA if isinstance(self.key, rsa.RSAPublicKey) else _ECC
        if self.public is not None:
            own = (self.public.scheme, self.public.scheme_hash)
            if own not in known:
                raise AlgorithmRefused(
                    "this scheme of an attestation key is not accepted",
                    expected="RsaSsa, RsaPss or Ecdsa with Sha256 or Sha384",
                    found=f"{alg.name_of(own[0])}-{alg.name_of(own[1])}",
                )
            known = {own: known[own]}
        object.__setattr__(self, "_schemes", known)

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """TPMT_PUBLIC, TPM2B_PUBLIC, or a PEM public key.

        Raises:
            AttributesRefused: a TPM key whose attributes are not those of an attestation key.
            AlgorithmRefused: a type, curve, hash or scheme that is not accepted; WeakKey if it is too short.
            Malformed: none of the three forms.
        """
        data = bounded(data, MAX_PUBLIC_BYTES, "the attestation key")
        if data.lstrip().startswith(b"-----BEGIN"):
            return cls(_pem_key(data), None)
        public = parse_public(data)
        check_ak_attributes(public)
        return cls(public.key, public)

    @property
    def name(self) -> bytes:
        """TPM name of the key.

        Raises:
            KeyRefused: a bare key has none.
        """
        if self.public is None:
            raise KeyRefused("a bare public key has no TPM name", expected="TPMT_PUBLIC", found="PEM")
        return self.public.name

    def verify(self, signature: Signature, message: bytes) -> None:
        """The signature of `message` by this key.

        Raises:
            AlgorithmRefused: the scheme is not that of the key.
            SignatureInvalid: it does not verify.
        """
        scheme, hash_, first, second = signature
        parameter = self._schemes.get((scheme, hash_.tpm_id))
        if parameter is None:
            raise AlgorithmRefused(
                "the signature has another scheme than the key",
                expected=" or ".join(f"{alg.name_of(s)}-{alg.name_of(h)}" for s, h in self._schemes),
                found=signature.algorithm,
            )
        key: Any = self.key
        try:
            if scheme == alg.ECDSA:
                der = utils.encode_dss_signature(int.from_bytes(first), int.from_bytes(second))
                key.verify(der, message, parameter)
            else:
                key.verify(first, message, parameter, hash_.algorithm)
        except InvalidSignature as error:
            raise SignatureInvalid("the signature does not verify under this key") from error


@lru_cache(maxsize=CACHED_KEYS)
def attestation_key(public: bytes) -> AttestationKey:
    """`AttestationKey.parse`, remembered: a verifier meets the same enrolled keys again and again."""
    return AttestationKey.parse(public)


def _pem_key(data: bytes) -> PublicKey:
    try:
        key = serialization.load_pem_public_key(data)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise Malformed("not a PEM public key", expected="-----BEGIN PUBLIC KEY-----") from error
    if isinstance(key, rsa.RSAPublicKey):
        if not alg.MIN_RSA_BITS <= key.key_size <= alg.MAX_RSA_BITS:
            raise WeakKey("this RSA key is not accepted", expected=f"{alg.MIN_RSA_BITS} bits", found=key.key_size)
        return key
    if isinstance(key, ec.EllipticCurvePublicKey):
        if not isinstance(key.curve, (ec.SECP256R1, ec.SECP384R1)):
            raise WeakKey("this curve is not accepted", expected="NIST P-256 or P-384", found=key.curve.name)
        return key
    raise AlgorithmRefused("this key type is not accepted", expected="RSA or ECC", found=type(key).__name__)


class VerifiedQuote(NamedTuple):
    """A quote that passed every step above. A tuple, since one is made for every quote of every host.

    Attributes:
        algorithm: signature scheme and hash, `RsaSsa-Sha256`.
        selection: what was asked for, and signed.
        pcrs: value by index, exactly the selected ones.
        pcr_digest: the signed digest over them.
        extra_data: what it was bound to.
        qualified_signer: the signing key's qualified name.
        clock_milliseconds: time since the TPM was last cleared.
        reset_count: grows at every reset of the TPM (a reboot).
        restart_count: grows at every restart or resume.
        safe: False if the clock may have run backwards (a reset without orderly shutdown).
        firmware_version: as the TPM states it.
    """

    algorithm: str
    selection: Selection
    pcrs: Mapping[int, bytes]
    pcr_digest: bytes
    extra_data: bytes
    qualified_signer: bytes
    clock_milliseconds: int
    reset_count: int
    restart_count: int
    safe: bool
    firmware_version: int


def verify_quote(
    attest: bytes,
    signature: bytes,
    *,
    ak: AttestationKey,
    expected_extra_data: bytes,
    selection: Selection,
    pcrs: Mapping[int, bytes],
) -> VerifiedQuote:
    """Check a quote; the steps and what is left to the caller stand at the top of this module.

    Args:
        attest: TPMS_ATTEST.
        signature: TPMT_SIGNATURE.
        ak: the enrolled attestation key.
        expected_extra_data: what the quote must carry, whole.
        selection: what was asked for.
        pcrs: reported values by index.

    Raises:
        EvidenceError: its subclass tells which step failed.
    """
    # 1, 2
    body = parse_quote(attest)
    parsed = parse_signature(signature)
    # 3
    if not expected_extra_data:
        raise NonceRefused("a quote is never verified without the data it must carry")
    if body.extra_data != expected_extra_data:
        raise ExtraDataMismatch(
            "the quote was not made for this question", expected=expected_extra_data, found=body.extra_data
        )
    # 5
    ak.verify(parsed, attest)
    # 6
    if body.selection != selection.encoded:
        _check_selection(body.selection, selection)
    values = _selected(pcrs, selection)
    if parsed.hash.new(b"".join(values)).digest() != body.pcr_digest:
        raise PcrDigestMismatch("the reported PCR values are not the signed ones", expected=body.pcr_digest)
    # 7
    return VerifiedQuote(
        parsed.algorithm,
        selection,
        dict(pcrs),
        body.pcr_digest,
        body.extra_data,
        body.qualified_signer,
        body.clock_milliseconds,
        body.reset_count,
        body.restart_count,
        body.safe,
        body.firmware_version,
    )


def _check_selection(signed: bytes, asked: Selection) -> None:
    """The same selection may be written with a longer bit map; anything else is another selection."""
    found = parse_pcr_selection(signed)
    if found != ((alg.BANKS[asked.bank].tpm_id, asked.indices),):
        shown = "; ".join(f"{alg.name_of(bank)}:{','.join(map(str, indices))}" for bank, indices in found)
        raise PcrSelectionMismatch("the TPM signed another PCR selection", expected=asked, found=shown or "none")


def _selected(pcrs: Mapping[int, bytes], selection: Selection) -> tuple[bytes, ...]:
    """Exactly the selected values, each of the bank's length: a value is never taken from an unsigned index."""
    try:
        values = selection.pick(pcrs)
    except KeyError as error:
        raise PcrMissing(f"no value for PCR {error.args[0]} was reported", expected=selection) from error
    if len(pcrs) != len(values):
        extra = sorted(set(pcrs) - set(selection.indices))
        raise PcrUnexpected("values were reported that nobody signed", expected=selection, found=extra)
    if set(map(len, values)) != selection.sizes_bytes:
        raise Malformed("a PCR value has another length than those of its bank", expected=set(selection.sizes_bytes))
    return values


def check_endorsement_hierarchy(quote: VerifiedQuote, ak: PublicArea, ek: PublicArea) -> None:
    """The attestation key lives in the endorsement hierarchy: as a primary key, or under the endorsement key.

    Elsewhere a TPM obfuscates resetCount, restartCount and the firmware version (Part 1 §36.7), and epochs would be
    meaningless. The signed `qualifiedSigner` tells; nothing else does.

    Raises:
        HierarchyRefused: it lives elsewhere, or under another endorsement key.
    """
    if quote.qualified_signer not in endorsement_signers(ak, ek):
        raise HierarchyRefused(
            "the attestation key is not in the endorsement hierarchy of this endorsement key; create it there",
            found=quote.qualified_signer,
        )
